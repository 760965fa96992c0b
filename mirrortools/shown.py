"""What an edge has noted that it shows, in `<root>/state/shown/<realm>`, so that a run without changes need not look.

A note says which statement of the origin a repository shows. It is made when all of that was looked at and is here, and
taken back, durably, before anything of it changes, both under the repository's lock. One that is not to be believed for
sure is not believed: then the edge looks. Only the standard library is used here, because the receiver runs this
module on edges.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mirrortools.files import line_up, make_folder, sync_folder, write_file
from mirrortools.model import Realm, RepoId

# What was lost behind the notes' back (a blob that somebody removed) is seen after this time by itself.
BELIEVED_S: Final = 86400
# A file in which more lines than this do not count any more is written anew.
_MOST_VAIN: Final = 1000
_LINE: Final = re.compile(rb"([0-9]{1,12}) ([0-9]{1,20}) ([0-9a-f]{64}|-) (\S{1,300})\n")


@dataclass(frozen=True, slots=True)
class Note:
    """That a repository shows a statement: its SHA-256, when that was seen (Unix seconds), and its file's time (ns)."""

    statement: str
    seen_at: int
    written_ns: int


def digest_of(statement: str) -> str:
    """What a note calls a statement, by its text."""
    return hashlib.sha256(statement.encode()).hexdigest()


class Shown:
    """The notes of one root and realm; `written_ns` tells when a repository's statement was written, 0: never.

    Several processes may note at once. What cannot be read is no note. Raises OSError where it writes.
    """

    def __init__(self, root: Path, realm: Realm, written_ns: Callable[[RepoId], int]) -> None:
        self._path = root / "state" / "shown" / realm.value
        self._written_ns = written_ns

    def believed(self, repos: Iterable[RepoId], now_s: float) -> dict[str, str]:
        """By their paths, the digests of the statements that repositories show; those to be looked at are not in it.

        A note of a day ago is not believed, and none of a statement whose file is another one by now.
        """
        notes = self._notes()
        found = {}
        for repo in repos:
            note = notes.get(repo.path)
            if note and 0 <= now_s - note.seen_at < BELIEVED_S and note.written_ns == self._written_ns(repo):
                found[repo.path] = note.statement
        return found

    def note(self, repo: RepoId, statement: str, now_s: float) -> None:
        """Note that a repository, whose lock the caller holds, was looked at and shows a statement with this text.

        It may be lost in a power cut, which costs a look.
        """
        make_folder(self._path.parent)
        line = f"{int(now_s)} {self._written_ns(repo)} {digest_of(statement)} {repo.path}\n"
        with self._alone():
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                os.write(descriptor, line.encode())
            finally:
                os.close(descriptor)

    def forget(self, repo: RepoId) -> None:
        """Take the note of a repository back, durably; the caller holds its lock, and is about to change it."""
        if self._path.exists():
            with self._alone():
                line_up(self._path, [f"0 0 - {repo.path}"])

    def forget_all(self) -> None:
        """Take all notes back, durably."""
        if self._path.exists():
            with self._alone():
                self._path.unlink(missing_ok=True)
                sync_folder(self._path.parent)

    def _notes(self) -> Mapping[str, Note]:
        notes, is_worn = _parse(self._read())
        if is_worn:
            with suppress(OSError):  # what cannot be written is as it was
                self._write_anew()
        return notes

    def _read(self) -> bytes:
        try:
            return self._path.read_bytes()
        except OSError:
            return b""

    def _write_anew(self) -> None:
        """Leave out what does not count any more."""
        with self._alone():
            notes, _ = _parse(self._read())
            lines = (f"{note.seen_at} {note.written_ns} {note.statement} {path}\n" for path, note in notes.items())
            write_file(self._path, "".join(lines).encode(), 0o600)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold other processes that write."""
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)


def _parse(data: bytes) -> tuple[dict[str, Note], bool]:
    """The notes that count, by the paths of their repositories, and whether the file is better written anew.

    Where anything is not as it was written (a torn line), none counts: what was taken back may stand behind it.
    """
    notes: dict[str, Note] = {}
    end = lines = 0
    for match in _LINE.finditer(data):
        if match.start() != end:
            break
        end, lines = match.end(), lines + 1
        seen_at, written_ns, statement, path = match.groups()
        if statement == b"-":
            notes.pop(path.decode(errors="replace"), None)
        else:
            notes[path.decode(errors="replace")] = Note(statement.decode(), int(seen_at), int(written_ns))
    if end != len(data):
        return {}, True
    return notes, lines > len(notes) + _MOST_VAIN
