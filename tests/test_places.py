"""Places for connections: never too many, shared fairly, and nobody waits in vain."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from hypothesis import given
from hypothesis import strategies as st

from mirrortools.places import Party, Places, Seat, Terms, seated
from tests.strategies import trials

HERE = Terms("https://here.example")
NEVER = threading.Event()


def parties(places: Places, count: int, stack: ExitStack) -> list[Party]:
    """So many who may take places."""
    joined = [Party() for _ in range(count)]
    for party in joined:
        stack.enter_context(places.joined(party))
    return joined


@given(st.integers(1, 6), st.integers(1, 4), st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.booleans())))
@trials(200)
def test_never_more_than_allowed(limit: int, most: int, steps: list[tuple[int, int, bool]]) -> None:
    """Neither in all nor at a source, whoever comes and goes."""
    places, terms = Places(limit), [Terms("a", most), Terms("b", 2), Terms("c")]
    seats: list[tuple[Party, str]] = []
    with ExitStack() as stack:
        all_of_them = parties(places, 4, stack)
        for who, where, comes in steps:
            if comes and places.enter(all_of_them[who], terms[where]):
                seats.append((all_of_them[who], terms[where].place))
            elif not comes and seats:
                places.leave(*seats.pop(0))
            held = [place for _, place in seats]
            assert len(held) <= limit
            assert (held.count("a"), held.count("b")) <= (most, 2)


@given(st.integers(1, 7), st.integers(2, 5))
@trials(50)
def test_whoever_wants_as_much_as_the_others_gets_as_much(limit: int, count: int) -> None:
    """One has all places when the others come; each gives one back and asks again: soon all have their share."""
    places = Places(limit)
    with ExitStack() as stack:
        all_of_them = parties(places, count, stack)
        while places.enter(all_of_them[0], HERE):
            """The first one takes all."""
        turns = [0] * count
        for _ in range(20 * limit * count):
            for party in all_of_them:
                if party.held:
                    places.leave(party, HERE.place)
            for number, party in [*enumerate(all_of_them)] * limit:
                turns[number] += places.enter(party, HERE)
        shares = [party.held for party in all_of_them]

    assert sum(shares) == limit
    assert max(shares) - min(shares) <= 1
    assert min(turns) > 0


def test_nobody_stands_back_for_one_who_waits_elsewhere_or_no_more() -> None:
    """Whoever waits for a source that has no room, or is content, holds up nobody."""
    places, full = Places(5), Terms("full", 1)
    with ExitStack() as stack:
        holder, waiting = parties(places, 2, stack)
        assert places.enter(holder, full)
        places.content(holder)
        assert not places.enter(waiting, full)

        assert places.enter(holder, HERE)
        places.leave(holder, "full")
        assert not places.enter(holder, HERE)
        places.content(waiting)
        assert places.enter(holder, HERE)


def test_whoever_waits_is_told_when_there_may_be_a_place() -> None:
    """When one is given back, and when another one goes."""
    places, told = Places(1), list[str]()
    waiting = Party(lambda: told.append("waiting"))
    with places.joined(waiting):
        with places.joined(Party()) as _, ExitStack() as stack:
            (holder,) = parties(places, 1, stack)
            assert places.enter(holder, HERE)
            assert not places.enter(waiting, HERE)
            assert told == []
            places.leave(holder, HERE.place)

        assert len(told) >= 1
        assert places.enter(waiting, HERE)


def test_the_least_limit_that_anybody_names_holds() -> None:
    """Two jobs may name the same source with different limits."""
    places, party = Places(9), Party()
    with places.joined(party):
        assert places.enter(party, Terms("s", 3))
        assert not places.enter(party, Terms("s", 1))
        assert not places.enter(party, Terms("s", 3))


def test_a_seat_moves_from_source_to_source_and_is_given_back_once() -> None:
    """It waits for the other place where it must, and holds none meanwhile."""
    places, party, other = Places(2), Party(), Party()
    a, b = Terms("a", 1), Terms("b", 1)
    with places.joined(party), places.joined(other), ThreadPoolExecutor(1) as threads:
        seat, in_the_way = Seat(places, party, NEVER), Seat(places, other, NEVER)
        assert seat.take(a)
        assert in_the_way.take(b)
        places.content(party)
        moved = threads.submit(seat.move, b)
        while not places.enter(other, a):
            """Until the first one has given back its place at a."""
        assert not moved.done()
        in_the_way.leave()

        assert moved.result(10)
        seat.leave()
        seat.leave()
        assert places.enter(other, b)


def test_a_wait_ends_when_all_is_ended() -> None:
    """Who is stopped gets no place and leaves no wish behind."""
    places, party, stopped = Places(1), Party(), threading.Event()
    stopped.set()
    with places.joined(party), seated(places, party, HERE, stopped) as is_seated:
        assert not is_seated

    assert (party.held, party.wishes) == (0, {})
