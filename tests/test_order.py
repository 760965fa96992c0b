"""Who goes next: a pure decision, whatever the machine does."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mirrortools.order import LANES, PLACES, SMALL_BYTES, Lane, Queue, lane_of, look_order

sizes = st.integers(min_value=0, max_value=1 << 50)


@given(st.lists(sizes, min_size=1))
def test_the_smallest_of_those_that_wait_is_next(waiting: list[int]) -> None:
    """Unless the eldest is due: then it is that."""
    queue = Queue[int]()
    for size in waiting:
        queue.push(size, size)

    assert queue.pop() in (min(waiting), waiting[0])
    assert len(queue) == len(waiting) - 1


def test_small_ones_first_as_long_as_nobody_has_waited_for_its_own_size() -> None:
    """Of all that come at once, the large ones are last."""
    queue = Queue[int]()
    for size in (1000, 30, 10, 40, 20):
        queue.push(size, size)

    assert [queue.pop() for _ in range(5)] == [10, 20, 30, 40, 1000]


@given(st.integers(min_value=1, max_value=1000), st.lists(st.integers(min_value=1, max_value=100), min_size=1))
def test_an_endless_row_of_small_ones_starves_nobody(size: int, smaller: list[int]) -> None:
    """A large one goes when others as large as itself together went first, however many more come."""
    queue, went = Queue[str](), 0
    queue.push(size, "large")
    for number in range(2000):
        queue.push(smaller[number % len(smaller)], "small")
        if queue.pop() == "large":
            break
        went += smaller[number % len(smaller)]

    assert went < size + max(smaller)


@given(st.lists(st.one_of(sizes, st.none())))
def test_whoever_waits_is_taken_out_once(steps: list[int | None]) -> None:
    """Pushing and popping in any order loses nobody and gives nobody twice."""
    queue, taken = Queue[int](), list[int]()
    pushed = [number for number, size in enumerate(steps) if size is not None]
    for number, size in enumerate(steps):
        if size is not None:
            queue.push(size, number)
        elif len(queue):
            taken.append(queue.pop())
    while len(queue):
        taken.append(queue.pop())

    assert sorted(taken) == pushed


def test_hot_ones_go_before_cold_ones() -> None:
    """Whatever their sizes, and however long the cold ones waited."""
    lane = Lane[str](1)
    assert lane.enter()
    lane.wait(1, "cold", hot=False)
    lane.wait(1 << 40, "hot", hot=True)
    assert lane.next() is None
    lane.leave()

    assert lane.next() == "hot"
    lane.leave()
    assert lane.next() == "cold"


def test_nobody_pushes_in() -> None:
    """A place that is free belongs to those who wait."""
    lane = Lane[str](1)
    lane.wait(5, "first", hot=False)

    assert not lane.enter()
    assert lane.next() == "first"


@given(sizes)
def test_a_giant_has_another_lane_than_what_is_much_smaller(size: int) -> None:
    """Nobody waits for what is more than a lane larger, and what is small waits for nobody."""
    number = lane_of(size)

    assert (number is None) == (size <= SMALL_BYTES)
    if number is not None:
        assert size <= LANES[number][0]
        assert number == 0 or size > LANES[number - 1][0]


def test_more_than_one_of_each_size_at_a_time() -> None:
    """A slow source may hold one place of a lane, and the next one goes on beside it."""
    assert all(places > 1 for _, places in LANES)
    assert sum(places for _, places in LANES) == PLACES


def test_hot_ones_are_looked_at_first_then_whoever_was_not_for_long() -> None:
    """A run that is cut short every time still comes round to everybody."""
    looked_at = {"a": 30.0, "b": 10.0, "hot": 99.0, "new": 0.0, "hotter": 50.0}

    order = look_order(looked_at, lambda name: name.startswith("hot"), looked_at.__getitem__)

    assert order == ["hotter", "hot", "new", "b", "a"]
