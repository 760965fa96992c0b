"""The store: what is in it hashes to its name, is read-only, and came in whole."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from mirrortools.errors import IntegrityError, NoSpace, StoreError
from mirrortools.model import Blob
from mirrortools.store import Store, hash_file, write_error
from tests.delivery import git_blob, noise, sha256_blob


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    return Store(tmp_path)


def incoming(tmp_path: Path, content: bytes, name: str = "incoming") -> Path:
    """A file beside the store."""
    path = tmp_path / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("blob", [sha256_blob(b"content"), git_blob(b"content")])
def test_a_verified_file_is_adopted_read_only(store: Store, tmp_path: Path, blob: Blob) -> None:
    """Under the name that it hashes to; the source is gone."""
    source = incoming(tmp_path, b"content")
    store.verify_and_adopt(source, blob)

    assert store.path(blob).read_bytes() == b"content"
    assert store.path(blob).stat().st_mode & 0o777 == 0o444
    assert store.has(blob)
    assert not source.exists()


def test_wrong_content_is_refused_and_stays_where_it_is(store: Store, tmp_path: Path) -> None:
    """The message has both digests."""
    blob, source = sha256_blob(b"right"), incoming(tmp_path, b"wrong")
    with pytest.raises(IntegrityError, match=f"{blob.digest}.*{sha256_blob(b'wrong').digest}"):
        store.verify_and_adopt(source, blob)

    assert source.exists()
    assert not store.has(blob)


def test_a_file_of_another_size_is_not_had(store: Store, tmp_path: Path) -> None:
    """Cut short by a disk, or named twice with different sizes."""
    blob = sha256_blob(b"content")
    store.verify_and_adopt(incoming(tmp_path, b"content"), blob)
    store.path(blob).chmod(0o644)
    os.truncate(store.path(blob), 3)

    assert not store.has(blob)
    assert store.missing([blob, sha256_blob(b"other")]) == sorted([blob, sha256_blob(b"other")])


@pytest.mark.parametrize("many", [1, 5, 80])
def test_many_are_adopted_at_once(store: Store, tmp_path: Path, many: int) -> None:
    """Each under its name; twice the same does no harm."""
    contents = [noise(10, seed) for seed in range(many)]
    for _ in range(2):
        files = [(incoming(tmp_path, content, f"f{i}"), sha256_blob(content)) for i, content in enumerate(contents)]
        store.adopt_all(files)

    assert store.missing(sha256_blob(content) for content in contents) == []
    assert [store.path(sha256_blob(content)).read_bytes() for content in contents] == contents
    assert {store.path(sha256_blob(content)).stat().st_mode & 0o777 for content in contents} == {0o444}


def test_a_store_that_cannot_be_written_is_told(store: Store, tmp_path: Path) -> None:
    """With the path, and as StoreError."""
    (tmp_path / "public").write_text("a file")
    with pytest.raises(StoreError, match="public"):
        store.adopt(incoming(tmp_path, b"x"), sha256_blob(b"x"))
    with pytest.raises(StoreError, match="public"):
        store.adopt_all([(incoming(tmp_path, b"x"), sha256_blob(b"x"))])


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_another_error_than_a_broken_one(number: int) -> None:
    """With advice."""
    assert isinstance(write_error(Path("x"), OSError(number, os.strerror(number))), NoSpace)
    assert "free some space" in str(write_error(Path("x"), OSError(number, os.strerror(number))))
    assert type(write_error(Path("x"), OSError(errno.EIO, "I/O error"))) is StoreError


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_files_are_hashed_as_git_and_git_lfs_do(tmp_path: Path, size: int) -> None:
    """At the borders of the buffer too."""
    content = noise(size)
    path = incoming(tmp_path, content)

    assert hash_file(path, "sha256") == sha256_blob(content).digest
    assert hash_file(path, "git") == git_blob(content).digest
