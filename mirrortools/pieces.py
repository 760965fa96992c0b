"""SHA-256 of the pieces of large blobs, for clients that fetch one from several mirrors and must know which one lied.

The file lies at `blobs/pieces/aa/bb/<oid>` beside the blob's own folder. It is made off the hot path, where the blob is
served from. Only the standard library is used here, because the receiver runs this module on edges.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mirrortools.errors import IntegrityError
from mirrortools.files import make_folder, write_json
from mirrortools.model import Blob

# A blob of one piece needs none: the SHA-256 of the whole says as much.
LEAST_PIECE_BYTES: Final = 4 << 20
_MOST_PIECES: Final = 2048
_BUFFER_BYTES: Final = 1 << 20
_HASH: Final = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True, slots=True)
class Pieces:
    """The SHA-256 of each `length` bytes of a blob, in their order; the last piece may be shorter."""

    length: int
    hashes: tuple[str, ...]


def needs_pieces(blob: Blob) -> bool:
    """Whether a blob is so large that its pieces are worth hashing."""
    return blob.algorithm == "sha256" and blob.size > LEAST_PIECE_BYTES


def piece_length(size_bytes: int) -> int:
    """A power of two, so that a blob of `size_bytes` has 2048 pieces at most where that is possible with 4 MiB."""
    length = LEAST_PIECE_BYTES
    while length * _MOST_PIECES < size_bytes:
        length *= 2
    return length


def pieces_path(blob: Blob) -> str:
    """Where the hashes lie below the tree's root."""
    return f"blobs/pieces/{blob.digest[:2]}/{blob.digest[2:4]}/{blob.digest}"


def read_pieces(public: Path, blob: Blob) -> Pieces | None:
    """The pieces that were hashed of a blob; None when they were not, or are not of this blob."""
    try:
        document = json.loads((public / pieces_path(blob)).read_bytes())
    except (OSError, ValueError):
        return None
    return _parsed(document, blob)


def write_pieces_of(public: Path, blob: Blob) -> None:
    """Hash a blob's pieces, and the whole, which must be what its name says.

    Raises IntegrityError when it is not, OSError.
    """
    pieces, whole = hash_pieces(public / blob.path, piece_length(blob.size))
    if whole != blob.digest:
        raise IntegrityError(
            f"{public / blob.path}: expected sha256 {blob.digest}, got {whole}; run `mirrortool check`"
        )
    path = public / pieces_path(blob)
    make_folder(path.parent)
    write_json(path, {"size": blob.size, "piece_bytes": pieces.length, "sha256": pieces.hashes})


def hash_pieces(path: Path, length: int) -> tuple[Pieces, str]:
    """The pieces of a file, and the SHA-256 of the whole; each byte is read once. Raises OSError."""
    whole, hashes = hashlib.sha256(), []
    view = memoryview(bytearray(min(_BUFFER_BYTES, length)))
    with path.open("rb", buffering=0) as file:
        left = os.fstat(file.fileno()).st_size
        while left > 0:
            piece, end = hashlib.sha256(), max(0, left - length)
            while left > end and (count := file.readinto(view[: min(len(view), left - end)])):
                whole.update(view[:count])
                piece.update(view[:count])
                left -= count
            if left > end:
                raise OSError(0, "became shorter while it was read", str(path))
            hashes.append(piece.hexdigest())
    return Pieces(length, tuple(hashes)), whole.hexdigest()


def _parsed(document: Any, blob: Blob) -> Pieces | None:
    if not isinstance(document, dict) or document.get("size") != blob.size:
        return None
    length, hashes = document.get("piece_bytes"), document.get("sha256")
    if length != piece_length(blob.size) or not isinstance(hashes, list) or len(hashes) != -(-blob.size // length):
        return None
    if not all(isinstance(sha256, str) and _HASH.match(sha256) for sha256 in hashes):
        return None
    return Pieces(length, tuple(hashes))
