"""A limit on bytes a second that several threads keep together. Only the standard library is used here."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

# What may go out at once, so that a slow limit does not look like a dead link to whoever waits for the next bytes.
_TURN_S: Final = 0.25
_LEAST_BYTES: Final = 4096


class Throttle:
    """So many bytes a second; None: as many as go. Thread-safe."""

    def __init__(
        self,
        limit_bytes_s: int | None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._limit_bytes_s = limit_bytes_s
        self._clock = clock
        self._sleep = sleep
        self._free_s = clock()
        self._lock = threading.Lock()

    @property
    def is_limited(self) -> bool:
        """Whether anybody ever has to wait."""
        return self._limit_bytes_s is not None

    def share(self, most_bytes: int) -> int:
        """How much to send at once, at most `most_bytes`."""
        if self._limit_bytes_s is None:
            return most_bytes
        return min(most_bytes, max(_LEAST_BYTES, int(self._limit_bytes_s * _TURN_S)))

    def take(self, count: int) -> None:
        """Wait until `count` bytes may go out."""
        if self._limit_bytes_s is None:
            return
        with self._lock:
            now_s = self._clock()
            start_s = max(now_s, self._free_s)
            self._free_s = start_s + count / self._limit_bytes_s
        if start_s > now_s:
            self._sleep(start_s - now_s)
