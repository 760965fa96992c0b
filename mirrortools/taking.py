"""How the segments of one blob are taken from readers: into memory or to their place, as far as they come.

A segment that broke off is gone on with from the same source; a copy of its end that is there first is used.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass

from mirrortools.choice import Choice
from mirrortools.desk import Desk, Progress
from mirrortools.errors import SourceUnavailable, UpstreamError
from mirrortools.flow import Copies, Flow, Repeat
from mirrortools.partial import Partial
from mirrortools.provenance import Provenance
from mirrortools.segments import Span
from mirrortools.sources import Sources
from mirrortools.upstreams import ByteSource, Reader

_PASSED_OVER_BYTES = 64 << 10
_AT_ONCE_BYTES = 256 << 10
_ACCOUNTED_BYTES = 1 << 20
_QUICK_S = 0.02


class Interrupted(Exception):  # noqa: N818  (nothing went wrong)
    """The run is being ended."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What all blobs of one fetch share. `behind` has something done by another thread, behind the one that fetches."""

    desk: Desk
    sources: Sources
    progress: Progress
    behind: Callable[[Callable[[], None]], None]


@dataclass(frozen=True, slots=True)
class _Begun:
    """A segment that broke off: how many of its bytes are in their place, and from where they are, in which version."""

    taken: int
    source: str
    version: str


@dataclass(frozen=True, slots=True)
class _Take:
    """A segment that a worker takes from a reader of a source, of which `taken` bytes are in their place already."""

    index: int
    source: ByteSource
    reader: Reader
    flow: Flow
    taken: int = 0


class Taking:
    """That of one blob, the file `name`, by several workers at once."""

    def __init__(self, name: str, growing: Partial, shared: Shared, choice: Choice, given: Provenance) -> None:
        self._partial = growing
        self._name = name
        self._desk = shared.desk
        self._sources = shared.sources
        self._progress = shared.progress
        self._behind = shared.behind
        self._choice = choice
        self._given = given
        self._begun: dict[int, _Begun] = {}

    def begin_again(self) -> None:
        """Nothing is there any more."""
        self._begun.clear()

    def lacking_bytes(self, span: Span) -> int:
        """How much of a span is still to come."""
        lacking, begun = self._partial.lacks(span), dict(self._begun)
        lengths = (stop - start for start, stop in map(self._partial.segments.bounds, lacking))
        return sum(lengths) - sum(begun[index].taken for index in lacking if index in begun)

    def taken(self, source: ByteSource, index: int) -> int:
        """How much of a segment is there from the same source, which can go on behind that."""
        begun = self._begun.get(index)
        return begun.taken if begun and begun.source == source.name else 0

    def copy(self, source: ByteSource, reader: Reader, stop: int, flow: Flow) -> None:
        """Take up to `stop`, segment by segment; those that are done, or that another worker has, are passed over.

        It ends where somebody else has taken the rest.
        """
        offset = reader.start
        while offset < stop:
            index = self._partial.segments.index(offset)
            start, end = self._partial.segments.bounds(index)
            take = _Take(index, source, reader, flow, offset - start)
            if not flow.enter(index, take.taken):
                return
            if self._partial.claim(index):
                try:
                    if take.taken and take.taken != self.taken(source, index):
                        return  # another worker has begun it anew since
                    came_whole = self._copy_segment(take)
                finally:
                    self._partial.release(index)
                flow.finish()
                self._behind(self._advance)
                self._partial.keep_pace()
                if not came_whole:
                    return
            else:
                self._pass_over(source, reader, end - offset)
            offset = end

    def _copy_segment(self, take: _Take) -> bool:
        """Put one segment in its place, or the rest of one that broke off; it counts when its last byte is there.

        False when its end was read a second time, and was there before this reader came to it.
        """
        begun = self._begun.pop(take.index, None)
        # Of two versions in one segment the older one counts, so that it comes again should the bytes be wrong.
        version = begun.version if begun and take.taken else take.reader.version
        room = None if take.taken else self._partial.room(take.index)
        if room is None:
            came_whole = self._write(take, version)
            self._partial.finish_segment(take.index)
        else:
            came_whole = self._fill(take, room)
            self._partial.hold(take.index, room)
            self._behind(functools.partial(self._store, take.index))
        self._given.gave(take.source.name, take.index, version)
        return came_whole

    def _advance(self) -> None:
        self._partial.advance()
        self._tell()

    def _store(self, index: int) -> None:
        self._partial.store(index)
        self._tell()

    def _tell(self) -> None:
        self._desk.told(self._partial.blob, self._partial.ready_bytes)

    def _write(self, take: _Take, version: str) -> bool:
        start, stop = self._partial.segments.bounds(take.index)

        def receive(taken: int, count: int) -> int:
            return self._partial.receive(take.reader, start + taken, count)

        copies = self._take_all(take, stop - start, receive, version)
        for offset, copy in copies:
            self._partial.write(start + offset, copy)
        return not copies

    def _fill(self, take: _Take, room: memoryview) -> bool:
        try:
            copies = self._take_into(take, room)
        except BaseException:
            self._partial.give_up(room)
            raise
        for offset, copy in copies:
            room[offset : offset + len(copy)] = copy
        return not copies

    def _take_into(self, take: _Take, room: memoryview) -> Copies:
        gulps = _Gulps(take.reader)

        def receive(taken: int, count: int) -> int:
            return gulps.read(room[taken : taken + count])

        try:
            return self._take_all(take, len(room), receive, take.reader.version)
        except UpstreamError:
            if begun := self._begun.get(take.index):
                self._partial.write(self._partial.segments.bounds(take.index)[0], room[: begun.taken])
            raise

    def _take_all(self, take: _Take, length: int, receive: Callable[[int, int], int], version: str) -> Copies:
        """Take the bytes of a segment as they come.

        `receive` is told how many there are and how many may come; it gives how many it added.

        Gives what was read a second time, when the rest is there before: the offset of each copy in the segment. What
        came before an error is remembered, so that it need not come again.
        """
        taken, flow = take.taken, take.flow
        copies = flow.copies(taken)
        try:
            while taken < length and not copies:
                self._leave_if_slow(take.source)
                moved = receive(taken, flow.to_come(taken))
                taken += moved
                flow.moved(moved)
                self._received(take.source, moved)
                copies = flow.copies(taken) if taken < length else ()
        except UpstreamError:
            if copies := flow.copies(taken):
                return copies
            if taken:
                self._begun[take.index] = _Begun(taken, take.source.name, version)
            raise
        return copies

    def _pass_over(self, source: ByteSource, reader: Reader, count: int) -> None:
        buffer = memoryview(bytearray(_PASSED_OVER_BYTES))
        while count:
            self._leave_if_slow(source)
            received = reader.readinto(buffer[:count])
            self._received(source, received)
            count -= received

    def _received(self, source: ByteSource, count: int) -> None:
        if count == 0:
            raise SourceUnavailable(f"{source.name}: {self._name} ended too early")
        self._given.contributors.add(source.name)
        self._progress.received(source.name, count)
        if self._sources.stopped.is_set():
            raise Interrupted
        self._sources.slowness(source, count)

    def _leave_if_slow(self, source: ByteSource) -> None:
        """Go to another source, if there is one, when this one stays under its minimum rate."""
        slowness = self._sources.slowness(source, 0)
        if slowness and self._choice.has_another(source):
            raise SourceUnavailable(f"{source.name}: {self._name}: {slowness}")

    def read_again(self, source: ByteSource, flow: Flow, repeat: Repeat) -> memoryview | None:
        """The end of a segment that another worker is at; None when nobody wants it any more."""
        copy = memoryview(bytearray(repeat.stop - repeat.start))
        rest = copy
        with (
            self._sources.reading(source),
            source.open(self._partial.blob, repeat.start, repeat.stop) as reader,
            flow.read_by(reader, again=True),
        ):
            if reader.start != repeat.start:
                return None
            self._given.meet(source.name, reader.version)
            while rest and flow.is_wanted(repeat):
                self._leave_if_slow(source)
                received = reader.readinto(rest[:_AT_ONCE_BYTES])
                self._received(source, received)
                rest = rest[received:]
        return None if rest else copy


class _Gulps:
    """Reads several times while bytes come quickly: on a fast link accounting costs more than reading."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._error: UpstreamError | None = None

    def read(self, room: memoryview) -> int:
        """Fill the beginning of `room`; an error behind bytes that came is raised by the next call."""
        if self._error:
            raise self._error
        ends_s, count = time.monotonic() + _QUICK_S, 0
        enough = min(len(room), _ACCOUNTED_BYTES)
        while count < enough:
            try:
                received = self._reader.readinto(room[count:])
            except UpstreamError as error:
                if not count:
                    raise
                self._error = error
                break
            count += received
            if not received or time.monotonic() > ends_s:
                break
        return count
