"""Reading one file in large pieces: through the page cache when it lies there, else past it (O_DIRECT).

A large blob that is read once would push out of the cache what clients read at the moment; and where it is not in the
cache, filling it costs as much processor time as comparing or hashing the bytes does. Only the standard library is used
here, because the receiver runs this module on edges.
"""

from __future__ import annotations

import errno
import os
from typing import Final

BLOCK_BYTES: Final = 4096
# What a buffer needs beyond the bytes that are asked for: whole blocks are read.
MARGIN_BYTES: Final = 2 * BLOCK_BYTES
_CANNOT: Final = (errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM)
# So many places of a file tell whether it lies in the cache: when so many of them do.
_PLACES: Final = 32
_MOST: Final = 24


class Spring:
    """A file that is read in large pieces. `close` it. Thread-safe, for buffers that are one thread's own."""

    def __init__(self, file: int) -> None:
        """Of an open file, which stays the caller's."""
        self._file = file
        self._direct = -1 if _is_cached(file) else _open_directly(file)

    def read(self, buffer: memoryview, offset: int, count: int) -> memoryview:
        """So many bytes from `offset` on, or up to the file's end, as a part of `buffer`. Raises OSError.

        The buffer has to be aligned like a page, and larger than `count` by MARGIN_BYTES.
        """
        if self._direct < 0:
            return _read(self._file, buffer, offset, count)
        return self._read_directly(buffer, offset, count)

    def _read_directly(self, buffer: memoryview, offset: int, count: int) -> memoryview:
        start = offset - offset % BLOCK_BYTES
        stop = -(-(offset + count) // BLOCK_BYTES) * BLOCK_BYTES
        try:
            got = os.preadv(self._direct, [buffer[: stop - start]], start)
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
            return _read(self._file, buffer, offset, count)
        return buffer[offset - start : min(got, offset - start + count)]

    def close(self) -> None:
        """Let go of what was opened here. Closing twice is fine."""
        direct, self._direct = self._direct, -1
        if direct >= 0:
            os.close(direct)


def _read(file: int, buffer: memoryview, offset: int, count: int) -> memoryview:
    return buffer[: os.preadv(file, [buffer[:count]], offset)]


def _is_cached(file: int) -> bool:
    """Whether most of a file lies in the page cache, or nobody can tell (preadv2(2), RWF_NOWAIT)."""
    size, buffer = os.fstat(file).st_size, bytearray(1)
    cached = 0
    for number in range(_PLACES):
        try:
            cached += os.preadv(file, [buffer], size * number // _PLACES, os.RWF_NOWAIT)
        except BlockingIOError:
            continue
        except OSError:
            return True
    return cached >= _MOST


def _open_directly(file: int) -> int:
    """Open an open file once more, for direct reading; -1 where that is not to be had."""
    try:
        return os.open(f"/proc/self/fd/{file}", os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
    except OSError:
        return -1
