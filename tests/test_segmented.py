"""Hashes of segments as a public file: what is read from strangers, and what is taken from an older blob."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrortools.partial import Partial
from mirrortools.segmented import read_hashes, reuse_segments, segments_path, write_hashes
from mirrortools.segments import Segments
from tests.delivery import noise, sha256_blob

LENGTH = 64
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=15), inner, max_size=3),
)


def hashes_of(root: Path, content: bytes) -> Any:
    """The public file of a blob's segments, as a stranger reads it."""
    blob = sha256_blob(content)
    growing = Partial(root, blob, LENGTH)
    try:
        growing.write(0, memoryview(content))
        hashes = {i: growing._segment_digest(*growing.segments.bounds(i)) for i in range(growing.segments.count)}
    finally:
        growing.remove()
    write_hashes(root, blob, Segments(len(content), LENGTH), hashes)
    return json.loads((root / segments_path(blob)).read_text())


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    """For a blob of that size, cut in that way, and for no other."""
    document = hashes_of(tmp_path, noise(1000))

    assert len(read_hashes(document, Segments(1000, LENGTH)) or []) == 16
    assert read_hashes(document, Segments(999, LENGTH)) is None
    assert read_hashes(document, Segments(1000, LENGTH * 2)) is None


@given(json_values, st.dictionaries(st.sampled_from(["size", "segment_bytes", "xxh3_128"]), json_values))
def test_anything_else_counts_for_nothing(value: Any, document: dict[str, Any]) -> None:
    """A stranger may answer whatever it likes."""
    for answer in (value, document, {**document, "size": 100, "segment_bytes": LENGTH}):
        assert read_hashes(answer, Segments(100, LENGTH)) is None


@given(st.sets(st.integers(0, 15)), st.integers(0, 1000))
def test_the_segments_that_did_not_change_are_taken(
    tmp_path_factory: pytest.TempPathFactory, changed: set[int], kept: int
) -> None:
    """Also when the older file is shorter."""
    root = tmp_path_factory.mktemp("reuse")
    new = noise(1000, 1)
    old = bytearray(new)
    for index in changed:
        old[index * LENGTH] ^= 1
    (root / "old").write_bytes(old[:kept])
    hashes = read_hashes(hashes_of(root, new), Segments(len(new), LENGTH))
    assert hashes is not None
    growing = Partial(root, sha256_blob(new), LENGTH)
    try:
        copied = reuse_segments(root / "old", growing, hashes)
        missing = {index for span in growing.missing() for index in range(span.first, span.stop)}
    finally:
        growing.remove()

    bounds = [Segments(len(new), LENGTH).bounds(index) for index in range(16)]
    gone = {index for index, (_, stop) in enumerate(bounds) if stop > kept}
    assert missing == changed | gone
    assert copied == sum(stop - start for index, (start, stop) in enumerate(bounds) if index not in missing)
