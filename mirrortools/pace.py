"""How many connections to use at once: more while more pay.

One connection is best on a fast link, several where each flow is limited. Which it is can only be measured: the
number doubles (one is made four) as long as the whole gets clearly faster, and goes back one step when it does not.

A short look tells what a steady flow brings. Some servers send in bursts instead, nginx's `limit_rate` one a whole
second: who has seen a silence between bytes looks for several seconds at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

START: Final = 1
MOST: Final = 16
WINDOW_S: Final = 0.1
HOLD_S: Final = 10.0
_PAYS: Final = 1.25
_BESIDE_WINDOW_S: Final = 0.5
_ON_TOP: Final = 0.5
_FULL: Final = 0.6
_BUSY: Final = 0.4
_LEAP: Final = 4
_LONGEST_LATENCY_S: Final = 2.0
_SILENCE_S: Final = 0.3
# One burst more or less, of one a second, is a quarter of it at most.
_LONG_WINDOW_S: Final = 4.0


@dataclass(frozen=True, slots=True)
class Seen:
    """What there was at a moment: the bytes that have come, and the seconds that threads have spent hashing, in all.

    `working_s` is the processor time that the process has taken, as a share of all processors.
    """

    now_s: float
    fetched_bytes: int
    hashing_s: float = 0.0
    working_s: float = 0.0


def _is_full(before: Seen, seen: Seen, hashers: int) -> bool:
    """Whether the threads that hash, or the whole process, had the processors for most of the time."""
    elapsed_s = seen.now_s - before.now_s
    hashing = (seen.hashing_s - before.hashing_s) / elapsed_s / hashers
    working = (seen.working_s - before.working_s) / elapsed_s
    return hashing > _FULL or working > _BUSY


@dataclass(slots=True)
class Pace:
    """The number of connections that is allowed now; `fixed` ones are never changed.

    `rate_of_one` is what one of them brought lately, in bytes a second; 0 when nothing is known yet.
    `waits_for_processors` tells whether hashing, or decrypting and all else, had its hands full lately: then no
    connection can bring anything sooner.
    """

    fixed: int | None = None
    connections: int = START
    rate_of_one: float = 0.0
    waits_for_processors: bool = False
    _glanced: Seen | None = None
    _before: Seen | None = None
    _rate_before: float = 0.0
    _factor: int = 2
    _not_before_s: float = 0.0
    _hold_until_s: float = 0.0
    _heard: Seen | None = None
    _long_until_s: float = 0.0

    def __post_init__(self) -> None:
        self.connections = self.fixed or self.connections

    def may_grow(self, now_s: float) -> bool:
        """Whether the next look may tell that more connections pay."""
        return not self.fixed and self.connections < MOST and now_s >= self._hold_until_s

    def observe(self, seen: Seen, busy: int, hashers: int = 1, latency_s: float = 0.0) -> int:
        """Give the number of connections to use from now on.

        `busy` is how many are in use, `hashers` how many threads could hash what comes; when those have their hands
        full, more connections cannot pay. A new one brings nothing for `latency_s`, in which nothing is judged.
        """
        self._glance(seen, hashers)
        self._listen(seen, latency_s)
        before = self._before
        if before is None or not seen.fetched_bytes or seen.now_s < self._not_before_s:
            self._before = seen
            return self.connections
        elapsed_s, count = seen.now_s - before.now_s, seen.fetched_bytes - before.fetched_bytes
        if elapsed_s < self._window_s(seen.now_s) or not count:
            return self.connections
        self._before = seen
        self.rate_of_one = count / elapsed_s / max(1, busy)
        if self.fixed or busy < self.connections:
            return self.connections
        if seen.now_s >= self._hold_until_s:
            number = self.connections
            self._judge(seen.now_s, count / elapsed_s, is_full=_is_full(before, seen, hashers))
            if self.connections != number:
                self._not_before_s = seen.now_s + min(latency_s, _LONGEST_LATENCY_S)
        return self.connections

    def _glance(self, seen: Seen, hashers: int) -> None:
        """See how busy the processors are."""
        before = self._glanced
        if before is None:
            self._glanced = seen
        elif seen.now_s - before.now_s >= WINDOW_S:
            self.waits_for_processors = _is_full(before, seen, hashers)
            self._glanced = seen

    def _listen(self, seen: Seen, latency_s: float) -> None:
        """Notice a silence between bytes. What was found before it, in short looks, counts for nothing."""
        if not seen.fetched_bytes:
            return
        if self._heard is None or seen.fetched_bytes > self._heard.fetched_bytes:
            self._heard = seen
        elif seen.now_s - self._heard.now_s > _SILENCE_S + latency_s:
            if seen.now_s >= self._long_until_s:
                self._before, self._rate_before = seen, 0.0
            self._long_until_s = seen.now_s + HOLD_S

    def _window_s(self, now_s: float) -> float:
        return _LONG_WINDOW_S if now_s < self._long_until_s else WINDOW_S

    def _judge(self, now_s: float, rate: float, *, is_full: bool) -> None:
        if rate > self._rate_before * _PAYS and self.connections < MOST:
            if is_full:
                self._rate_before = 0.0  # as many as there are may have paid; more cannot
            else:
                self._rate_before = rate
                self._grow()
        elif self._rate_before and self.connections > 1 and rate <= self._rate_before * _PAYS:
            self.connections //= self._factor
            self._rate_before = 0.0
            self._hold_until_s = now_s + HOLD_S

    def _grow(self) -> None:
        """Double the number; the first one alone is made four."""
        self._factor = _LEAP if self.connections == START and not self._hold_until_s else 2
        self.connections = min(MOST, self.connections * self._factor)


@dataclass(slots=True)
class Beside:
    """The number of connections to other sources beside the first one, which has as many as pay.

    One to each of the `sources` is tried, then twice as many, as long as half of what the others bring at least comes
    on top: where all share a link that is full, what they bring is missing from the first one. After that there are
    half as many, `least` at the end, and they are tried again after ten seconds. When all have been found to pay they
    are kept.
    """

    most: int
    sources: int = 1
    least: int = 0
    connections: int = 0
    _before: Seen | None = None
    _own_before: int = 0
    _rate_before: float | None = None
    _own_rate: float = 0.0
    _hold_until_s: float = 0.0

    def observe(self, seen: Seen, own_bytes: int, busy: int, *, is_first_settled: bool) -> int:
        """Give the number of connections to use from now on.

        `seen` counts the bytes of all sources, `own_bytes` those of the others, `busy` how many connections to them
        are in use. None is added before the first source has as many as pay.
        """
        before, own_before = self._before, self._own_before
        if before is None or (busy < self.connections and self.connections):
            self._before, self._own_before = seen, own_bytes
            return self.connections
        elapsed_s = seen.now_s - before.now_s
        if elapsed_s < _BESIDE_WINDOW_S:
            return self.connections
        self._before, self._own_before = seen, own_bytes
        rate, own = (seen.fetched_bytes - before.fetched_bytes) / elapsed_s, (own_bytes - own_before) / elapsed_s
        if seen.now_s >= self._hold_until_s and self.connections < self.most and (is_first_settled or self.connections):
            self._judge(seen.now_s, rate, own)
        return self.connections

    def _judge(self, now_s: float, rate: float, own: float) -> None:
        gained = own - self._own_rate
        if self._rate_before is None or (gained > 0 and rate - self._rate_before > _ON_TOP * gained):
            self._grow(rate, own)
        else:
            self.connections = min(self.most, max(self.least, self.connections // 2))
            self._rate_before = None
            self._hold_until_s = now_s + HOLD_S

    def _grow(self, rate: float, own: float) -> None:
        self._rate_before, self._own_rate = rate, own
        self.connections = min(self.most, max(self.sources, 2 * self.connections))
