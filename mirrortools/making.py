"""Blobs that an edge makes out of older ones while the new bytes still come, so that all is hashed soon after the last.

Only the standard library is used here, because the receiver runs this module on edges.
"""

from __future__ import annotations

import errno
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mirrortools.model import Blob
from mirrortools.patch import Fill, Recipe, patch
from mirrortools.stock import Reading, Stock

# Each takes a processor for hashing, and a few MiB of memory.
_AT_ONCE: Final = 2
_LOOK_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Order:
    """A blob to be made: its recipe, and where the older blob lies."""

    recipe: Recipe
    older: Path


@dataclass(frozen=True, slots=True)
class Made:
    """A file that was made, and its SHA-256."""

    path: Path
    digest: str


class Making:
    """Makes blobs in `folder` while the files of new bytes grow in a stock. `end` it.

    `objection` says why so many bytes may not come.
    """

    def __init__(
        self, stock: Stock, folder: Path, orders: Sequence[Order], objection: Callable[[int], str | None]
    ) -> None:
        self._stock = stock
        self._folder = folder
        self._tag = secrets.token_hex(4)  # an earlier one may still be writing
        self._objection = objection
        self._fresh = {order.recipe.blob: order.recipe.fresh for order in orders}
        self._threads = ThreadPoolExecutor(_AT_ONCE, "make")
        # In the order in which the new bytes come.
        self._made: dict[Blob, Future[Made | None]] = {
            order.recipe.blob: self._threads.submit(self._make, order)
            for order in sorted(orders, key=lambda order: order.recipe.fresh)
        }

    def made(self, blob: Blob) -> Made | None:
        """A blob that was made, as soon as it is; None of one that is not made here, or for which bytes lack."""
        fresh = self._fresh.get(blob)
        if fresh is None or (fresh.size and self._stock.have(fresh.digest) < fresh.size):
            return None
        return self._made[blob].result()

    def end(self) -> None:
        """Make nothing more; what waits for new bytes ends when its stock does."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _make(self, order: Order) -> Made | None:
        recipe, digest = order.recipe, order.recipe.blob.new_hash()
        target = self._folder / f"{recipe.blob.digest}.{self._tag}.made"
        with suppress(OSError), closing(Reading(self._stock, recipe.fresh.digest)) as fresh:
            if self._objection(recipe.blob.size):
                return None
            patch(order.older, self._filling(fresh), target, recipe.steps, digest)
            return Made(target, digest.hexdigest())
        return None

    def _filling(self, fresh: Reading) -> Fill:
        def fill(view: memoryview, offset: int) -> None:
            while view:
                version = self._stock.version
                ready = min(self._stock.have(fresh.digest) - offset, len(view))
                if ready <= 0:
                    if self._stock.ended:
                        raise OSError(errno.ECANCELED, "no more new bytes come")
                    self._stock.wait(version, _LOOK_S)
                    continue
                count = fresh.read_into(view[:ready], offset)
                if not count:
                    raise OSError(errno.EIO, "a file is shorter than it was")
                view, offset = view[count:], offset + count

        return fill
