"""From whom edges would get what they lack, as `deliver --dry-run` tells it."""

from __future__ import annotations

from mirrortools.chain import Member
from mirrortools.lending import LEAST_BYTES, Candidate
from mirrortools.route import routes
from tests.test_lending import candidate, need

ALL = need().wants


def edge(name: str) -> Member:
    """One that lacks all, of the region that its name begins with."""
    return Member(name, ALL, ALL, region=name[0])


def feeders(names: str, *helpers: Candidate, lacking_bytes: int = LEAST_BYTES) -> dict[str, str | None]:
    """Who would feed whom."""
    takers = [edge(name) for name in names.split()]
    found = routes(takers, {taker.name: lacking_bytes for taker in takers}, helpers)
    return {name: route.feeder for name, route in found.items()}


def test_each_region_has_a_head_and_its_reason() -> None:
    """The origin feeds one, the others draw from each other."""
    takers = [edge("a0"), edge("b0"), edge("a1")]
    found = routes(takers, {taker.name: LEAST_BYTES for taker in takers}, [])

    assert {name: route.feeder for name, route in found.items()} == {"a0": None, "a1": "a0", "b0": "a1"}
    assert found["a0"].why == "head of region a"
    assert found["a1"].why == "passes on what it gets, in the same region"
    assert found["b0"].why == "head of region b; the last edge of another region"


def test_who_has_all_would_be_called_for_much() -> None:
    """Of its own region before any other one, and for little nobody."""
    near, far = candidate("b9", region="b"), candidate("c9", region="c")

    assert feeders("a0 b0", near) == {"a0": "b9", "b0": "b9"}
    assert feeders("b0", far, near) == {"b0": "b9"}
    assert feeders("b0", far) == {"b0": "c9"}
    assert feeders("b0", near, lacking_bytes=1) == {"b0": None}
