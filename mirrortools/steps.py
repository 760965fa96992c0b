"""The way from an older file to a newer one: pieces that both have, at the same place or another, and what is new.

Pieces are compared byte for byte. Where the files go on being the same, that is done ahead of the walk, in larger
windows and by several threads, as a disk gives more when more is asked of it at once.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections import deque
from collections.abc import Container, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Final

from mirrortools.errors import StoreError
from mirrortools.files import are_same
from mirrortools.segments import SEGMENT_BYTES
from mirrortools.spring import MARGIN_BYTES, Spring

PIECE_BYTES: Final = 64 << 10
# A multiple of a piece, and a segment is a multiple of it.
_WINDOW_BYTES: Final = 1 << 20
_WINDOWS_AHEAD: Final = 12
_THREADS: Final = 6
_SEARCH_AFTER: Final = 8
_MOST_BETWEEN_SEARCHES: Final = 512
_NEEDLE_BYTES: Final = 4 << 10
_MOST_AROUND_BYTES: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class Step:
    """So many bytes of the newer file, from `offset` of the older one, or of the new bytes when `is_new`."""

    is_new: bool
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Pair:
    """Two open files and their sizes."""

    older: int
    newer: int
    older_bytes: int
    newer_bytes: int


def find_steps(pair: Pair, equal: Container[int]) -> Iterator[Step]:
    """The steps from the older file to the newer, in their order; `is_new` ones name places of the newer file.

    `equal` are segments that are known to be the same at the same place. Raises StoreError, OSError.
    """
    with closing(_Ahead(pair)) as ahead:
        walk = _Walk(pair, equal, ahead)
        while walk.offset < pair.newer_bytes:
            yield walk.step()


def merged(steps: Iterable[Step]) -> Iterator[Step]:
    """The same steps, with those that follow each other in one."""
    last: Step | None = None
    for step in steps:
        if last and last.is_new == step.is_new and last.offset + last.length == step.offset:
            last = Step(last.is_new, last.offset, last.length + step.length)
        else:
            if last:
                yield last
            last = step
    if last:
        yield last


@dataclass(slots=True)
class _Walk:
    """Where in the newer file the walk is, and how much further on that stands than in the older one: `shift`."""

    pair: Pair
    equal: Container[int]
    ahead: _Ahead
    offset: int = 0
    shift: int = 0
    missed: int = 0
    search_at: int = _SEARCH_AFTER
    careful_until: int = 0

    def step(self) -> Step:
        """The next step: of a segment, a window or a piece."""
        if self._is_equal_segment():
            return self._same(SEGMENT_BYTES)
        if not self.missed and self.offset >= self.careful_until:
            if count := self.ahead.same_bytes(self.offset, self.shift, self._limit()):
                return self._same(count)
            self.careful_until = self.offset + _WINDOW_BYTES
        return self._piece()

    def _is_equal_segment(self) -> bool:
        return self.shift == 0 and self.offset % SEGMENT_BYTES == 0 and self.offset // SEGMENT_BYTES in self.equal

    def _limit(self) -> int:
        """How far to look ahead: to the end of either file, or to where a segment may be known to be the same."""
        end = min(self.pair.newer_bytes, self.pair.older_bytes + self.shift)
        return end if self.shift else min(end, (self.offset // SEGMENT_BYTES + 1) * SEGMENT_BYTES)

    def _piece(self) -> Step:
        count = min(PIECE_BYTES, self.pair.newer_bytes - self.offset)
        piece = os.pread(self.pair.newer, count, self.offset)
        if not piece:
            raise StoreError(
                f"a blob of {self.pair.newer_bytes} bytes ends after {self.offset}; `mirrortool check` finds which"
            )
        if self._is_there(piece):
            return self._same(len(piece))
        self.missed += 1
        if self.missed >= self.search_at and self._has_found(piece):
            return self._piece()
        self.offset += len(piece)
        return Step(True, self.offset - len(piece), len(piece))

    def _is_there(self, piece: bytes) -> bool:
        place = self.offset - self.shift
        is_inside = 0 <= place <= self.pair.older_bytes - len(piece)
        return is_inside and os.pread(self.pair.older, len(piece), place) == piece

    def _same(self, count: int) -> Step:
        step = Step(False, self.offset - self.shift, count)
        self.offset += count
        self.missed, self.search_at = 0, _SEARCH_AFTER
        return step

    def _has_found(self, piece: bytes) -> bool:
        """Look for the piece near its place; if it is there, go on from there, else search again later."""
        # What was put in is as long as what was missed; what was taken out costs as much as it was long.
        around_bytes = min(self.missed * PIECE_BYTES, _MOST_AROUND_BYTES)
        found = _search(self.pair, piece[:_NEEDLE_BYTES], self.offset - self.shift, around_bytes)
        if found is None:
            self.search_at = self.missed + min(self.search_at, _MOST_BETWEEN_SEARCHES)
            return False
        self.shift = self.offset - found
        self.missed, self.search_at, self.careful_until = 0, _SEARCH_AFTER, 0
        return True


def _search(pair: Pair, needle: bytes, place: int, around_bytes: int) -> int | None:
    """Where in the older file, near a place, some bytes stand."""
    if len(needle) < _NEEDLE_BYTES or needle.count(needle[:1]) == len(needle):
        return None  # nothing tells one run of equal bytes from another
    first = max(0, place - around_bytes)
    found = os.pread(pair.older, min(2 * around_bytes, max(0, pair.older_bytes - first)), first).find(needle)
    return None if found < 0 else first + found


class _Buffers(threading.local):
    """A thread's own, aligned like pages."""

    def __init__(self) -> None:
        size = _WINDOW_BYTES + MARGIN_BYTES
        self.older, self.newer = memoryview(mmap.mmap(-1, size)), memoryview(mmap.mmap(-1, size))


@dataclass(frozen=True, slots=True)
class _Window:
    offset: int
    shift: int
    count: int
    is_same: Future[bool]


class _Ahead:
    """Compares windows before the walk comes to them. `close` it."""

    def __init__(self, pair: Pair) -> None:
        self._older, self._newer = Spring(pair.older), Spring(pair.newer)
        self._windows: deque[_Window] = deque()
        self._buffers = _Buffers()
        self._threads = ThreadPoolExecutor(_THREADS, "compare")

    def same_bytes(self, offset: int, shift: int, end: int) -> int:
        """So many bytes from `offset` on are the same in both files; 0 when the next window is not.

        What follows, up to `end`, is compared meanwhile.
        """
        if self._windows and (self._windows[0].offset, self._windows[0].shift) != (offset, shift):
            self._forget()
        at = self._windows[-1].offset + self._windows[-1].count if self._windows else offset
        while shift <= at < end and len(self._windows) < _WINDOWS_AHEAD:
            count = min(_WINDOW_BYTES, end - at)
            self._windows.append(_Window(at, shift, count, self._threads.submit(self._is_same, at, shift, count)))
            at += count
        if not self._windows:
            return 0
        window = self._windows.popleft()
        return window.count if window.is_same.result() else 0

    def close(self) -> None:
        """End what is being compared."""
        self._forget()
        self._threads.shutdown()
        self._older.close()
        self._newer.close()

    def _forget(self) -> None:
        for window in self._windows:
            window.is_same.cancel()
        self._windows.clear()

    def _is_same(self, offset: int, shift: int, count: int) -> bool:
        newer = self._newer.read(self._buffers.newer, offset, count)
        older = self._older.read(self._buffers.older, offset - shift, count)
        # At the end of a file that is shorter than its size says the walk looks itself.
        return len(newer) == len(older) == count and are_same(newer, older)
