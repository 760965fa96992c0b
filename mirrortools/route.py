"""From whom each edge would get what several lack, and why: as a delivery decides it before anything is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mirrortools.chain import ORIGIN, Chain, Member
from mirrortools.lending import Candidate, Need, lender


@dataclass(frozen=True, slots=True)
class Route:
    """Whom an edge would draw from (None: this host), and why."""

    feeder: str | None
    why: str


def routes(
    takers: Sequence[Member], lacking_bytes: Mapping[str, int], helpers: Sequence[Candidate]
) -> dict[str, Route]:
    """By name, how each of `takers` would get what it wants; `helpers` have all, or should."""
    chain = Chain()
    for taker in takers:
        chain = chain.with_member(taker, lacking_bytes)
    chain = _with_lenders(chain, lacking_bytes, helpers)
    feeders, members = chain.feeders(), {member.name: member for member in chain.order}
    return {taker.name: _route(taker, members.get(feeders[taker.name]), chain) for taker in takers}


def _with_lenders(chain: Chain, lacking_bytes: Mapping[str, int], helpers: Sequence[Candidate]) -> Chain:
    """The same with those that would be called to feed: for each region one, of that region if there is one."""
    feeders, members = chain.feeders(), {member.name: member for member in chain.order}
    for region in dict.fromkeys(member.region for member in chain.order):
        heads = [
            member
            for member in members.values()
            if member.region == region and (feeders[member.name] == ORIGIN or _is_far(member, members, feeders))
        ]
        near = [helper for helper in helpers if helper.region == region]
        found = lender(near, _needs(heads, lacking_bytes), {})
        if found is None:
            fed_here = [head for head in heads if feeders[head.name] == ORIGIN]
            found = lender(helpers, _needs(fed_here, lacking_bytes), {})
        if found:
            lends = Member(found.name, frozenset(), found.offers, region=found.region)
            chain = chain.with_member(lends, lacking_bytes)
    return chain


def _is_far(member: Member, members: Mapping[str, Member], feeders: Mapping[str, str]) -> bool:
    return members[feeders[member.name]].region != member.region


def _needs(members: Sequence[Member], lacking_bytes: Mapping[str, int]) -> list[Need]:
    return [Need(member.wants, lacking_bytes[member.name]) for member in members]


def _route(taker: Member, feeder: Member | None, chain: Chain) -> Route:
    if feeder is None:
        is_first = chain.line(taker.region)[0] == taker
        head = f"head of region {taker.region}" if taker.region else "the first that comes, or the fastest known"
        return Route(None, head if is_first else "no other edge has all that it lacks")
    if feeder.lends:
        return Route(feeder.name, "has all of it, or should")
    if feeder.region != taker.region:
        return Route(feeder.name, f"head of region {taker.region or 'without a name'}; the last edge of another region")
    return Route(
        feeder.name, "passes on what it gets, in the same region" if taker.region else "passes on what it gets"
    )
