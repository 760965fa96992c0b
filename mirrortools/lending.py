"""Who of the edges that have all of a delivery feeds those that lack much of it.

An edge that is done waits here, until it is called to feed or nobody is left to be fed. So nothing is asked of it, and
nobody logs in to it, without need. Edges that the delivery does not go to, but that are to have the repository, wait
with them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from mirrortools.model import Publication

# Who lacks less is not worth the log-in to a feeder, which takes as long as these bytes on a common link.
LEAST_BYTES: Final = 16 << 20
# Each that fails costs its takers a few seconds; after so many of a region the origin is left to it.
MOST_LENDERS: Final = 3


@dataclass(frozen=True)
class Candidate:
    """An edge that shows its share of what is delivered, and so has the blobs; or should, when that was not `seen`."""

    name: str
    share: Publication
    region: str = ""
    seen: bool = True

    @cached_property
    def offers(self) -> frozenset[str]:
        """The digests of what it has."""
        return frozenset(blob.digest for blob in self.share.blobs)


@dataclass(frozen=True, slots=True)
class Need:
    """What an edge lacks that the origin would feed: the digests, and the bytes of them.

    `is_lost` is whether the origin cannot, so that little is worth a call too.
    """

    wants: frozenset[str]
    lacking_bytes: int
    is_lost: bool = False

    @property
    def is_worth_it(self) -> bool:
        """Whether an edge is to be called for it."""
        return self.is_lost or self.lacking_bytes >= LEAST_BYTES


def lender(candidates: Iterable[Candidate], needs: Iterable[Need], rates: Mapping[str, float]) -> Candidate | None:
    """Whom to call: who has what most of those want that lack much; of equals one that was seen to have it, and of
    those the fastest by `rates`, in bytes/s.
    """
    wanted = [need.wants for need in needs if need.is_worth_it]
    found: tuple[int, bool, float] = (0, False, -1.0)
    best = None
    for candidate in candidates if wanted else ():
        offers = candidate.offers
        worth = sum(wants <= offers for wants in wanted), candidate.seen, rates.get(candidate.name, 0.0)
        if worth[0] and worth > found:
            best, found = candidate, worth
    return best


class Lending:
    """Where edges of one delivery wait that have all; `edges` are how many it goes to. Thread-safe."""

    def __init__(self, edges: int) -> None:
        self._left = edges
        self._candidates: dict[str, Candidate] = {}
        self._called: dict[str, str] = {}
        self._changed = threading.Condition()

    def one_done(self) -> None:
        """Know that one edge more has what it is to have, or failed."""
        with self._changed:
            self._left -= 1
            self._changed.notify_all()

    def offer(self, candidates: Iterable[Candidate]) -> None:
        """Know some that may be called; each of them then waits for that."""
        with self._changed:
            self._candidates |= {found.name: found for found in candidates if found.name not in self._called}

    def end(self) -> None:
        """Let nobody wait any longer."""
        with self._changed:
            self._left = 0
            self._changed.notify_all()

    @property
    def called(self) -> tuple[str, ...]:
        """Those that were called."""
        return tuple(self._called)

    @property
    def is_exhausted(self) -> bool:
        """Whether nobody waits, and of the edges that are being fed all but one have ended."""
        with self._changed:
            return not self._candidates and self._left <= 1

    @property
    def has_ended(self) -> bool:
        """Whether nobody is left to be fed."""
        return self._left <= 0

    def await_call(self, candidate: Candidate) -> bool:
        """Wait until an edge is called to feed others; False when the delivery ended without that."""
        with self._changed:
            self.offer([candidate])
            self._changed.wait_for(lambda: self.has_ended or candidate.name in self._called)
            return candidate.name in self._called

    def call(self, needs: Iterable[Need], rates: Mapping[str, float], region: str | None = None) -> Candidate | None:
        """Call one that is worth it, of a region or of any; nobody is called twice."""
        with self._changed:
            called = [*self._called.values()]
            waiting = [
                candidate
                for candidate in self._candidates.values()
                if region in (None, candidate.region) and called.count(candidate.region) < MOST_LENDERS
                if not self.has_ended
            ]
            found = lender(waiting, needs, rates)
            if found:
                del self._candidates[found.name]
                self._called[found.name] = found.region
                self._changed.notify_all()
            return found

    def wait_end(self, timeout_s: float) -> bool:
        """Wait for the end of the delivery, so long at most; whether it has ended."""
        with self._changed:
            return self._changed.wait_for(lambda: self.has_ended, timeout_s)
