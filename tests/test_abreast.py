"""Many things side by side: what the threads do together."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirrortools.abreast import LOOKING, Enter, abreast
from mirrortools.order import LANES, SMALL_BYTES

GIANT = 1 << 40


def nothing() -> None:
    """Nothing is to be broken off."""


def cold(_item: object) -> bool:
    return False


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from([0, SMALL_BYTES, 5 << 20, 1 << 30, GIANT]), max_size=60))
def test_every_item_is_done_once(sizes: list[int]) -> None:
    """Also those that had to wait, whose act is done again; never more than allowed are inside of a lane."""
    lock, inside, most = threading.Lock(), Counter[int](), Counter[int]()

    def act(item: tuple[int, int], enter: Enter) -> int | None:
        number, size = item
        if not enter(size):
            return None
        with lock:
            inside[size] += 1
            most[size] = max(most[size], inside[size])
        with lock:
            inside[size] -= 1
        return number

    done = list(abreast(enumerate(sizes), act, cold, nothing))

    assert sorted(done) == list(range(len(sizes)))
    assert all(most[size] <= LANES[0][1] for size in (5 << 20, 1 << 30, GIANT))


def test_small_ones_do_not_wait_for_giants() -> None:
    """Giants hold all their places, more wait, and everything small is looked at and done meanwhile."""
    others = threading.Event()
    items = [("giant", GIANT)] * 20 + [("small", 1)] * 50

    def act(item: tuple[str, int], enter: Enter) -> str | None:
        name, size = item
        if not enter(size):
            return None
        if name == "giant":
            assert others.wait(30)
        return name

    done = []
    for name in abreast(items, act, cold, nothing):
        done.append(name)
        if done.count("small") == 50:
            others.set()

    assert done[:50] == ["small"] * 50
    assert len(done) == 70


def test_whoever_waits_is_not_at_work() -> None:
    """An item is given to a second thread only when the first has let go of it: both would want its lock."""
    lock, busy = threading.Lock(), set[int]()

    def act(number: int, enter: Enter) -> int | None:
        with lock:
            assert number not in busy
            busy.add(number)
        result = number if enter(GIANT) else None
        with lock:
            busy.remove(number)
        return result

    assert len(list(abreast(range(200), act, cold, nothing))) == 200


def test_what_an_act_raises_ends_everything() -> None:
    """It is raised where the results are taken; nothing more begins, and what is under way is broken off."""
    stopped, begun = threading.Event(), list[int]()

    def act(number: int, _enter: Enter) -> int:
        begun.append(number)
        if number == 3:
            raise ValueError("no luck")
        stopped.wait(30)
        return number

    with pytest.raises(ValueError, match="no luck"):
        list(abreast(range(1000), act, cold, stopped.set))

    assert stopped.is_set()
    assert len(begun) < 1000


def test_whoever_does_not_go_on_ends_everything() -> None:
    """As Ctrl-C does."""
    stopped, asked = threading.Event(), list[int]()

    def items() -> Iterator[int]:
        for number in range(100_000):
            asked.append(number)
            yield number

    results = abreast(items(), lambda number, _enter: number, cold, stopped.set)
    next(results)
    results.close()

    assert stopped.is_set()
    assert len(asked) < 100_000


def test_what_begins_while_all_is_broken_off_is_broken_off_too() -> None:
    """Who was between two waits when it was told to stop is told again."""
    stops, waits, late = list[int](), threading.Event(), threading.Event()

    def act(_number: int, _enter: Enter) -> int:
        waits.set()
        return int(late.wait(60))

    def stop() -> None:
        stops.append(len(stops))
        if len(stops) == 30:  # those before came too early for whoever waits now
            late.set()

    def items() -> Iterator[int]:
        yield 1
        waits.wait(30)
        raise ValueError("no luck")

    with pytest.raises(ValueError, match="no luck"):
        list(abreast(items(), act, cold, stop))

    assert len(stops) >= 30


def test_few_are_looked_at_ahead() -> None:
    """Items are taken as threads come free, so that very many take no memory."""
    taken, begun, release = list[int](), threading.Barrier(LOOKING + 1), threading.Event()

    def items() -> Iterator[int]:
        for number in range(500):
            taken.append(number)
            yield number

    def act(number: int, _enter: Enter) -> int:
        if number < LOOKING:
            begun.wait(30)
            assert release.wait(30)
        return number

    with ThreadPoolExecutor(1) as reader:
        done = reader.submit(lambda: list(abreast(items(), act, cold, nothing)))
        begun.wait(30)
        ahead = len(taken)
        release.set()

        assert ahead == LOOKING
        assert sorted(done.result(30)) == list(range(500))
