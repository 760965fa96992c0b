"""What a user's folder holds: believed where it looks as it was left, hashed where it does not."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mirrortools.holding import RECORD, Found, Kept, Record, find, read_record, write_record
from mirrortools.model import RepoId
from tests.delivery import git_blob, sha256_blob

REPO = RepoId.parse("org/name")
OLD, NEW, OWN = b"old content", b"new content", b"own content"


def left(path: Path, content: bytes) -> Kept:
    """A file that was put there, and what is remembered of it."""
    path.write_bytes(content)
    return Kept(sha256_blob(content), path.stat().st_mtime_ns)


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Files that may hold one of two things among it."""
    kept = [Kept(sha256_blob(OLD), 5), Kept(git_blob(NEW), 6)]
    record = Record(REPO, "1" * 40, {"a": kept[:1], "sub/b": kept})
    write_record(tmp_path, record)

    assert read_record(tmp_path) == record


@given(
    st.binary(max_size=50)
    | st.dictionaries(st.sampled_from(["version", "repo", "commit", "files"]), st.integers() | st.text(max_size=5)).map(
        lambda document: repr(document).replace("'", '"').encode()
    )
)
def test_a_record_that_cannot_be_read_is_none(content: bytes) -> None:
    """Whatever became of it, files are hashed then."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        assert read_record(Path(folder)) is None
        (Path(folder) / RECORD).write_bytes(content)
        assert read_record(Path(folder)) is None


def test_a_file_as_it_was_left_is_believed_and_another_one_is_hashed(tmp_path: Path) -> None:
    """By size and time; one with another time is hashed, one with its time put back when that is asked for."""
    path = tmp_path / "f"
    kept = left(path, OLD)
    wanted = sha256_blob(NEW)

    assert find(path, wanted, [kept]) == Found(kept.blob, kept.mtime_ns)
    os.utime(path, ns=(1, 1))
    assert find(path, wanted, [kept]) == Found(kept.blob, 1)
    path.write_bytes(OWN)
    os.utime(path, ns=(1, kept.mtime_ns))
    assert find(path, wanted, [kept]) == Found(kept.blob, kept.mtime_ns)
    assert find(path, wanted, [kept], again=True) == Found(None, kept.mtime_ns)


def test_what_is_wanted_is_known_without_a_record(tmp_path: Path) -> None:
    """By either kind of name; anything else is nobody's, a folder too, and a missing file is no file."""
    path = tmp_path / "f"
    path.write_bytes(NEW)
    wanted: list[Any] = [sha256_blob(NEW), git_blob(NEW)]

    for blob in wanted:
        found = find(path, blob, ())
        assert found is not None
        assert found.content == blob
    assert find(path, sha256_blob(OLD), ()) == Found(None, path.stat().st_mtime_ns)
    assert find(tmp_path, sha256_blob(OLD), ()) == Found(None, tmp_path.stat().st_mtime_ns)
    assert find(tmp_path / "none", wanted[0], ()) is None
    assert find(path / "below", wanted[0], ()) is None
