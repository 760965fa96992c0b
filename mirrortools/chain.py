"""Who feeds whom when many edges lack the same: a chain, in which each edge passes on what it gets.

Decisions alone, without clock and network. The origin feeds the first of the chain; each other edge draws from the one
before it, or from an earlier one when the two cannot reach each other. Who is slow is moved to the end, where nobody
waits for it. One that lacks nothing lends what it has: it stands before all others, so that the origin feeds nobody,
and goes when that fails or is slow.

Edges of one region draw from each other; the first of them, its head, takes the bytes into the region, from the last
edge of the region before it, or, where that is slow or cannot be reached, from the origin, beside other heads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

ORIGIN: Final = ""
# Feeds whoever lacks what the origin has lost, until an edge comes that has it.
NOBODY: Final = "?"
# A newcomer that lacks so much more than another is not put before it: that one would wait for it to catch up.
_BEHIND_BYTES: Final = 32 << 20
# An edge is slow when it takes less than this share of what the one before it takes, and so much lies ready for it.
_SLOW_SHARE: Final = 0.6
READY_BYTES: Final = 12 << 20
# A known rate counts when it is so much more than another: those of one chain differ by chance.
_FASTER: Final = 1.3
# When the first of the chain would take longer than that for the rest, the next one is tried in its place.
_LONG_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Member:
    """An edge that takes part; `rate_bytes_s` is what it took lately, 0 when that is not known.

    `wants` are the digests that it lacked at first, `offers` those that it has now or will have. Edges that name no
    region are of one, which has no name. `from_edges` is whether the origin has lost what it wants.
    """

    name: str
    wants: frozenset[str]
    offers: frozenset[str]
    rate_bytes_s: float = 0.0
    region: str = ""
    from_edges: bool = False

    @property
    def lends(self) -> bool:
        """Whether it takes part for the others alone."""
        return not self.wants


@dataclass(frozen=True, slots=True)
class Chain:
    """The members in their order, the slow ones at the end. Never changed: each event gives another one.

    `cut` are pairs of which the second cannot draw from the first. `held_up` are pairs of which the second fell behind.
    `trial` is the second of a region while the origin feeds it too, to see whether `first`, the first one, is slow;
    `tried` are the pairs of which that is known. `apart` are regions whose head draws from no other region.
    """

    order: tuple[Member, ...] = ()
    slow: frozenset[str] = frozenset()
    cut: frozenset[tuple[str, str]] = frozenset()
    held_up: frozenset[tuple[str, str]] = frozenset()
    trial: str = ""
    first: str = ""
    tried: frozenset[tuple[str, str]] = frozenset()
    apart: frozenset[str] = frozenset()

    def with_member(self, newcomer: Member, lacking_bytes: Mapping[str, int]) -> Chain:
        """The same with an edge that came: before those that are known to be slower and are not far ahead of it.

        It stands with the others of its region: another region is passed as a whole, or not at all.
        """
        mine = lacking_bytes.get(newcomer.name, 0)
        rest = self.without(newcomer.name)
        at = len(rest.order)
        while at > 0:
            block = rest.order[rest._block(at, newcomer.region) : at]
            joins = any(member.region == newcomer.region for member in rest.order[: at - len(block)])
            if not all(rest._goes_before(newcomer, mine, other, lacking_bytes, joins) for other in block):
                break
            at -= len(block)
        return replace(rest, order=(*rest.order[:at], newcomer, *rest.order[at:]))

    def _block(self, end: int, region: str) -> int:
        """Where those begin that an edge of a region passes together: of its own region one, of another all."""
        last, start = self.order[end - 1], end - 1
        while region != last.region and start > 0 and self._are_together(self.order[start - 1], last):
            start -= 1
        return start

    def _are_together(self, one: Member, other: Member) -> bool:
        return one.region == other.region and one.lends == other.lends

    def _goes_before(
        self, newcomer: Member, mine: int, other: Member, lacking_bytes: Mapping[str, int], joins: bool
    ) -> bool:
        """`joins` is whether others of its region stand before that other one."""
        if newcomer.lends or other.lends:
            return newcomer.lends
        if lacking_bytes.get(other.name, 0) < mine - _BEHIND_BYTES:
            return False
        if newcomer.region != other.region and joins:
            return True
        return other.name in self.slow or newcomer.rate_bytes_s > _FASTER * other.rate_bytes_s

    def without(self, name: str) -> Chain:
        """The same without an edge that is gone."""
        trial = "" if name in (self.trial, self.first) else self.trial
        return replace(self, order=tuple(member for member in self.order if member.name != name), trial=trial)

    def with_cut(self, feeder: str, taker: str) -> Chain:
        """The same after it was seen that one cannot draw from the other."""
        found = replace(self, cut=self.cut | {(feeder, taker)})
        return found.without(feeder) if feeder in self.lenders else found

    def with_held_up(self, feeder: str, taker: str) -> Chain:
        """The same after an edge fell behind its feeder: it is slow, unless that feeder holds up another one too.

        Then the feeder is slow, and those that it held up are not.
        """
        held_up = self.held_up | {(feeder, taker)}
        victims = {each for source, each in held_up if source == feeder}
        if feeder != ORIGIN and len(victims) > 1:
            return replace(self, held_up=held_up)._moved_back(feeder, self.slow - victims)
        return replace(self, held_up=held_up)._moved_back(taker, self.slow)

    def _moved_back(self, name: str, slow: frozenset[str]) -> Chain:
        moved = [member for member in self.order if member.name == name]
        others = [member for member in self.order if member.name != name]
        return replace(self, order=(*others, *moved), slow=slow | {name}, trial="")

    @property
    def lenders(self) -> frozenset[str]:
        """Those that lend."""
        return frozenset(member.name for member in self.order if member.lends)

    def line(self, region: str = "") -> tuple[Member, ...]:
        """The edges of a region in their order, behind one that lends to any of them."""
        feeders = self.feeders()
        feeding = {feeders[member.name] for member in self.order if member.region == region and not member.lends}
        lenders = [member for member in self.order if member.lends and member.name in feeding]
        return (*lenders[:1], *(member for member in self.order if member.region == region and not member.lends))

    def with_trial(self, region: str = "") -> Chain:
        """The same with the origin feeding the second of a region too, unless that pair was tried before.

        Nobody is tried when that one is slow, or the first one stands alone.
        """
        line = self.line(region)
        rest = [member for member in line[1:] if not line[0].lends or self._can_feed(line[0], member)]
        if self.trial or not rest or rest[0].name in self.slow or (line[0].name, rest[0].name) in self.tried:
            return self
        if rest[0].from_edges:
            return self
        first, second = line[0].name, rest[0].name
        return replace(self, trial=second, first=first, tried=self.tried | {(first, second)})

    def after_trial(self, *, first_is_slow: bool) -> Chain:
        """The same when the trial is over."""
        ended = replace(self, trial="")
        if first_is_slow and self.first in self.lenders:
            return ended.without(self.first)
        return ended.with_held_up(ORIGIN, self.first) if first_is_slow else ended

    def with_apart(self, region: str) -> Chain:
        """The same after it was seen that what comes to a region from others is slow."""
        return replace(self, apart=self.apart | {region})

    def feeders(self) -> dict[str, str]:
        """From whom each edge draws: the nearest before it that can feed it and feeds the fewest, else the origin.

        Those of its own region come before all others. NOBODY feeds who is to draw from edges and has none.
        """
        chosen: dict[str, str] = {}
        for number, taker in enumerate(self.order):
            before = self._able(taker, self.order[:number])
            feeding = [*chosen.values()]
            nobody = NOBODY if taker.from_edges else ORIGIN
            chosen[taker.name] = min(before, key=lambda m: feeding.count(m.name)).name if before else nobody
        return chosen

    def _able(self, taker: Member, before: Sequence[Member]) -> list[Member]:
        """Those that may feed an edge, the nearest first."""
        if taker.lends or taker.name == self.trial:
            return []
        able = [member for member in reversed(before) if self._can_feed(member, taker)]
        near = [member for member in able if member.region == taker.region]
        is_apart = taker.region in self.apart and not taker.from_edges
        return near if near or is_apart else able

    def _can_feed(self, feeder: Member, taker: Member) -> bool:
        return (feeder.name, taker.name) not in self.cut and taker.wants <= feeder.offers

    def is_last(self, name: str) -> bool:
        """Whether nobody stands behind an edge."""
        return bool(self.order) and self.order[-1].name == name


def falls_behind(taker_bytes_s: float, feeder_bytes_s: float, ready_bytes: int) -> bool:
    """Whether an edge takes much less than its feeder took, while `ready_bytes` of what it lacks lie ready there."""
    return ready_bytes >= READY_BYTES and taker_bytes_s < _SLOW_SHARE * feeder_bytes_s


def takes_long(lacking_bytes: int, rate_bytes_s: float) -> bool:
    """Whether an edge would take so long for the rest that looking for a faster one is worth its cost."""
    return lacking_bytes > rate_bytes_s * _LONG_S


def is_faster(second_bytes_s: float, first_bytes_s: float) -> bool:
    """Whether the second of two that are fed at once shows that the first one is slow."""
    return second_bytes_s * _SLOW_SHARE > first_bytes_s


def gains_apart(taken_bytes_s: float, fed_bytes_s: Sequence[float]) -> bool:
    """Whether a head that takes so much from another region would take more from the origin.

    That feeds other heads, which take `fed_bytes_s`, and would have to share with one more what it sends.
    """
    return taken_bytes_s * _FASTER < sum(fed_bytes_s) / (len(fed_bytes_s) + 1)
