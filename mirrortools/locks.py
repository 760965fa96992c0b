"""One writer per repository, and a note left at the door by whoever came while it was taken.

Correctness does not hang on these locks: blobs and revisions are named by their content and every name is
replaced by rename. They save work and keep messages clear. Only the standard library is used here, because the
receiver runs this module on edges.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from mirrortools.berth import Berth
from mirrortools.errors import Locked, MirrorError, NoSpace, StoreError
from mirrortools.files import make_folder
from mirrortools.model import RepoId

T = TypeVar("T")
_LOOKS = 40
_LOOK_S = 0.05


class RepositoryLock:
    """The right to change one repository below `root`, until `close` or the end of the process.

    That of its berth for what goes ahead is the right to bring blobs there, and changes nothing that shows. `owner` is
    what others are told: who, and what for. Raises Locked with the owner of the taken lock.
    """

    def __init__(self, root: Path, repo: RepoId, owner: str, *, is_ahead: bool = False) -> None:
        self.repo = repo
        path = Berth(root, repo, is_ahead).lock("lock")
        try:
            make_folder(path.parent)
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self._file = os.fdopen(os.open(path, flags, 0o644), "r+")
            self._lock(owner)
        except OSError as error:
            raise _error(path, error) from error

    def _lock(self, owner: str) -> None:
        try:
            self._wait_for_its_turn()
            self._file.truncate(0)
            since = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime())
            self._file.write(f"{owner} (process {os.getpid()}, since {since})\n")
            self._file.flush()
        except BaseException:
            self._file.close()
            raise

    def _wait_for_its_turn(self) -> None:
        """Take the lock. One without a name in it is only being looked at (`owner_of`), or was just taken."""
        for _ in range(_LOOKS):
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._file.seek(0)
                if owner := self._file.read(500).strip():
                    raise Locked(f"{self.repo}: {owner} works on it") from None
                time.sleep(_LOOK_S)
            else:
                self._file.seek(0)
                return
        raise Locked(f"{self.repo}: another process works on it")

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


@contextmanager
def still(root: Path, repo: RepoId) -> Iterator[bool]:
    """Keep a repository as it is while the block looks at it; gives whether nobody was at work on it.

    Several may look at once; who wants to change it waits for a little. Raises OSError.
    """
    with _glanced_at(_path(root, repo), fcntl.LOCK_SH) as is_still:
        yield is_still


@contextmanager
def alone(berth: Berth) -> Iterator[bool]:
    """Keep all others from a berth while the block moves something; gives whether nobody was at work there.

    Who comes meanwhile waits for a little. Raises OSError.
    """
    with _glanced_at(berth.lock("lock"), fcntl.LOCK_EX) as is_alone:
        yield is_alone


@contextmanager
def _glanced_at(path: Path, kind: int) -> Iterator[bool]:
    """Take a lock without a name, if nobody has it; gives whether it was had."""
    make_folder(path.parent)
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        if kind == fcntl.LOCK_EX:
            os.ftruncate(file, 0)  # whoever was killed left his name there, which others would believe
        yield True
    finally:
        os.close(file)


def in_turn(root: Path, repo: RepoId, owner: str, act: Callable[[], T], act_again: Callable[[], T]) -> T:
    """Do `act` under the lock, and `act_again` whenever somebody came by meanwhile; give or raise the last result.

    Whoever finds the repository taken raises Locked after leaving a note, and its wish is not lost: the owner
    acts once more, also when it has failed. The note is written before the lock is tried and looked for after the
    lock is let go, so that none falls between.
    """
    note = _path(root, repo).with_suffix(".again")
    _leave(note)
    try:
        result = _attempt(root, repo, owner, act)
    except Locked as error:
        raise Locked(f"{error}; it will run once more when it has ended") from error
    while note.exists():
        try:
            result = _attempt(root, repo, owner, act_again)
        except Locked:
            break  # whoever has it now saw the note
    if isinstance(result, MirrorError):
        raise result
    return result


def _leave(note: Path) -> None:
    try:
        make_folder(note.parent)
        note.touch()
    except OSError as error:
        raise _error(note, error) from error


def _attempt(root: Path, repo: RepoId, owner: str, act: Callable[[], T]) -> T | MirrorError:
    """Act under the lock; what went wrong is the result. Raises Locked when the lock is taken."""
    lock = RepositoryLock(root, repo, owner)
    try:
        _path(root, repo).with_suffix(".again").unlink(missing_ok=True)
        return act()
    except MirrorError as error:
        return error
    finally:
        lock.close()


def _error(path: Path, error: OSError) -> NoSpace | StoreError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(f"{path}: {error.strerror}; free some space (or a larger disk quota), then run it again")
    from mirrortools.access import reason

    text = reason(error)
    hint = "; may the user who runs mirrortool write there?" if text == error.strerror else ""
    return StoreError(f"{path}: {text}{hint}")


def _path(root: Path, repo: RepoId) -> Path:
    return Berth(root, repo).lock("lock")
