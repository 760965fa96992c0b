"""How many connections: more while more pay, on links of every kind."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrortools.pace import HOLD_S, MOST, START, WINDOW_S, Beside, Pace, Seen


def after(seconds: float, rate: Callable[[int], float], pace: Pace | None = None) -> Pace:
    """A pace that has watched a link for `seconds`; `rate` is what so many connections bring a second."""
    pace, now, total = pace or Pace(), 0.0, 0.0
    while now <= seconds:
        pace.observe(Seen(now, int(total)), pace.connections)
        now += 0.05
        total += 0.05 * rate(pace.connections)
    return pace


def test_where_each_flow_is_limited_all_are_used_soon() -> None:
    """The number grows with every window."""
    assert after(5 * WINDOW_S, lambda n: n * 20e6).connections == MOST


def test_on_a_fast_link_few_are_enough() -> None:
    """More connections that bring nothing are given back."""
    assert after(4 * WINDOW_S, lambda _: 2e9).connections == START


@given(st.floats(1e3, 1e10), st.integers(1, 64))
def test_it_settles_near_where_more_stop_to_pay(flow: float, enough: int) -> None:
    """Between the least number that fills the link and twice that, or as many as are allowed."""
    pace = after(HOLD_S / 2, lambda n: flow * min(n, enough))

    assert min(enough, MOST) / 2 <= pace.connections <= max(START, 2 * enough)
    assert pace.connections <= MOST


def test_it_looks_again_after_a_while() -> None:
    """A link that has changed is found out."""
    pace = after(2.0, lambda _: 1e6)
    now, total = 2.05, 2e6
    while now < 3 * HOLD_S:
        pace.observe(Seen(now, int(total)), pace.connections)
        now, total = now + 0.05, total + 0.05 * 1e6 * pace.connections

    assert pace.connections == MOST


@pytest.mark.parametrize("latency_s", [0.05, 0.3, 0.9])
def test_far_away_a_connection_is_not_judged_before_it_brings_something(latency_s: float) -> None:
    """Connecting takes several round trips: what a new one is worth is seen when its first bytes are there."""
    pace, now, total, began = Pace(), 0.0, 0.0, [0.0]
    while now <= 10 * latency_s + 2:
        pace.observe(Seen(now, int(total)), pace.connections, latency_s=latency_s)
        began += [now] * (pace.connections - len(began))
        now += 0.05
        total += 0.05 * 20e6 * sum(now > start + latency_s for start in began)

    assert pace.connections == MOST


@pytest.mark.parametrize("number", [1, 5, 64])
def test_a_configured_number_is_kept(number: int) -> None:
    """Whatever it brings."""
    assert after(5.0, lambda n: n * 1e6, Pace(number)).connections == number


def test_nothing_is_judged_while_connections_are_idle() -> None:
    """A blob's end with few spans left says nothing about the link."""
    pace = Pace(connections=2)
    for step in range(100):
        pace.observe(Seen(step * 0.1, step * 1000), 1)

    assert pace.connections == 2


def test_when_hashing_takes_the_time_no_connection_is_added() -> None:
    """A blob that one processor hashes as fast as it can comes no sooner over two connections."""
    pace = Pace()
    for step in range(100):
        pace.observe(Seen(step * 0.1, step * 10**8, hashing_s=step * 0.08), pace.connections)

    assert pace.connections == START


def test_when_decrypting_takes_the_time_no_connection_is_added() -> None:
    """Over TLS it is not the hash alone that has the processors full."""
    pace = Pace()
    for step in range(100):
        pace.observe(Seen(step * 0.1, step * 10**8, hashing_s=step * 0.05, working_s=step * 0.055), pace.connections)

    assert pace.connections == START


def test_while_other_processors_could_hash_connections_are_added() -> None:
    """The same with a second blob at hand."""
    pace = Pace()
    for step in range(10):
        pace.observe(Seen(step * 0.1, step * 10**8 * pace.connections, hashing_s=step * 0.08), pace.connections, 2)

    assert pace.connections > START


def test_no_connection_is_added_once_the_processors_are_full() -> None:
    """Those before may have paid; each further one would only be in the way of the hash."""
    pace = Pace()
    pace.observe(Seen(0.0, 0), 1)
    pace.observe(Seen(0.1, 10**7), 1)
    pace.observe(Seen(0.2, 2 * 10**7), 1)
    some = pace.connections
    pace.observe(Seen(0.3, 30 * 10**7, hashing_s=0.09), some)
    pace.observe(Seen(0.4, 90 * 10**7, hashing_s=0.18), some)

    assert START < some < MOST
    assert pace.connections == some


class Bursts:
    """A server that sends to each connection what it may have in a second, or its share of a link, all at once."""

    def __init__(self, most_together: float) -> None:
        self.pace = Pace()
        self._begun = [0.02]
        self._most_together = most_together

    def run(self, seconds: float) -> set[int]:
        """Let time pass. The numbers of connections there were."""
        now, total, seen = 0.0, 0.0, set()
        while now <= seconds:
            share = min(1e6, self._most_together / len(self._begun))
            total += share * sum((now - begun) % 1 < 0.05 for begun in self._begun if begun <= now)
            self.pace.observe(Seen(now, int(total)), self.pace.connections)
            number = self.pace.connections
            self._begun = [*self._begun, *(now + 0.02 for _ in range(number - len(self._begun)))][:number]
            seen.add(number)
            now += 0.05
        return seen


def test_bursts_of_a_server_do_not_hide_that_more_connections_pay() -> None:
    """Between two bursts a short look finds nothing, which says nothing against connections that were added."""
    bursts = Bursts(most_together=1e9)
    bursts.run(3 * HOLD_S)

    assert bursts.pace.connections == MOST


def test_bursts_of_a_server_do_not_pass_for_more() -> None:
    """A link that has enough with two connections is not given all there may be because one look met a burst."""
    bursts = Bursts(most_together=2e6)
    numbers = bursts.run(3 * HOLD_S)

    assert MOST not in numbers


def test_a_silence_alone_changes_nothing() -> None:
    """Who brings nothing for a while brings no more over fewer connections."""
    pace = after(0.35, lambda n: n * 20e6)
    number = pace.connections
    for step in range(100):
        pace.observe(Seen(0.4 + step * 0.05, 10**8), number)

    assert START < number == pace.connections


def beside(seconds: float, rates: Callable[[int], tuple[float, float]], *, settled: bool = True) -> Beside:
    """A second source that was watched for so long; `rates` is what both bring, when it has so many connections."""
    second, now, first_bytes, own_bytes = Beside(MOST), 0.0, 0.0, 0.0
    while now <= seconds:
        seen = Seen(now, int(first_bytes + own_bytes))
        second.observe(seen, int(own_bytes), second.connections, is_first_settled=settled)
        first, own = rates(second.connections)
        now, first_bytes, own_bytes = now + 0.1, first_bytes + 0.1 * first, own_bytes + 0.1 * own
    return second


def test_a_second_source_gets_connections_while_they_bring_something_on_top() -> None:
    """Also beside a first one that has many: what counts is what comes on top of that."""
    assert beside(6.0, lambda n: (320e6, n * 20e6)).connections == MOST
    assert beside(6.0, lambda n: (320e6, min(n, 4) * 20e6)).connections in (4, 8)


def test_several_sources_are_tried_at_once() -> None:
    """One connection to each is what is tried first; what that brings decides about more, or about all of them."""
    tried = Beside(MOST, 3)
    tried.observe(Seen(0.0, 0), 0, 0, is_first_settled=True)

    assert tried.observe(Seen(1.0, 10**6), 0, 0, is_first_settled=True) == 3
    assert tried.observe(Seen(2.0, 3 * 10**6), 10**6, 3, is_first_settled=True) == 6
    assert tried.observe(Seen(3.0, 5 * 10**6), 2 * 10**6, 6, is_first_settled=True) == 3


def test_a_second_source_gets_none_where_both_share_a_full_link() -> None:
    """What it brings is missing from the first one; it is tried again after a while."""
    second = beside(4.0, lambda n: (100e6 - n * 5e6, n * 5e6))

    assert second.connections == 0


def test_some_connections_are_kept_whatever_they_bring() -> None:
    """Hosts that share the load of the first one keep theirs on a full link, too."""
    kept = Beside(MOST, 3, 3)
    for step in range(60):
        kept.observe(Seen(step * 1.0, step * 10**6), step * 10**5, kept.connections, is_first_settled=True)
        assert step < 2 or kept.connections >= 3

    assert kept.connections <= 6


def test_a_second_source_is_not_tried_before_the_first_one_has_as_many_as_pay() -> None:
    """Nor is one kept that brings nothing at all."""
    assert beside(6.0, lambda n: (n * 1e6, n * 20e6), settled=False).connections == 0
    assert beside(4.0, lambda _: (100e6, 0.0)).connections == 0


@given(st.floats(1e5, 1e9), st.floats(1e5, 1e9), st.floats(0, 1))
def test_a_second_source_never_gets_more_than_the_most(first: float, own: float, shared: float) -> None:
    """Whatever it brings and takes from the first one."""
    second = beside(30.0, lambda n: (max(0.0, first - shared * n * own), n * own))

    assert 0 <= second.connections <= MOST
