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
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mirrortools.model import Blob
from mirrortools.outlet import Outlet

Step = tuple[bool, int, int]
"""Whether the bytes are new ones, from which offset of their file, and how many."""

PIECE_BYTES: Final = 4 << 20
_BUFFERS: Final = 3
_BLOCK_BYTES: Final = 4096
# ioctl_ficlonerange(2): an open file, an offset there, a length, an offset here.
_FICLONERANGE: Final = 0x4020940D
_RANGE: Final = struct.Struct("=qQQQ")


def check_steps(steps: Sequence[Step], blob: Blob, base: Blob, fresh: Blob) -> None:
    """Refuse steps that do not make up the blob out of bytes that there are. Raises ValueError."""
    for is_new, offset, length in steps:
        there = fresh.size if is_new else base.size
        if length <= 0 or not 0 <= offset <= there - length:
            raise ValueError(f"{length} bytes from {offset} of {there}")
    made = sum(length for _, _, length in steps)
    if made != blob.size:
        raise ValueError(f"{made} bytes for a blob of {blob.size}")


def patch(sources: tuple[Path, Path], target: Path, steps: Sequence[Step], digest: hashlib._Hash) -> None:
    """Write `target` from `sources`, the older file and the one with the new bytes, and hash what is written.

    It passes through memory once, a few MiB at a time: one thread reads, one hashes, one writes. Raises OSError.
    """
    with ExitStack() as open_files:
        older = open_files.enter_context(sources[0].open("rb", buffering=0)).fileno()
        is_needed = any(is_new for is_new, _, _ in steps)
        fresh = open_files.enter_context(sources[1].open("rb", buffering=0)).fileno() if is_needed else -1
        made = open_files.enter_context(target.open("xb", buffering=0))
        writer = _Writer(made.fileno(), older)
        open_files.callback(writer.close)
        pieces = _pieces([(fresh if is_new else older, offset, length) for is_new, offset, length in steps])
        _pass_on(pieces, writer, digest)


def _pass_on(pieces: Iterable[_Piece], writer: _Writer, digest: hashlib._Hash) -> None:
    buffers = [memoryview(mmap.mmap(-1, PIECE_BYTES)) for _ in range(_BUFFERS)]
    busy: deque[tuple[Future[None], Future[None]]] = deque()
    with ThreadPoolExecutor(1, "hash") as hashing, ThreadPoolExecutor(1, "write") as writing:
        for number, piece in enumerate(pieces):
            if len(busy) == len(buffers):
                _ended(busy.popleft())
            data = buffers[number % len(buffers)][: piece.size]
            piece.read_into(data)
            busy.append((hashing.submit(digest.update, data), writing.submit(writer.write, piece, data)))
        for each in busy:
            _ended(each)


def _ended(work: Iterable[Future[None]]) -> None:
    for future in work:
        future.result()


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part of the target at `offset`, and where it comes from: file, offset, length."""

    offset: int
    parts: tuple[tuple[int, int, int], ...]

    @property
    def size(self) -> int:
        return sum(length for _, _, length in self.parts)

    def read_into(self, data: memoryview) -> None:
        """Fill `data`. Raises OSError."""
        for file, offset, length in self.parts:
            rest = data[:length]
            while rest:
                count = os.preadv(file, [rest], offset)
                if not count:
                    raise OSError(errno.EIO, "a file is shorter than it was")
                rest, offset = rest[count:], offset + count
            data = data[length:]


def _pieces(parts: Iterable[tuple[int, int, int]]) -> Iterator[_Piece]:
    """What the parts make up, cut at multiples of `PIECE_BYTES`."""
    start, room = 0, PIECE_BYTES
    found: list[tuple[int, int, int]] = []
    for file, offset, length in parts:
        while length:
            count = min(length, room)
            found.append((file, offset, count))
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
        file, offset, length = piece.parts[0]
        if not self._shares or len(piece.parts) > 1 or file != self._older or (offset | length) % _BLOCK_BYTES:
            return False
        try:
            fcntl.ioctl(self._file, _FICLONERANGE, _RANGE.pack(file, offset, length, piece.offset))
        except OSError:
            self._shares = False
        return self._shares
