"""Deltas: the new bytes of a blob in a file, the steps that make it out of an older one, and when that pays."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from mirrortools.deltas import Delta, Deltas, equal_segments
from mirrortools.errors import StoreError
from mirrortools.patch import Recipe, fill_from, patch
from mirrortools.segmented import write_hashes
from mirrortools.segments import SEGMENT_BYTES, Segments
from mirrortools.store import Store
from tests.delivery import noise, put, sha256_blob

MIB = 1 << 20


def test_segments_are_equal_when_their_hashes_are() -> None:
    """At the same place; the last one may be shorter, and does not count."""
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
    recipe = Recipe.from_json(delta.to_json())
    fresh = delta.folder / delta.fresh.path
    digest = delta.blob.new_hash()
    with fresh.open("rb") as file:
        fill = partial(fill_from, file.fileno())
        patch(Store(tmp_path).path(recipe.base), fill, tmp_path / "made", recipe.steps, digest)
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


def test_what_was_compared_is_not_compared_again(tmp_path: Path) -> None:
    """By a later run: the older blob need not even be here any more. What somebody doubts is found anew."""
    older = noise(3 * MIB)
    newer = noise(1000, 5) + older
    delta, deltas = delta_of(tmp_path, older, newer)
    deltas.close()
    Store(tmp_path).path(sha256_blob(older)).unlink()
    later = Deltas(tmp_path)
    again = later.between(sha256_blob(older), sha256_blob(newer))
    compared = later.compared(sha256_blob(older), sha256_blob(newer))

    assert delta
    assert again
    assert compared
    assert (again.fresh, again.steps) == (delta.fresh, delta.steps)
    assert compared.shifted
    later.doubt(again)
    assert later.between(sha256_blob(older), sha256_blob(newer)) is None


def test_a_run_that_is_ended_compares_no_more(tmp_path: Path) -> None:
    """Nobody waits for two large blobs, and what was half compared is not kept."""
    older, newer = noise(3 * MIB), noise(1000, 5) + noise(3 * MIB)
    for content in (older, newer):
        put(tmp_path, sha256_blob(content), content)
    ended, later = Deltas(tmp_path), Deltas(tmp_path)
    ended.stop()
    with pytest.raises(StoreError, match="the run was ended"):
        ended.between(sha256_blob(older), sha256_blob(newer))
    delta = later.between(sha256_blob(older), sha256_blob(newer))
    later.close()

    assert delta
    assert delta.fresh.size < MIB
