"""What went wrong in a run, for the operator: what it was, and what to do next."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from mirrortools.errors import MirrorError, RateLimited, SourceUnavailable
from mirrortools.text import count, moment, span

if TYPE_CHECKING:
    from mirrortools.config import Config
    from mirrortools.outcomes import Outcome

_LONGEST_TOLD_S: Final = 366 * 86400
_STAYS: Final = "what is published stays served, and `mirrortool status` tells how far behind it is"


def complaints(errors: Sequence[MirrorError]) -> list[str]:
    """Each error, those of sources and those of edges; once, when several repositories met the same."""
    return [f"{text}{_met(times)}" for text, times in Counter(map(str, errors)).items()]


def _met(times: int) -> str:
    return f" (this concerns {count(times, 'repository/repositories')})" if times > 1 else ""


def next_steps(outcomes: Sequence[Outcome], config: Config, now: float) -> list[str]:
    """What to do about sources that fail for now, each advice once, however many repositories they fail."""
    failed = [outcome for outcome in outcomes if isinstance(outcome.error, SourceUnavailable | RateLimited)]
    pauses = [outcome.error.retry_after_s for outcome in failed if isinstance(outcome.error, RateLimited)]
    lines = []
    if pauses:
        pause_s = min(max(pauses), _LONGEST_TOLD_S)
        over = math.ceil(now + pause_s)
        lines.append(f"the source wants to be left alone for {span(pause_s)}: {_again(f'after {moment(over)}')}")
    if len(pauses) < len(failed):
        lines.append(f"the source fails for now: {_again('later')}")
    single = {known.repo for known in config.repositories() if known.backup_source is None}
    if any(outcome.repo in single for outcome in failed):
        lines.append("a `backup_source:` in the configuration is asked for files when the source does not give them")
    return lines


def _again(when: str) -> str:
    return f"run the same command again {when}, or leave it to the timer; {_STAYS}"
