"""Hashes of a blob's pieces: what they are, when they are made, and which are believed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from mirrortools.errors import IntegrityError
from mirrortools.model import Blob
from mirrortools.pieces import (
    LEAST_PIECE_BYTES,
    Pieces,
    hash_pieces,
    needs_pieces,
    piece_length,
    pieces_path,
    read_pieces,
    write_pieces_of,
)
from tests.delivery import git_blob, noise, put, sha256_blob

MIB = 1 << 20
CONTENT = noise(9 * MIB + 5)


@pytest.fixture
def blob(tmp_path: Path) -> Blob:
    """A blob of three pieces in the store."""
    put(tmp_path, sha256_blob(CONTENT), CONTENT)
    return sha256_blob(CONTENT)


@pytest.mark.parametrize(
    ("size", "length"),
    [(0, 4 * MIB), (8 << 30, 4 * MIB), ((8 << 30) + 1, 8 * MIB), (100 << 30, 64 * MIB), (1 << 40, 512 * MIB)],
)
def test_a_blob_has_at_most_2048_pieces(size: int, length: int) -> None:
    """Pieces grow with the blob."""
    assert piece_length(size) == length


def test_only_large_lfs_content_needs_pieces() -> None:
    """A blob of one piece, and one that git holds, have none."""
    assert needs_pieces(Blob("sha256", "0" * 64, LEAST_PIECE_BYTES + 1))
    assert not needs_pieces(Blob("sha256", "0" * 64, LEAST_PIECE_BYTES))
    assert not needs_pieces(git_blob(b"x"))


def test_pieces_are_written_and_read(tmp_path: Path, blob: Blob) -> None:
    """Each piece has its own SHA-256, the last one is shorter."""
    write_pieces_of(tmp_path / "public", blob)
    cut = [CONTENT[at : at + 4 * MIB] for at in range(0, len(CONTENT), 4 * MIB)]

    found = read_pieces(tmp_path / "public", blob)
    assert found == Pieces(4 * MIB, tuple(hashlib.sha256(piece).hexdigest() for piece in cut))


@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 200, 250])
def test_every_length_of_file(tmp_path: Path, size: int) -> None:
    """Also a file that ends with a whole piece, and an empty one."""
    content = noise(size)
    (tmp_path / "file").write_bytes(content)
    pieces, whole = hash_pieces(tmp_path / "file", 100)

    assert whole == hashlib.sha256(content).hexdigest()
    assert list(pieces.hashes) == [
        hashlib.sha256(content[at : at + 100]).hexdigest() for at in range(0, len(content), 100)
    ]


def test_a_blob_that_rotted_gets_no_pieces(tmp_path: Path, blob: Blob) -> None:
    """Pieces of wrong bytes would make clients take them for right."""
    path = tmp_path / "public" / blob.path
    path.chmod(0o644)
    path.write_bytes(CONTENT[:-1] + b"\0")

    with pytest.raises(IntegrityError, match="mirrortool check"):
        write_pieces_of(tmp_path / "public", blob)
    assert read_pieces(tmp_path / "public", blob) is None


@pytest.mark.parametrize(
    "change",
    [{"size": 1}, {"piece_bytes": 1}, {"piece_bytes": "x"}, {"sha256": ["0" * 64]}, {"sha256": ["</hash>"] * 3}],
)
def test_what_does_not_fit_the_blob_is_not_believed(tmp_path: Path, blob: Blob, change: dict[str, object]) -> None:
    """A damaged file is as good as none."""
    write_pieces_of(tmp_path / "public", blob)
    path = tmp_path / "public" / pieces_path(blob)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))

    assert read_pieces(tmp_path / "public", blob) is None
