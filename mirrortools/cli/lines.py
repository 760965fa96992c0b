"""Showing a run where nobody looks on: a line for what is finished."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

from mirrortools.sync import Outcome, Watch

Tell = Callable[[Outcome], None]


class Lines(Watch):
    """Tells each repository's outcome when it is there."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell

    def ended(self, outcome: Outcome) -> None:
        """Tell it."""
        self._tell(outcome)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is left to tell."""
