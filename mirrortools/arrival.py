"""One blob on its way into the store: whom to ask for which segments, and what to do with wrong bytes."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

from mirrortools.desk import Desk, Progress
from mirrortools.errors import (
    AccessDenied,
    IntegrityError,
    RateLimited,
    SourceMissing,
    SourceUnavailable,
    StoreError,
    UpstreamError,
)
from mirrortools.files import make_folder
from mirrortools.flow import Copies, Flow, Repeat
from mirrortools.partial import Partial
from mirrortools.places import Seat
from mirrortools.segmented import read_hashes, reuse_segments, write_hashes
from mirrortools.segments import Span
from mirrortools.sources import Sources
from mirrortools.upstreams import ByteSource, Reader

ROUNDS = 4
LONGEST_PAUSE_S = 120.0
POLL_S = 0.2
_FIRST_PAUSE_S = 1.0
_MOST_DAMAGES = 3
_PASSED_OVER_BYTES = 64 << 10
_AT_ONCE_BYTES = 256 << 10
_ACCOUNTED_BYTES = 1 << 20
_QUICK_S = 0.02
_EARLIER = "an earlier run"
_log = logging.getLogger("mirrortools.fetch")


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


class Arrival:
    """One blob on its way into the store."""

    def __init__(self, name: str, growing: Partial, shared: Shared) -> None:
        self.partial = growing
        self.unfinished = 0
        self._uncut: deque[Span] = deque()
        self._behind = shared.behind
        self.failed = False
        self.adopted = False
        self._name = name
        self._desk = shared.desk
        self._sources = shared.sources
        self._progress = shared.progress
        self._contributors: set[str] = {_EARLIER} if growing.resumed_bytes else set()
        self._refused: set[str] = set()
        self._lacking: set[str] = set()
        self._alone: str | None = None
        self._damages = 0
        self._renewed = False
        self._suspect = ""
        self._origins: dict[int, tuple[str, str]] = {}
        self._begun: dict[int, _Begun] = {}
        self._versions: dict[str, str] = {}
        self._changed: set[str] = set()
        self._one_at_a_time = threading.Lock()
        self._choosing = threading.Lock()
        self._progress.resumed(growing.resumed_bytes)

    def reuse(self) -> None:
        """Take from the older file what did not change, if a source tells what that is."""
        for source in self._choice():
            try:
                hashes = read_hashes(source.segment_hashes(self.partial.blob), self.partial.segments)
            except UpstreamError:
                continue
            if hashes:
                copied = reuse_segments(self._desk.older[self.partial.blob], self.partial, hashes)
                self._contributors |= {_EARLIER} if copied else set()
                self._progress.reused(copied)
                return

    def cut(self) -> bool:
        """See what is missing; whether that is anything."""
        self._uncut = deque(self.partial.missing())
        return self.has_spans

    @property
    def has_spans(self) -> bool:
        """Whether something is left that no worker was given."""
        return bool(self._uncut)

    @property
    def uncut_segments(self) -> int:
        """How many segments that is."""
        return sum(run.stop - run.first for run in self._uncut)

    def next_span(self, longest: int) -> Span | None:
        """The next segments that no worker was given, `longest` at most."""
        if not self._uncut:
            return None
        run = self._uncut.popleft()
        if run.stop - run.first > longest:
            self._uncut.appendleft(Span(run.first + longest, run.stop))
            run = Span(run.first, run.first + longest)
        return run

    def first_choice(self, lead: str = "") -> ByteSource:
        """Whom a worker will ask first that is to ask `lead`."""
        return (self._choice(lead) or self._desk.sources)[0]

    def may_lead(self, source: ByteSource) -> bool:
        """Whether a source may be asked before the others: it has not failed, and any may be asked for this blob."""
        ready = self._sources.ready({*self._refused, *self._lacking})
        return self._alone is None and source in ready and source.name not in self._sources.cannot_seek

    def fetch_span(self, flow: Flow, seat: Seat) -> None:
        """Ask the sources in turn until the span is on disk, or a few rounds have brought nothing.

        The worker has a place at the source that it asks, and none while it pauses. Raises UpstreamError.
        """
        try:
            self._fetch_span(flow, seat)
        finally:
            seat.leave()

    def _fetch_span(self, flow: Flow, seat: Seat) -> None:
        fruitless = 0
        lacking = self._lacking_bytes(flow)
        while lacking and not self.failed:
            alone = self._alone
            errors = self._ask_in_turn(flow, seat)
            still_lacking = self._lacking_bytes(flow)
            fruitless = fruitless + 1 if errors and still_lacking >= lacking else 0
            lacking = still_lacking
            pause_s = _pause_s(errors, fruitless) if lacking else 0.0
            if pause_s is not None:
                self._pause(pause_s, seat)
            elif self._ask_another_alone(alone):
                fruitless = 0
            else:
                raise _the_telling_one(errors, self._name)

    def _lacking_bytes(self, flow: Flow) -> int:
        """How much of a span is still to come."""
        lacking, begun = self.partial.lacks(flow.span), dict(self._begun)
        lengths = (stop - start for start, stop in map(self.partial.segments.bounds, lacking))
        return sum(lengths) - sum(begun[index].taken for index in lacking if index in begun)

    def _ask_in_turn(self, flow: Flow, seat: Seat) -> list[UpstreamError]:
        """Ask one source after the other until one has answered: why none did, or nothing."""
        errors: list[UpstreamError] = []
        for source in self._choice(flow.lead):
            try:
                self._sources.check_pause(source)
                if not seat.move(self._desk.terms_of(source)):
                    raise Interrupted
                self._fetch_from(source, flow)
            except UpstreamError as error:
                self._lacking |= {source.name} if isinstance(error, SourceMissing | AccessDenied) else set()
                self._sources.shun(source, error)
                errors.append(error)
            else:
                self._sources.gave(source)
                return []
        return errors

    def _pause(self, pause_s: float, seat: Seat) -> None:
        if pause_s:
            seat.leave()
            self._desk.wait(self._sources.stopped, pause_s)
        if self._sources.stopped.is_set():
            raise Interrupted

    def _choice(self, lead: str = "") -> list[ByteSource]:
        left = [source for source in self._sources.in_order(self._refused) if self._alone in (None, source.name)]
        return sorted(left, key=lambda source: source.name != lead) if lead else left

    def _ask_another_alone(self, failed: str | None) -> bool:
        """After wrong bytes the sources are tried one by one: whether there is another one, when one has failed."""
        with self._choosing:
            if failed is None:
                return False
            if self._alone == failed:
                rest = self._sources.in_order({*self._refused, failed})
                if not rest:
                    return False
                self._refused.add(failed)
                self._alone = rest[0].name
            return True

    def _fetch_from(self, source: ByteSource, flow: Flow) -> None:
        while True:
            try:
                return self._fetch_rest(source, flow)
            except UpstreamError:
                if not flow.is_to_ask_anew():
                    raise

    def _fetch_rest(self, source: ByteSource, flow: Flow) -> None:
        if source.name not in self._sources.cannot_seek and self._fetch_missing(source, flow):
            return
        # Range was ignored. One worker reads such a blob through; the others find their spans done.
        self._sources.cannot_seek.add(source.name)
        flow.never_cut()
        with self._one_at_a_time:
            self._fetch_missing(source, flow, whole=True)

    def _fetch_missing(self, source: ByteSource, flow: Flow, whole: bool = False) -> bool:
        """Fetch what a span lacks; False when the source cannot begin in the middle and `whole` is not set."""
        segments, wanted = self.partial.segments, self.partial.lacks(flow.span)
        if not wanted:
            return True
        start = segments.bounds(wanted[0])[0] + self._taken(source, wanted[0])
        stop = segments.bounds(wanted[-1])[1]
        with flow.asking(), self._sources.reading(source), source.open(self.partial.blob, start, stop) as reader:
            if reader.start not in (0, start):
                raise SourceUnavailable(f"{source.name}: asked for byte {start}, sent from {reader.start}")
            if reader.start != start and not whole:
                return False
            self._meet(source, reader.version)
            with flow.read_by(reader):
                self._copy(source, reader, stop if reader.start == start else segments.size, flow)
        return True

    def _taken(self, source: ByteSource, index: int) -> int:
        """How much of a segment is there from the same source, which can go on behind that."""
        begun = self._begun.get(index)
        return begun.taken if begun and begun.source == source.name else 0

    def repeat(self, flow: Flow, repeat: Repeat, seat: Seat, lead: str = "") -> None:
        """Read the end of a segment that another worker is at. What goes wrong here does no harm."""
        copy: memoryview | None = None
        source = self.first_choice(lead)
        try:
            if seat.move(self._desk.terms_of(source)):
                copy = self._read_again(source, flow, repeat)
        except UpstreamError as error:
            if flow.is_wanted(repeat):
                self._sources.shun(source, error)
        finally:
            flow.end_repeat(repeat, copy)
            seat.leave()

    def _read_again(self, source: ByteSource, flow: Flow, repeat: Repeat) -> memoryview | None:
        copy = memoryview(bytearray(repeat.stop - repeat.start))
        rest = copy
        with (
            self._sources.reading(source),
            source.open(self.partial.blob, repeat.start, repeat.stop) as reader,
            flow.read_by(reader, again=True),
        ):
            if reader.start != repeat.start:
                return None
            self._meet(source, reader.version)
            while rest and flow.is_wanted(repeat):
                self._leave_if_slow(source)
                received = reader.readinto(rest[:_AT_ONCE_BYTES])
                self._received(source, received)
                rest = rest[received:]
        return None if rest else copy

    def _meet(self, source: ByteSource, version: str) -> None:
        """Notice when the file of a source is another one than before. What that is worth the SHA-256 decides."""
        before = self._versions.get(source.name, version)
        if version:
            self._versions[source.name] = version
        if version not in ("", before) and source.name not in self._changed:
            self._changed.add(source.name)
            _log.warning("%s: %s changed while it was fetched", source.name, self._name)

    def _copy(self, source: ByteSource, reader: Reader, stop: int, flow: Flow) -> None:
        """Take up to `stop`, segment by segment; those that are done, or that another worker has, are passed over.

        It ends where somebody else has taken the rest.
        """
        offset = reader.start
        while offset < stop:
            index = self.partial.segments.index(offset)
            start, end = self.partial.segments.bounds(index)
            take = _Take(index, source, reader, flow, offset - start)
            if not flow.enter(index, take.taken):
                return
            if self.partial.claim(index):
                try:
                    if take.taken and take.taken != self._taken(source, index):
                        return  # another worker has begun it anew since
                    came_whole = self._copy_segment(take)
                finally:
                    self.partial.release(index)
                flow.finish()
                self._behind(self._advance)
                self.partial.keep_pace()
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
        room = None if take.taken else self.partial.room(take.index)
        if room is None:
            came_whole = self._write(take, version)
            self.partial.finish_segment(take.index)
        else:
            came_whole = self._fill(take, room)
            self.partial.hold(take.index, room)
            self._behind(functools.partial(self._store, take.index))
        self._origins[take.index] = (take.source.name, version)
        return came_whole

    def _advance(self) -> None:
        self.partial.advance()
        self._tell()

    def _store(self, index: int) -> None:
        self.partial.store(index)
        self._tell()

    def _tell(self) -> None:
        self._desk.told(self.partial.blob, self.partial.ready_bytes)

    def _write(self, take: _Take, version: str) -> bool:
        start, stop = self.partial.segments.bounds(take.index)

        def receive(taken: int, count: int) -> int:
            return self.partial.receive(take.reader, start + taken, count)

        copies = self._take_all(take, stop - start, receive, version)
        for offset, copy in copies:
            self.partial.write(start + offset, copy)
        return not copies

    def _fill(self, take: _Take, room: memoryview) -> bool:
        try:
            copies = self._take_into(take, room)
        except BaseException:
            self.partial.give_up(room)
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
                self.partial.write(self.partial.segments.bounds(take.index)[0], room[: begun.taken])
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
        self._contributors.add(source.name)
        self._progress.received(source.name, count)
        if self._sources.stopped.is_set():
            raise Interrupted
        self._sources.slowness(source, count)

    def _leave_if_slow(self, source: ByteSource) -> None:
        """Go to another source, if there is one, when this one stays under its minimum rate."""
        slowness = self._sources.slowness(source, 0)
        if slowness and self._has_another(source):
            raise SourceUnavailable(f"{source.name}: {self._name}: {slowness}")

    def _has_another(self, source: ByteSource) -> bool:
        """Whether another source than this may have the blob, and has not failed lately."""
        return self._alone is None and bool(self._sources.ready({*self._refused, *self._lacking, source.name}))

    def conclude(self) -> None:
        """Adopt the blob when it hashes to its name; otherwise prepare for another source. Raises IntegrityError."""
        got = self.partial.digest()
        if self._sources.stopped.is_set():
            raise Interrupted
        if got == self.partial.blob.digest:
            self.partial.sync()
            self._desk.store.adopt(self.partial.path, self.partial.blob)
            write_hashes(self._desk.store.served, self.partial.blob, self.partial.segments, self.partial.done)
            self.partial.journal.unlink(missing_ok=True)
            self.adopted = True
            self._desk.told(self.partial.blob, self.partial.blob.size)
            if self._suspect not in ("", self._alone):
                self._sources.distrust({self._suspect})
                _log.warning(
                    "%s: gave wrong bytes of %s, which came right from %s", self._suspect, self._name, self._alone
                )
        elif self.partial.forget_damage():
            self._damages += 1
            if self._damages == _MOST_DAMAGES:
                raise StoreError(
                    f"{self.partial.path}: gives back other bytes than were written; check disk and memory"
                )
        elif outdated := self._outdated():
            self._renewed = True
            self.partial.forget(outdated)
        elif doubtful := self._doubtful():
            self.partial.forget(doubtful)
        else:
            self._reject(got)

    def _outdated(self) -> list[int]:
        """The segments of files that changed since, when the bytes are wrong; once, or it might never end."""
        if self._renewed:
            return []
        newest = self._versions
        return [index for index, (name, version) in self._origins.items() if newest.get(name, version) != version]

    def _doubtful(self) -> list[int]:
        """The segments of the source that gave fewest, when several gave bytes that are wrong together.

        They are fetched again from the one that gave most; when it is still wrong, those of the next one are, until all
        are of one source. That costs no more than all of the blob, and tells which one was wrong.
        """
        given = Counter(name for name, _ in self._origins.values())
        if len(given) < 2 or (self._alone is not None and not self._suspect):
            return []
        self._alone = self._alone or given.most_common(1)[0][0]
        self._suspect = min(given.keys() - {self._alone}, key=lambda name: (given[name], name))
        self._contributors.discard(self._suspect)
        return [index for index, (name, _) in self._origins.items() if name == self._suspect]

    def _reject(self, got: str) -> None:
        """Wrong bytes came. Keep them aside and start over with one source that has not lied about this blob."""
        aside = self._desk.quarantine / self.partial.blob.digest
        contributors, self._contributors = self._contributors, set()
        self._origins.clear()
        self._begun.clear()
        self._suspect = ""
        if len(contributors) == 1:
            self._refused |= contributors
            self._sources.distrust(contributors)
        remaining = self._sources.in_order(self._refused)
        make_folder(aside.parent)
        self.partial.move_away(aside)
        if not (remaining and contributors):
            senders = ", ".join(sorted(contributors)) or "nobody: its pointer says that it is empty"
            blob = self.partial.blob
            raise IntegrityError(
                f"{self._name}: expected {blob.algorithm} {blob.digest}, got {got} from {senders}; kept aside in "
                f"{aside}; {self._desk.remedy}"
            )
        _log.warning("%s: gave wrong bytes of %s, kept aside in %s", ", ".join(sorted(contributors)), self._name, aside)
        self.partial.begin_again()
        if contributors != {_EARLIER}:
            self._alone = remaining[0].name


def _pause_s(errors: list[UpstreamError], fruitless: int) -> float | None:
    """How long to wait before the next round; None when waiting would not help.

    `fruitless` is how many rounds in succession have brought nothing.
    """
    if not errors:
        return POLL_S  # another worker is at the rest of it
    passing = [error for error in errors if isinstance(error, SourceUnavailable | RateLimited)]
    if not passing or fruitless >= ROUNDS:
        return None
    asked = [error.retry_after_s for error in passing if isinstance(error, RateLimited)]
    own_s = _FIRST_PAUSE_S * float(1 << max(fruitless - 1, 0))
    if len(asked) < len(passing):
        return own_s
    return None if min(asked) > LONGEST_PAUSE_S else max(own_s, min(asked))


def _the_telling_one(errors: list[UpstreamError], name: str) -> UpstreamError:
    """The error to end with, about the file `name`: of a source that may have it, rather than of one that does not."""
    told = next((error for error in errors if isinstance(error, SourceUnavailable | RateLimited)), errors[0])
    if isinstance(told, RateLimited):
        return RateLimited(f"{name}: {told}", told.retry_after_s)
    return type(told)(f"{name}: {told}")


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
