"""A door that few may pass at once, the smallest first."""

from __future__ import annotations

import contextlib
import heapq
import threading
from collections.abc import Iterator


class Gate:
    """Lets `abreast` callers work at the same time; of those that wait, the one with the least to do is next."""

    def __init__(self, abreast: int) -> None:
        self._free = abreast
        self._waiting: list[tuple[int, int]] = []
        self._tickets = 0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def passing(self, size_bytes: int) -> Iterator[None]:
        """Wait for a place, and give it back afterwards."""
        with self._changed:
            self._tickets += 1
            ticket = (size_bytes, self._tickets)
            heapq.heappush(self._waiting, ticket)
            self._changed.wait_for(lambda: self._free > 0 and self._waiting[0] == ticket)
            heapq.heappop(self._waiting)
            self._free -= 1
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._free += 1
                self._changed.notify_all()
