"""Whether bytes are worth compressing on their way to an edge: a sample of them, and how fast the way is.

Measured with level 1: texts shrink to a quarter or a half, 16 bit weights to 80 %, 32 bit ones to 93 %, what is
compressed already not at all. One core does 170 MB/s of weights, so that a fast way would wait for it.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mirrortools.model import Blob

SAMPLE_BYTES: Final = 1 << 20
# Smaller ones are texts mostly, and are not worth a look each.
SMALL_BYTES: Final = 64 << 10
# A third of what one core compresses: the same core reads and hashes for rsync, and the edge has its own work.
SLOW_BYTES_S: Final = 60_000_000
WORTH: Final = 0.9
_TELLING_BYTES: Final = 1 << 20


@dataclass(slots=True)
class Wire:
    """How fast the way to an edge is, in bytes a second: its limit, or what was seen in this run; None: not known."""

    limit_bytes_s: int | None = None
    seen_bytes_s: float | None = None

    def took(self, count: int, seconds: float) -> None:
        """So many bytes needed so long; few of them tell nothing."""
        if count >= _TELLING_BYTES and seconds > 0:
            self.seen_bytes_s = count / seconds

    @property
    def is_slow(self) -> bool:
        """Whether it is known to be slow enough that compressing does not hold it up."""
        rates = [rate for rate in (self.limit_bytes_s, self.seen_bytes_s) if rate is not None]
        return bool(rates) and min(rates) < SLOW_BYTES_S


def worth_it(blobs: Iterable[Blob], folder: Path) -> set[Blob]:
    """The blobs, which lie below `folder`, that shrink enough. Raises OSError."""
    return {blob for blob in blobs if blob.size < SMALL_BYTES or ratio(folder / blob.path, blob.size) <= WORTH}


def ratio(path: Path, size_bytes: int) -> float:
    """What the middle of a file, where headers do not deceive, shrinks to by the fastest level. Raises OSError."""
    with path.open("rb", buffering=0) as file:
        sample = os.pread(file.fileno(), SAMPLE_BYTES, max(0, (size_bytes - SAMPLE_BYTES) // 2))
    return len(zlib.compress(sample, 1)) / len(sample) if sample else 1.0
