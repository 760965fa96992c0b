"""How the sources behave, in this run and before it: who has failed lately, who asked for a pause, who is too slow."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from mirrortools.errors import RateLimited, SourceUnavailable, UpstreamError
from mirrortools.state import Trouble

FIRST_COOLDOWN_S: Final = 30.0
LONGEST_COOLDOWN_S: Final = 900.0
SLOW_S: Final = 30.0
# A pause that a source asked for is kept so long at most: nobody shuts us out for a year by one header.
LONGEST_PAUSE_S: Final = 3600.0


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

    def succeeded(self) -> bool:
        """The next failure is the first one again; whether there was any."""
        had_any, self.failures = self.failures > 0, 0
        return had_any


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
    """What a run knows of one source: as one that gives bytes, and as one that answers questions."""

    cooldown: Cooldown = field(default_factory=Cooldown)
    meter: Meter = field(default_factory=Meter)
    pause_until_s: float = 0.0
    pause_text: str = ""
    silence: Cooldown = field(default_factory=Cooldown)
    silence_text: str = ""


def _keep_nothing(trouble: Trouble) -> None:
    """No other run is to know."""


class Standings:
    """What a run knows of its sources, each by its place (`Terms`). Thread-safe.

    `kept` is what earlier runs knew at the moment `now_s`, and `keep` is told what later ones should know. Times in
    there are Unix seconds; the clock of this run was 0 at `epoch_s`. What lies too far ahead is of a clock that was
    wrong.
    """

    def __init__(
        self,
        kept: Iterable[Trouble] = (),
        keep: Callable[[Trouble], None] = _keep_nothing,
        epoch_s: float = 0.0,
        now_s: float = 0.0,
    ) -> None:
        self._known: dict[str, Standing] = {}
        self._keep = keep
        self._epoch_s = epoch_s
        self._lock = threading.Lock()
        for trouble in kept:
            self._recall(trouble, now_s)

    def _recall(self, trouble: Trouble, now_s: float) -> None:
        standing, until_s = self._of(trouble.place), trouble.until - self._epoch_s
        if trouble.what == "pause":
            standing.pause_until_s, standing.pause_text = min(until_s, now_s + LONGEST_PAUSE_S), trouble.error
            return
        cooldown = Cooldown(min(until_s, now_s + LONGEST_COOLDOWN_S), trouble.failures)
        if trouble.what == "bytes":
            standing.cooldown = cooldown
        else:
            standing.silence, standing.silence_text = cooldown, trouble.error

    def _of(self, place: str) -> Standing:
        return self._known.setdefault(place, Standing())

    def _note(self, place: str, what: str, cooldown: Cooldown, text: str = "") -> None:
        self._keep(Trouble(place, what, cooldown.failures, self._epoch_s + cooldown.until_s, text))

    def refusal(self, place: str, now_s: float) -> SourceUnavailable | None:
        """Why a source is not to be asked anything now: it could not be reached lately, however often it was tried."""
        with self._lock:
            silence, text = self._of(place).silence, self._of(place).silence_text
        if now_s >= silence.until_s:
            return None
        return SourceUnavailable(
            Trouble(place, "questions", silence.failures, self._epoch_s + silence.until_s, text).text
        )

    def unreached(self, place: str, now_s: float, error: UpstreamError) -> None:
        """A source did not answer at all."""
        with self._lock:
            standing = self._of(place)
            if standing.silence.failed(now_s):
                standing.silence_text = str(error)
                self._note(place, "questions", standing.silence, str(error))

    def answered(self, place: str) -> None:
        """A source answered."""
        with self._lock:
            standing = self._of(place)
            standing.silence.until_s = 0.0
            if standing.silence.succeeded():
                self._note(place, "questions", standing.silence)

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
            standing, length_s = self._of(place), 0.0
            if isinstance(error, RateLimited):
                self._pause(place, now_s, error)
            if isinstance(error, SourceUnavailable | RateLimited) and (length_s := standing.cooldown.failed(now_s)):
                self._note(place, "bytes", standing.cooldown, str(error))
            return length_s

    def paused(self, place: str, now_s: float, error: RateLimited) -> None:
        """A source asked for a pause."""
        with self._lock:
            self._pause(place, now_s, error)

    def _pause(self, place: str, now_s: float, error: RateLimited) -> None:
        standing = self._of(place)
        until_s = now_s + min(error.retry_after_s, LONGEST_PAUSE_S)
        if until_s > standing.pause_until_s:
            standing.pause_until_s, standing.pause_text = until_s, str(error)
            self._note(place, "pause", Cooldown(until_s, 1), str(error))

    def succeeded(self, place: str, now_s: float, minimum: int) -> None:
        """A span came, which counts when the source is fast enough."""
        with self._lock:
            standing = self._of(place)
            if standing.meter.rate(now_s) >= minimum and standing.cooldown.succeeded():
                self._note(place, "bytes", standing.cooldown)

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
