"""One line for the whole of a run: it says what is known, and no more."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mirrortools.cli.meter import Meter
from mirrortools.cli.speed import WINDOW_S
from mirrortools.model import RepoId

MIB = 1 << 20
A, B, C = (RepoId.parse(f"org/{name}") for name in "abc")


def test_until_all_plans_are_known_everything_is_a_least() -> None:
    """The total and the time may only grow, and the line says so."""
    meter = Meter(2)
    meter.planned(A, 100 * MIB)
    meter.came(A, 0, 0.0)
    meter.came(A, 20 * MIB, 10.0)

    assert meter.line(10.0) == "0/2 repositories, 20.0 MiB of at least 100.0 MiB, 2.0 MiB/s, at least 40 s left"
    meter.end(B, failed=False)
    assert meter.line(10.0) == "1/2 repositories, 20.0 MiB of 100.0 MiB, 2.0 MiB/s, about 40 s left"


def test_nothing_is_made_up() -> None:
    """Without a byte there is no rate and no time; one instant is no rate either."""
    meter = Meter(3)
    assert meter.line(0.0) == "0/3 repositories"
    meter.planned(A, MIB)
    assert meter.line(5.0) == "0/3 repositories, 0 B of at least 1.0 MiB"
    meter.came(A, MIB // 2, 5.0)
    assert meter.line(5.0) == "0/3 repositories, 512.0 KiB of at least 1.0 MiB"


def test_a_rate_is_that_of_the_last_moments() -> None:
    """What was fast long ago does not count, and what stands still has a rate that falls."""
    meter = Meter(1)
    meter.planned(A, 10_000 * MIB)
    for second in range(100):
        meter.came(A, (100 if second < 50 else 1) * MIB, float(second))

    assert meter.rate(99.0) < 2 * MIB
    assert meter.rate(99.0 + 10 * WINDOW_S) < meter.rate(99.0) / 5


def test_what_fails_is_not_waited_for() -> None:
    """The rest of its plan is not to come any more; what came stays counted."""
    meter = Meter(2)
    meter.planned(A, 100 * MIB)
    meter.planned(B, 50 * MIB)
    meter.came(A, 10 * MIB, 0.0)
    meter.end(A, failed=True)

    assert (meter.left_bytes, meter.total_bytes) == (50 * MIB, 60 * MIB)
    assert meter.line(0.0) == "1/2 repositories, 1 failed, 10.0 MiB of 60.0 MiB"


def test_who_had_to_wait_is_planned_twice_and_counted_once() -> None:
    """The second plan takes the place of the first."""
    meter = Meter(2)
    meter.planned(A, 100)
    meter.planned(A, 120)

    assert meter.total_bytes == 120


@given(st.lists(st.tuples(st.sampled_from([A, B, C]), st.integers(0, 1 << 40), st.integers(0, 1 << 41))))
def test_the_total_is_never_less_than_what_came(steps: list[tuple[RepoId, int, int]]) -> None:
    """Also when a source sends things twice, and when a run ends before its plan is done."""
    meter = Meter(3)
    for repo, planned, came in steps:
        meter.planned(repo, planned)
        meter.came(repo, came, 0.0)
        assert meter.total_bytes >= meter.came_bytes
    for repo in (A, B, C):
        meter.end(repo, failed=False)

    assert meter.left_bytes == 0
    assert meter.is_known
