"""SHA256SUMS of a revision: what sha256sum itself says of it."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from mirrortools.sums import SUMS, parse_sums, sha256_of, sums_line
from mirrortools.tree import Tree
from tests.delivery import git_blob, publication, put

FILES = {
    "model.safetensors": b"weights" * 1000,
    "config.json": b"{}",
    "empty": b"",
    "sub/with space #%41.txt": b"odd",
    "模型/ 说明.md": "你好".encode(),
    "* star": b"binary mark",
}


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A published tree; the folder of the revision's files."""
    shown = publication(tmp_path, FILES)
    Tree(tmp_path).publish(shown)
    return tmp_path / "public" / shown.repo.path / "commits" / next(iter(shown.manifests))


def check(folder: Path, sums: Path) -> tuple[int, str]:
    done = subprocess.run(["sha256sum", "--strict", "--check", sums], cwd=folder, capture_output=True, text=True)
    return done.returncode, done.stdout


def sums_of(published: Path) -> Path:
    return published.parents[1] / "meta" / published.name / SUMS


def test_sha256sum_finds_every_file_right(published: Path) -> None:
    """Files of LFS and of git, with odd names and empty, are named with the SHA-256 of their bytes."""
    status, said = check(published, sums_of(published))

    assert status == 0
    assert sorted(said.splitlines()) == sorted(f"{path}: OK" for path in FILES)


def test_sha256sum_finds_a_wrong_file(published: Path) -> None:
    """A file with other bytes than the mirror's is told."""
    (published / "config.json").unlink()
    (published / "config.json").write_bytes(b"[]")
    status, said = check(published, sums_of(published))

    assert status == 1
    assert "config.json: FAILED" in said.splitlines()


def test_lines_read_back(published: Path) -> None:
    """What was written is read again, in the order of the paths."""
    with sums_of(published).open() as file:
        found = dict(parse_sums(iter(file)))

    assert found == {path: hashlib.sha256(content).hexdigest() for path, content in FILES.items()}
    assert list(found) == sorted(found)
    assert dict(parse_sums(iter([sums_line("a  b", "0" * 64)]))) == {"a  b": "0" * 64}


def test_a_large_file_of_git_is_read_in_pieces(tmp_path: Path) -> None:
    """More than one reading of a file gives its SHA-256 too."""
    content = bytes(range(256)) * (3 << 12)
    put(tmp_path, git_blob(content), content)

    assert sha256_of(git_blob(content), tmp_path / "public") == hashlib.sha256(content).hexdigest()
