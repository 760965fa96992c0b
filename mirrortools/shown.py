"""What an edge has noted that it shows, in `<root>/state/shown/<realm>`, so that a run without changes need not look.

A note says which statement of the origin a repository shows. It is made when all of that was looked at and is here, and
taken back, durably, before anything of it changes, both under the repository's lock. One that is not to be believed for
sure is not believed: then the edge looks. Only the standard library is used here, because the receiver runs this
module on edges.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

from mirrortools.model import Realm, RepoId
from mirrortools.notes import BELIEVED_S, Notes
from mirrortools.roll import Roll

# When it was seen (Unix seconds), the time of the statement's file (ns), and the statement's SHA-256.
_WORDS: Final = rb"[0-9]{1,12} [0-9]{1,20} [0-9a-f]{64}"


def digest_of(statement: str) -> str:
    """What a note calls a statement, by its text."""
    return hashlib.sha256(statement.encode()).hexdigest()


class Shown:
    """The notes of one root and realm; `written_ns` tells when the statement of a repository, by its path, was written.

    Several processes may note at once. What cannot be read is no note. Raises OSError where it writes.
    """

    def __init__(self, root: Path, realm: Realm, written_ns: Callable[[str], int]) -> None:
        self._notes = Notes(root / "state" / "shown" / realm.value, _WORDS)
        self._written_ns = written_ns

    def believed(self, paths: Collection[str], now_s: float) -> dict[str, str]:
        """By their paths, the digests of the statements that repositories show; those to be looked at are not in it.

        A note of a day ago is not believed, and none of a statement whose file is another one by now.
        """
        notes, found = self._notes.read() if paths else {}, {}
        for path in paths:
            if words := notes.get(path):
                seen_at, written_ns, statement = words.split(" ")
                if 0 <= now_s - int(seen_at) < BELIEVED_S and int(written_ns) == self._written_ns(path):
                    found[path] = statement
        return found

    def differing(self, roll: Roll, now_s: float) -> list[int]:
        """The parts of a roll in which anything is not just as noted, and believed, here."""
        return roll.differing(self.believed(roll.paths, now_s))

    def note(self, repo: RepoId, statement: str, now_s: float) -> None:
        """Note that a repository, whose lock the caller holds, was looked at and shows a statement with this text.

        It may be lost in a power cut, which costs a look.
        """
        self._notes.add({repo.path: f"{int(now_s)} {self._written_ns(repo.path)} {digest_of(statement)}"})

    def forget(self, repo: RepoId) -> None:
        """Take the note of a repository back, durably; the caller holds its lock, and is about to change it."""
        self._notes.take_back(repo.path)

    def forget_all(self) -> None:
        """Take all notes back, durably."""
        self._notes.take_all_back()
