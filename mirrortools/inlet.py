"""Who writes into the folder in which a repository's blobs arrive, and when nobody may.

A file that somebody else holds open can change after it was hashed. So whoever lets an rsync in keeps the inlet open
for as long as that lives, and what arrived is hashed and adopted while it is closed. Only the standard library is
used here, because the receiver runs this module on edges.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from mirrortools.berth import Berth
from mirrortools.errors import Locked
from mirrortools.files import make_folder

# An rsync that has nothing more to say is gone at once; one whose connection was lost, after its own timeout.
_WAIT_S: Final = 20.0
_LOOK_S: Final = 0.02
_MARK_BYTES: Final = 16


class Inlet:
    """The way into the folder of a berth. Raises OSError where its file cannot be written."""

    def __init__(self, berth: Berth) -> None:
        self._repo = berth.repo
        self._path = berth.lock("inlet")

    def enter(self, wait_s: float = _WAIT_S) -> int:
        """Keep the inlet open; gives the descriptor that does, to be inherited by who writes. Raises Locked."""
        file = self._opened()
        try:
            self._take(file, fcntl.LOCK_SH, wait_s, "what arrived is being hashed")
            os.pwrite(file, secrets.token_hex(_MARK_BYTES // 2).encode(), 0)
        except BaseException:
            os.close(file)
            raise
        return file

    @contextmanager
    def closed(self, wait_s: float = _WAIT_S) -> Iterator[str]:
        """Let nobody in while the block runs, after all who were in have gone; gives the mark of the last one.

        Raises Locked when one stays.
        """
        file = self._opened()
        try:
            self._take(file, fcntl.LOCK_EX, wait_s, "an rsync that nobody waits for still writes its files")
            yield os.pread(file, _MARK_BYTES, 0).decode(errors="replace")
        finally:
            os.close(file)

    def mark(self) -> str | None:
        """The mark of who was let in last; None while anybody is in."""
        try:
            with self.closed(wait_s=0) as mark:
                return mark
        except Locked:
            return None

    def _opened(self) -> int:
        make_folder(self._path.parent)
        return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)

    def _take(self, file: int, kind: int, wait_s: float, why: str) -> None:
        until = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(file, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise Locked(f"{self._repo}: {why}; run it again in some minutes") from None
                time.sleep(_LOOK_S)
            else:
                return
