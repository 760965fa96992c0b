"""Lines about what goes to edges: they say what is known, and no more."""

from __future__ import annotations

from mirrortools.cli.edgemeter import FEW_EDGES, EdgeMeter
from mirrortools.model import RepoId

MIB = 1 << 20
A, B = RepoId.parse("org/a"), RepoId.parse("org/b")


def test_each_of_a_few_edges_has_a_line_with_rate_and_time() -> None:
    """Several repositories add up; one that is not busy has none."""
    meter = EdgeMeter()
    meter.end("bj2", A, 0, failed=True)
    meter.went("bj1", A, 0, 100 * MIB, 0.0)
    meter.went("bj1", A, 20 * MIB, 100 * MIB, 10.0)

    assert meter.lines(10.0) == ["edge bj1: 20.0 MiB of 100.0 MiB, 2.0 MiB/s, about 40 s left"]
    meter.end("bj1", A, 100 * MIB, failed=False)
    meter.went("bj1", B, 0, 10 * MIB, 50.0)
    assert meter.lines(50.0) == ["edge bj1: 100.0 MiB of 110.0 MiB, 2.0 MiB/s, about 5.0 s left, 1 repository done"]


def test_nothing_is_made_up() -> None:
    """One instant is no rate, and what was sent twice is no reason to expect less than nothing."""
    meter = EdgeMeter()
    meter.went("bj1", A, 0, 0, 0.0)
    meter.went("bj2", A, 3 * MIB, 2 * MIB, 0.0)

    assert meter.lines(0.0) == ["edge bj1: 0 B of 0 B", "edge bj2: 3.0 MiB of 3.0 MiB"]


def test_many_edges_are_one_line() -> None:
    """How many are busy or failed, the sum, and where most is left to do."""
    meter = EdgeMeter()
    for number in range(FEW_EDGES):
        meter.went(f"e{number}", A, 0, MIB, 0.0)
    meter.went("slow", A, 0, 100 * MIB, 0.0)
    meter.went("slow", A, 8 * MIB, 100 * MIB, 8.0)
    meter.end("gone", A, 0, failed=True)

    [line] = meter.lines(8.0)

    assert line.startswith("edges: 9 of 10 busy, 1 failed, 8.0 MiB of 108.0 MiB, 1.0 MiB/s, about 1 min 40 s left")
    assert line.endswith(", most is left for slow: 92.0 MiB")


def test_when_nothing_is_under_way_nothing_is_said() -> None:
    """Neither of few nor of many."""
    meter = EdgeMeter()
    for number in range(FEW_EDGES + 1):
        meter.end(f"e{number}", A, MIB, failed=False)

    assert (meter.lines(1.0), EdgeMeter().lines(1.0)) == ([], [])
