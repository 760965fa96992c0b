"""Who feeds whom: whatever happens, every edge has a feeder, and nobody waits for himself."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from hypothesis import given
from hypothesis import strategies as st

from mirrortools.chain import NOBODY, ORIGIN, Chain, Member, falls_behind, gains_apart, is_faster, takes_long

ALL = frozenset({"a", "b"})
NAMES = [f"e{number}" for number in range(6)]


def member(name: str, rate: float = 0.0, region: str = "") -> Member:
    return Member(name, ALL, ALL, rate, region)


def chain(*names: str) -> Chain:
    """Edges that came one after the other, and lack all."""
    found = Chain()
    for name in names:
        found = found.with_member(member(name), {})
    return found


def regions(*names: str) -> Chain:
    """The same of edges whose names begin with their region."""
    found = Chain()
    for name in names:
        found = found.with_member(member(name, region=name[0]), {})
    return found


def lending(name: str, region: str = "") -> Member:
    """An edge that has all, and takes part to feed."""
    return Member(name, frozenset(), ALL, region=region)


def order(found: Chain) -> list[str]:
    return [each.name for each in found.order]


events = st.one_of(
    st.tuples(st.just("join"), st.sampled_from(NAMES), st.sampled_from([0.0, 1e6, 5e6])),
    st.tuples(st.just("lend"), st.sampled_from(NAMES), st.none()),
    st.tuples(st.just("leave"), st.sampled_from(NAMES), st.none()),
    st.tuples(st.just("cut"), st.sampled_from([ORIGIN, *NAMES]), st.sampled_from(NAMES)),
    st.tuples(st.just("trial"), st.sampled_from(NAMES), st.booleans()),
    st.tuples(st.just("slow"), st.sampled_from([ORIGIN, *NAMES]), st.sampled_from(NAMES)),
    st.tuples(st.just("apart"), st.sampled_from(NAMES), st.none()),
)
places = st.one_of(st.just({}), st.dictionaries(st.sampled_from(NAMES), st.sampled_from("ab")))


def after(found: Chain, event: tuple, lacking: dict[str, int], region: dict[str, str]) -> Chain:
    """The chain after one of the `events`."""
    what, first, second = event
    there = region.get(first, "")
    tried = partial(found.after_trial, first_is_slow=second) if found.trial else partial(found.with_trial, there)
    acts = {
        "join": lambda: found.with_member(member(first, second, there), lacking),
        "lend": lambda: found.with_member(lending(first, there), lacking),
        "leave": lambda: found.without(first),
        "cut": lambda: found.with_cut(first, second),
        "trial": tried,
        "slow": lambda: found.with_held_up(first, second),
        "apart": lambda: found.with_apart(there),
    }
    return acts[what]()


@given(st.lists(events, max_size=40), st.dictionaries(st.sampled_from(NAMES), st.integers(0, 1 << 30)), places)
def test_every_edge_leads_back_to_the_origin(
    happened: list[tuple], lacking: dict[str, int], region: dict[str, str]
) -> None:
    """After any events each member has one feeder, never over a pair that was cut, and no circle."""
    found, present = Chain(), set()
    lenders = {first for what, first, _ in happened if what == "lend"}
    for event in happened:
        what, first, second = event
        if what != "slow" or second in present:
            found = after(found, event, lacking, region)
        present |= {first} if what in ("join", "lend") else set()
        present -= {first} if what == "leave" else set()
    feeders = found.feeders()

    assert set(order(found)) == set(feeders) <= present
    assert set(order(found)) | lenders >= present
    for name in feeders:
        seen = {name}
        while (feeder := feeders[name]) != ORIGIN:
            assert (feeder, name) not in found.cut
            assert feeder not in seen
            seen.add(feeder)
            name = feeder


def test_each_edge_draws_from_the_one_before_it() -> None:
    """In the order in which they came, when nothing is known of them, so that the bytes leave the origin once."""
    found = chain("e3", "e0", "e2", "e1")

    assert found.feeders() == {"e3": ORIGIN, "e0": "e3", "e2": "e0", "e1": "e2"}


def test_fast_edges_go_first() -> None:
    """By what they took lately; those of which nothing is known come behind."""
    found = Chain()
    for name, rate in (("e3", 0.0), ("e0", 1e6), ("e1", 9e6), ("e2", 5e6)):
        found = found.with_member(member(name, rate), {})

    assert order(found) == ["e1", "e2", "e0", "e3"]


def test_a_newcomer_is_not_put_before_one_that_is_far_ahead() -> None:
    """That one would wait until the newcomer has what it has."""
    lacking = {"e0": 1 << 30, "e1": 1 << 20, "e2": 1 << 30}
    found = chain("e1", "e2").with_member(member("e0", 1e6), lacking)

    assert order(found) == ["e1", "e0", "e2"]


def test_one_that_falls_behind_goes_to_the_end() -> None:
    """The next one draws from its feeder."""
    found = chain("e0", "e1", "e2", "e3").with_held_up("e0", "e1")

    assert order(found) == ["e0", "e2", "e3", "e1"]
    assert found.feeders() == {"e0": ORIGIN, "e2": "e0", "e3": "e2", "e1": "e3"}


def test_a_newcomer_goes_before_slow_ones() -> None:
    """The end of the chain is theirs."""
    found = chain("e0", "e1", "e2").with_held_up("e0", "e1").with_member(member("e3"), {})

    assert order(found) == ["e0", "e2", "e3", "e1"]


def test_who_holds_up_two_is_slow_himself() -> None:
    """The first one that fell behind was not to blame: it is no longer taken for slow."""
    found = chain("e0", "e1", "e2", "e3").with_held_up("e0", "e1").with_held_up("e0", "e2")

    assert found.slow == {"e0"}
    assert order(found)[-1] == "e0"


def test_two_that_cannot_reach_each_other_go_round() -> None:
    """An earlier one that feeds fewest feeds instead, or the origin."""
    found = chain("e0", "e1", "e2").with_cut("e1", "e2")

    assert found.feeders()["e2"] == "e0"
    assert found.with_cut("e0", "e2").feeders()["e2"] == ORIGIN


def test_an_edge_does_not_draw_what_the_other_never_gets() -> None:
    """One with a part of the repository feeds only those that want no more than that."""
    partial = replace(member("e0"), wants=frozenset({"a"}), offers=frozenset({"a"}))
    found = Chain().with_member(partial, {}).with_member(member("e1"), {}).with_member(member("e2"), {})

    assert found.feeders() == {"e0": ORIGIN, "e1": ORIGIN, "e2": "e1"}
    assert found.with_held_up(ORIGIN, "e0").feeders()["e0"] == "e2"


def test_behind_means_less_than_the_feeder_with_bytes_at_hand() -> None:
    """Whoever has little to take, or takes what comes, is not slow."""
    assert falls_behind(5e6, 20e6, 13 << 20)
    assert not falls_behind(5e6, 20e6, 1 << 20)
    assert not falls_behind(18e6, 20e6, 1 << 30)


def test_rates_that_differ_little_do_not_change_the_order() -> None:
    """What edges of one chain take differs by chance."""
    found = Chain().with_member(member("e0", 20e6), {}).with_member(member("e1", 22e6), {})

    assert order(found) == ["e0", "e1"]


def test_a_first_one_that_takes_long_is_held_against_the_second() -> None:
    """The origin feeds both for a while; the slower one goes to the end, and no pair is tried twice."""
    tried = chain("e0", "e1", "e2").with_trial()
    slow, fast = tried.after_trial(first_is_slow=True), tried.after_trial(first_is_slow=False)

    assert tried.feeders() == {"e0": ORIGIN, "e1": ORIGIN, "e2": "e1"}
    assert slow.feeders() == {"e1": ORIGIN, "e2": "e1", "e0": "e2"}
    assert fast.feeders() == {"e0": ORIGIN, "e1": "e0", "e2": "e1"}
    assert fast.with_trial() == fast


def test_nobody_is_tried_in_the_place_of_the_first_without_need() -> None:
    """Two who share the origin's bandwidth are equals, and a short rest is not worth a look."""
    assert is_faster(18e6, 6e6)
    assert not is_faster(12e6, 12e6)
    assert takes_long(1 << 30, 6e6)
    assert not takes_long(256 << 20, 25e6)


def test_one_that_has_all_stands_before_those_that_lack_something() -> None:
    """Whenever it comes, and however fast they are, so that nothing leaves the origin."""
    found = chain("e0", "e1").with_member(lending("full"), {}).with_member(member("e2", 9e6), {})

    assert found.feeders() == {"full": ORIGIN, "e2": "full", "e0": "e2", "e1": "e0"}


def test_one_that_has_not_all_that_is_lacking_does_not_feed() -> None:
    """An edge with a part of the repository lends that part."""
    part = replace(lending("full"), offers=frozenset({"a"}))
    wants_part = replace(member("e1"), wants=frozenset({"a"}))
    found = Chain().with_member(part, {}).with_member(member("e0"), {}).with_member(wants_part, {}).with_cut("e0", "e1")

    assert found.feeders() == {"full": ORIGIN, "e0": ORIGIN, "e1": "full"}


def test_who_lends_and_breaks_off_is_gone() -> None:
    """The origin feeds then, and nobody else waits for the same to happen to him."""
    found = chain("e0", "e1").with_member(lending("full"), {}).with_cut("full", "e0")

    assert found.feeders() == {"e0": ORIGIN, "e1": "e0"}


def test_who_lends_is_held_against_the_origin_when_it_takes_long() -> None:
    """The first that draws from it is fed by the origin for a while; a slow lender goes, another one goes on."""
    tried = chain("e0", "e1").with_member(lending("full"), {}).with_trial()
    slow, fast = tried.after_trial(first_is_slow=True), tried.after_trial(first_is_slow=False)

    assert tried.feeders() == {"full": ORIGIN, "e0": ORIGIN, "e1": "e0"}
    assert slow.feeders() == {"e0": ORIGIN, "e1": "e0"}
    assert fast.feeders() == {"full": ORIGIN, "e0": "full", "e1": "e0"}
    assert fast.with_trial() == fast


@given(st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from([0.0, 1e6, 5e6])), max_size=20), places)
def test_what_is_new_comes_into_each_region_once(joined: list[tuple[str, float]], region: dict[str, str]) -> None:
    """Whoever comes when, however fast: one of each region draws from outside, and nobody feeds more than two."""
    found = Chain()
    for name, rate in joined:
        found = found.with_member(member(name, rate, region.get(name, "")), {})
    feeders = found.feeders()
    heads = [region.get(n, "") for n, f in feeders.items() if f == ORIGIN or region.get(n, "") != region.get(f, "")]

    assert sorted(heads) == sorted({region.get(name, "") for name in feeders})
    assert all([*feeders.values()].count(name) <= 2 for name in feeders)
    assert not feeders or [*feeders.values()].count(ORIGIN) == 1


def test_regions_are_links_of_one_chain() -> None:
    """Whoever comes late is put to the others of its region; each region's last one feeds the next region's head."""
    found = regions("a0", "b0", "b1", "a1", "c0", "b2")

    assert order(found) == ["a0", "a1", "b0", "b1", "b2", "c0"]
    assert found.feeders() == {"a0": ORIGIN, "a1": "a0", "b0": "a1", "b1": "b0", "b2": "b1", "c0": "b2"}


def test_a_region_is_passed_whole_or_not_at_all() -> None:
    """By one of a new region that is faster than all of it; one is not put in between."""
    slow_one, both = regions("a0").with_member(member("a1", 9e6, "a"), {}), regions("a0", "a1")

    assert order(slow_one.with_member(member("b0", 5e6, "b"), {})) == ["a1", "a0", "b0"]
    assert order(both.with_member(member("b0", 5e6, "b"), {})) == ["b0", "a0", "a1"]


def test_a_late_one_does_not_hold_up_another_region() -> None:
    """What is far ahead does not wait for it; it draws from its own region all the same."""
    lacking = {"a0": 0, "b0": 0, "a1": 1 << 30}
    found = regions("a0", "b0").with_member(member("a1", region="a"), lacking)

    assert order(found) == ["a0", "b0", "a1"]
    assert found.feeders() == {"a0": ORIGIN, "b0": "a0", "a1": "a0"}


def test_another_of_its_region_takes_the_place_of_a_head_that_failed() -> None:
    """The next one draws from where the head did."""
    found = regions("a0", "b0", "b1", "b2")

    assert found.without("b0").feeders() == {"a0": ORIGIN, "b1": "a0", "b2": "b1"}
    assert found.without("a0").feeders() == {"b0": ORIGIN, "b1": "b0", "b2": "b1"}
    assert found.with_held_up("a0", "b0").feeders() == {"a0": ORIGIN, "b1": "a0", "b2": "b1", "b0": "b2"}


def test_a_region_that_others_feed_slowly_is_fed_by_the_origin() -> None:
    """Its head draws from here, beside the others; the rest of the region goes on as it was."""
    found = regions("a0", "a1", "b0", "b1").with_apart("b")

    assert found.feeders() == {"a0": ORIGIN, "a1": "a0", "b0": ORIGIN, "b1": "b0"}
    assert found.without("b0").feeders()["b1"] == ORIGIN


def test_the_origin_feeds_another_head_when_that_brings_more() -> None:
    """It has to share what it sends with those that it feeds."""
    assert gains_apart(2e6, [12e6])
    assert gains_apart(2e6, [5e6, 5e6])
    assert not gains_apart(5e6, [12e6])
    assert not gains_apart(5e6, [])


def test_in_each_region_the_first_is_held_against_the_second() -> None:
    """A slow head goes to the end of its region; the other region does not notice."""
    found = regions("a0", "a1", "b0", "b1").with_apart("b").with_trial("b")

    assert found.feeders() == {"a0": ORIGIN, "a1": "a0", "b0": ORIGIN, "b1": ORIGIN}
    assert found.after_trial(first_is_slow=True).feeders() == {"a0": ORIGIN, "a1": "a0", "b1": ORIGIN, "b0": "b1"}
    assert found.without("b0").trial == ""


def test_each_region_may_have_one_that_lends() -> None:
    """Then nothing goes from one region to another, as long as it lends."""
    found = regions("a0", "b0", "b1").with_member(lending("a9", "a"), {}).with_member(lending("b9", "b"), {})

    assert found.feeders() == {"a9": ORIGIN, "b9": ORIGIN, "a0": "a9", "b0": "b9", "b1": "b0"}
    assert found.with_cut("b9", "b0").feeders()["b0"] == "a0"
    assert found.with_trial("b").after_trial(first_is_slow=True).feeders()["b0"] == "a0"


def test_nobody_feeds_who_needs_what_the_origin_has_lost_until_an_edge_comes() -> None:
    """From any region then; nobody is tried in its place."""
    alone = Chain().with_member(replace(member("a0", region="a"), from_edges=True), {}).with_apart("a")
    helped = alone.with_member(lending("b9", "b"), {})

    assert alone.feeders() == {"a0": NOBODY}
    assert helped.feeders() == {"b9": ORIGIN, "a0": "b9"}
    assert helped.with_trial("a") == helped
