"""Deltas: whatever two blobs are, the steps make the newer out of the older, and few bytes are new when few changed."""

from __future__ import annotations

import os
import random
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirrortools.deltas import PIECE_BYTES, Delta, Deltas, Step, equal_segments, find_steps, merged
from mirrortools.patch import check_steps, patch
from mirrortools.segmented import write_hashes
from mirrortools.segments import SEGMENT_BYTES, Segments
from mirrortools.store import Store
from tests.delivery import noise, put, sha256_blob
from tests.strategies import trials

MIB = 1 << 20


def steps_between(older: bytes, newer: bytes, equal: Iterable[int] = ()) -> list[Step]:
    with TemporaryDirectory() as folder:
        paths = [Path(folder, "older"), Path(folder, "newer")]
        files = []
        try:
            for path, content in zip(paths, (older, newer), strict=True):
                path.write_bytes(content)
                files.append(os.open(path, os.O_RDONLY))
            return list(merged(find_steps(files[0], files[1], len(older), len(newer), frozenset(equal))))
        finally:
            for file in files:
                os.close(file)


def made(older: bytes, newer: bytes, steps: list[Step]) -> bytes:
    """What the steps make, where new bytes are taken from their place in the newer one."""
    return b"".join((newer if s.is_new else older)[s.offset : s.offset + s.length] for s in steps)


def new_bytes(steps: list[Step]) -> int:
    return sum(step.length for step in steps if step.is_new)


@st.composite
def edited(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Content, and the same after a few changes in place, insertions and deletions."""
    older = noise(draw(st.integers(0, 6 * MIB)), draw(st.integers(0, 5)))
    newer = bytearray(older)
    for seed in range(draw(st.integers(0, 4))):
        at, length = draw(st.integers(0, len(newer))), draw(st.integers(0, 3000))
        put_in = noise(draw(st.sampled_from([0, length, 1000])), 100 + seed)
        newer[at : at + length] = put_in
    return older, bytes(newer)


@settings(trials(40))
@given(edited())
def test_the_steps_make_the_newer_one_and_save_what_is_the_same(contents: tuple[bytes, bytes]) -> None:
    """Each edit costs the pieces that it touches, and half a MiB until a shift is found."""
    older, newer = contents
    steps = steps_between(older, newer)

    assert made(older, newer, steps) == newer
    assert new_bytes(steps) <= 4 * (3000 + 11 * PIECE_BYTES)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300), st.binary(max_size=300))
def test_contents_that_have_nothing_in_common_are_made_too(older: bytes, newer: bytes) -> None:
    """Short, empty, shrunk, grown."""
    assert made(older, newer, steps_between(older, newer)) == newer


def test_a_twentieth_that_changed_in_place_is_all_that_is_new() -> None:
    """Pieces of 64 KiB, not whole segments."""
    older = noise(32 * MIB)
    newer = bytearray(older)
    for at in range(0, 32 * MIB, 4 * MIB):
        newer[at + 100_000 : at + 100_000 + 150_000] = noise(150_000, at)
    steps = steps_between(older, bytes(newer))

    assert made(older, bytes(newer), steps) == newer
    assert new_bytes(steps) <= 8 * (150_000 + 2 * PIECE_BYTES)


@pytest.mark.parametrize("at", [0, 10_000_000])
def test_what_was_shifted_is_found(at: int) -> None:
    """A thousand bytes put in at the front or in the middle cost little more than a search."""
    older = noise(24 * MIB)
    newer = older[:at] + noise(1000, 7) + older[at:]
    steps = steps_between(older, newer)

    assert made(older, newer, steps) == newer
    assert new_bytes(steps) < MIB


def test_bytes_that_are_all_the_same_are_no_landmark() -> None:
    """Zeros stand everywhere: they are compared in place, and not searched for."""
    older, newer = bytes(3 * MIB), b"x" * MIB + bytes(2 * MIB)
    steps = steps_between(older, newer)

    assert made(older, newer, steps) == newer
    assert new_bytes(steps) == MIB


def test_segments_that_hash_the_same_are_not_read() -> None:
    """What their hashes say is taken for granted here, because the edge hashes the whole."""
    older, newer = noise(2 * SEGMENT_BYTES + 5, 1), noise(2 * SEGMENT_BYTES + 5, 2)
    steps = steps_between(older, newer, {1})

    assert Step(False, SEGMENT_BYTES, SEGMENT_BYTES) in steps
    assert equal_segments(["a", "b", "c"], ["a", "x", "c", "d"]) == {0}


def delta_of(root: Path, older: bytes, newer: bytes) -> tuple[Delta | None, Deltas]:
    for content in (older, newer):
        put(root, sha256_blob(content), content)
    deltas = Deltas(root)
    return deltas.between(sha256_blob(older), sha256_blob(newer)), deltas


def test_a_delta_is_the_new_bytes_in_a_file_and_the_way_back(tmp_path: Path) -> None:
    """What `patch` makes of it on the other side hashes to the blob's name; closing leaves nothing."""
    older = noise(9 * MIB)
    newer = older[: 2 * MIB] + noise(1000, 5) + older[2 * MIB : 8 * MIB] + noise(300_000, 6)
    delta, deltas = delta_of(tmp_path, older, newer)
    assert delta
    steps = [(step.is_new, step.offset, step.length) for step in delta.steps]
    check_steps(steps, delta.blob, delta.base, delta.fresh)
    fresh = delta.folder / delta.fresh.path
    digest = delta.blob.new_hash()
    patch((Store(tmp_path).path(delta.base), fresh), tmp_path / "made", steps, digest)
    size = fresh.stat().st_size
    deltas.close()

    assert (tmp_path / "made").read_bytes() == newer
    assert size == delta.fresh.size < 2 * MIB
    assert delta.saved_bytes == len(newer) - size
    assert list((tmp_path / "state" / "stage").iterdir()) == []


def test_what_does_not_pay_travels_whole(tmp_path: Path) -> None:
    """Other content, little content, an older blob that is gone."""
    other, _ = delta_of(tmp_path, noise(2 * MIB, 1), noise(2 * MIB, 2))
    small, _ = delta_of(tmp_path, noise(1000), noise(1001))
    gone = Deltas(tmp_path).between(sha256_blob(b"never here" * MIB), sha256_blob(noise(2 * MIB, 2)))

    assert (other, small, gone) == (None, None, None)


def test_a_file_that_was_renamed_is_known_by_its_segments(tmp_path: Path) -> None:
    """The one with most segments in common, if that is a quarter at least."""
    contents = [noise(4 * SEGMENT_BYTES, seed) for seed in (1, 2)]
    newer = contents[1][: 3 * SEGMENT_BYTES] + noise(SEGMENT_BYTES, 9)
    blobs = [sha256_blob(content) for content in (*contents, newer)]
    for number, blob in enumerate(blobs):
        letters = {0: "aaaa", 1: "bbbb", 2: "bbbc"}[number]
        hashes = dict(enumerate(letter * 32 for letter in letters))
        write_hashes(tmp_path / "public", blob, Segments(blob.size), {i: f"{h[:31]}{i % 3}" for i, h in hashes.items()})
    deltas = Deltas(tmp_path)

    assert deltas.most_alike(blobs[2], blobs[:2]) == blobs[1]
    assert deltas.most_alike(blobs[2], blobs[:1]) is None


@pytest.mark.parametrize(
    "steps",
    [[], [(False, 0, 9)], [(False, 0, 11)], [(False, -1, 10)], [(False, 1, 10)], [(True, 0, 10)], [(False, 0, 0)]],
)
def test_steps_that_do_not_make_up_the_blob_are_refused(steps: list[tuple[bool, int, int]]) -> None:
    """Out of bounds, too few, too many, empty."""
    blob, fresh = sha256_blob(b"0123456789"), sha256_blob(b"abc")
    with pytest.raises(ValueError, match="bytes"):
        check_steps(steps, blob, blob, fresh)


def test_random_bytes_are_not_searched_for_without_end() -> None:
    """Contents with nothing in common cost a few searches, further and further apart."""
    older, newer = random.Random(1).randbytes(24 * MIB), random.Random(2).randbytes(24 * MIB)

    assert new_bytes(steps_between(older, newer)) == 24 * MIB
