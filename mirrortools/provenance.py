"""Who gave what of a blob: by that it is told whose bytes are wrong, and which are of a file that has changed since."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Final

EARLIER: Final = "an earlier run"
_log = logging.getLogger("mirrortools.fetch")


class Provenance:
    """Of one blob, which is the file `name`. Sources are meant by their names; `contributors` are all that gave any."""

    def __init__(self, name: str) -> None:
        self.contributors: set[str] = set()
        self._name = name
        self._segments: dict[int, tuple[str, str]] = {}
        self._versions: dict[str, str] = {}
        self._changed: set[str] = set()
        self._has_been_outdated = False

    def meet(self, source: str, version: str) -> None:
        """Notice when the file of a source is another one than before. What that is worth the SHA-256 decides."""
        before = self._versions.get(source, version)
        if version:
            self._versions[source] = version
        if version not in ("", before) and source not in self._changed:
            self._changed.add(source)
            _log.warning("%s: %s changed while it was fetched", source, self._name)

    def gave(self, source: str, index: int, version: str) -> None:
        """A segment is there, from that version of a source's file."""
        self._segments[index] = (source, version)

    @property
    def givers(self) -> Counter[str]:
        """How many segments each source gave."""
        return Counter(name for name, _ in self._segments.values())

    def given_by(self, source: str) -> list[int]:
        """The segments that a source gave."""
        return [index for index, (name, _) in self._segments.items() if name == source]

    def outdated(self) -> list[int]:
        """The segments of files that changed since, when the bytes are wrong; once, or it might never end."""
        if self._has_been_outdated:
            return []
        newest = self._versions
        found = [index for index, (name, version) in self._segments.items() if newest.get(name, version) != version]
        self._has_been_outdated = bool(found)
        return found

    def begin_again(self) -> set[str]:
        """Nothing is there any more; gives who had contributed to it."""
        contributors, self.contributors = self.contributors, set()
        self._segments.clear()
        return contributors
