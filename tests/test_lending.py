"""Which edge that has all is called to feed, and how those wait that are not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import pytest

from mirrortools.lending import LEAST_BYTES, MOST_LENDERS, Candidate, Lending, Need, lender
from mirrortools.model import Entry, GitSnapshot, Manifest, Publication, Revision
from tests.delivery import REPO, git_blob

WAIT_S = 20
WHOLE = {"a": b"a", "b": b"b"}


def candidate(name: str, *paths: str, region: str = "") -> Candidate:
    """An edge that shows these files, all when none is named."""
    blobs = {path: git_blob(WHOLE[path]) for path in paths or WHOLE}
    entries = {path: Entry(blob, blob.digest, None) for path, blob in blobs.items()}
    commit = git_blob(name.encode()).digest
    manifest = Manifest(Revision(REPO, commit), entries, 1_700_000_000, "Update")
    refs = {"refs/heads/main": commit}
    return Candidate(
        name, Publication(REPO, refs, {commit: manifest}, GitSnapshot({}, refs, "refs/heads/main")), region
    )


def need(*paths: str, size_bytes: int = LEAST_BYTES) -> Need:
    return Need(frozenset(git_blob(WHOLE[path]).digest for path in paths or WHOLE), size_bytes)


def chosen(*candidates: Candidate, needs: list[Need], rates: dict[str, float] | None = None) -> str | None:
    found = lender(candidates, needs, rates or {})
    return found.name if found else None


def test_the_fastest_of_those_that_have_all_is_called() -> None:
    """By what it took lately; of one of which nothing is known, any."""
    full = [candidate("e0"), candidate("e1"), candidate("e2")]

    assert chosen(*full, needs=[need()], rates={"e1": 5e6, "e2": 1e6}) == "e1"
    assert chosen(*full, needs=[need()]) == "e0"


def test_who_has_what_most_of_them_want_comes_before_a_faster_one() -> None:
    """An edge with a part of the repository feeds only those that want no more."""
    part, full = candidate("part", "a"), candidate("full")
    rates = {"part": 9e6, "full": 1e6}

    assert chosen(part, full, needs=[need("a"), need()], rates=rates) == "full"
    assert chosen(part, full, needs=[need("a")], rates=rates) == "part"
    assert chosen(part, needs=[need()]) is None


def test_nobody_is_called_for_little() -> None:
    """The origin sends that in less time than a log-in takes."""
    assert chosen(candidate("e0"), needs=[need(size_bytes=LEAST_BYTES - 1)]) is None
    assert chosen(candidate("e0"), needs=[]) is None


def test_somebody_is_called_for_anything_that_the_origin_has_lost() -> None:
    """However little; one that was seen to have it comes before one that should."""
    lost = replace(need(size_bytes=1), is_lost=True)
    unseen = replace(candidate("e0"), seen=False)

    assert chosen(unseen, candidate("e1"), needs=[lost], rates={"e0": 9e6}) == "e1"
    assert chosen(unseen, needs=[lost]) == "e0"


@pytest.fixture
def waiting() -> Iterator[Callable[[Lending, str], Future[bool]]]:
    """Has an edge wait in a thread of its own; nobody waits any longer when the test has ended."""
    asked: list[Lending] = []

    def wait(lending: Lending, name: str) -> Future[bool]:
        asked.append(lending)
        return threads.submit(lending.await_call, candidate(name))

    with ThreadPoolExecutor(MOST_LENDERS + 1) as threads:
        yield wait
        for lending in asked:
            lending.one_done()


def called(lending: Lending) -> str:
    """Call one, as often as it takes until one waits."""
    for _ in range(WAIT_S * 100):
        if found := lending.call([need()], {}):
            return found.name
        lending.wait_end(0.01)
    raise AssertionError("nobody waits")


def test_who_waits_is_called_or_sent_home(waiting: Callable[[Lending, str], Future[bool]]) -> None:
    """At the end of the delivery those that were not needed go on; whoever comes later does not wait."""
    lending = Lending(2)
    first, second = waiting(lending, "e0"), waiting(lending, "e1")
    by_name = {"e0": first, "e1": second}
    needed = by_name.pop(called(lending))
    (other,) = by_name.values()

    assert needed.result(WAIT_S)
    assert not other.done()
    lending.one_done()
    assert not lending.wait_end(0)
    lending.one_done()
    assert lending.wait_end(0)
    assert not other.result(WAIT_S)
    assert not lending.await_call(candidate("e2"))


def test_nobody_is_called_twice_and_few_in_all(waiting: Callable[[Lending, str], Future[bool]]) -> None:
    """Each that fails has cost its takers some seconds."""
    lending = Lending(1)
    all_waiting = [waiting(lending, f"e{number}") for number in range(MOST_LENDERS + 1)]
    names = {called(lending) for _ in range(MOST_LENDERS)}

    assert len(names) == MOST_LENDERS
    assert lending.call([need()], {}) is None
    lending.one_done()
    assert sorted(each.result(WAIT_S) for each in all_waiting) == [False] + [True] * MOST_LENDERS
    assert lending.call([need()], {}) is None


def test_an_edge_of_the_region_is_called_or_any() -> None:
    """As it was asked for; of each region three at most."""
    lending = Lending(1)
    there = [f"a{number}" for number in range(MOST_LENDERS + 1)]
    lending.offer(candidate(name, region=name[0]) for name in ["b0", *there])
    near = [lending.call([need()], {}, "a") for _ in there]
    far = lending.call([need()], {}, None)

    assert [found.region if found else None for found in near] == ["a"] * MOST_LENDERS + [None]
    assert far
    assert far.name == "b0"
    assert lending.call([need()], {}, None) is None
