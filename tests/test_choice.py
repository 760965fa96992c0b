"""Whom to ask for a blob: what was learnt of its sources, and who is suspected when bytes are wrong."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from mirrortools.choice import Choice
from mirrortools.desk import Desk
from mirrortools.sources import Sources
from mirrortools.store import Store
from mirrortools.upstreams.local import FileBytes


@pytest.fixture
def given() -> tuple[FileBytes, ...]:
    """Three sources, in the order of the configuration."""
    return tuple(FileBytes(name, lambda _: None) for name in ("a", "b", "c"))


@pytest.fixture
def choice(tmp_path: Path, given: tuple[FileBytes, ...]) -> Choice:
    """Nothing is known of them yet."""
    return Choice(Sources(Desk(Store(tmp_path), tmp_path / "partial", tmp_path / "quarantine", given)))


def names(choice: Choice, lead: str = "") -> list[str]:
    return [source.name for source in choice.in_turn(lead)]


def test_all_are_asked_in_their_order_and_one_may_lead(choice: Choice, given: tuple[FileBytes, ...]) -> None:
    """Whoever leads goes before the others, which keep their order."""
    assert names(choice) == ["a", "b", "c"]
    assert names(choice, "c") == ["c", "a", "b"]
    assert all(choice.may_lead(source) for source in given)


def test_who_lacks_the_blob_is_asked_and_does_not_count_as_another(
    choice: Choice, given: tuple[FileBytes, ...]
) -> None:
    """It may have the blob by now; but nobody is left for its sake, and it does not lead."""
    for source in given[1:]:
        choice.lacks(source)

    assert names(choice) == ["a", "b", "c"]
    assert not choice.has_another(given[0])
    assert choice.has_another(given[1])
    assert [choice.may_lead(source) for source in given] == [True, False, False]


def test_who_gave_fewest_is_suspected_until_all_is_of_one(choice: Choice) -> None:
    """The one that gave most is asked alone for what the others gave, one of them after the other."""
    first = choice.doubt(Counter(a=5, b=1, c=3))
    alone = names(choice)
    second = choice.doubt(Counter(a=6, c=3))
    rest = choice.doubt(Counter(a=9))

    assert (first, alone, second, rest) == ("b", ["a"], "c", "")


def test_who_was_suspected_last_is_convicted_when_the_bytes_are_right(choice: Choice) -> None:
    """Nobody is when nobody was suspected."""
    before = choice.convict()
    choice.doubt(Counter(a=5, b=1))

    assert (before, choice.convict()) == ("", "b")


def test_after_wrong_bytes_of_one_it_is_not_asked_again(choice: Choice) -> None:
    """Of several that gave wrong bytes together nobody knows who it was."""
    together = [source.name for source in choice.refuse({"a", "b"})]
    one = [source.name for source in choice.refuse({"a"})]

    assert (together, one) == (["a", "b", "c"], ["b", "c"])
    assert names(choice) == ["b", "c"]


def test_alone_they_are_tried_one_after_the_other(choice: Choice) -> None:
    """Who saw one fail that somebody else has left already goes on with the new one; at the end there is nobody."""
    not_alone = choice.ask_another_alone(None)
    choice.alone = "a"
    next_one = choice.ask_another_alone("a")
    late = choice.ask_another_alone("a")
    now = choice.alone

    assert (not_alone, next_one, late, now) == (False, True, True, "b")
    assert choice.ask_another_alone("b")
    assert not choice.ask_another_alone("c")
