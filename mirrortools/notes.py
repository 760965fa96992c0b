"""Notes in a file, a line each, behind what is said by whom: what was looked at once need not be looked at again.

A note is some words about a key. The last one counts, until it is taken back by a line of its own. A lost note costs a
look, a lost withdrawal would cost more, so that is durable; and a file in which anything is not as it was written (a
torn line) is not believed at all, since what was taken back may stand behind it. Only the standard library is used
here, because the receiver runs this module on edges.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from mirrortools.files import alone_in, line_up, sync_folder, write_file

# What a plain run does not see, because what was noted is believed, is seen after this time.
BELIEVED_S: Final = 86400
# A file in which more lines than this do not count any more is written anew.
MOST_VAIN: Final = 1000
_KEY: Final = rb"[!-~]{1,400}"


class Notes:
    """The notes in one file; `words` is a pattern for them, `key` has none but printable ASCII, and no spaces.

    Several processes may note at once. What cannot be read is no note. Raises OSError where it writes.
    """

    def __init__(self, path: Path, words: bytes) -> None:
        self._path = path
        self._whole = re.compile(rb"(?:(?:" + words + rb"|-) " + _KEY + rb"\n)*")

    def read(self) -> dict[str, str]:
        """By their keys, the words of the notes that count."""
        notes, is_worn = self._parsed()
        if is_worn:
            with suppress(OSError):  # what cannot be written is as it was
                self._write_anew()
        return notes

    def add(self, notes: Mapping[str, str]) -> None:
        """Note words by their keys. They may be lost in a power cut."""
        with alone_in(self._path.parent):
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                os.write(descriptor, _lines(notes))
            finally:
                os.close(descriptor)

    def replace(self, notes: Mapping[str, str]) -> None:
        """Let these notes be the only ones."""
        with alone_in(self._path.parent):
            write_file(self._path, _lines(notes), 0o600)

    def take_back(self, key: str) -> None:
        """Let the note of a key count no more, durably."""
        if self._path.exists():
            with alone_in(self._path.parent):
                line_up(self._path, [f"- {key}"])

    def take_all_back(self) -> None:
        """Let none count any more, durably."""
        if self._path.exists():
            with alone_in(self._path.parent):
                self._path.unlink(missing_ok=True)
                sync_folder(self._path.parent)

    def _parsed(self) -> tuple[dict[str, str], bool]:
        """The notes that count, and whether the file is better written anew."""
        data = self._content()
        if not self._whole.fullmatch(data):
            return {}, True
        notes: dict[str, str] = {}
        lines = data.decode("ascii").splitlines()
        for line in lines:
            words, _, key = line.rpartition(" ")
            if words == "-":
                notes.pop(key, None)
            else:
                notes[key] = words
        return notes, len(lines) > len(notes) + MOST_VAIN

    def _content(self) -> bytes:
        try:
            return self._path.read_bytes()
        except OSError:
            return b""

    def _write_anew(self) -> None:
        """Leave out what does not count any more."""
        with alone_in(self._path.parent):
            notes, _ = self._parsed()
            write_file(self._path, _lines(notes), 0o600)


def _lines(notes: Mapping[str, str]) -> bytes:
    return "".join(f"{words} {key}\n" for key, words in notes.items()).encode("ascii")
