"""Writing into one file past the page cache (O_DIRECT), where the file system and the place in the file allow it.

What a mirror fetches is far more than what its clients read at the moment, so it should not push that out of the cache;
and copying into the cache costs as much processor time as receiving from the network does.
"""

from __future__ import annotations

import errno
import os
from typing import Final

_BLOCK_BYTES: Final = 4096
_CANNOT: Final = (errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM)


class Outlet:
    """A file that is written in large pieces. `close` it. Thread-safe, for pieces that do not overlap."""

    def __init__(self, file: int) -> None:
        """Of an open file, which stays the caller's."""
        self._file = file
        self._direct = _open_directly(file)

    def write(self, offset: int, data: memoryview) -> None:
        """Write all of `data`, which has to be aligned in memory like a page to go directly. Raises OSError."""
        aligned = len(data) - len(data) % _BLOCK_BYTES if offset % _BLOCK_BYTES == 0 and self._direct >= 0 else 0
        written = self._write_directly(offset, data[:aligned])
        write_all(self._file, offset + written, data[written:])

    def _write_directly(self, offset: int, data: memoryview) -> int:
        """How much of `data` was written before the file system had enough of it."""
        written = 0
        while written < len(data) and written % _BLOCK_BYTES == 0:
            try:
                written += os.pwrite(self._direct, data[written:], offset + written)
            except OSError as error:
                if error.errno not in _CANNOT:
                    raise
                break
        return written

    def close(self) -> None:
        """Let go of what was opened here. Closing twice is fine."""
        direct, self._direct = self._direct, -1
        if direct >= 0:
            os.close(direct)


def _open_directly(file: int) -> int:
    """Open an open file once more, for direct writing; -1 where that is not to be had."""
    try:
        return os.open(f"/proc/self/fd/{file}", os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC)
    except OSError:
        return -1


def write_all(file: int, offset: int, data: memoryview) -> None:
    """Write all of `data` to a place in an open file. Raises OSError."""
    while data:
        count = os.pwrite(file, data, offset)
        data, offset = data[count:], offset + count
