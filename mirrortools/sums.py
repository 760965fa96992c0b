"""The SHA-256 of every file of a revision, as `sha256sum --check` reads it.

Only the standard library is used here, because the receiver runs this module on edges: each host hashes what it holds
itself, so that what git holds, which is named by SHA-1, need not be taken on trust.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from mirrortools.model import Blob, Manifest

SUMS: Final = "SHA256SUMS"
_CHUNK_BYTES: Final = 1 << 20


def sha256_sums(manifest: Manifest, public: Path) -> Iterator[tuple[str, str]]:
    """Path and SHA-256 of each file, in the order of the paths. Raises OSError when a blob cannot be read."""
    return ((path, sha256_of(manifest.files[path].blob, public)) for path in sorted(manifest.files))


def sha256_of(blob: Blob, public: Path) -> str:
    """The SHA-256 of a blob below `public`, which is read when it has another name. Raises OSError."""
    if blob.algorithm == "sha256":
        return blob.digest
    # Tens of thousands of small files: a file object would cost more than the hash.
    descriptor = os.open(f"{public}/{blob.path}", os.O_RDONLY)
    try:
        digest = hashlib.sha256()
        while data := os.read(descriptor, min(blob.size + 1, _CHUNK_BYTES)):
            digest.update(data)
    finally:
        os.close(descriptor)
    return digest.hexdigest()


def sums_line(path: str, sha256: str) -> str:
    """One line of the file. Names that it would have to escape (backslash, line break) are refused by `check_path`."""
    return f"{sha256}  {path}\n"


def parse_sums(text: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Path and SHA-256 of each line that `sums_line` made."""
    return ((line[66:-1], line[:64]) for line in text)
