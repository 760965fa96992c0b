"""What all workers learn about the sources of bytes."""

from __future__ import annotations

from mirrortools.desk import Desk
from mirrortools.errors import RateLimited, SourceUnavailable, UpstreamError
from mirrortools.upstreams import ByteSource

SHUNNED_S = 30.0


class Sources:
    """What all workers learn about the sources: who is to be left alone for a while, who cannot seek."""

    def __init__(self, desk: Desk) -> None:
        self.stopped = desk.stopped
        self.cannot_seek: set[str] = set()
        self._shunned_until: dict[str, float] = {}
        self._pauses: dict[str, tuple[float, str]] = {}
        self._all = desk.sources
        self._clock = desk.clock

    def break_off(self) -> None:
        """End whatever workers read."""
        self.stopped.set()
        for source in self._all:
            source.break_off()

    def in_order(self, refused: set[str]) -> list[ByteSource]:
        """The sources to ask for a blob: in the given order, those that failed lately last."""
        now = self._clock()
        left = [source for source in self._all if source.name not in refused]
        return sorted(left, key=lambda source: self._shunned_until.get(source.name, 0.0) > now)

    def check_pause(self, source: ByteSource) -> None:
        """Keep the pause that a source asked one of the workers for. Raises RateLimited until it is over."""
        until, text = self._pauses.get(source.name, (0.0, ""))
        left_s = until - self._clock()
        if left_s > 0:
            raise RateLimited(text, left_s)

    def shun(self, source: ByteSource, error: UpstreamError) -> None:
        """Prefer the others for a while after a failure that is not about one blob."""
        if isinstance(error, RateLimited):
            self._pauses[source.name] = (self._clock() + error.retry_after_s, str(error))
        if isinstance(error, SourceUnavailable | RateLimited):
            self._shunned_until[source.name] = self._clock() + SHUNNED_S
