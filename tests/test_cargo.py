"""What travels to an edge: whole blobs, the new bytes of those that it makes itself, and of each what is not there."""

from __future__ import annotations

from pathlib import Path

from mirrortools.cargo import Cargo
from mirrortools.deltas import Delta
from mirrortools.steps import Step
from tests.delivery import sha256_blob

SERVED, MADE = Path("/origin/public"), Path("/origin/state/stage/deltas.1")
BASE, BLOB, OTHER, FRESH = (sha256_blob(content) for content in (b"o" * 90, b"n" * 100, b"other" * 10, b"new bytes"))
DELTA = Delta(BLOB, BASE, FRESH, MADE, (Step(True, 0, 9), Step(False, 0, 90), Step(True, 0, 1)))


def test_of_a_blob_that_the_edge_makes_the_new_bytes_travel() -> None:
    """Each file from the folder that it lies in; what is saved is known."""
    cargo = Cargo.of({BLOB: 0, OTHER: 20, FRESH: 4}, {BLOB, OTHER}, SERVED, [DELTA])

    assert cargo.lacking == {BLOB, OTHER}
    assert cargo.travelling == {OTHER: 20, FRESH: 4}
    assert (cargo.planned_bytes, cargo.passing_bytes, cargo.saved_bytes) == (30 + 5, 9, 91)
    assert (cargo.source(FRESH), cargo.source(OTHER), cargo.sources) == (MADE, SERVED, (SERVED, MADE))


def test_what_has_arrived_in_part_or_whole_is_not_made_anew() -> None:
    """It goes on as it began; its delta does not travel."""
    begun = Cargo.of({BLOB: 50, FRESH: 0}, {BLOB}, SERVED, [DELTA])
    adopted = Cargo.of({FRESH: 0}, {BLOB}, SERVED, [DELTA])

    assert (begun.travelling, begun.deltas) == ({BLOB: 50}, ())
    assert (adopted.travelling, adopted.lacking) == ({}, frozenset())


def test_new_bytes_that_are_all_there_do_not_travel_again() -> None:
    """After a break between the last byte and the patch, the patch is all that is left; so is it without new bytes."""
    nothing = sha256_blob(b"")
    shorter = Delta(OTHER, BASE, nothing, MADE, (Step(False, 0, 50),))

    assert Cargo.of({BLOB: 0, FRESH: 9}, {BLOB}, SERVED, [DELTA]).travelling == {}
    assert Cargo.of({OTHER: 0}, {OTHER}, SERVED, [shorter]).travelling == {}
    assert Cargo.of({OTHER: 0}, {OTHER}, SERVED, [shorter]).deltas == (shorter,)


def test_an_empty_file_travels_and_a_whole_one_is_only_adopted() -> None:
    """Of what arrived before nothing is sent, and an empty file has to be made there."""
    empty = sha256_blob(b"")
    cargo = Cargo.of({BLOB: 100, empty: 0}, {BLOB, empty}, SERVED, [])

    assert cargo.travelling == {empty: 0}
    assert cargo.lacking == {BLOB, empty}


def test_what_was_found_wrong_travels_whole() -> None:
    """From the start, and not as a delta again."""
    cargo = Cargo.of({BLOB: 0, OTHER: 20, FRESH: 4}, {BLOB, OTHER}, SERVED, [DELTA]).whole({BLOB})

    assert cargo.travelling == {BLOB: 0}
    assert (cargo.lacking, cargo.deltas, cargo.planned_bytes) == ({BLOB}, (), 100)
