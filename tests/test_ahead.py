"""Deliveries in two parts, with a pool and sessions that a test chooses."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mirrortools.ahead import LEAST_BYTES, Ahead
from mirrortools.errand import Delivery, Progress
from mirrortools.errors import EdgeUnreachable, MirrorError
from mirrortools.fanout import FanOut
from mirrortools.inflow import Inflow
from mirrortools.model import Blob, Publication, Realm
from mirrortools.pool import EdgePool
from tests.delivery import noise, publication

LARGE = Blob("sha256", "ab" * 32, LEAST_BYTES)


@dataclass(eq=False)
class FakeSession:
    """Waits until all is here, or until it is ended."""

    edge: str
    error: MirrorError | None = None
    inflow: Inflow | None = None
    ended: threading.Event = field(default_factory=threading.Event)
    closed: bool = False

    def forward(self, prospect: Publication, fan_out: FanOut, progress: Progress) -> Delivery:
        while self.inflow and self.inflow.coming_bytes and not self.ended.wait(0.01) and not self.error:
            pass
        progress(self.edge, prospect.repo, LARGE.size, LARGE.size)
        return Delivery(self.edge, prospect.repo, False, 1, LARGE.size, 60, 2.0, self.error, 0, 40)

    def abort(self) -> None:
        self.ended.set()

    def close(self) -> None:
        self.closed = True


class FakePool(EdgePool):
    """Its deliveries succeed at once; `errors` are of what goes ahead, by edge."""

    def __init__(self, errors: Mapping[str, MirrorError]) -> None:
        self.errors = errors
        self.own = {name: FakeSession(name) for name in ("e1", "e2")}
        self.further: list[FakeSession] = []
        self.used: dict[str, FakeSession] = {}
        self.rates = {}
        self._inflow: Inflow | None = None

    def fan_out(self, inflow: Inflow) -> FanOut:
        self._inflow = inflow
        return FanOut(inflow=inflow)

    def further_session(self, edge: str, prospect: Publication) -> FakeSession:  # type: ignore[override]
        self.further.append(FakeSession(edge, self.errors.get(edge), self._inflow))
        return self.further[-1]

    def end_further(self, session: FakeSession) -> None:  # type: ignore[override]
        session.close()

    def session(self, edge: str, realm: Realm) -> FakeSession:  # type: ignore[override]
        return self.own[edge]

    def deliver(  # type: ignore[override]
        self,
        publication: Publication,
        edges: Sequence[str],
        progress: Progress,
        choose: Callable[[str], FakeSession],
        siblings: Sequence[str],
    ) -> list[Delivery]:
        assert not siblings
        self.used = {name: choose(name) for name in edges}
        for name in edges:
            progress(name, publication.repo, 1, 3)
        return [Delivery(name, publication.repo, True, 2, 3, 5, 1.0) for name in edges]


@pytest.fixture
def shown(tmp_path: Path) -> Publication:
    """What is published."""
    return publication(tmp_path, {"model.safetensors": noise(100)})


@pytest.fixture
def told() -> list[tuple[str, int, int]]:
    """What whoever looks on hears."""
    return []


def ahead(pool: FakePool, root: Path, told: list[tuple[str, int, int]]) -> Ahead:
    return Ahead(pool, root, ["e1", "e2"], lambda edge, _, sent, planned: told.append((edge, sent, planned)))


def test_both_parts_are_told_as_one(shown: Publication, tmp_path: Path, told: list[tuple[str, int, int]]) -> None:
    """The delivery goes by the session that brought the first part, and counts what that brought."""
    pool = FakePool({})
    with ahead(pool, tmp_path, told) as both:
        with both.fetching(shown, [LARGE]) as grown:
            grown(LARGE, LARGE.size // 2)
        first, second = both.deliver(shown)

        assert [pool.used["e1"], pool.used["e2"]] == pool.further
    assert (first.edge, first.changed, first.blobs, first.bytes_planned) == ("e1", True, 3, LARGE.size + 3)
    assert (first.bytes_sent, first.bytes_relayed, first.duration_s, second.edge) == (65, 40, 3.0, "e2")
    assert told[-1] == ("e2", LARGE.size + 1, LARGE.size + 3)
    assert all(session.closed for session in pool.further)


def test_what_goes_wrong_ahead_is_left_to_the_delivery(
    shown: Publication, tmp_path: Path, told: list[tuple[str, int, int]]
) -> None:
    """It takes the run's own session, and only what it does itself decides about its success."""
    pool = FakePool({"e1": EdgeUnreachable("edge e1: gone")})
    with ahead(pool, tmp_path, told) as both:
        with both.fetching(shown, [LARGE]):
            """The fetch goes on."""
        deliveries = both.deliver(shown)

    assert [delivery.error for delivery in deliveries] == [None, None]
    assert pool.used == {"e1": pool.own["e1"], "e2": pool.further[1]}


def test_a_fetch_that_fails_ends_what_goes_ahead(
    shown: Publication, tmp_path: Path, told: list[tuple[str, int, int]]
) -> None:
    """Nobody waits for bytes that do not come; what was published before is delivered as ever."""
    pool = FakePool({})
    with ahead(pool, tmp_path, told) as both:
        with pytest.raises(EdgeUnreachable), both.fetching(shown, [LARGE]):
            raise EdgeUnreachable("for instance")
        assert all(session.ended.is_set() and session.closed for session in pool.further)
        both.deliver(shown)

    assert pool.used == pool.own


def test_little_does_not_go_ahead(shown: Publication, tmp_path: Path, told: list[tuple[str, int, int]]) -> None:
    """No session is opened for it."""
    pool, small = FakePool({}), Blob("sha256", "ab" * 32, LEAST_BYTES - 1)
    with ahead(pool, tmp_path, told) as both:
        with both.fetching(shown, [small, Blob("git", "cd" * 20, LEAST_BYTES)]) as grown:
            grown(small, 7)
        both.deliver(shown)

    assert pool.further == []
