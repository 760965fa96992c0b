"""How much of each blob of a delivery is on this host, from its start on, while it arrives and is passed on.

What came last is in memory (`Recent`), so that whoever hashes it or passes it on need not read it back. Only the
standard library is used here, because the receiver runs this module on edges.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

# What is written at once: large enough for the disk, and begins in the file and in memory at a multiple of itself.
BLOCK_BYTES: Final = 1 << 20
BLOCKS: Final = 8
_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
# A process may have a thousand files open, and whoever draws from here needs some.
_MOST_KEPT: Final = 256


class Recent:
    """The bytes of one blob that came last, in a ring of memory that is aligned for direct writing. Thread-safe.

    One thread adds: it asks for room, fills it, and says how much came. What lay there is forgotten first.
    """

    def __init__(self) -> None:
        self._memory = memoryview(mmap.mmap(-1, BLOCKS * BLOCK_BYTES))
        self._digest = ""
        self._start = self._stop = 0
        self._lock = threading.Lock()

    def begin(self, digest: str, offset: int) -> None:
        """Go over to another blob, of which so much is on disk."""
        with self._lock:
            self._digest, self._start, self._stop = digest, offset, offset

    def room(self, most_bytes: int) -> memoryview:
        """Where the next bytes go: not more than to the end of a block."""
        with self._lock:
            at = self._stop % len(self._memory)
            count = min(most_bytes, BLOCK_BYTES - at % BLOCK_BYTES)
            self._start = max(self._start, self._stop + count - len(self._memory))
            return self._memory[at : at + count]

    def add(self, count: int) -> None:
        """Know that so many bytes of the room were filled."""
        with self._lock:
            self._stop += count

    def part(self, start: int, stop: int) -> memoryview:
        """The memory of these bytes, which are in one block, and not forgotten: whoever adds sees to that."""
        at = start % len(self._memory)
        return self._memory[at : at + stop - start]

    def copy(self, digest: str, offset: int, view: memoryview) -> int:
        """Copy bytes of a blob from `offset` on into the beginning of `view`; 0 when they are not here."""
        with self._lock:
            if digest != self._digest or not self._start <= offset < self._stop:
                return 0
            at = offset % len(self._memory)
            count = min(len(view), self._stop - offset, len(self._memory) - at)
            view[:count] = self._memory[at : at + count]
            return count


@dataclass(slots=True)
class _Item:
    have: int
    places: Sequence[Path]
    kept: int = -1


class Stock:
    """Blobs by their digest. Thread-safe; whoever waits for more is woken when something came.

    `recent` is what came last of one of them, as long as that is in memory.
    """

    def __init__(self) -> None:
        self.recent: Recent | None = None
        self._items: dict[str, _Item] = {}
        self._changed = threading.Condition()
        self._version = 0
        self._ended = False

    def put(self, digest: str, have: int, *places: Path) -> None:
        """Know a blob: the first `have` bytes of it are in memory, or in the first of `places` that exists."""
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
        """Know that there are more bytes of a blob now; fewer, when some could not be kept."""
        with self._changed:
            self._items[digest].have = have
            self._wake()

    def end(self) -> None:
        """Let nobody wait any longer, and let go of what was kept."""
        with self._changed:
            self._ended = True
            for item in self._items.values():
                if item.kept >= 0:
                    os.close(item.kept)
                    item.kept = -1
            self._wake()

    def keep(self, digests: Iterable[str]) -> None:
        """Keep the files of some blobs open until the end, as they are about to lose their names.

        Of very many only some: whoever draws another one has to go elsewhere.
        """
        for digest in islice(digests, _MOST_KEPT):
            with suppress(OSError), self._changed:
                item = self._items[digest]
                if item.kept < 0 and not self._ended:
                    item.kept = self._opened(item, digest)

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
        item = self._items[digest]
        with self._changed:
            if item.kept >= 0:
                return os.dup(item.kept)
        return self._opened(item, digest)

    def _opened(self, item: _Item, digest: str) -> int:
        for place in item.places:
            try:
                return os.open(place, _FLAGS)
            except FileNotFoundError:
                continue
        raise FileNotFoundError(2, f"{digest}: not in {', '.join(map(str, item.places))}")

    def _wake(self) -> None:
        self._version += 1
        self._changed.notify_all()


class Reading:
    """Reads one blob of a stock, as far as it is here. `close` it. Its file stays open: it may be renamed meanwhile."""

    def __init__(self, stock: Stock, digest: str) -> None:
        self.digest = digest
        self._stock = stock
        self._file = -1

    def read_into(self, view: memoryview, offset: int) -> int:
        """Fill the beginning of `view`; 0 when the file is shorter than that. Raises OSError."""
        recent = self._stock.recent
        count = recent.copy(self.digest, offset, view) if recent else 0
        return count or os.preadv(self.file, [view], offset)

    @property
    def file(self) -> int:
        """The file's descriptor. Raises FileNotFoundError, OSError."""
        if self._file < 0:
            self._file = self._stock.open(self.digest)
        return self._file

    def close(self) -> None:
        """Let go of the file."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1
