"""Who gave what of a blob, and which of it is of a file that has changed since."""

from __future__ import annotations

import logging

import pytest

from mirrortools.provenance import EARLIER, Provenance


def test_a_segment_is_of_who_gave_it_last() -> None:
    """What was fetched again counts for the source that it came from then."""
    given = Provenance("model.bin")
    for source, index in (("a", 0), ("a", 1), ("b", 2), ("b", 1)):
        given.gave(source, index, "")

    assert given.givers == {"a": 1, "b": 2}
    assert given.given_by("b") == [1, 2]


def test_segments_of_an_older_version_are_outdated_once() -> None:
    """A source that says nothing of versions has no older ones; a second time nothing would be left to be tried."""
    given = Provenance("model.bin")
    for source, version, index in (("a", "1", 0), ("b", "", 1), ("a", "2", 2)):
        given.meet(source, version)
        given.gave(source, index, version)

    assert given.outdated() == [0]
    assert given.outdated() == []


def test_without_another_version_nothing_is_outdated_and_that_is_asked_again() -> None:
    """Only segments that were named count as tried."""
    given = Provenance("model.bin")
    given.meet("a", "1")
    given.gave("a", 0, "1")
    before = given.outdated()
    given.meet("a", "2")

    assert (before, given.outdated()) == ([], [0])


def test_another_version_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """Each source's file is compared with its own; the first version of all is no change."""
    given = Provenance("model.bin")
    with caplog.at_level(logging.WARNING, "mirrortools.fetch"):
        for source, version in (("a", "1"), ("b", "x"), ("a", ""), ("a", "2"), ("a", "3")):
            given.meet(source, version)

    assert caplog.messages == ["a: model.bin changed while it was fetched"]


def test_begun_again_nobody_has_given_anything() -> None:
    """It is told who had, an earlier run among them."""
    given = Provenance("model.bin")
    given.contributors |= {EARLIER, "a"}
    given.gave("a", 0, "")

    assert given.begin_again() == {EARLIER, "a"}
    assert (given.begin_again(), given.givers) == (set(), {})
