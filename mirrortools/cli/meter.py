"""How far a run over many repositories is: counts, the rate of the last moments, and how long it will take at least."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from mirrortools.model import RepoId
from mirrortools.text import size, span

if TYPE_CHECKING:
    from mirrortools.cli.speed import Speed


class Meter:
    """Counts a run over `repositories`. Times are seconds of any clock, sizes bytes; not thread-safe.

    What is to come is known of the repositories that were looked at: until that is every one, the total and the time
    are the least that they can be, and are told as that.
    """

    def __init__(self, repositories: int) -> None:
        self.repositories = repositories
        self.ended = 0
        self.failed = 0
        self.came_bytes = 0
        self._open: dict[RepoId, tuple[int, int]] = {}

    @cached_property
    def _speed(self) -> Speed:
        from mirrortools.cli.speed import Speed  # most runs bring nothing

        return Speed()

    def planned(self, repo: RepoId, fetch_bytes: int) -> None:
        """So much is to come for a repository; said again when it had to wait."""
        self._open[repo] = (fetch_bytes, self._open.get(repo, (0, 0))[1])

    def came(self, repo: RepoId, count: int, now_s: float) -> None:
        """More of a repository is here."""
        planned, before = self._open.get(repo, (0, 0))
        self._open[repo] = (planned, before + count)
        self.came_bytes += count
        self._speed.at(self.came_bytes, now_s)

    def end(self, repo: RepoId, *, failed: bool) -> None:
        """A repository is done: what was planned and did not come is not to come any more."""
        self._open.pop(repo, None)
        self.ended += 1
        self.failed += failed

    @property
    def is_known(self) -> bool:
        """Whether every repository was looked at, so that the total is known."""
        return self.ended + len(self._open) >= self.repositories

    @property
    def total_bytes(self) -> int:
        """What has come and what is known to come; bytes that came twice are no reason to expect less."""
        return self.came_bytes + self.left_bytes

    @property
    def left_bytes(self) -> int:
        """What is known to come."""
        return sum(max(0, planned - came) for planned, came in self._open.values())

    def rate(self, now_s: float) -> float:
        """Bytes a second in the last moments; 0 while too little is known, and when nothing comes."""
        return self._speed.rate(now_s)

    def left_s(self, now_s: float) -> float | None:
        """How long what is known to come takes at that rate; None when nobody can tell."""
        return self._speed.left_s(self.left_bytes, now_s)

    def line(self, now_s: float) -> str:
        """All of it, as people read it."""
        parts = [f"{self.ended:,}/{self.repositories:,} repositories"]
        parts += [f"{self.failed:,} failed"] if self.failed else []
        parts += self._bytes(now_s)
        return ", ".join(parts)

    def _bytes(self, now_s: float) -> list[str]:
        if not self.total_bytes:
            return []
        least = "" if self.is_known else "at least "
        parts = [f"{size(self.came_bytes)} of {least}{size(self.total_bytes)}"]
        rate, left_s = self.rate(now_s), self.left_s(now_s)
        parts += [f"{size(round(rate))}/s"] if rate else []
        parts += [f"{least or 'about '}{span(left_s)} left"] if left_s is not None else []
        return parts
