"""Segments of a blob and the journal that remembers which of them are on disk.

Only decisions and formats live here; no file is touched.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from dataclasses import dataclass

SEGMENT_BYTES = 4 << 20
SPAN_SEGMENTS = 16
_MAGIC = "mirrortools-journal 1"
_LINE = re.compile(r"([0-9]{1,12}) ([0-9a-f]{32})\n")


@dataclass(frozen=True, slots=True)
class Segments:
    """How a blob of `size` bytes is cut: every segment has `length` bytes but the last."""

    size: int
    length: int = SEGMENT_BYTES

    @property
    def count(self) -> int:
        """The number of segments; an empty blob has none."""
        return -(-self.size // self.length)

    def bounds(self, index: int) -> tuple[int, int]:
        """The byte range [start, stop) of a segment."""
        return index * self.length, min(self.size, (index + 1) * self.length)

    def index(self, offset: int) -> int:
        """The segment in which a byte lies."""
        return offset // self.length


@dataclass(frozen=True, slots=True)
class Span:
    """A run of segments [first, stop) that one request asks for."""

    first: int
    stop: int


def spans(count: int, done: Container[int], longest: int = SPAN_SEGMENTS) -> Iterator[Span]:
    """The runs of segments that are not `done`, none longer than `longest`."""
    first = 0
    for index in range(count + 1):
        ended = index == count or index in done
        if ended or index - first == longest:
            if index > first:
                yield Span(first, index)
            first = index + 1 if ended else index


def journal_header(segments: Segments) -> str:
    """The journal's first line."""
    return f"{_MAGIC} {segments.size} {segments.length}\n"


def journal_line(index: int, digest: str) -> str:
    """The line that says: this segment is written, and hashes (xxh3_128, hexadecimal) to this."""
    return f"{index} {digest}\n"


def read_journal(text: str, segments: Segments) -> dict[int, str]:
    """The segments that a journal names, with their hashes.

    A journal of another blob size or segment length counts for nothing; a line cut off is passed over.
    """
    header, _, body = text.partition("\n")
    if f"{header}\n" != journal_header(segments):
        return {}
    done: dict[int, str] = {}
    for line in body.splitlines(keepends=True):
        match = _LINE.fullmatch(line)
        if match and int(match[1]) < segments.count:
            done[int(match[1])] = match[2]
    return done
