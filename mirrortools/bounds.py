"""How much a caller may bring to an edge before it is published: a limit of state/incoming, and what must stay free.

Only the standard library is used here, because the receiver runs this module on edges.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mirrortools.model import Blob
from mirrortools.text import size

# Of a disk's inodes, so many in a hundred stay free.
_FREE_INODES_PERCENT = 2


@dataclass(frozen=True, slots=True)
class Bounds:
    """`incoming_bytes` is the most that state/incoming may hold (None: any), `min_free_bytes` stay free on its disk."""

    incoming_bytes: int | None = None
    min_free_bytes: int = 0

    def room_bytes(self, root: Path) -> int:
        """How much more may come to `root`; not below 0. Raises OSError."""
        disk = os.statvfs(root)
        room_bytes = disk.f_bavail * disk.f_frsize - self.min_free_bytes
        if self.incoming_bytes is not None:
            room_bytes = min(room_bytes, self.incoming_bytes - held_bytes(root))
        return max(0, room_bytes)

    def is_crowded(self, root: Path, blobs: Iterable[Blob]) -> bool:
        """Whether blobs could come if nothing else lay in incoming, but cannot now. Raises OSError."""
        needed_bytes = sum(blob.size for blob in blobs)
        if self.incoming_bytes is None or needed_bytes > self.incoming_bytes:
            return False
        return held_bytes(root) + needed_bytes > self.incoming_bytes

    def objection(self, root: Path, more_bytes: int = 0) -> str | None:
        """Why `more_bytes` may not come to `root`, in the system's words and ours; None: they may. Raises OSError."""
        incoming, disk = root / "state" / "incoming", os.statvfs(root)
        free_bytes = disk.f_bavail * disk.f_frsize
        if free_bytes < self.min_free_bytes + more_bytes:
            return (
                f"{incoming}: No space left on device: {size(free_bytes)} are free and "
                f"{size(self.min_free_bytes)} are kept free; free some space there"
            )
        if self.min_free_bytes and disk.f_favail * 100 < disk.f_files * _FREE_INODES_PERCENT:
            return f"{incoming}: No space left on device: {disk.f_favail:,} of {disk.f_files:,} inodes are free"
        if self.incoming_bytes is not None and (held := held_bytes(root)) + more_bytes > self.incoming_bytes:
            return (
                f"{incoming}: Disk quota exceeded: it holds {size(held)} and may hold {size(self.incoming_bytes)} "
                "(incoming_limit); raise the limit, or look who filled it"
            )
        return None


def held_bytes(root: Path) -> int:
    """How much lies in the folders of state/incoming. Raises OSError."""
    return _below(str(root / "state" / "incoming"))


def _below(folder: str) -> int:
    """The sizes of the files below `folder`; what is removed meanwhile counts nothing."""
    found = 0
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                found += _size(entry)
    except FileNotFoundError:
        return found
    return found


def _size(entry: os.DirEntry[str]) -> int:
    try:
        if entry.is_dir(follow_symlinks=False):
            return _below(entry.path)
        status = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0
