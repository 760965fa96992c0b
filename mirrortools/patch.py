"""Making a blob on an edge out of an older one that is there and the bytes that are new.

Only the standard library is used here, because the receiver runs this module on edges.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import mmap
import os
import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mirrortools.model import Blob
from mirrortools.outlet import Outlet

Step = tuple[bool, int, int]
"""Whether the bytes are new ones, from which offset of their file, and how many."""

Fill = Callable[[memoryview, int], None]
"""Fills memory with new bytes from an offset on; waits for them when they are still to come. Raises OSError."""

PIECE_BYTES: Final = 4 << 20
_BUFFERS: Final = 3
_BLOCK_BYTES: Final = 4096
# ioctl_ficlonerange(2): an open file, an offset there, a length, an offset here.
_FICLONERANGE: Final = 0x4020940D
_RANGE: Final = struct.Struct("=qQQQ")


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to make `blob` out of `base`, a blob that is there, and `fresh`, a file of new bytes."""

    blob: Blob
    base: Blob
    fresh: Blob
    steps: Sequence[Step]

    def __post_init__(self) -> None:
        """Refuse steps that do not make up the blob out of bytes that there are. Raises ValueError."""
        for is_new, offset, length in self.steps:
            there = self.fresh.size if is_new else self.base.size
            if length <= 0 or not 0 <= offset <= there - length:
                raise ValueError(f"{length} bytes from {offset} of {there}")
        made = sum(length for _, _, length in self.steps)
        if made != self.blob.size:
            raise ValueError(f"{made} bytes for a blob of {self.blob.size}")

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Recipe:
        """Read it from a request. Raises ValueError, KeyError, TypeError, MirrorError."""
        blob, base, fresh = (_blob(document[name]) for name in ("blob", "base", "fresh"))
        steps = [(bool(is_new), int(offset), int(length)) for is_new, offset, length in document["steps"]]
        return cls(blob, base, fresh, steps)


def _blob(item: Sequence[Any]) -> Blob:
    algorithm, digest, size = item
    return Blob(str(algorithm), str(digest), int(size))


def patch(older: Path, fill: Fill, target: Path, steps: Sequence[Step], digest: hashlib._Hash) -> None:
    """Write `target` from the older file and the new bytes that `fill` gives, and hash what is written.

    It passes through memory once, a few MiB at a time: one thread reads, one hashes, one writes. Raises OSError.
    """
    with ExitStack() as open_files:
        source = open_files.enter_context(older.open("rb", buffering=0)).fileno()
        made = open_files.enter_context(target.open("xb", buffering=0))
        writer = _Writer(made.fileno(), source)
        open_files.callback(writer.close)
        _pass_on(_pieces(steps), source, fill, writer, digest)


def fill_from(file: int, view: memoryview, offset: int) -> None:
    """Fill `view` with bytes of an open file. Raises OSError, also when the file ends before."""
    while view:
        count = os.preadv(file, [view], offset)
        if not count:
            raise OSError(errno.EIO, "a file is shorter than it was")
        view, offset = view[count:], offset + count


def _pass_on(pieces: Iterable[_Piece], older: int, fill: Fill, writer: _Writer, digest: hashlib._Hash) -> None:
    buffers = [memoryview(mmap.mmap(-1, PIECE_BYTES)) for _ in range(_BUFFERS)]
    busy: deque[tuple[Future[None], Future[None]]] = deque()
    with ThreadPoolExecutor(1, "hash") as hashing, ThreadPoolExecutor(1, "write") as writing:
        for number, piece in enumerate(pieces):
            if len(busy) == len(buffers):
                _ended(busy.popleft())
            data = buffers[number % len(buffers)][: piece.size]
            piece.read_into(data, older, fill)
            busy.append((hashing.submit(digest.update, data), writing.submit(writer.write, piece, data)))
        for each in busy:
            _ended(each)


def _ended(work: Iterable[Future[None]]) -> None:
    for future in work:
        future.result()


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part of the target at `offset`, and what it is made of."""

    offset: int
    parts: tuple[Step, ...]

    @property
    def size(self) -> int:
        return sum(length for _, _, length in self.parts)

    def read_into(self, data: memoryview, older: int, fill: Fill) -> None:
        """Fill `data`. Raises OSError."""
        for is_new, offset, length in self.parts:
            if is_new:
                fill(data[:length], offset)
            else:
                fill_from(older, data[:length], offset)
            data = data[length:]


def _pieces(steps: Iterable[Step]) -> Iterator[_Piece]:
    """What the steps make up, cut at multiples of `PIECE_BYTES`."""
    start, room = 0, PIECE_BYTES
    found: list[Step] = []
    for is_new, offset, length in steps:
        while length:
            count = min(length, room)
            found.append((is_new, offset, count))
            offset, length, room = offset + count, length - count, room - count
            if not room:
                yield _Piece(start, tuple(found))
                start, room, found = start + PIECE_BYTES, PIECE_BYTES, []
    if found:
        yield _Piece(start, tuple(found))


class _Writer:
    """Writes pieces; what comes whole from the older file shares its blocks, where the file system can do that."""

    def __init__(self, file: int, older: int) -> None:
        self._file = file
        self._older = older
        self._shares = True
        self._outlet = Outlet(file)

    def write(self, piece: _Piece, data: memoryview) -> None:
        """Put a piece, whose bytes are `data`, into its place. Raises OSError."""
        if not self._is_shared(piece):
            self._outlet.write(piece.offset, data)

    def close(self) -> None:
        """Let go of what was opened here."""
        self._outlet.close()

    def _is_shared(self, piece: _Piece) -> bool:
        is_new, offset, length = piece.parts[0]
        if not self._shares or len(piece.parts) > 1 or is_new or (offset | length) % _BLOCK_BYTES:
            return False
        try:
            fcntl.ioctl(self._file, _FICLONERANGE, _RANGE.pack(self._older, offset, length, piece.offset))
        except OSError:
            self._shares = False
        return self._shares
