"""What the edges share to which one repository goes at once: the chain that they make, and those that lend."""

from __future__ import annotations

from collections.abc import Mapping
from threading import Lock
from typing import TYPE_CHECKING

from mirrortools.lending import Candidate, Lending
from mirrortools.throttle import Throttle

if TYPE_CHECKING:
    from mirrortools.fanout import FanOut


class Together:
    """Where the errands of one delivery meet, made when the first of them has something to send.

    `is_alone` is whether it goes to a single edge, `is_helped` whether there are others that may feed that.
    """

    def __init__(
        self, rates: Mapping[str, float], total: Throttle, edges: int, *, is_alone: bool, is_helped: bool = False
    ) -> None:
        self.is_alone, self.is_helped = is_alone, is_helped
        self.lending = Lending(edges)
        self.is_limited = total.is_limited
        self._words = rates, total
        self._fan_out: FanOut | None = None
        self._lock = Lock()

    def fan_out(self) -> FanOut:
        """The same for all."""
        from mirrortools.fanout import FanOut

        with self._lock:
            self._fan_out = self._fan_out or FanOut(*self._words, lending=self.lending)
            return self._fan_out

    def has_fed(self, edge: str) -> bool:
        """Whether an edge got bytes by way of the others, so that it takes part."""
        return bool(self._fan_out and self._fan_out.offers(edge))

    def can_feed(self, candidate: Candidate) -> bool:
        """Whether the others can draw all that an edge has from it already; not so when it made blobs itself."""
        offered = self._fan_out.offers(candidate.name) if self._fan_out else frozenset()
        return bool(offered) and candidate.offers <= offered

    def close(self) -> None:
        """End what this host sends."""
        if self._fan_out:
            self._fan_out.close()

    @property
    def rates(self) -> Mapping[str, float]:
        """What edges took, in bytes a second."""
        return self._fan_out.rates if self._fan_out else {}
