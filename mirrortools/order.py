"""Who goes next: hot ones first, small ones before large ones, and nobody is passed over for ever.

What is small goes at once, whatever else is going on. For what is larger there are lanes by size with a few places
each: so a giant neither holds up what is much smaller nor waits for it, and the link stays full. Nothing here knows of
threads or of time.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

SMALL_BYTES: Final = 1 << 20
# Up to so many bytes to fetch, so many at a time.
LANES: Final = ((64 << 20, 2), (4 << 30, 2), (1 << 63, 2))
PLACES: Final = sum(places for _, places in LANES)
Item = TypeVar("Item")


@dataclass(slots=True)
class Queue(Generic[Item]):
    """The smallest goes first, until as much as the eldest has to fetch has gone since that came: then it is due.

    So nobody is passed over by an endless row of smaller ones: whoever waits becomes the eldest, and then due.
    """

    _waiting: dict[int, tuple[int, Item]] = field(default_factory=dict)
    _by_size: list[tuple[int, int]] = field(default_factory=list)
    _by_age: deque[tuple[int, int]] = field(default_factory=deque)
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _gone_bytes: int = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def push(self, size_bytes: int, item: Item) -> None:
        """One more waits, who has so much to fetch."""
        number = next(self._numbers)
        self._waiting[number] = (size_bytes, item)
        heapq.heappush(self._by_size, (size_bytes, number))
        self._by_age.append((number, self._gone_bytes))

    def pop(self) -> Item:
        """Take out whose turn it is. Raises IndexError when nobody waits."""
        eldest, gone_before = self._eldest()
        is_due = self._gone_bytes - gone_before >= self._waiting[eldest][0]
        size_bytes, item = self._waiting.pop(eldest if is_due else self._smallest())
        self._gone_bytes += size_bytes
        return item

    def _eldest(self) -> tuple[int, int]:
        while self._by_age[0][0] not in self._waiting:
            self._by_age.popleft()
        return self._by_age[0]

    def _smallest(self) -> int:
        while self._by_size[0][1] not in self._waiting:
            heapq.heappop(self._by_size)
        return self._by_size[0][1]


@dataclass(slots=True)
class Lane(Generic[Item]):
    """Places for those who have about as much to fetch; cold ones wait until no hot one does."""

    free: int
    hot: Queue[Item] = field(default_factory=Queue)
    cold: Queue[Item] = field(default_factory=Queue)

    def enter(self) -> bool:
        """Take a place when there is one and nobody waits for it."""
        if not self.free or self.hot or self.cold:
            return False
        self.free -= 1
        return True

    def wait(self, size_bytes: int, item: Item, *, hot: bool) -> None:
        """Stand in the queue from now on."""
        (self.hot if hot else self.cold).push(size_bytes, item)

    def next(self) -> Item | None:
        """Whose turn it is, who has a place from now on; None when no place is free or nobody waits."""
        queue = self.hot or self.cold
        if not self.free or not queue:
            return None
        self.free -= 1
        return queue.pop()

    def leave(self) -> None:
        """Give a place back."""
        self.free += 1


def lane_of(size_bytes: int) -> int | None:
    """Which lane is for those who have so much to fetch; None for what is small, which goes at once."""
    if size_bytes <= SMALL_BYTES:
        return None
    return next(number for number, (most_bytes, _) in enumerate(LANES) if size_bytes <= most_bytes)


def look_order(items: Iterable[Item], is_hot: Callable[[Item], bool], looked_at: Callable[[Item], float]) -> list[Item]:
    """Hot ones first; of each kind whoever was looked at longest ago, so that no run begins where the last one did."""
    return sorted(items, key=lambda item: (not is_hot(item), looked_at(item)))
