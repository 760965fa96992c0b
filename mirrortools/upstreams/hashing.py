"""Reading a file of somebody else's once, for its digest and its nature."""

from __future__ import annotations

import hashlib
from pathlib import Path

_CHUNK_BYTES = 1 << 20
_SNIFFED_BYTES = 8000


def sha256_of(path: Path) -> tuple[str, bool]:
    """The SHA-256 of a file, and whether it is binary as git tells it (a NUL near the beginning)."""
    digest = hashlib.sha256()
    buffer = bytearray(_CHUNK_BYTES)
    view = memoryview(buffer)
    with path.open("rb", buffering=0) as file:
        count = file.readinto(buffer)
        binary = b"\0" in buffer[: min(count, _SNIFFED_BYTES)]
        while count:
            digest.update(view[:count])
            count = file.readinto(buffer)
    return digest.hexdigest(), binary
