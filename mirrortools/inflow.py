"""Blobs that this host is still fetching, for whoever passes them on meanwhile: how much of each is on disk."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from mirrortools.model import Blob
from mirrortools.stock import Stock


class Inflow:
    """A stock of blobs that grow. Thread-safe. `places` gives the files that a blob grows in and ends as."""

    def __init__(
        self, coming: Iterable[Blob] = (), places: Callable[[Blob], Sequence[Path]] = lambda _blob: ()
    ) -> None:
        self.stock = Stock()
        self._left = {blob: blob.size for blob in coming}
        self._lock = threading.Lock()
        self.coming_bytes = sum(self._left.values())
        for blob in self._left:
            self.stock.put(blob.digest, 0, *places(blob))

    def grown(self, blob: Blob, ready_bytes: int) -> None:
        """Know how much of a blob is here. What is fetched anew after that is found wrong counts as it did."""
        with self._lock:
            came_bytes = self._left.get(blob, 0) - (blob.size - ready_bytes)
            if came_bytes <= 0:
                return
            self._left[blob] -= came_bytes
            self.coming_bytes -= came_bytes
            self.stock.grow(blob.digest, ready_bytes)

    def end(self) -> None:
        """Know that all of it is here."""
        for blob in self._left:
            self.grown(blob, blob.size)
