"""Asking again after a pause, when a source is down or asks for patience."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from mirrortools.errors import RateLimited, SourceUnavailable

T = TypeVar("T")

ATTEMPTS = 4
LONGEST_PAUSE_S = 120.0


def patient(ask: Callable[[], T], wait: Callable[[float], object] = time.sleep) -> T:
    """Do `ask`, again after 1, 2 and 4 s or what the source asked for. Raises what the last attempt raised.

    `wait` lets so many seconds pass. When what it gives is true nobody wants an answer any more.
    """
    for attempt in range(ATTEMPTS):
        try:
            return ask()
        except (SourceUnavailable, RateLimited) as error:
            pause_s = max(float(1 << attempt), getattr(error, "retry_after_s", 0.0))
            if attempt == ATTEMPTS - 1 or pause_s > LONGEST_PAUSE_S or wait(pause_s):
                raise
    raise AssertionError("the loop ends by return or raise")
