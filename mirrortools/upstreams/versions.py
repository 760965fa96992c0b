"""Which version of a blob's file a source has: what If-Range is asked with."""

from __future__ import annotations

import threading
from typing import Final

from mirrortools.model import Blob

_MOST_DOUBTS: Final = 2


class Versions:
    """The version of each blob's file that a source answered with last. Thread-safe.

    Links are of no account: those of a batch answer are signed anew each time. Where the hosts behind one address
    name one file differently, or know no If-Range, no version is expected after a few vain attempts.
    """

    def __init__(self) -> None:
        self._known: dict[str, str] = {}
        self._doubts: dict[str, int] = {}
        self._lock = threading.Lock()

    def expected(self, blob: Blob) -> str:
        """The version to ask for; empty when any will do."""
        with self._lock:
            return self._known.get(blob.digest, "") if self._doubts.get(blob.digest, 0) < _MOST_DOUBTS else ""

    def note(self, blob: Blob, version: str) -> None:
        """Say which version an answer was of; empty when it did not tell."""
        with self._lock:
            if version:
                self._known[blob.digest] = version

    def doubt(self, blob: Blob) -> None:
        """Say that a source did not give a range of the version that was expected."""
        with self._lock:
            self._doubts[blob.digest] = self._doubts.get(blob.digest, 0) + 1
