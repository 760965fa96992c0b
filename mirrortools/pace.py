"""How many connections to use at once: more while more pay.

One connection is best on a fast link, several where each flow is limited. Which it is can only be measured: the
number doubles as long as the whole gets clearly faster, and goes back one step when it does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

START: Final = 2
MOST: Final = 16
WINDOW_S: Final = 0.25
HOLD_S: Final = 10.0
_PAYS: Final = 1.25


@dataclass(slots=True)
class Pace:
    """The number of connections that is allowed now; `fixed` ones are never changed.

    `rate_of_one` is what one of them brought lately, in bytes a second; 0 when nothing is known yet.
    `observe` is told the time in seconds and the bytes that came so far in all.
    """

    fixed: int | None = None
    connections: int = START
    rate_of_one: float = 0.0
    _since_s: float | None = None
    _bytes: int = 0
    _rate_before: float = 0.0
    _hold_until_s: float = 0.0

    def __post_init__(self) -> None:
        self.connections = self.fixed or self.connections

    def observe(self, now_s: float, total_bytes: int, busy: int) -> int:
        """Give the number of connections to use from now on; `busy` is how many are in use."""
        if self._since_s is None:
            self._begin(now_s, total_bytes)
            return self.connections
        if self.fixed or now_s - self._since_s < WINDOW_S or busy < self.connections:
            return self.connections
        rate = (total_bytes - self._bytes) / (now_s - self._since_s)
        self.rate_of_one = rate / busy
        self._begin(now_s, total_bytes)
        if now_s >= self._hold_until_s:
            self._judge(now_s, rate)
        return self.connections

    def _begin(self, now_s: float, total_bytes: int) -> None:
        self._since_s, self._bytes = now_s, total_bytes

    def _judge(self, now_s: float, rate: float) -> None:
        if rate > self._rate_before * _PAYS and self.connections < MOST:
            self._rate_before = rate
            self.connections *= 2
        elif self._rate_before and self.connections > 1 and rate <= self._rate_before * _PAYS:
            self.connections //= 2
            self._rate_before = 0.0
            self._hold_until_s = now_s + HOLD_S
