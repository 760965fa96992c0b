"""From a socket into a file without passing through this process (splice(2)): one copy of the bytes instead of two."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from typing import Final

ROOM_BYTES: Final = 1 << 20
_CANNOT: Final = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS)
_PIECE_BYTES: Final = 1 << 16


class Pipe:
    """What a socket gives is held here until a file takes it. Not thread-safe."""

    def __init__(self) -> None:
        self._out, self._in = os.pipe2(os.O_CLOEXEC)
        with contextlib.suppress(PermissionError):  # a user has a limit for the room in all pipes
            fcntl.fcntl(self._in, fcntl.F_SETPIPE_SZ, ROOM_BYTES)

    def fill(self, socket: int, count: int) -> int:
        """Take up to `count` bytes from a socket; 0 at its end. The pipe must be empty.

        Raises BlockingIOError when none have come yet, and OSError.
        """
        return os.splice(socket, self._in, min(count, ROOM_BYTES))

    def pour(self, file: int, offset: int, count: int) -> bool:
        """Give `count` bytes to an open file at `offset`; False when the file takes them in the ordinary way only.

        They are written in either case. Raises OSError.
        """
        while count:
            try:
                moved = os.splice(self._out, file, count, offset_dst=offset)
            except OSError as error:
                if error.errno not in _CANNOT:
                    raise
                self._write(file, offset, count)
                return False
            offset, count = offset + moved, count - moved
        return True

    def _write(self, file: int, offset: int, count: int) -> None:
        while count:
            piece = memoryview(os.read(self._out, min(count, _PIECE_BYTES)))
            count -= len(piece)
            while piece:
                written = os.pwrite(file, piece, offset)
                piece, offset = piece[written:], offset + written

    def close(self) -> None:
        """Let go of the pipe and what is in it."""
        os.close(self._in)
        os.close(self._out)
