"""The hashes of a blob's segments as a public file, and taking from an older blob the segments that did not change.

The file lies at `blobs/segments/aa/bb/<oid>` beside the blob's own folder. It says which segments are worth fetching
and proves nothing: the SHA-256 of the whole decides.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import xxhash

from mirrortools.model import Blob
from mirrortools.partial import Partial
from mirrortools.segments import Segments

_HASH: Final = re.compile(r"[0-9a-f]{32}\Z")
_FORMAT: Final = "xxh3_128"
_WORTH_IT: Final = 4  # segments: of a smaller blob there is little that could be kept


def segments_path(blob: Blob) -> str:
    """Where the hashes lie below the tree's root, and behind the root of a mirror's URL."""
    return f"blobs/segments/{blob.digest[:2]}/{blob.digest[2:4]}/{blob.digest}"


def write_hashes(public: Path, blob: Blob, segments: Segments, hashes: Mapping[int, str]) -> None:
    """Write the hashes of a whole blob that has several segments.

    The file is a help that may get lost, so that nothing waits for the disk.
    """
    if segments.count < _WORTH_IT:
        return
    path = public / segments_path(blob)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    listed = [hashes[index] for index in range(segments.count)]
    beside.write_text(json.dumps({"size": blob.size, "segment_bytes": segments.length, _FORMAT: listed}))
    beside.replace(path)


def read_hashes(document: Any, segments: Segments) -> list[str] | None:
    """The hashes that a document has for a blob that is cut like `segments`; None when it has others, or none."""
    if not isinstance(document, dict) or not isinstance(document.get(_FORMAT), list):
        return None
    listed: list[str] = document[_FORMAT]
    fits = (document.get("size"), document.get("segment_bytes")) == (segments.size, segments.length)
    if not fits or len(listed) != segments.count or not all(isinstance(h, str) and _HASH.match(h) for h in listed):
        return None
    return listed


def reuse_segments(older: Path, growing: Partial, hashes: list[str]) -> int:
    """Copy from an older file the segments that hash as wanted, at their own places; how many bytes that was."""
    copied = 0
    for index, data in unchanged(older, growing.segments, hashes, _missing(growing)):
        growing.write(growing.segments.bounds(index)[0], memoryview(data))
        growing.finish_segment(index)
        copied += len(data)
    return copied


def unchanged(
    older: Path, segments: Segments, hashes: list[str], indices: Iterable[int]
) -> Iterator[tuple[int, bytes]]:
    """Those of some segments that an older file has at their own places, with their bytes. Raises OSError."""
    with older.open("rb", buffering=0) as file:
        for index in indices:
            start, stop = segments.bounds(index)
            data = os.pread(file.fileno(), stop - start, start)
            if len(data) == stop - start and xxhash.xxh3_128_hexdigest(data) == hashes[index]:
                yield index, data


def _missing(growing: Partial) -> Iterator[int]:
    for span in growing.missing():
        yield from range(span.first, span.stop)
