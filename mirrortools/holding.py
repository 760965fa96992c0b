"""What a user's folder holds, as it was left by the last `get`, and what has become of it since.

The record lies beside the files. A file whose size and time are those of the record holds what the record says; any
other is hashed, so that nothing that a user changed is taken for ours.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from mirrortools.errors import MirrorError
from mirrortools.files import write_json
from mirrortools.model import COMMIT, Blob, RepoId
from mirrortools.store import hash_file

RECORD: Final = ".mirrortool.json"
NO_COMMIT: Final = "0" * 40
_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Kept:
    """Content that was put into a file, and the file's time in nanoseconds."""

    blob: Blob
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Record:
    """What was put into a folder: path → what the file there may hold, which is one thing unless `get` was killed.

    `commit` is the revision that was whole there last; NO_COMMIT when none was yet.
    """

    repo: RepoId
    commit: str
    files: Mapping[str, Sequence[Kept]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The form in which it lies in the folder."""
        files = {
            path: [[kept.blob.algorithm, kept.blob.digest, kept.blob.size, kept.mtime_ns] for kept in every]
            for path, every in sorted(self.files.items())
        }
        return {"version": _VERSION, "repo": self.repo.path, "commit": self.commit, "files": files}

    @classmethod
    def from_json(cls, document: Any) -> Record:
        """Read what `to_json` wrote. Raises ValueError, KeyError, TypeError, AttributeError, MirrorError."""
        if document["version"] != _VERSION or not COMMIT.match(document["commit"]):
            raise ValueError("not a record of this version")
        files = {
            str(path): [Kept(Blob(str(a), str(d), int(s)), int(time)) for a, d, s, time in every]
            for path, every in document["files"].items()
        }
        return cls(RepoId.parse(document["repo"]), document["commit"], files)


def read_record(folder: Path) -> Record | None:
    """The record of a folder; None when there is none, or it cannot be read: then files are hashed."""
    try:
        return Record.from_json(json.loads((folder / RECORD).read_bytes()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, MirrorError):
        return None


def write_record(folder: Path, record: Record) -> None:
    """Keep a record, durably. Raises OSError."""
    write_json(folder / RECORD, record.to_json())


@dataclass(frozen=True, slots=True)
class Found:
    """A file that is there. `content` is None when it is nothing that was put there, or is wanted."""

    content: Blob | None
    mtime_ns: int


def find(path: Path, wanted: Blob | None, kept: Sequence[Kept], *, again: bool = False) -> Found | None:
    """Look at a file; None when there is none. With `again` it is hashed whatever the record says. Raises OSError."""
    try:
        seen = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not stat.S_ISREG(seen.st_mode):
        return Found(None, seen.st_mtime_ns)
    if not again and (known := untouched(kept, seen)):
        return Found(known, seen.st_mtime_ns)
    return Found(
        _content(path, seen.st_size, [*([wanted] if wanted else []), *(k.blob for k in kept)]), seen.st_mtime_ns
    )


def untouched(kept: Iterable[Kept], seen: os.stat_result) -> Blob | None:
    """What a file holds whose size and time say that it is as it was left."""
    match = (each.blob for each in kept if (each.blob.size, each.mtime_ns) == (seen.st_size, seen.st_mtime_ns))
    return next(match, None)


def _content(path: Path, size_bytes: int, candidates: Sequence[Blob]) -> Blob | None:
    """Which of some blobs a file holds; those of another size need no look."""
    possible = [blob for blob in candidates if blob.size == size_bytes]
    digests = {algorithm: hash_file(path, algorithm) for algorithm in {blob.algorithm for blob in possible}}
    return next((blob for blob in possible if digests[blob.algorithm] == blob.digest), None)
