"""A span on its way over one connection, and how a connection that is free helps the slowest one at the end.

Near the end of a blob nothing is left to be handed out while some connections still have much before them. What such a
one has not begun is cut off and given away. The segment that it is at cannot be cut: the end of that is read a second
time, into memory, and whichever copy is there first is used. One thread alone writes a segment. A connection that
brings nothing any more is ended instead: its worker asks anew, for what is not there yet.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol

from mirrortools.segments import Segments, Span

# What does not save so much is not worth what the server has sent in vain: a busy machine has such pauses by itself.
WORTH_S: Final = 0.25
_LEAST_BYTES: Final = 128 << 10
# They lie in memory.
MOST_REPEATED_BYTES: Final = 1 << 20
REPEATS_AT_ONCE: Final = 4
_MUCH_SLOWER: Final = 10
_NOTHING: Final = 1e-3
_STALLED_S: Final = 2.0
_NO_HELP_S: Final = 5.0
_MARK_S: Final = 0.5
_SOON_S: Final = 0.05


class Cancellable(Protocol):
    """Who reads from a source."""

    def cancel(self) -> None:
        """Make whoever reads, in another thread, fail at once."""
        ...


@dataclass(frozen=True, slots=True)
class Ahead:
    """What a connection has before it: so much of the segment that it is at, so many whole ones, at such a rate.

    `rate` is in bytes a second; 0 when nothing comes.
    """

    here_bytes: int
    segments: int
    segment_bytes: int
    rate: float

    @property
    def is_stalled(self) -> bool:
        """Whether nothing comes any more."""
        return self.rate == 0

    @property
    def seconds(self) -> float:
        """How long that takes."""
        return self._time(self.here_bytes + self.segments * self.segment_bytes)

    def _time(self, count: int) -> float:
        return count / max(self.rate, _NOTHING)

    def segments_to_give(self, rate: float, latency_s: float) -> int:
        """How many of its last segments another one should take, that begins after `latency_s` and has `rate`."""

        def ends_s(given: int) -> float:
            kept = self.here_bytes + (self.segments - given) * self.segment_bytes
            return max(self._time(kept), latency_s + given * self.segment_bytes / rate)

        if not self.segments:
            return 0
        best = min(range(1, self.segments + 1), key=ends_s)
        return best if self.seconds - ends_s(best) > WORTH_S else 0

    def bytes_to_repeat(self, rate: float, latency_s: float) -> int:
        """How many of the last bytes of its segment another one should read too, so that both are done together."""
        if self.rate * _MUCH_SLOWER < rate:
            return self.here_bytes if self.seconds - latency_s - self.here_bytes / rate > WORTH_S else 0
        shared = int(rate * (self.here_bytes - self.rate * latency_s) / (self.rate + rate))
        saved_s = self._time(self.here_bytes) - latency_s - shared / rate
        return shared if shared >= _LEAST_BYTES and saved_s > WORTH_S else 0


@dataclass(frozen=True, slots=True)
class Repeat:
    """The end [start, stop) of a segment, which is read a second time."""

    index: int
    start: int
    stop: int


Copies = Sequence[tuple[int, memoryview]]
"""Parts of a segment that were read a second time, each with its offset in the segment."""


class Flow:
    """A span that a worker fetches, segment by segment. Thread-safe.

    `lead` names the source to ask first, when that is not the first one of all.
    """

    def __init__(self, span: Span, segments: Segments, clock: Callable[[], float], lead: str = "") -> None:
        self.lead = lead
        self.latency_s = 0.0
        self._clock = clock
        self._segments = segments
        self._first, self._stop = span.first, span.stop
        self._index = span.first
        self._offset, self._end = segments.bounds(span.first)
        self._began_s = self._asked_s = self._heard_s = clock()
        self._marks: tuple[tuple[float, int], tuple[float, int]] | None = None
        self._came = 0
        self._repeat: Repeat | None = None
        self._copies: list[tuple[int, memoryview]] = []
        self._readers: dict[bool, Cancellable] = {}
        self._is_whole = False
        self._is_asking = False
        self._no_help_until_s = 0.0
        self._ended_at: int | None = None
        self._is_to_ask_anew = False
        self._lock = threading.Lock()

    @property
    def span(self) -> Span:
        """What the worker is to bring; others may have taken the rest."""
        with self._lock:
            return Span(self._first, max(self._first, self._stop))

    @contextmanager
    def asking(self) -> Iterator[None]:
        """A request is under way. Between two of them a worker may have to wait, which nobody can shorten."""
        with self._lock:
            self._asked_s = self._heard_s = self._clock()
            self._marks, self._is_asking, self._is_to_ask_anew = None, True, False
        try:
            yield
        finally:
            with self._lock:
                self._is_asking = False

    def never_cut(self) -> None:
        """The source sends all of the blob: nothing can be taken from this flow."""
        with self._lock:
            self._is_whole = True

    def enter(self, index: int, taken: int = 0) -> bool:
        """Begin a segment, of which so many bytes are there; False when somebody else has taken it."""
        with self._lock:
            if not self._is_whole and index >= self._stop:
                return False
            self._copies = self._copies if index == self._index else []
            self._index = index
            start, self._end = self._segments.bounds(index)
            self._offset = start + taken
            return True

    def moved(self, count: int) -> None:
        """Bytes of the segment came."""
        now_s = self._clock()
        with self._lock:
            if self._marks is None:
                self.latency_s = now_s - self._asked_s
                self._marks = ((now_s, self._came), (now_s, self._came))
            elif now_s - self._marks[1][0] > _MARK_S:
                self._marks = (self._marks[1], (now_s, self._came))
            self._came += count
            self._heard_s = now_s
            self._offset += count

    @property
    def mean_rate(self) -> float:
        """What came in all of its time, in bytes a second."""
        with self._lock:
            return self._came / max(self._heard_s - self._began_s, _NOTHING)

    def finish(self) -> None:
        """The segment is whole: whoever reads its end a second time can stop."""
        with self._lock:
            self._offset = self._end
            if reader := self._readers.get(True):
                reader.cancel()

    def ahead(self) -> Ahead | None:
        """What is before the connection; None as long as that cannot be said, or nobody can help."""
        now_s = self._clock()
        with self._lock:
            if self._is_whole or self._repeat or not self._is_asking or now_s < self._no_help_until_s:
                return None
            rate = self._rate(now_s)
            if rate is None:
                return None
            to = min((start for start, _ in self._copies), default=self._end)
            here_bytes = max(0, to - self._offset)
            return Ahead(here_bytes, max(0, self._stop - self._index - 1), self._segments.length, rate)

    def _rate(self, now_s: float) -> float | None:
        if now_s - self._heard_s > _STALLED_S:
            return 0.0
        if self._marks is None:
            return None
        since_s, before = self._marks[0]
        return (self._came - before) / (now_s - since_s) if now_s - since_s > _SOON_S else None

    def end_stalled(self) -> bool:
        """End a connection that brings nothing any more, so that its worker asks anew; whether that was done.

        Once, until bytes have come again: a source that has stopped to answer is not asked every two seconds. What it
        was to bring is then read a second time, as that of a slow one.
        """
        with self._lock:
            reader = self._readers.get(False)
            if self._is_whole or reader is None or self._ended_at == self._came:
                return False
            self._ended_at, self._is_to_ask_anew = self._came, True
            self._heard_s, self._marks = self._clock(), None
            reader.cancel()
            return True

    def is_to_ask_anew(self) -> bool:
        """Whether the worker's connection was ended here and has not failed by itself; it is told once."""
        with self._lock:
            told, self._is_to_ask_anew = self._is_to_ask_anew, False
            return told

    @property
    def is_repeated(self) -> bool:
        """Whether somebody reads an end of its segment a second time."""
        return self._repeat is not None

    def cut(self, count: int) -> Span | None:
        """Take away the last `count` segments, as far as they have not been begun."""
        with self._lock:
            first = max(self._index + 1, self._stop - count)
            if self._is_whole or first >= self._stop:
                return None
            taken, self._stop = Span(first, self._stop), first
            return taken

    def repeat(self, count: int) -> Repeat | None:
        """Have `count` bytes at the end of the segment, or before what was read a second time, read a second time."""
        with self._lock:
            to = min((start for start, _ in self._copies), default=self._end)
            start = max(self._offset, to - min(count, MOST_REPEATED_BYTES))
            if self._repeat or self._is_whole or start >= to:
                return None
            self._repeat = Repeat(self._index, start, to)
            return self._repeat

    @contextmanager
    def read_by(self, reader: Cancellable, *, again: bool = False) -> Iterator[None]:
        """A reader is at work, the one who reads a second time when `again`."""
        with self._lock:
            self._readers[again] = reader
        try:
            yield
        finally:
            with self._lock:
                del self._readers[again]

    def is_wanted(self, repeat: Repeat) -> bool:
        """Whether what is read a second time is not there yet."""
        with self._lock:
            return self._index == repeat.index and self._offset < repeat.stop

    def end_repeat(self, repeat: Repeat, copy: memoryview | None) -> None:
        """Give what was read a second time; None when nothing was. Who has nothing before that is woken.

        After help that failed nobody helps for a while: a source that refuses is not to be asked without a pause.
        """
        now_s = self._clock()
        with self._lock:
            self._repeat = None
            if self._index != repeat.index or self._offset >= repeat.stop:
                return
            if copy is None:
                self._no_help_until_s = now_s + _NO_HELP_S
                return
            self._copies.append((repeat.start, copy))
            if self._offset >= repeat.start and (reader := self._readers.get(False)):
                reader.cancel()

    def to_come(self, taken: int) -> int:
        """How many bytes lack behind the first `taken` of the segment, up to what was read a second time."""
        with self._lock:
            begin = self._segments.bounds(self._index)[0]
            return min((start for start, _ in self._copies), default=self._end) - begin - taken

    def copies(self, taken: int) -> Copies:
        """All behind the first `taken` bytes of the segment, when it was read a second time; else nothing."""
        with self._lock:
            begin = self._segments.bounds(self._index)[0]
            offset = begin + taken
            if not self._copies or self._copies[-1][0] > offset:
                return ()
            return [
                (max(start, offset) - begin, copy[max(0, offset - start) :])
                for start, copy in self._copies
                if start + len(copy) > offset
            ]
