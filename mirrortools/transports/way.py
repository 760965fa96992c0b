"""What differs between the ways to an edge; conversation and rsync are the same over all of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from mirrortools.errors import EdgeUnreachable


class Way(Protocol):
    """How commands and files reach an edge."""

    edge: str
    root: Path
    python: str
    env: dict[str, str]
    rate_limit_bytes_s: int | None

    def command(self, words: Sequence[str], *, joined: bool = False) -> list[str]:
        """What to run here so that `words` run on the edge; `joined`: over the connection that is there already."""

    def rsync_words(self, folder: Path) -> tuple[list[str], str]:
        """Options for rsync, and its name for `folder` on the edge."""

    def unreachable(self, status: int, said: str) -> EdgeUnreachable | None:
        """Why the edge was not reached, if a program's exit status and last words mean that it was not."""
