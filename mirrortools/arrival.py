"""One blob on its way into the store: whom to ask for which segments, and what to do with wrong bytes."""

from __future__ import annotations

import logging
import threading
from collections import deque

from mirrortools.choice import Choice
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
from mirrortools.flow import Flow, Repeat
from mirrortools.partial import Partial
from mirrortools.places import Seat
from mirrortools.provenance import EARLIER, Provenance
from mirrortools.segmented import read_hashes, reuse_segments, write_hashes
from mirrortools.segments import Span
from mirrortools.taking import Interrupted, Shared, Taking
from mirrortools.upstreams import ByteSource

ROUNDS = 4
LONGEST_PAUSE_S = 120.0
POLL_S = 0.2
_FIRST_PAUSE_S = 1.0
_MOST_DAMAGES = 3
_log = logging.getLogger("mirrortools.fetch")


class Arrival:
    """One blob on its way into the store."""

    def __init__(self, name: str, growing: Partial, shared: Shared) -> None:
        self.partial = growing
        self.unfinished = 0
        self.failed = False
        self.adopted = False
        self.choice = Choice(shared.sources)
        self._uncut: deque[Span] = deque()
        self._name = name
        self._desk = shared.desk
        self._sources = shared.sources
        self._progress = shared.progress
        self._given = Provenance(name)
        self._given.contributors |= {EARLIER} if growing.resumed_bytes else set()
        self._taking = Taking(name, growing, shared, self.choice, self._given)
        self._damages = 0
        self._one_at_a_time = threading.Lock()
        self._progress.resumed(growing.resumed_bytes)

    def reuse(self) -> None:
        """Take from the older file what did not change, if a source tells what that is."""
        for source in self.choice.in_turn():
            try:
                hashes = read_hashes(source.segment_hashes(self.partial.blob), self.partial.segments)
            except UpstreamError:
                continue
            if hashes:
                copied = reuse_segments(self._desk.older[self.partial.blob], self.partial, hashes)
                self._given.contributors |= {EARLIER} if copied else set()
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
        return (self.choice.in_turn(lead) or self._desk.sources)[0]

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
        lacking = self._taking.lacking_bytes(flow.span)
        while lacking and not self.failed:
            alone = self.choice.alone
            errors = self._ask_in_turn(flow, seat)
            still_lacking = self._taking.lacking_bytes(flow.span)
            fruitless = fruitless + 1 if errors and still_lacking >= lacking else 0
            lacking = still_lacking
            pause_s = _pause_s(errors, fruitless) if lacking else 0.0
            if pause_s is not None:
                self._pause(pause_s, seat)
            elif self.choice.ask_another_alone(alone):
                fruitless = 0
            else:
                raise _the_telling_one(errors, self._name)

    def _ask_in_turn(self, flow: Flow, seat: Seat) -> list[UpstreamError]:
        """Ask one source after the other until one has answered: why none did, or nothing."""
        errors: list[UpstreamError] = []
        for source in self.choice.in_turn(flow.lead):
            try:
                self._sources.check_pause(source)
                if not seat.move(self._desk.terms_of(source)):
                    raise Interrupted
                self._fetch_from(source, flow)
            except UpstreamError as error:
                if isinstance(error, SourceMissing | AccessDenied):
                    self.choice.lacks(source)
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
        start = segments.bounds(wanted[0])[0] + self._taking.taken(source, wanted[0])
        stop = segments.bounds(wanted[-1])[1]
        with flow.asking(), self._sources.reading(source), source.open(self.partial.blob, start, stop) as reader:
            if reader.start not in (0, start):
                raise SourceUnavailable(f"{source.name}: asked for byte {start}, sent from {reader.start}")
            if reader.start != start and not whole:
                return False
            self._given.meet(source.name, reader.version)
            with flow.read_by(reader):
                self._taking.copy(source, reader, stop if reader.start == start else segments.size, flow)
        return True

    def repeat(self, flow: Flow, repeat: Repeat, seat: Seat, lead: str = "") -> None:
        """Read the end of a segment that another worker is at. What goes wrong here does no harm."""
        copy: memoryview | None = None
        source = self.first_choice(lead)
        try:
            if seat.move(self._desk.terms_of(source)):
                copy = self._taking.read_again(source, flow, repeat)
        except UpstreamError as error:
            if flow.is_wanted(repeat):
                self._sources.shun(source, error)
        finally:
            flow.end_repeat(repeat, copy)
            seat.leave()

    def conclude(self) -> None:
        """Adopt the blob when it hashes to its name; otherwise prepare for another source. Raises IntegrityError."""
        got = self.partial.digest()
        if self._sources.stopped.is_set():
            raise Interrupted
        if got == self.partial.blob.digest:
            self._adopt()
        elif self.partial.forget_damage():
            self._damages += 1
            if self._damages == _MOST_DAMAGES:
                raise StoreError(
                    f"{self.partial.path}: gives back other bytes than were written; check disk and memory"
                )
        elif outdated := self._given.outdated():
            self.partial.forget(outdated)
        elif suspect := self.choice.doubt(self._given.givers):
            self._given.contributors.discard(suspect)
            self.partial.forget(self._given.given_by(suspect))
        else:
            self._reject(got)

    def _adopt(self) -> None:
        self.partial.sync()
        self._desk.store.adopt(self.partial.path, self.partial.blob)
        write_hashes(self._desk.store.served, self.partial.blob, self.partial.segments, self.partial.done)
        self.partial.journal.unlink(missing_ok=True)
        self.adopted = True
        self._desk.told(self.partial.blob, self.partial.blob.size)
        if liar := self.choice.convict():
            _log.warning("%s: gave wrong bytes of %s, which came right from %s", liar, self._name, self.choice.alone)

    def _reject(self, got: str) -> None:
        """Wrong bytes came. Keep them aside and start over with one source that has not lied about this blob."""
        aside = self._desk.quarantine / self.partial.blob.digest
        contributors = self._given.begin_again()
        self._taking.begin_again()
        remaining = self.choice.refuse(contributors)
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
        if contributors != {EARLIER}:
            self.choice.alone = remaining[0].name


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
