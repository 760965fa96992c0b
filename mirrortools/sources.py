"""What all workers of a fetch learn about the sources of bytes, and what other fetches of the run have learnt."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from mirrortools.desk import Desk
from mirrortools.errors import UpstreamError
from mirrortools.standing import SLOW_S
from mirrortools.text import size
from mirrortools.upstreams import ByteSource

_log = logging.getLogger("mirrortools.fetch")


class Sources:
    """Who is to be left alone for a while, who cannot seek, who is too slow, who has given wrong bytes."""

    def __init__(self, desk: Desk) -> None:
        self.stopped = desk.stopped
        self.cannot_seek: set[str] = set()
        self._liars: set[str] = set()
        self._desk = desk
        self._standings = desk.standings

    def break_off(self) -> None:
        """End whatever workers read."""
        self.stopped.set()
        for source in self._desk.sources:
            source.break_off()

    def in_order(self, refused: Collection[str]) -> list[ByteSource]:
        """The sources to ask for a blob: in the given order, those that failed lately last."""
        left = [source for source in self._desk.sources if source.name not in refused]
        return sorted(left, key=self._is_cooling)

    def ready(self, refused: Collection[str]) -> list[ByteSource]:
        """The sources that may be asked and have not failed lately."""
        return [source for source in self.in_order(refused) if not self._is_cooling(source)]

    def distrust(self, names: Collection[str]) -> None:
        """Ask sources that gave wrong bytes of one blob last for all others, too.

        Seeds, which there are no terms for, stay: of a folder on this host one file rots, and the others do not.
        """
        self._liars.update(name for name in names if name in self._desk.terms)

    def _is_cooling(self, source: ByteSource) -> bool:
        return source.name in self._liars or self._standings.is_cooling(self._place(source), self._desk.clock())

    def _place(self, source: ByteSource) -> str:
        return self._desk.terms_of(source).place

    def check_pause(self, source: ByteSource) -> None:
        """Keep the pause that a source asked for. Raises RateLimited until it is over."""
        self._standings.check_pause(self._place(source), self._desk.clock())

    def shun(self, source: ByteSource, error: UpstreamError) -> None:
        """Prefer the others for a while after a failure that is not about one blob."""
        length_s = self._standings.failed(self._place(source), self._desk.clock(), error)
        if length_s and len(self._desk.sources) > 1:
            _log.warning("%s; for %.0f s the other sources are asked before it", error, length_s)

    def gave(self, source: ByteSource) -> None:
        """A source gave what it was asked for."""
        terms = self._desk.terms_of(source)
        self._standings.succeeded(terms.place, self._desk.clock(), terms.minimum_rate)

    @contextmanager
    def reading(self, source: ByteSource) -> Iterator[None]:
        """While a connection reads from a source, its time counts for the source's rate."""
        place = self._place(source)
        self._standings.begin(place, self._desk.clock())
        try:
            yield
        finally:
            self._standings.end(place)

    def slowness(self, source: ByteSource, count: int) -> str:
        """Count bytes of a source; says how slow it is while it stays under its minimum rate, else nothing."""
        terms = self._desk.terms_of(source)
        rate = self._standings.came(terms.place, self._desk.clock(), count, terms.minimum_rate)
        if rate is None:
            return ""
        least = f"{size(terms.minimum_rate)}/s"
        return f"brought {size(int(rate))}/s for {SLOW_S:.0f} s, less than its minimum_rate of {least}"
