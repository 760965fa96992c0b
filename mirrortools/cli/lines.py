"""Showing a run where nobody looks on: a line for what is finished, and now and then one for how far the whole is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from mirrortools.cli.meter import Meter
from mirrortools.model import RepoId
from mirrortools.outcomes import Outcome, Watch
from mirrortools.plan import Plan

if TYPE_CHECKING:
    from mirrortools.cli.edgemeter import EdgeMeter

Tell = Callable[[Outcome], None]
Say = Callable[[str], None]
FEW: Final = 20
SAY_S: Final = 60.0


class Lines(Watch):
    """Tells each repository's outcome when it is there; of many repositories those alone where something happened.

    `every` tells them all. Once a minute `say` gets a line about the whole of many, and about what goes to edges.
    """

    def __init__(self, tell: Tell, say: Say, every: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self.meter = Meter(1)
        self._edges: EdgeMeter | None = None
        self._tell = tell
        self._say = say
        self._every = every
        self._clock = clock
        self._said_s = clock()
        self._lock = threading.Lock()

    @property
    def edges(self) -> EdgeMeter:
        """What goes to edges, counted from the first delivery on."""
        from mirrortools.cli.edgemeter import EdgeMeter

        self._edges = self._edges or EdgeMeter()
        return self._edges

    def begun(self, repositories: int) -> None:
        """Know how many there are."""
        self.meter = Meter(repositories)

    def planned(self, repo: RepoId, plan: Plan) -> None:
        """Know how much will be fetched."""
        with self._lock:
            self.meter.planned(repo, plan.fetch_bytes)

    def fetched(self, repo: RepoId, count: int) -> None:
        """Know how much is here."""
        with self._lock:
            self.meter.came(repo, count, self._clock())
            self._now_and_then()

    def delivered(self, edge: str, repo: RepoId, sent_bytes: int, planned_bytes: int) -> None:
        """Know how much went to an edge."""
        with self._lock:
            self.edges.went(edge, repo, sent_bytes, planned_bytes, self._clock())
            self._now_and_then()

    def ended(self, outcome: Outcome) -> None:
        """Tell it, when it is worth it."""
        with self._lock:
            for done in outcome.deliveries:
                self.edges.end(done.edge, done.repo, done.bytes_sent, failed=bool(done.error))
            self.meter.end(outcome.repo, failed=bool(outcome.errors))
            self._now_and_then()
        if self._every or self.meter.repositories <= FEW or outcome.is_remarkable:
            self.show(outcome)

    def in_step(self, repositories: int, outcomes: Iterable[Outcome]) -> None:
        """Count them, and tell them when all are told."""
        with self._lock:
            self.meter.ended += repositories
        if self._every or self.meter.repositories <= FEW:
            for outcome in outcomes:
                self.show(outcome)

    def show(self, outcome: Outcome) -> None:
        """Tell one outcome."""
        self._tell(outcome)

    def line(self) -> str:
        """How far the whole is."""
        with self._lock:
            return self.meter.line(self._clock())

    def edge_lines(self) -> list[str]:
        """How far deliveries are."""
        with self._lock:
            return self._edges.lines(self._clock()) if self._edges else []

    def _now_and_then(self) -> None:
        now_s = self._clock()
        if now_s - self._said_s < SAY_S:
            return
        self._said_s = now_s
        if self.meter.repositories > 1:
            self._say(self.meter.line(now_s))
        for line in self._edges.lines(now_s) if self._edges else ():
            self._say(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is left to tell."""
