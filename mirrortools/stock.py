"""How much of each blob of a delivery is on this host, from its start on, while it arrives and is passed on.

Only the standard library is used here, because the receiver runs this module on edges.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(slots=True)
class _Item:
    have: int
    places: Sequence[Path]


class Stock:
    """Blobs by their digest. Thread-safe; whoever waits for more is woken when something came."""

    def __init__(self) -> None:
        self._items: dict[str, _Item] = {}
        self._changed = threading.Condition()
        self._version = 0
        self._ended = False

    def put(self, digest: str, have: int, *places: Path) -> None:
        """Know a blob: the first `have` bytes of it are in the first of `places` that exists."""
        with self._changed:
            self._items[digest] = _Item(have, places)
            self._wake()

    def knows(self, digest: str) -> bool:
        """Whether the blob is here, or will be."""
        return digest in self._items

    def have(self, digest: str) -> int:
        """How many bytes of a known blob are here."""
        return self._items[digest].have

    def grow(self, digest: str, have: int) -> None:
        """Know that there are more bytes of a blob now."""
        with self._changed:
            self._items[digest].have = have
            self._wake()

    def end(self) -> None:
        """Let nobody wait any longer."""
        with self._changed:
            self._ended = True
            self._wake()

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self._ended

    @property
    def version(self) -> int:
        """Another number after each change."""
        return self._version

    def wait(self, version: int, timeout_s: float) -> bool:
        """Wait until something has changed since `version`; False when nothing did in so many seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self._version != version or self._ended, timeout_s)

    def open(self, digest: str) -> int:
        """A descriptor of the file that a blob is in, for the caller to close. Raises FileNotFoundError, OSError."""
        for place in self._items[digest].places:
            try:
                return os.open(place, _FLAGS)
            except FileNotFoundError:
                continue
        raise FileNotFoundError(2, f"{digest}: not in {', '.join(map(str, self._items[digest].places))}")

    def _wake(self) -> None:
        self._version += 1
        self._changed.notify_all()
