"""How the sources behave in a run: who has failed lately, who asked for a pause, who is too slow."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Final

from mirrortools.errors import RateLimited, SourceUnavailable, UpstreamError

FIRST_COOLDOWN_S: Final = 30.0
LONGEST_COOLDOWN_S: Final = 900.0
SLOW_S: Final = 30.0


@dataclass(slots=True)
class Cooldown:
    """For how long a source is asked last: longer after each failure in a row. Moments are seconds of one clock."""

    until_s: float = 0.0
    failures: int = 0

    def failed(self, now_s: float) -> float:
        """Begin to count when it does not already; gives its length in seconds, 0 when it had begun before.

        Connections that were lost together are one failure.
        """
        if now_s < self.until_s:
            return 0.0
        length_s = min(LONGEST_COOLDOWN_S, FIRST_COOLDOWN_S * float(1 << min(self.failures, 10)))
        self.until_s, self.failures = now_s + length_s, self.failures + 1
        return length_s

    def succeeded(self) -> None:
        """The next failure is the first one again."""
        self.failures = 0


@dataclass(slots=True)
class Meter:
    """What all connections to a source bring together, while there is any."""

    readers: int = 0
    since_s: float = 0.0
    count: int = 0
    slow_rate: float | None = None

    def begin(self, now_s: float) -> None:
        """One more connection reads; the first one begins a new window."""
        if not self.readers:
            self.since_s, self.count, self.slow_rate = now_s, 0, None
        self.readers += 1

    def end(self) -> None:
        """One connection reads no more."""
        self.readers -= 1

    def came(self, now_s: float, count: int, minimum: int) -> float | None:
        """Count bytes; gives the rate of the last whole window when that was under `minimum` bytes a second."""
        self.count += count
        if now_s - self.since_s >= SLOW_S:
            rate = self.rate(now_s)
            self.slow_rate = rate if rate < minimum else None
            self.since_s, self.count = now_s, 0
        return self.slow_rate

    def rate(self, now_s: float) -> float:
        """Bytes a second since the window began."""
        return self.count / max(now_s - self.since_s, 1e-3)


@dataclass(slots=True)
class Standing:
    """What a run knows of one source."""

    cooldown: Cooldown = field(default_factory=Cooldown)
    meter: Meter = field(default_factory=Meter)
    pause_until_s: float = 0.0
    pause_text: str = ""


class Standings:
    """What a run knows of its sources, each by its place (`Terms`). Thread-safe."""

    def __init__(self) -> None:
        self._known: dict[str, Standing] = {}
        self._lock = threading.Lock()

    def _of(self, place: str) -> Standing:
        return self._known.setdefault(place, Standing())

    def is_cooling(self, place: str, now_s: float) -> bool:
        """Whether the source is to be asked last."""
        with self._lock:
            return self._of(place).cooldown.until_s > now_s

    def check_pause(self, place: str, now_s: float) -> None:
        """Keep the pause that the source asked for. Raises RateLimited until it is over."""
        with self._lock:
            standing = self._of(place)
            left_s = standing.pause_until_s - now_s
        if left_s > 0:
            raise RateLimited(standing.pause_text, left_s)

    def failed(self, place: str, now_s: float, error: UpstreamError) -> float:
        """Learn from a failure that is not about one blob; gives the length of a cooldown that begins now, else 0."""
        with self._lock:
            standing = self._of(place)
            if isinstance(error, RateLimited):
                standing.pause_until_s, standing.pause_text = now_s + error.retry_after_s, str(error)
            if isinstance(error, SourceUnavailable | RateLimited):
                return standing.cooldown.failed(now_s)
            return 0.0

    def succeeded(self, place: str, now_s: float, minimum: int) -> None:
        """A span came, which counts when the source is fast enough."""
        with self._lock:
            standing = self._of(place)
            if standing.meter.rate(now_s) >= minimum:
                standing.cooldown.succeeded()

    def begin(self, place: str, now_s: float) -> None:
        """A connection reads from now on."""
        with self._lock:
            self._of(place).meter.begin(now_s)

    def end(self, place: str) -> None:
        """A connection reads no more."""
        with self._lock:
            self._of(place).meter.end()

    def came(self, place: str, now_s: float, count: int, minimum: int) -> float | None:
        """Count bytes; gives the source's rate when it stays under `minimum` bytes a second."""
        with self._lock:
            return self._of(place).meter.came(now_s, count, minimum)
