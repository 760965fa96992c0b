"""Steps: whatever two files are, they make the newer out of the older, and few bytes are new when few changed."""

from __future__ import annotations

import os
import random
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirrortools.errors import StoreError
from mirrortools.segments import SEGMENT_BYTES
from mirrortools.steps import PIECE_BYTES, Pair, Step, find_steps, merged
from tests.delivery import noise
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
            return list(merged(find_steps(Pair(files[0], files[1], len(older), len(newer)), frozenset(equal))))
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


def test_random_bytes_are_not_searched_for_without_end() -> None:
    """Contents with nothing in common cost a few searches, further and further apart."""
    older, newer = random.Random(1).randbytes(24 * MIB), random.Random(2).randbytes(24 * MIB)

    assert new_bytes(steps_between(older, newer)) == 24 * MIB


@pytest.mark.parametrize("at", [0, MIB // 2 - 1, 3 * MIB + 77])
def test_one_byte_costs_one_piece(at: int) -> None:
    """However large the windows are in which files are compared."""
    older = noise(5 * MIB + 123)
    newer = older[:at] + bytes([older[at] ^ 1]) + older[at + 1 :]
    steps = steps_between(older, newer)

    assert made(older, newer, steps) == newer
    assert new_bytes(steps) == PIECE_BYTES


def test_what_was_taken_out_or_put_in_again_and_again_is_found() -> None:
    """Each shift is found from where the one before has led."""
    older = noise(24 * MIB)
    parts = [older[at + 1000 : at + 3 * MIB] for at in range(0, 24 * MIB, 3 * MIB)]
    newer = b"".join((noise(number * 500, number) + part) for number, part in enumerate(parts))
    steps = steps_between(older, newer)

    assert made(older, newer, steps) == newer
    assert new_bytes(steps) < 8 * (MIB // 2 + 3 * PIECE_BYTES)


@pytest.mark.parametrize("size", [0, 100, MIB])
def test_a_file_that_is_shorter_than_its_size_says_is_an_error(tmp_path: Path, size: int) -> None:
    """The newer one: nothing can be made of it. Of an older one the rest is new."""
    content = noise(2 * MIB)
    (tmp_path / "whole").write_bytes(content)
    (tmp_path / "short").write_bytes(content[:size])
    with (tmp_path / "whole").open("rb") as whole, (tmp_path / "short").open("rb") as short:
        steps = list(find_steps(Pair(short.fileno(), whole.fileno(), len(content), len(content)), ()))
        with pytest.raises(StoreError, match="mirrortool check"):
            list(find_steps(Pair(whole.fileno(), short.fileno(), len(content), len(content)), ()))

    assert sum(step.length for step in steps) == len(content)
    assert sum(step.length for step in steps if not step.is_new) <= size
