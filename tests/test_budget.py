"""Questions to a host: never more than allowed in five minutes, whoever asks."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrortools.errors import RateLimited, SourceUnavailable
from mirrortools.upstreams.budget import WINDOW_S, Budget
from tests.fakes import Clock

LIMIT = 20


@given(st.lists(st.tuples(st.integers(1, 5), st.floats(0, 90), st.integers(0, 2)), max_size=60))
def test_no_window_sees_more_than_the_limit(
    tmp_path_factory: pytest.TempPathFactory, asked: list[tuple[int, float, int]]
) -> None:
    """Three processes share it, and the slots of ten seconds err to the safe side."""
    folder, clock = tmp_path_factory.mktemp("budget"), Clock()
    budgets = [Budget(folder, LIMIT, clock, clock.wait) for _ in range(3)]
    times: list[float] = []
    for count, pause_s, who in asked:
        clock.now += pause_s
        with budgets[who].asking("hub.example", count):
            times += [clock.now] * count

    for begin in times:
        assert sum(begin <= at < begin + WINDOW_S for at in times) <= LIMIT


def test_hosts_have_budgets_of_their_own(tmp_path: Path) -> None:
    """One that is used up makes nobody else wait."""
    clock = Clock()
    budget = Budget(tmp_path, LIMIT, clock, clock.wait)
    for host in ("a.example", "b.example:8080", "[::1]:80"):
        with budget.asking(host, LIMIT):
            pass

    assert clock.waited == []


def test_a_host_that_wants_to_be_left_alone_is_left_alone_by_all(tmp_path: Path) -> None:
    """A Retry-After that one process got is kept by the others."""
    clock = Clock()
    first, second = (Budget(tmp_path, LIMIT, clock, clock.wait) for _ in range(2))
    with contextlib.suppress(RateLimited), first.asking("hub.example", 1):
        raise RateLimited("slow down", 40.0)
    with second.asking("hub.example", 1):
        pass

    assert clock.waited == [40.0]


def test_more_than_the_limit_at_once_is_let_through_when_nothing_else_was_asked(tmp_path: Path) -> None:
    """A limit that is too small for one act does not stop it for ever."""
    clock = Clock()
    with Budget(tmp_path, 2, clock, clock.wait).asking("hub.example", 3):
        pass

    assert clock.waited == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"slots": 3}', b'{"slots": {"x": 1}, "closed_until_s": 0}'])
def test_a_damaged_file_counts_for_nothing(tmp_path: Path, content: bytes) -> None:
    """It is written anew."""
    (tmp_path / "hub.example.json").write_bytes(content)
    clock = Clock()
    with Budget(tmp_path, LIMIT, clock, clock.wait).asking("hub.example", 1):
        pass

    assert clock.waited == []
    assert b"closed_until_s" in (tmp_path / "hub.example.json").read_bytes()


def test_waiting_ends_when_the_run_is_broken_off(tmp_path: Path) -> None:
    """Real time: the wait would be five minutes."""
    budget = Budget(tmp_path, LIMIT)
    with budget.asking("hub.example", LIMIT):
        pass
    timer = threading.Timer(0.2, budget.break_off)
    timer.start()
    with pytest.raises(SourceUnavailable, match="interrupted"), budget.asking("hub.example", 1):
        pass
    timer.join()


def test_without_a_limit_nothing_is_counted(tmp_path: Path) -> None:
    """`unlimited` costs nothing."""
    with Budget(tmp_path / "none", None).asking("hub.example", 10**6):
        pass

    assert not (tmp_path / "none").exists()
