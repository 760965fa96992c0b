"""Memory that segments pass through on their way to the disk: received there, then hashed and written from there.

Reading a file back in order to hash it, and the page cache in between, cost more than the network and the disk do.
There are few buffers, which all fetches of this process share, so that memory does not grow with what is fetched.
"""

from __future__ import annotations

import mmap
import threading
from typing import Final

BUFFER_BYTES: Final = 4 << 20
_BUFFERS: Final = 4
_FILLED_AT_ONCE: Final = 2
_LONGEST_WAIT_S: Final = 1.0


class Ring:
    """A few buffers of `size_bytes`, aligned for direct writing. Thread-safe.

    At most `filled_at_once` are being filled at a time. A slow connection may take long for that; so whoever finds no
    place does without, and only what hashing and the disk will soon be done with is waited for.
    """

    def __init__(
        self, count: int = _BUFFERS, size_bytes: int = BUFFER_BYTES, filled_at_once: int = _FILLED_AT_ONCE
    ) -> None:
        self.size_bytes = size_bytes
        self._count = count
        self._free: list[memoryview] = []
        self._places = filled_at_once
        self._changed = threading.Condition()

    def take(self, longest_wait_s: float = _LONGEST_WAIT_S) -> memoryview | None:
        """A buffer to fill, until `filled` and then `give_back`; None when there is none soon."""
        with self._changed:
            if not self._places:
                return None
            self._places -= 1
            self._changed.wait_for(lambda: self._free or self._count, longest_wait_s)
            if self._free:
                return self._free.pop()
            if self._count:
                self._count -= 1
                return memoryview(mmap.mmap(-1, self.size_bytes))
            self._places += 1
            return None

    def filled(self) -> None:
        """Let another buffer be filled: one that was taken is full, or will not be filled."""
        with self._changed:
            self._places += 1

    def give_back(self, buffer: memoryview) -> None:
        """Let others have a buffer that was taken."""
        with self._changed:
            self._free.append(buffer)
            self._changed.notify()


RING: Final = Ring()
