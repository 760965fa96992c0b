"""How far a run's deliveries are: a line for each of a few edges, one for all of many."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from mirrortools.cli.speed import Speed
from mirrortools.model import RepoId
from mirrortools.text import count, size, span

FEW_EDGES: Final = 8


class EdgeProgress:
    """What went to one edge: repositories that are done, and those under way as (sent, planned) bytes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.done = 0
        self.failed = 0
        self.done_bytes = 0
        self.open: dict[RepoId, tuple[int, int]] = {}
        self.speed = Speed()

    @property
    def sent_bytes(self) -> int:
        """What went out so far."""
        return self.done_bytes + sum(sent for sent, _ in self.open.values())

    @property
    def left_bytes(self) -> int:
        """What is known to be still to go."""
        return sum(max(0, planned - sent) for sent, planned in self.open.values())

    def line(self, now_s: float) -> str:
        """All of it, as people read it."""
        parts = [f"{size(self.sent_bytes)} of {size(self.sent_bytes + self.left_bytes)}"]
        parts += _pace(self.speed, self.left_bytes, now_s)
        parts += [f"{count(self.done, 'repository/repositories')} done"] if self.done else []
        parts += [f"{self.failed:,} failed"] if self.failed else []
        return f"edge {self.name}: {', '.join(parts)}"


class EdgeMeter:
    """Counts what goes to all edges of a run. Times are seconds of any clock; not thread-safe.

    What is to go is known of the repositories under way alone, so the whole is told as what is known of it.
    """

    def __init__(self) -> None:
        self.edges: dict[str, EdgeProgress] = {}
        self._speed = Speed()

    def went(self, edge: str, repo: RepoId, sent_bytes: int, planned_bytes: int, now_s: float) -> None:
        """So much of what is planned for one repository went to an edge."""
        known = self.edges.setdefault(edge, EdgeProgress(edge))
        known.open[repo] = (sent_bytes, planned_bytes)
        known.speed.at(known.sent_bytes, now_s)
        self._speed.at(self.sent_bytes, now_s)

    def end(self, edge: str, repo: RepoId, sent_bytes: int, *, failed: bool) -> None:
        """One repository's delivery to an edge is over: it sent so much in all."""
        known = self.edges.setdefault(edge, EdgeProgress(edge))
        known.open.pop(repo, None)
        known.done_bytes += sent_bytes
        known.done += not failed
        known.failed += failed

    @property
    def sent_bytes(self) -> int:
        """What went out so far, to all."""
        return sum(edge.sent_bytes for edge in self.edges.values())

    @property
    def busy(self) -> list[EdgeProgress]:
        """The edges that something is under way to."""
        return [edge for edge in self.edges.values() if edge.open]

    def lines(self, now_s: float) -> list[str]:
        """A line for each edge that is busy; of many edges one for all of them."""
        if len(self.edges) <= FEW_EDGES:
            return [edge.line(now_s) for edge in self.busy]
        return [self._whole(now_s)] if self.busy else []

    def _whole(self, now_s: float) -> str:
        left_bytes = sum(edge.left_bytes for edge in self.busy)
        parts = [f"{len(self.busy):,} of {len(self.edges):,} busy"]
        parts += _failed(self.edges.values())
        parts += [f"{size(self.sent_bytes)} of {size(self.sent_bytes + left_bytes)}"]
        parts += _pace(self._speed, left_bytes, now_s)
        last = max(self.busy, key=lambda edge: edge.left_bytes)
        parts += [f"most is left for {last.name}: {size(last.left_bytes)}"] if last.left_bytes else []
        return f"edges: {', '.join(parts)}"


def _failed(edges: Iterable[EdgeProgress]) -> list[str]:
    failed = sum(bool(edge.failed) for edge in edges)
    return [f"{failed:,} failed"] if failed else []


def _pace(speed: Speed, left_bytes: int, now_s: float) -> list[str]:
    rate, left_s = speed.rate(now_s), speed.left_s(left_bytes, now_s)
    parts = [f"{size(round(rate))}/s"] if rate >= 1 else []
    return parts + ([f"about {span(left_s)} left"] if left_s is not None else [])
