"""The counts of what fetching did."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Progress:
    """Counts for whoever watches, in bytes. `report` is called with what was added, from several threads."""

    def __init__(self, report: Callable[[int], None] = lambda _bytes: None) -> None:
        self.report = report
        self.resumed_bytes = 0
        self.reused_bytes = 0
        self.from_source: dict[str, int] = {}
        self._lock = threading.Lock()

    @property
    def fetched_bytes(self) -> int:
        """All bytes that came from sources, those that had to be thrown away among them."""
        return sum(self.from_source.values())

    def received(self, source: str, count: int) -> None:
        """Count bytes from a source."""
        with self._lock:
            self.from_source[source] = self.from_source.get(source, 0) + count
        self.report(count)

    def reused(self, count: int) -> None:
        """Count bytes that were taken from an older blob."""
        with self._lock:
            self.reused_bytes += count
        self.report(count)

    def resumed(self, count: int) -> None:
        """Count bytes that an earlier run had left on disk."""
        with self._lock:
            self.resumed_bytes += count
        self.report(count)
