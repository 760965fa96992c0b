"""Bring the blobs of a plan into the store: segments in parallel, verified, from whichever source gives them.

A span of segments is one request. Workers take spans of one or several blobs; what is contiguous is hashed right
behind them. A source that fails is left for the next one in the middle of a blob, and one that gave wrong bytes
is not asked for that blob again.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

import xxhash

from mirrortools.bulk import FEW, SMALL_BYTES, Bulk
from mirrortools.errors import (
    AccessDenied,
    IntegrityError,
    MirrorError,
    NoSpace,
    RateLimited,
    SourceUnavailable,
    StoreError,
    UpstreamError,
)
from mirrortools.files import make_folder
from mirrortools.model import Blob
from mirrortools.pace import MOST, Pace
from mirrortools.partial import Partial
from mirrortools.segmented import read_hashes, reuse_segments, write_hashes
from mirrortools.segments import SEGMENT_BYTES, SPAN_SEGMENTS, Span
from mirrortools.store import Store, write_error
from mirrortools.upstreams import ByteSource, Reader

SPAN_S = 1.0
FIRST_SEGMENTS = 2
BULK_WORKERS = 4
ROUNDS = 4
LONGEST_PAUSE_S = 120.0
GIVE_UP_AFTER = 3
_FIRST_PAUSE_S = 1.0
_SHUNNED_S = 30.0
_POLL_S = 0.2
_MOST_DAMAGES = 3
_MOST_CONCLUDING = 4
_BUFFER_BYTES = 1 << 20
_EARLIER = "an earlier run"


@dataclass(slots=True)
class Progress:
    """Counts for whoever watches, in bytes. `report` is called with what was added, from several threads."""

    report: Callable[[int], None] = lambda _bytes: None
    resumed_bytes: int = 0
    reused_bytes: int = 0
    from_source: dict[str, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def fetched_bytes(self) -> int:
        """All bytes that came from sources, those that had to be thrown away among them."""
        return sum(self.from_source.values())

    def received(self, source: str, count: int) -> None:
        """Count bytes from a source."""
        with self._lock:
            self.from_source[source] = self.from_source.get(source, 0) + count
        self.report(count)

    def reused(self, count: int) -> None:
        """Count bytes that were taken from an older blob."""
        with self._lock:
            self.reused_bytes += count
        self.report(count)

    def resumed(self, count: int) -> None:
        """Count bytes that an earlier run had left on disk."""
        with self._lock:
            self.resumed_bytes += count
        self.report(count)


@dataclass(frozen=True, slots=True)
class Desk:
    """Where fetching happens: the store, the folders beside it, the sources in order.

    `workers` is the number of connections; None: as many as pay. `older` names for a blob the file that had its place
    before: segments that did not change are taken from there, when a source tells which those are.

    `wait` lets time pass on `clock`, unless the event is set meanwhile; `stopped` ends everything from outside.
    """

    store: Store
    partial: Path
    quarantine: Path
    sources: tuple[ByteSource, ...]
    workers: int | None = None
    segment_bytes: int = SEGMENT_BYTES
    clock: Callable[[], float] = time.monotonic
    wait: Callable[[threading.Event, float], object] = threading.Event.wait
    stopped: threading.Event = field(default_factory=threading.Event)
    older: Mapping[Blob, Path] = field(default_factory=dict)


def fetch(wanted: Mapping[Blob, str], desk: Desk, progress: Progress) -> None:
    """Bring SHA-256 blobs into the store. `wanted` gives each the file name that messages call it by.

    One blob that fails does not hold the others; afterwards the first error is raised. A blob that another process
    is fetching is waited for.
    Raises UpstreamError, IntegrityError, NoSpace, StoreError.
    """
    if not wanted:
        return
    sources = _Sources(desk)
    try:
        make_folder(desk.partial)
        for source in desk.sources:
            source.prepare(list(wanted))
        rest = _fetch_small(wanted, desk, sources, progress)
    except OSError as error:
        raise write_error(desk.partial, error) from error
    _Coordinator(desk, sources, progress).run(rest)


def _fetch_small(wanted: Mapping[Blob, str], desk: Desk, sources: _Sources, progress: Progress) -> Mapping[Blob, str]:
    """Bring many small blobs the quick way; what is left to be fetched."""
    small = [blob for blob in wanted if 0 < blob.size <= SMALL_BYTES]
    if len(small) < FEW:
        return wanted
    source = desk.sources[0]
    bulk = Bulk(source, desk.store, desk.partial, desk.workers or BULK_WORKERS, progress.received, desk.stopped)
    if trouble := bulk.fetch(small):
        sources.shun(source, trouble)
    missing = set(desk.store.missing(small))
    return {blob: name for blob, name in wanted.items() if blob in missing or blob.size > SMALL_BYTES or not blob.size}


class _Coordinator:
    """Gives spans to the workers and settles what comes back. Its state belongs to one thread.

    Spans are cut when a worker is free for one, as long as a flow is fast, so that their number follows `Pace`.
    Hashing and adoption have threads of their own, a processor each.
    """

    def __init__(self, desk: Desk, sources: _Sources, progress: Progress) -> None:
        self._desk = desk
        self._progress = progress
        self._sources = sources
        self._pace = Pace(desk.workers)
        self._pending: deque[tuple[Blob, str]] = deque()
        self._jobs: deque[_BlobJob] = deque()
        self._fetching: dict[Future[None], _BlobJob] = {}
        self._concluding: dict[Future[None], _BlobJob] = {}
        self._open: set[Partial] = set()
        self._errors: list[MirrorError] = []
        self._failures_in_a_row = 0

    def run(self, wanted: Mapping[Blob, str]) -> None:
        self._pending.extend(wanted.items())
        self._hashers = ThreadPoolExecutor(os.cpu_count(), "hash")
        self._workers = ThreadPoolExecutor(self._desk.workers or MOST, "fetch")
        with self._hashers, self._workers:
            try:
                while self._is_busy or (self._pending and not self._hopeless):
                    self._start_some()
                    self._settle_some()
            except BaseException:
                self._break_off()
                raise
        if self._errors:
            raise self._errors[0]

    def _break_off(self) -> None:
        """End the workers, wherever they wait; what they have written stays."""
        self._sources.break_off()
        for pool in (self._workers, self._hashers):
            pool.shutdown(wait=True, cancel_futures=True)
        for growing in self._open:
            growing.close()

    @property
    def _is_busy(self) -> bool:
        return bool(self._fetching or self._concluding or self._jobs)

    @property
    def _hopeless(self) -> bool:
        """Whether the errors so far would meet every other blob as well."""
        for_all = NoSpace | StoreError | AccessDenied | RateLimited
        return self._failures_in_a_row >= GIVE_UP_AFTER or any(isinstance(error, for_all) for error in self._errors)

    def _start_some(self) -> None:
        """Hand out spans until enough are under way; blobs that another process has are put off."""
        self._fill()
        before = self._pace.connections
        if self._pace.observe(self._desk.clock(), self._progress.fetched_bytes, len(self._fetching)) > before:
            self._fill()

    def _fill(self) -> None:
        put_off = 0
        while len(self._fetching) < self._pace.connections:
            if self._jobs:
                self._hand_out(self._jobs[0])
            elif len(self._pending) > put_off and len(self._concluding) < _MOST_CONCLUDING and not self._hopeless:
                put_off += not self._start(*self._pending.popleft())
            else:
                return

    def _start(self, blob: Blob, name: str) -> bool:
        """Open a blob; False when another process has it."""
        try:
            growing = Partial(self._desk.partial, blob, self._desk.segment_bytes)
        except BlockingIOError:
            self._pending.append((blob, name))
            return False
        except OSError as error:
            self._errors.append(write_error(self._desk.partial, error))
            return True
        if self._desk.store.has(blob):
            growing.remove()
            self._progress.report(blob.size)
            return True
        self._open.add(growing)
        job = _BlobJob(name, growing, self._desk, self._sources, self._progress, self._advance)
        if blob in self._desk.older and growing.segments.count > 1:
            self._concluding[self._hashers.submit(job.reuse)] = job
        else:
            self._enqueue(job)
        return True

    def _advance(self, growing: Partial) -> None:
        """Let a blob be hashed as far as it has come, by a thread that has time for it."""
        self._hashers.submit(growing.advance)

    def _enqueue(self, job: _BlobJob) -> None:
        """Queue what a blob lacks; when that is nothing, its conclusion."""
        if job.failed or not job.cut():
            self._concluding[self._hashers.submit(job.conclude)] = job
        else:
            self._jobs.append(job)

    def _hand_out(self, job: _BlobJob) -> None:
        """Give one span to a worker."""
        span = job.next_span(self._span_segments(job))
        if job.failed or span is None:
            self._jobs.remove(job)
            return
        job.unfinished += 1
        self._fetching[self._workers.submit(job.fetch_span, span)] = job

    def _span_segments(self, job: _BlobJob) -> int:
        """A second's worth of a connection's rate, and no more than each connection's share of the blob."""
        share = -(-job.uncut_segments // self._pace.connections)
        if self._pace.fixed is None:
            share = min(share, max(FIRST_SEGMENTS, int(self._pace.rate_of_one * SPAN_S / self._desk.segment_bytes)))
        return max(1, min(SPAN_SEGMENTS, share))

    def _settle_some(self) -> None:
        running = [*self._fetching, *self._concluding]
        if not running:
            if not self._jobs:
                self._desk.wait(self._sources.stopped, _POLL_S)
            return
        waits = self._pending or self._jobs
        for future in wait(running, _POLL_S if waits else None, FIRST_COMPLETED)[0]:
            if future in self._concluding:
                self._settle_conclusion(self._concluding.pop(future), self._error_of(future))
            else:
                self._settle_span(self._fetching.pop(future), self._error_of(future))

    def _error_of(self, future: Future[None]) -> MirrorError | None:
        error = future.exception()
        if isinstance(error, OSError):
            return write_error(self._desk.partial, error)
        if error is not None and not isinstance(error, MirrorError):
            raise error
        return error

    def _settle_span(self, job: _BlobJob, error: MirrorError | None) -> None:
        if error:
            self._note(job, error)
        job.unfinished -= 1
        if job.unfinished or (job in self._jobs and not job.failed and job.has_spans):
            return
        if job in self._jobs:
            self._jobs.remove(job)
        if job.failed:
            self._close(job)
        else:
            self._enqueue(job)

    def _settle_conclusion(self, job: _BlobJob, error: MirrorError | None) -> None:
        if error:
            self._note(job, error)
        if not (job.failed or job.adopted):
            self._enqueue(job)
            return
        if job.adopted:
            self._failures_in_a_row = 0
        self._close(job)

    def _note(self, job: _BlobJob, error: MirrorError) -> None:
        if not job.failed:
            job.failed = True
            self._errors.append(error)
            self._failures_in_a_row += isinstance(error, SourceUnavailable)

    def _close(self, job: _BlobJob) -> None:
        self._open.discard(job.partial)
        job.partial.close()


class _Sources:
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
            self._shunned_until[source.name] = self._clock() + _SHUNNED_S


class _Interrupted(Exception):  # noqa: N818  (nothing went wrong)
    """The run is being ended."""


class _BlobJob:
    """One blob on its way into the store."""

    def __init__(
        self,
        name: str,
        growing: Partial,
        desk: Desk,
        sources: _Sources,
        progress: Progress,
        advance: Callable[[Partial], None],
    ) -> None:
        self.partial = growing
        self.unfinished = 0
        self._uncut: deque[Span] = deque()
        self._advance = advance
        self.failed = False
        self.adopted = False
        self._name = name
        self._desk = desk
        self._sources = sources
        self._progress = progress
        self._contributors: set[str] = {_EARLIER} if growing.resumed_bytes else set()
        self._refused: set[str] = set()
        self._alone: str | None = None
        self._damages = 0
        self._one_at_a_time = threading.Lock()
        self._choosing = threading.Lock()
        progress.resumed(growing.resumed_bytes)

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

    def fetch_span(self, span: Span) -> None:
        """Ask the sources in turn until the span is on disk, or a few rounds have brought nothing.

        Raises UpstreamError.
        """
        fruitless = 0
        lacking = self.partial.lacks(span)
        while lacking and not self.failed:
            alone = self._alone
            errors = self._ask_in_turn(span)
            still_lacking = self.partial.lacks(span)
            fruitless = fruitless + 1 if errors and len(still_lacking) == len(lacking) else 0
            lacking = still_lacking
            pause_s = _pause_s(errors, fruitless) if lacking else 0.0
            if pause_s is not None:
                self._pause(pause_s)
            elif self._ask_another_alone(alone):
                fruitless = 0
            else:
                raise _the_telling_one(errors, self._name)

    def _ask_in_turn(self, span: Span) -> list[UpstreamError]:
        errors = []
        for source in self._choice():
            try:
                self._sources.check_pause(source)
                self._fetch_from(source, span)
            except UpstreamError as error:
                self._sources.shun(source, error)
                errors.append(error)
            else:
                break
        return errors

    def _pause(self, pause_s: float) -> None:
        if pause_s:
            self._desk.wait(self._sources.stopped, pause_s)
        if self._sources.stopped.is_set():
            raise _Interrupted

    def _choice(self) -> list[ByteSource]:
        left = self._sources.in_order(self._refused)
        return [source for source in left if self._alone in (None, source.name)]

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

    def _fetch_from(self, source: ByteSource, span: Span) -> None:
        if source.name not in self._sources.cannot_seek and self._fetch_missing(source, span):
            return
        # Range was ignored. One worker reads such a blob through; the others find their spans done.
        self._sources.cannot_seek.add(source.name)
        with self._one_at_a_time:
            self._fetch_missing(source, span, whole=True)

    def _fetch_missing(self, source: ByteSource, span: Span, whole: bool = False) -> bool:
        """Fetch what a span lacks; False when the source cannot begin in the middle and `whole` is not set."""
        segments, wanted = self.partial.segments, self.partial.lacks(span)
        if not wanted:
            return True
        start, stop = segments.bounds(wanted[0])[0], segments.bounds(wanted[-1])[1]
        with source.open(self.partial.blob, start, stop) as reader:
            if reader.start not in (0, start):
                raise SourceUnavailable(f"{source.name}: asked for byte {start}, sent from {reader.start}")
            if reader.start != start and not whole:
                return False
            self._copy(source, reader, stop if reader.start == start else segments.size)
        return True

    def _copy(self, source: ByteSource, reader: Reader, stop: int) -> None:
        """Read up to `stop`, segment by segment; those that are done, or that another worker has, are passed over."""
        buffer = memoryview(bytearray(_BUFFER_BYTES))
        offset = reader.start
        while offset < stop:
            index = self.partial.segments.index(offset)
            end = self.partial.segments.bounds(index)[1]
            if self.partial.claim(index):
                try:
                    self._copy_segment(source, reader, index, buffer)
                finally:
                    self.partial.release(index)
                self.partial.advance()
            else:
                while offset < end:
                    offset += self._receive(source, reader, buffer[: end - offset])
            offset = end

    def _copy_segment(self, source: ByteSource, reader: Reader, index: int, buffer: memoryview) -> None:
        """Write one segment; it counts when its last byte is written."""
        offset, end = self.partial.segments.bounds(index)
        digest = xxhash.xxh3_128()
        while offset < end:
            count = self._receive(source, reader, buffer[: end - offset])
            digest.update(buffer[:count])
            self.partial.write(offset, buffer[:count])
            offset += count
        self.partial.finish_segment(index, digest.hexdigest())

    def _receive(self, source: ByteSource, reader: Reader, buffer: memoryview) -> int:
        if self._sources.stopped.is_set():
            raise _Interrupted
        count = reader.readinto(buffer)
        if count == 0:
            raise SourceUnavailable(f"{source.name}: {self._name} ended too early")
        self._contributors.add(source.name)
        self._progress.received(source.name, count)
        return count

    def conclude(self) -> None:
        """Adopt the blob when it hashes to its name; otherwise prepare for another source. Raises IntegrityError."""
        got = self.partial.digest()
        if got == self.partial.blob.digest:
            self.partial.sync()
            self._desk.store.adopt(self.partial.path, self.partial.blob)
            if self.partial.segments.count > 1:
                write_hashes(self._desk.store.public, self.partial.blob, self.partial.segments, self.partial.done)
            self.partial.journal.unlink(missing_ok=True)
            self.adopted = True
        elif self.partial.forget_damage():
            self._damages += 1
            if self._damages == _MOST_DAMAGES:
                raise StoreError(
                    f"{self.partial.path}: gives back other bytes than were written; check disk and memory"
                )
        else:
            self._reject(got)

    def _reject(self, got: str) -> None:
        """Wrong bytes came. Keep them aside and start over with one source that has not lied about this blob."""
        aside = self._desk.quarantine / self.partial.blob.digest
        contributors, self._contributors = self._contributors, set()
        if len(contributors) == 1:
            self._refused |= contributors
        remaining = self._sources.in_order(self._refused)
        make_folder(aside.parent)
        self.partial.move_away(aside)
        if not (remaining and contributors):
            senders = ", ".join(sorted(contributors)) or "nobody: its pointer says that it is empty"
            raise IntegrityError(
                f"{self._name}: expected sha256 {self.partial.blob.digest}, got {got} from {senders}; kept aside in "
                f"{aside}; the published revision is unchanged. Tell whoever runs the source, or add a backup_source"
            )
        self.partial.begin_again()
        if contributors != {_EARLIER}:
            self._alone = remaining[0].name


def _pause_s(errors: list[UpstreamError], fruitless: int) -> float | None:
    """How long to wait before the next round; None when waiting would not help.

    `fruitless` is how many rounds in succession have brought nothing.
    """
    if not errors:
        return _POLL_S  # another worker is at the rest of it
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
