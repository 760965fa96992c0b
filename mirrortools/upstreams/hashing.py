"""Reading a file of somebody else's once, for its digest and its nature."""

from __future__ import annotations

import hashlib
import os

_CHUNK_BYTES = 1 << 20
_SNIFFED_BYTES = 8000


def sha256_of(file: int) -> tuple[str, bool]:
    """The SHA-256 of an open file, and whether it is binary as git tells it (a NUL near the beginning)."""
    digest = hashlib.sha256()
    buffer = bytearray(_CHUNK_BYTES)
    view = memoryview(buffer)
    offset = os.preadv(file, [buffer], 0)
    digest.update(view[:offset])
    binary = b"\0" in buffer[: min(offset, _SNIFFED_BYTES)]
    while count := os.preadv(file, [buffer], offset):
        digest.update(view[:count])
        offset += count
    return digest.hexdigest(), binary
