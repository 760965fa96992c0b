"""One writer per repository, and a note left at the door by whoever came while it was taken.

Correctness does not hang on these locks: blobs and revisions are named by their content and every name is
replaced by rename. They save work and keep messages clear. Only the standard library is used here, because the
receiver runs this module on edges.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from mirrortools.errors import Locked
from mirrortools.files import make_folder
from mirrortools.model import RepoId, quote_ref

T = TypeVar("T")


class RepositoryLock:
    """The right to change one repository below `root`, until `close` or the end of the process.

    `owner` is what others are told: who, and what for. Raises Locked with the owner of the taken lock.
    """

    def __init__(self, root: Path, repo: RepoId, owner: str) -> None:
        self.repo = repo
        path = _path(root, repo)
        make_folder(path.parent)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = os.fdopen(os.open(path, flags, 0o644), "r+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = self._file.read(500).strip() or "another process"
            self._file.close()
            raise Locked(f"{repo}: {owner} works on it") from error
        self._file.truncate(0)
        since = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime())
        self._file.write(f"{owner} (process {os.getpid()}, since {since})\n")
        self._file.flush()

    def close(self) -> None:
        """Let the next one in."""
        self._file.truncate(0)
        self._file.close()


def owner_of(root: Path, repo: RepoId) -> str | None:
    """Who works on a repository now; None when nobody does."""
    try:
        with _path(root, repo).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None
    except BlockingIOError:
        return _path(root, repo).read_text().strip() or "another process"
    return None


def in_turn(root: Path, repo: RepoId, owner: str, act: Callable[[], T]) -> T:
    """Do `act` under the lock, and once more whenever somebody came by meanwhile; give the last result.

    Whoever finds the repository taken raises Locked after leaving a note, and its wish is not lost: the owner
    acts once more. The note is written before the lock is tried and looked for after the lock is let go, so
    that none falls between.
    """
    note = _path(root, repo).with_suffix(".again")
    make_folder(note.parent)
    note.touch()
    try:
        result = _act_once(root, repo, owner, act)
    except Locked as error:
        raise Locked(f"{error}; it will run once more when it has ended") from error
    while note.exists():
        with contextlib.suppress(Locked):
            result = _act_once(root, repo, owner, act)
            continue
        break
    return result


def _act_once(root: Path, repo: RepoId, owner: str, act: Callable[[], T]) -> T:
    lock = RepositoryLock(root, repo, owner)
    try:
        _path(root, repo).with_suffix(".again").unlink(missing_ok=True)
        return act()
    finally:
        lock.close()


def _path(root: Path, repo: RepoId) -> Path:
    return root / "state" / "locks" / f"{quote_ref(repo.path)}.lock"
