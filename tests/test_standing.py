"""How sources behave: cooldowns that grow, pauses that are kept, and who is too slow."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrortools.errors import RateLimited, SourceMissing, SourceUnavailable
from mirrortools.standing import FIRST_COOLDOWN_S, LONGEST_COOLDOWN_S, SLOW_S, Cooldown, Meter, Standings
from tests.strategies import trials

DOWN = SourceUnavailable("down")


def test_a_cooldown_doubles_with_every_failure_and_begins_anew_after_success() -> None:
    """30 s, 60 s and so on, to a quarter of an hour."""
    cooldown, now_s, lengths = Cooldown(), 0.0, []
    for _ in range(7):
        lengths.append(cooldown.failed(now_s))
        now_s = cooldown.until_s

    assert lengths == [30, 60, 120, 240, 480, 900, 900]
    cooldown.succeeded()
    assert cooldown.failed(now_s) == FIRST_COOLDOWN_S


def test_connections_that_are_lost_together_are_one_failure() -> None:
    """Sixteen of them do not make a cooldown of hours."""
    cooldown = Cooldown()

    assert [cooldown.failed(10.0 + number) for number in range(16)] == [FIRST_COOLDOWN_S] + [0.0] * 15
    assert cooldown.until_s == 10 + FIRST_COOLDOWN_S


@given(st.lists(st.tuples(st.floats(0, 2000), st.booleans())))
@trials(100)
def test_a_cooldown_is_never_longer_than_its_cap(steps: list[tuple[float, bool]]) -> None:
    """Whatever fails and succeeds, a source is asked again."""
    cooldown, now_s = Cooldown(), 0.0
    for passed_s, fails in steps:
        now_s += passed_s
        cooldown.failed(now_s) if fails else cooldown.succeeded()

        assert cooldown.until_s <= now_s + LONGEST_COOLDOWN_S


@pytest.mark.parametrize(("rate", "readers"), [(999, 1), (999, 4), (1000, 1), (5000, 3)])
def test_a_source_is_slow_when_all_its_connections_together_stay_under_the_minimum(rate: int, readers: int) -> None:
    """However many there are; nothing is said before the time is over."""
    meter = Meter()
    for _ in range(readers):
        meter.begin(100.0)
    said = [meter.came(100.0 + second, rate, 1000) for second in range(1, 41)]

    assert said[: int(SLOW_S) - 1] == [None] * (int(SLOW_S) - 1)
    assert said[-1] == (pytest.approx(rate, rel=0.01) if rate < 1000 else None)


def test_a_time_in_which_nobody_read_says_nothing_of_a_source() -> None:
    """Neither does one before a source was left for being slow."""
    meter = Meter()
    meter.begin(0.0)
    assert meter.came(SLOW_S, 5, 1000) == pytest.approx(5 / SLOW_S)
    meter.end()
    meter.begin(500.0)

    assert meter.came(501.0, 1, 1000) is None


def test_a_pause_that_was_asked_for_is_kept_until_it_is_over() -> None:
    """By all who ask the same place."""
    standings = Standings()
    assert standings.failed("a", 100.0, RateLimited("a: 429", 45.0)) == FIRST_COOLDOWN_S

    with pytest.raises(RateLimited, match="a: 429") as caught:
        standings.check_pause("a", 110.0)
    assert caught.value.retry_after_s == 35.0
    standings.check_pause("a", 145.0)
    standings.check_pause("b", 110.0)


def test_what_is_about_one_blob_is_no_failure_of_the_source() -> None:
    """A blob that it does not have."""
    standings = Standings()

    assert standings.failed("a", 0.0, SourceMissing("a: has none")) == 0
    assert not standings.is_cooling("a", 0.0)


def test_success_counts_when_it_was_fast_enough() -> None:
    """Else a slow source would be asked every half minute for ever."""
    standings, lengths, now_s = Standings(), list[float](), 0.0
    for count in (10, 10, 10**6):
        lengths.append(standings.failed("a", now_s, DOWN))
        now_s += lengths[-1]
        standings.begin("a", now_s)
        standings.came("a", now_s + 1, count, 1000)
        standings.succeeded("a", now_s + 1, 1000)
        standings.end("a")
        now_s += 1

    assert lengths == [30, 60, 120]
    assert standings.failed("a", now_s, DOWN) == FIRST_COOLDOWN_S
