"""Helping the slowest connection: only where it pays, and never what has been begun."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrortools.flow import WORTH_S, Ahead, Flow, Repeat
from mirrortools.segments import Segments, Span
from tests.fakes import Clock
from tests.strategies import trials

SEGMENT = 1 << 20  # as much as is read a second time at once
RATES = st.floats(1e3, 1e9)


class Woken:
    """A reader that counts how often it was woken."""

    def __init__(self) -> None:
        self.times = 0

    def cancel(self) -> None:
        """Count."""
        self.times += 1


def flow(first: int, stop: int, clock: Clock | None = None) -> Flow:
    """A flow of a blob of twenty segments, of which one has been begun."""
    made = Flow(Span(first, stop), Segments(20 * SEGMENT, SEGMENT), clock or Clock())
    made._is_asking = True  # as within `asking`
    assert made.enter(first)
    return made


@given(st.integers(1, SEGMENT), st.integers(0, 16), st.just(0.0) | RATES, RATES, st.floats(0, 1))
@trials(300)
def test_what_is_given_away_ends_sooner_than_it_would_have(
    here_bytes: int, segments: int, own: float, rate: float, latency_s: float
) -> None:
    """For both, and clearly; where nothing is gained, nothing is given."""
    ahead = Ahead(here_bytes, segments, SEGMENT, own)
    given_away = ahead.segments_to_give(rate, latency_s)

    assert 0 <= given_away <= segments
    if given_away:
        kept = here_bytes + (segments - given_away) * SEGMENT
        assert latency_s + given_away * SEGMENT / rate < ahead.seconds - WORTH_S
        assert not own or kept / own < ahead.seconds - WORTH_S


@given(st.integers(1, SEGMENT), st.just(0.0) | RATES, RATES, st.floats(0, 1))
@trials(300)
def test_what_is_read_twice_is_there_sooner(here_bytes: int, own: float, rate: float, latency_s: float) -> None:
    """Never more than there is."""
    ahead = Ahead(here_bytes, 0, SEGMENT, own)
    repeated = ahead.bytes_to_repeat(rate, latency_s)

    assert 0 <= repeated <= here_bytes
    if repeated:
        assert latency_s + repeated / rate < ahead.seconds - WORTH_S


def test_of_two_that_are_equally_fast_each_takes_half() -> None:
    """Of the segments, and of what is left of one."""
    assert Ahead(SEGMENT, 9, SEGMENT, 1e6).segments_to_give(1e6, 0.0) == 5
    assert Ahead(SEGMENT, 0, SEGMENT, 1e6).bytes_to_repeat(1e6, 0.0) == SEGMENT // 2


def test_all_is_taken_from_one_from_which_nothing_comes() -> None:
    """All that it has not begun, and all of what it has, when asking anew does not help."""
    stalled = Ahead(1000, 7, SEGMENT, 0.0)

    assert stalled.segments_to_give(1e6, 0.1) == 7
    assert stalled.bytes_to_repeat(1e6, 0.1) == 1000


def test_what_is_taken_is_not_entered_and_what_is_entered_is_not_taken() -> None:
    """Every segment is one worker's."""
    made = flow(2, 9)
    assert made.enter(3)

    assert made.cut(4) == Span(5, 9)
    assert made.cut(9) == Span(4, 5)
    assert made.cut(9) is None
    assert not made.enter(4)
    assert made.span == Span(2, 4)


def test_what_is_before_a_connection_is_told_when_its_rate_is_known() -> None:
    """From the first bytes on; the time since nothing has come counts."""
    clock = Clock()
    made = flow(0, 3, clock)
    assert made.ahead() is None
    clock.now += 0.1
    made.moved(1000)
    assert made.latency_s == pytest.approx(0.1)
    clock.now += 1.0
    made.moved(1000)

    assert made.ahead() == Ahead(SEGMENT - 2000, 2, SEGMENT, pytest.approx(2000.0))
    clock.now += 1.0
    assert made.ahead() == Ahead(SEGMENT - 2000, 2, SEGMENT, pytest.approx(1000.0))


def test_one_from_which_nothing_comes_is_stalled() -> None:
    """After two seconds, whatever came before, and when it was never answered."""
    clock = Clock()
    made = flow(0, 3, clock)
    clock.now += 2.1

    assert made.ahead() == Ahead(SEGMENT, 2, SEGMENT, 0.0)
    made.moved(SEGMENT - 1)
    clock.now += 2.1
    assert made.ahead() == Ahead(1, 2, SEGMENT, 0.0)


def test_nothing_is_taken_from_a_source_that_sends_all() -> None:
    """Its spans are no ranges."""
    made = flow(0, 9)
    made.never_cut()

    assert (made.cut(3), made.repeat(1000), made.ahead()) == (None, None, None)
    assert made.enter(12)


def test_the_end_of_a_segment_is_used_when_it_was_read_a_second_time() -> None:
    """In pieces, each before the one that was read before; not before they have all that is lacking."""
    made, reader = flow(1, 2), Woken()
    begin, end = SEGMENT, 2 * SEGMENT
    with made.read_by(reader):
        made.moved(100)
        later = made.repeat(1000)
        assert later == Repeat(1, end - 1000, end)
        assert made.repeat(1000) is None
        made.end_repeat(later, memoryview(b"b" * 1000))
        assert not made.copies(100)
        assert reader.times == 0
        earlier = made.repeat(SEGMENT)
        assert earlier == Repeat(1, begin + 100, end - 1000)
        made.moved(50)
        made.end_repeat(earlier, memoryview(b"a" * (earlier.stop - earlier.start)))

    written = bytearray(SEGMENT)
    for offset, copy in made.copies(150):
        written[offset : offset + len(copy)] = copy
    assert reader.times == 1
    assert written == b"\0" * 150 + b"a" * (SEGMENT - 1150) + b"b" * 1000


def test_who_reads_a_second_time_is_woken_when_the_segment_is_there() -> None:
    """And what it has read is of no use for the next one."""
    made, reader = flow(1, 3), Woken()
    repeat = made.repeat(1000)
    assert repeat
    with made.read_by(reader, again=True):
        assert made.is_wanted(repeat)
        made.finish()
        assert reader.times == 1
        assert not made.is_wanted(repeat)
    made.enter(2)
    made.end_repeat(repeat, memoryview(b"x" * 1000))

    assert not made.copies(SEGMENT - 10)


def test_nobody_helps_who_waits_for_a_source_nor_at_once_after_help_that_failed() -> None:
    """A source that refuses is not asked by others instead, without a pause."""
    clock = Clock()
    made = flow(0, 3, clock)
    clock.now += 2.1
    assert made.ahead()
    repeat = made.repeat(1000)
    assert repeat
    made.end_repeat(repeat, None)
    assert made.ahead() is None
    clock.now += 5.1
    assert made.ahead()

    with made.asking():
        clock.now += 2.1
        assert made.ahead()
    assert made.ahead() is None


def test_nobody_is_woken_who_reads_no_more() -> None:
    """The connection may serve somebody else by then."""
    made, reader = flow(1, 2), Woken()
    with made.read_by(reader):
        """And be done."""
    repeat = made.repeat(SEGMENT)
    assert repeat
    made.end_repeat(repeat, memoryview(bytearray(SEGMENT)))

    assert reader.times == 0


def test_one_that_is_stalled_is_ended_once_until_bytes_have_come_again() -> None:
    """Its worker asks anew then, and knows why; a source that has stopped to answer is not asked again and again."""
    made, reader = flow(1, 3), Woken()
    assert not made.end_stalled()
    with made.read_by(reader):
        made.moved(100)
        assert made.end_stalled()
        assert not made.end_stalled()
    assert (made.is_to_ask_anew(), made.is_to_ask_anew()) == (True, False)
    with made.read_by(reader):
        assert not made.end_stalled()
        assert made.enter(1, taken=100)
        made.moved(1)
        assert made.end_stalled()

    assert reader.times == 2


def test_what_is_there_of_a_segment_is_not_before_the_connection_that_goes_on_with_it() -> None:
    """Neither is what was read a second time."""
    clock = Clock()
    made = flow(0, 1, clock)
    assert made.enter(0, taken=SEGMENT - 500)
    made.moved(100)
    clock.now += 1.0
    assert made.ahead() == Ahead(400, 0, SEGMENT, pytest.approx(100.0))
    repeat = made.repeat(300)
    assert repeat
    made.end_repeat(repeat, memoryview(bytes(300)))

    assert made.to_come(SEGMENT - 400) == 100
