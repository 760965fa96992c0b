"""Bring the blobs of a plan into the store: segments in parallel, verified, from whichever source gives them.

A span of segments is one request. Workers take spans of one or several blobs; what is contiguous is hashed right
behind them. A source that fails is left for the next one in the middle of a blob, and one that gave wrong bytes
is not asked for that blob again.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import xxhash

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
from mirrortools.partial import Partial
from mirrortools.segments import SPAN_SEGMENTS, Span
from mirrortools.store import Store, write_error
from mirrortools.upstreams import ByteSource, Reader

AUTO_WORKERS = 4
ROUNDS = 4
LONGEST_PAUSE_S = 120.0
_FIRST_PAUSE_S = 1.0
_SHUNNED_S = 30.0
_BUFFER_BYTES = 1 << 20
_EARLIER = "an earlier run"


@dataclass(slots=True)
class Progress:
    """Counts for whoever watches, in bytes. `report` is called with what was added, from several threads."""

    report: Callable[[int], None] = lambda _bytes: None
    resumed_bytes: int = 0
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

    def resumed(self, count: int) -> None:
        """Count bytes that an earlier run had left on disk."""
        with self._lock:
            self.resumed_bytes += count
        self.report(count)


@dataclass(frozen=True, slots=True)
class Desk:
    """Where fetching happens: the store, the folders beside it, the sources in order, the number of workers."""

    store: Store
    partial: Path
    quarantine: Path
    sources: tuple[ByteSource, ...]
    workers: int = AUTO_WORKERS
    sleep: Callable[[float], None] = time.sleep


def fetch(wanted: Mapping[Blob, str], desk: Desk, progress: Progress) -> None:
    """Bring SHA-256 blobs into the store. `wanted` gives each the file name that messages call it by.

    One blob that fails does not hold the others; afterwards the first error is raised.
    Raises UpstreamError, IntegrityError, NoSpace, StoreError.
    """
    if not wanted:
        return
    make_folder(desk.partial)
    for source in desk.sources:
        source.prepare(list(wanted))
    _Coordinator(desk, progress).run(wanted)


class _Coordinator:
    """Gives spans to the workers and settles what comes back. Its state belongs to one thread."""

    def __init__(self, desk: Desk, progress: Progress) -> None:
        self._desk = desk
        self._progress = progress
        self._sources = _Sources(desk)
        self._running: dict[Future[None], _BlobJob] = {}
        self._errors: list[MirrorError] = []

    def run(self, wanted: Mapping[Blob, str]) -> None:
        pending = deque(wanted.items())
        with ThreadPoolExecutor(self._desk.workers, "fetch") as self._pool:
            try:
                while self._running or (pending and not self._hopeless):
                    while pending and len(self._running) < 2 * self._desk.workers and not self._hopeless:
                        self._start(*pending.popleft())
                    done, _ = wait(self._running, return_when=FIRST_COMPLETED)
                    for future in done:
                        self._settle(self._running.pop(future), future)
            except BaseException:
                self._sources.stopped.set()
                self._pool.shutdown(wait=True, cancel_futures=True)
                raise
        if self._errors:
            raise self._errors[0]

    @property
    def _hopeless(self) -> bool:
        """Whether the errors so far would meet every other blob as well."""
        return any(isinstance(error, NoSpace | StoreError | AccessDenied) for error in self._errors)

    def _start(self, blob: Blob, name: str) -> None:
        try:
            job = _BlobJob(name, Partial(self._desk.partial, blob), self._desk, self._sources, self._progress)
        except OSError as error:
            self._errors.append(write_error(self._desk.partial, error))
            return
        self._hand_out(job)

    def _hand_out(self, job: _BlobJob) -> None:
        """Give the missing spans to the workers; when none is missing, the conclusion."""
        tasks: list[Callable[[], None]] = [partial(job.fetch_span, span) for span in job.partial.missing(SPAN_SEGMENTS)]
        tasks = tasks or [job.conclude]
        job.unfinished = len(tasks)
        for task in tasks:
            self._running[self._pool.submit(task)] = job

    def _settle(self, job: _BlobJob, future: Future[None]) -> None:
        error = future.exception()
        if isinstance(error, OSError):
            error = write_error(job.partial.path, error)
        if error is not None and not isinstance(error, MirrorError):
            raise error
        if error and not job.failed:
            job.failed = True
            self._errors.append(error)
        job.unfinished -= 1
        if job.unfinished:
            return
        if job.failed or job.adopted:
            job.partial.close()
        else:
            self._hand_out(job)


class _Sources:
    """What all workers learn about the sources: who is to be left alone for a while, who cannot seek."""

    def __init__(self, desk: Desk) -> None:
        self.stopped = threading.Event()
        self.cannot_seek: set[str] = set()
        self._shunned_until: dict[str, float] = {}
        self._all = desk.sources

    def in_order(self, liars: set[str]) -> list[ByteSource]:
        """The sources to ask for a blob: in the given order, those that failed lately last."""
        now = time.monotonic()
        honest = [source for source in self._all if source.name not in liars]
        return sorted(honest, key=lambda source: self._shunned_until.get(source.name, 0.0) > now)

    def shun(self, source: ByteSource, error: UpstreamError) -> None:
        """Prefer the others for a while after a failure that is not about one blob."""
        if isinstance(error, SourceUnavailable | RateLimited):
            self._shunned_until[source.name] = time.monotonic() + _SHUNNED_S


class _BlobJob:
    """One blob on its way into the store."""

    def __init__(self, name: str, growing: Partial, desk: Desk, sources: _Sources, progress: Progress) -> None:
        self.partial = growing
        self.unfinished = 0
        self.failed = False
        self.adopted = False
        self._name = name
        self._desk = desk
        self._sources = sources
        self._progress = progress
        self._contributors: set[str] = {_EARLIER} if growing.resumed_bytes else set()
        self._liars: set[str] = set()
        self._alone: str | None = None
        self._one_at_a_time = threading.Lock()
        progress.resumed(growing.resumed_bytes)

    def fetch_span(self, span: Span) -> None:
        """Ask the sources in turn, for a few rounds, until the span is on disk. Raises UpstreamError."""
        for attempt in range(ROUNDS):
            errors = []
            for source in self._choice():
                try:
                    self._fetch_from(source, span)
                except UpstreamError as error:
                    self._sources.shun(source, error)
                    errors.append(error)
                else:
                    self.partial.advance()
                    return
            self._desk.sleep(_pause_s(errors, attempt))
        raise errors[0]

    def _choice(self) -> list[ByteSource]:
        honest = self._sources.in_order(self._liars)
        return [source for source in honest if self._alone in (None, source.name)]

    def _fetch_from(self, source: ByteSource, span: Span) -> None:
        if source.name not in self._sources.cannot_seek and self._fetch_missing(source, span):
            return
        # Range was ignored. One worker reads such a blob through; the others find their spans done.
        self._sources.cannot_seek.add(source.name)
        with self._one_at_a_time:
            self._fetch_missing(source, span, whole=True)

    def _fetch_missing(self, source: ByteSource, span: Span, whole: bool = False) -> bool:
        """Fetch what a span lacks; False when the source cannot begin in the middle and `whole` is not set."""
        segments = self.partial.segments
        wanted = [index for index in range(span.first, span.stop) if not self.partial.has(index)]
        if not wanted:
            return True
        start, stop = segments.bounds(wanted[0])[0], segments.bounds(wanted[-1])[1]
        with source.open(self.partial.blob, start, stop) as reader:
            if reader.start not in (0, start):
                raise SourceUnavailable(f"{source.name}: asked for byte {start}, sent from {reader.start}")
            if reader.start != start and not whole:
                return False
            self._contributors.add(source.name)
            self._copy(source, reader, segments.size if whole else stop)
        return True

    def _copy(self, source: ByteSource, reader: Reader, stop: int) -> None:
        """Write what comes, segment by segment; a segment counts when its last byte is written."""
        buffer = memoryview(bytearray(_BUFFER_BYTES))
        offset = reader.start
        while offset < stop:
            index = self.partial.segments.index(offset)
            end = self.partial.segments.bounds(index)[1]
            digest = xxhash.xxh3_128()
            while offset < end:
                count = self._receive(source, reader, buffer[: end - offset])
                digest.update(buffer[:count])
                self.partial.write(offset, buffer[:count])
                offset += count
            self.partial.finish_segment(index, digest.hexdigest())
            self.partial.advance()

    def _receive(self, source: ByteSource, reader: Reader, buffer: memoryview) -> int:
        if self._sources.stopped.is_set():
            raise SourceUnavailable("interrupted")
        count = reader.readinto(buffer)
        if count == 0:
            raise SourceUnavailable(f"{source.name}: {self._name} ended too early")
        self._progress.received(source.name, count)
        return count

    def conclude(self) -> None:
        """Adopt the blob when it hashes to its name; otherwise prepare for another source. Raises IntegrityError."""
        got = self.partial.digest()
        if got == self.partial.blob.digest:
            self.partial.sync()
            self._desk.store.adopt(self.partial.path, self.partial.blob)
            self.partial.journal.unlink(missing_ok=True)
            self.adopted = True
        elif not self.partial.forget_damage():
            self._reject(got)

    def _reject(self, got: str) -> None:
        """Wrong bytes came. Keep them aside and start over with one source that has not lied about this blob."""
        aside = self._desk.quarantine / self.partial.blob.digest
        contributors, self._contributors = self._contributors, set()
        if len(contributors) == 1:
            self._liars |= contributors
        remaining = self._sources.in_order(self._liars)
        make_folder(aside.parent)
        self.partial.move_away(aside)
        if not remaining:
            raise IntegrityError(
                f"{self._name}: expected sha256 {self.partial.blob.digest}, got {got} from "
                f"{', '.join(sorted(contributors))}; kept aside in {aside}; the published revision is unchanged"
            )
        if contributors != {_EARLIER}:
            self._alone = remaining[0].name


def _pause_s(errors: list[UpstreamError], attempt: int) -> float:
    """How long to wait before the next round. Raises the error when waiting would not help."""
    passing = [error for error in errors if isinstance(error, SourceUnavailable | RateLimited)]
    if not passing or attempt == ROUNDS - 1:
        raise (passing or errors)[0]
    asked: list[float] = [error.retry_after_s for error in passing if isinstance(error, RateLimited)]
    if asked and len(asked) == len(passing) and min(asked) > LONGEST_PAUSE_S:
        raise passing[0]
    wanted_s = min(asked) if len(asked) == len(passing) else 0.0
    return max(_FIRST_PAUSE_S * float(1 << attempt), wanted_s)
