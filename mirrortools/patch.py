"""Making a blob on an edge out of an older one that is there and the bytes that are new.

Only the standard library is used here, because the receiver runs this module on edges.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from mirrortools.model import Blob

Step = tuple[bool, int, int]
"""Whether the bytes are new ones, from which offset of their file, and how many."""

_CANNOT: Final = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
_CHUNK_BYTES: Final = 1 << 20


def check_steps(steps: Sequence[Step], blob: Blob, base: Blob, fresh: Blob) -> None:
    """Refuse steps that do not make up the blob out of bytes that there are. Raises ValueError."""
    for is_new, offset, length in steps:
        there = fresh.size if is_new else base.size
        if length <= 0 or not 0 <= offset <= there - length:
            raise ValueError(f"{length} bytes from {offset} of {there}")
    made = sum(length for _, _, length in steps)
    if made != blob.size:
        raise ValueError(f"{made} bytes for a blob of {blob.size}")


def patch(sources: tuple[Path, Path], target: Path, steps: Sequence[Step]) -> None:
    """Write `target` from `sources`, the older file and the one with the new bytes. Raises OSError."""
    with sources[0].open("rb", buffering=0) as older, target.open("xb", buffering=0) as made:
        fresh = os.open(sources[1], os.O_RDONLY | os.O_CLOEXEC) if any(is_new for is_new, _, _ in steps) else -1
        try:
            for is_new, offset, length in steps:
                _copy(fresh if is_new else older.fileno(), made.fileno(), offset, length)
        finally:
            if fresh >= 0:
                os.close(fresh)


def _copy(source: int, target: int, offset: int, count: int) -> None:
    """Copy to where the target ends, inside the kernel where that is possible: some file systems share the blocks."""
    while count:
        try:
            moved = os.copy_file_range(source, target, count, offset_src=offset)
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
            moved = os.write(target, os.pread(source, min(count, _CHUNK_BYTES), offset))
        if not moved:
            raise OSError(errno.EIO, "a file is shorter than it was")
        offset, count = offset + moved, count - moved
