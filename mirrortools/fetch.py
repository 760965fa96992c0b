"""Bring the blobs of a plan into the store: segments in parallel, verified, from whichever source gives them.

A span of segments is one request. Workers take spans of one or several blobs; what is contiguous is hashed right
behind them. A source that fails is left for the next one in the middle of a blob, and one that gave wrong bytes
is not asked for that blob again.
"""

from __future__ import annotations

import contextlib
import os
import queue
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

from mirrortools.arrival import POLL_S, Arrival
from mirrortools.bulk import FEW, SMALL_BYTES, Bulk
from mirrortools.desk import Desk, Progress, tell_nobody
from mirrortools.errors import AccessDenied, MirrorError, NoSpace, RateLimited, SourceUnavailable, StoreError
from mirrortools.files import make_folder
from mirrortools.flow import REPEATS_AT_ONCE, WORTH_S, Flow
from mirrortools.model import Blob
from mirrortools.pace import MOST, WINDOW_S, Beside, Pace, Seen
from mirrortools.partial import Partial
from mirrortools.places import Party, Seat, seated
from mirrortools.segments import SPAN_SEGMENTS, Span
from mirrortools.sources import Sources
from mirrortools.store import write_error
from mirrortools.taking import Interrupted, Shared

SPAN_S = 1.0
# What is passed on from its start should come in its order: several connections then share a short stretch of it.
SHORT_SPAN_S = 0.25
_LATENCIES_IN_A_SPAN = 10
FIRST_SEGMENTS = 2
# Near a source fewer are as fast, because the threads wait for each other; far from one more are faster.
BULK_WORKERS = 3
GIVE_UP_AFTER = 3
_LONGEST_S = 1.0
# Sources that bring bytes at once: what a line can carry four hosts can send, and more are more to be let down by.
MOST_AT_ONCE = 4
_MOST_CONCLUDING = 4
_NICER = 5
_PROCESSORS = os.cpu_count() or 1


def fetch(wanted: Mapping[Blob, str], desk: Desk, progress: Progress) -> None:
    """Bring blobs into the store. `wanted` gives each the file name that messages call it by.

    One blob that fails does not hold the others; afterwards the first error is raised. A blob that another process
    is fetching is waited for.
    Raises UpstreamError, IntegrityError, NoSpace, StoreError.
    """
    if not wanted:
        return
    sources = Sources(desk)
    try:
        make_folder(desk.partial)
        for source in desk.sources:
            source.prepare(list(wanted))
        rest = _fetch_small(wanted, desk, sources, progress)
    except OSError as error:
        raise write_error(desk.partial, error) from error
    _Coordinator(desk, sources, progress).run(rest)


def span_s(latency_s: float, *, is_passed_on: bool) -> float:
    """How long a span should take: short when it is passed on, unless asking for the next one takes long."""
    if not is_passed_on:
        return SPAN_S
    return min(SPAN_S, max(SHORT_SPAN_S, _LATENCIES_IN_A_SPAN * latency_s))


def _fetch_small(wanted: Mapping[Blob, str], desk: Desk, sources: Sources, progress: Progress) -> Mapping[Blob, str]:
    """Bring many small blobs the quick way; what is left to be fetched."""
    small = [blob for blob in wanted if 0 < blob.size <= SMALL_BYTES]
    if len(small) < FEW:
        return wanted
    source = desk.sources[0]
    party, terms = Party(), desk.terms_of(source)
    bulk = Bulk(
        source,
        desk.store,
        desk.partial,
        desk.workers or BULK_WORKERS,
        progress.received,
        desk.stopped,
        lambda: seated(desk.places, party, terms, desk.stopped),
        desk.told,
    )
    with desk.places.joined(party):
        trouble = bulk.fetch(small)
    if trouble:
        sources.shun(source, trouble)
    missing = {blob for blob in small if not desk.store.has(blob)}
    return {blob: name for blob, name in wanted.items() if blob in missing or blob.size > SMALL_BYTES or not blob.size}


def _stand_back() -> None:
    """Let the threads that hash have the processors first: on a fast link they are what takes the time.

    A sandbox may forbid it (systemd's SystemCallFilter), which does no harm.
    """
    with contextlib.suppress(OSError):
        os.nice(_NICER)  # on Linux, of the calling thread alone


def _seconds_left(flow: Flow) -> float:
    ahead = flow.ahead()
    return ahead.seconds if ahead else 0.0


class _Coordinator:
    """Gives spans to the workers and settles what comes back. Its state belongs to one thread.

    Spans are cut when a worker is free for one, as long as a flow is fast, so that their number follows `Pace`.
    Hashing and adoption have threads of their own.
    """

    def __init__(self, desk: Desk, sources: Sources, progress: Progress) -> None:
        self._desk = desk
        self._progress = progress
        self._sources = sources
        self._shared = Shared(desk, sources, progress, self._behind)
        self._pace = Pace(desk.workers)
        others = [source for source in desk.sources[1:] if desk.terms_of(source).together]
        self._others = others[: MOST_AT_ONCE - 1]
        kept = sum(desk.terms_of(source).shares_load for source in self._others)
        self._beside = Beside(desk.workers - 1 if desk.workers else MOST, len(self._others), kept)
        self._rates: dict[str, float] = {}
        self._pending: deque[tuple[Blob, str]] = deque()
        self._jobs: deque[Arrival] = deque()
        self._fetching: dict[Future[None], Arrival] = {}
        self._flows: dict[Future[None], Flow] = {}
        self._latency_s = 0.0
        self._concluding: dict[Future[None], Arrival] = {}
        self._open: set[Partial] = set()
        self._news: queue.SimpleQueue[Future[None] | None] = queue.SimpleQueue()
        self._party = Party(lambda: self._news.put(None))
        self._errors: list[MirrorError] = []
        self._failures_in_a_row = 0
        self._hashing_s = 0.0

    def run(self, wanted: Mapping[Blob, str]) -> None:
        self._pending.extend(wanted.items())
        self._pace = Pace(self._desk.workers, self._hashers_of_use)
        self._hashers = ThreadPoolExecutor(_PROCESSORS + _MOST_CONCLUDING, "hash")
        at_once = self._desk.workers or (2 * MOST if self._others else MOST)
        self._workers = ThreadPoolExecutor(at_once, "fetch", _stand_back)
        with self._desk.places.joined(self._party), self._hashers, self._workers:
            try:
                while self._is_busy or (self._pending and not self._hopeless):
                    self._refuse_when_stopped()
                    self._start_some()
                    self._settle_some()
            except BaseException:
                self._break_off()
                raise
        if self._errors:
            raise self._errors[0]

    def _refuse_when_stopped(self) -> None:
        if self._sources.stopped.is_set():
            raise Interrupted

    def _break_off(self) -> None:
        """End the workers, wherever they wait; what they have written stays."""
        self._sources.break_off()
        for growing in self._open:
            growing.stop_hashing()
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
        before = self._connections
        self._observe()
        if self._connections > before:
            self._fill()

    def _observe(self) -> None:
        """Look at what comes from the first source, and from others beside it."""
        hashing_s = self._hashing_s + sum(growing.hashing_s for growing in self._open)
        working_s = time.process_time() / _PROCESSORS
        seen = Seen(self._desk.clock(), self._progress.fetched_bytes, hashing_s, working_s)
        own_bytes = sum(self._progress.from_source.get(source.name, 0) for source in self._others)
        with_others = sum(self._led.values())
        first = replace(seen, fetched_bytes=seen.fetched_bytes - own_bytes)
        latency_s = max((flow.latency_s for flow in self._flows.values()), default=0.0)
        self._pace.observe(first, len(self._fetching) - with_others, self._hashers_of_use, latency_s)
        if self._others and not self._pace.waits_for_processors:
            is_settled = not self._pace.may_grow(seen.now_s)
            self._beside.observe(seen, own_bytes, with_others, is_first_settled=is_settled)

    @property
    def _led(self) -> Counter[str]:
        """How many connections ask each of the others first."""
        return Counter(flow.lead for flow in self._flows.values() if flow.lead)

    @property
    def _connections(self) -> int:
        """How many there may be, to all sources; a configured number is never exceeded."""
        return self._pace.connections + (0 if self._pace.fixed else self._beside.connections)

    def _lead(self, job: Arrival) -> str:
        """Which source a new connection is to ask first, when that is not the first one: the others have as many each.

        Of those that have none, or as few, the quickest goes first.
        """
        led = self._led
        if sum(led.values()) >= self._beside.connections:
            return ""
        ready = [source.name for source in self._others if job.choice.may_lead(source)]
        return min(ready, key=lambda name: (led[name], -self._rates.get(name, 0.0)), default="")

    def _rate_of(self, lead: str) -> float:
        """What a connection that asks `lead` first may bring, in bytes a second; 0 when nothing is known yet."""
        return self._rates.get(lead) or self._pace.rate_of_one

    @property
    def _hashers_of_use(self) -> int:
        """How many processors could hash at once: a blob needs one, and can use no more."""
        return max(1, min(_PROCESSORS, len(self._under_way()) + len(self._pending)))

    def _fill(self) -> None:
        put_off = 0
        while len(self._fetching) < self._connections:
            if len(self._pending) > put_off and self._wants_another():
                put_off += not self._start(*self._pending.popleft())
            elif self._jobs:
                if not self._hand_out(min(self._jobs, key=lambda job: job.unfinished)):
                    return
            elif self._pending or not self._help_the_slowest():
                break
        self._desk.places.content(self._party)

    def _wants_another(self) -> bool:
        """Whether to begin a blob: one for each connection while there are processors to hash them."""
        if self._hopeless or len(self._concluding) >= _MOST_CONCLUDING:
            return False
        with_spans = [job for job in self._jobs if job.has_spans]
        return not with_spans or len(self._under_way()) < min(self._connections, _PROCESSORS)

    def _under_way(self) -> set[Arrival]:
        return {*self._fetching.values(), *(job for job in self._jobs if job.has_spans)}

    def _start(self, blob: Blob, name: str) -> bool:
        """Open a blob; False when another process has it."""
        try:
            folder, segment_bytes = self._desk.partial, self._desk.segment_bytes
            growing = Partial(folder, blob, segment_bytes, before_each=self._refuse_when_stopped)
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
        job = Arrival(name, growing, self._shared)
        if blob in self._desk.older and growing.segments.count > 1:
            self._conclude(job, job.reuse)
        else:
            self._enqueue(job)
        return True

    def _behind(self, act: Callable[[], None]) -> None:
        self._hashers.submit(act)

    def _enqueue(self, job: Arrival) -> None:
        """Queue what a blob lacks; when that is nothing, its conclusion."""
        if job.failed or not job.cut():
            self._conclude(job, job.conclude)
        else:
            self._jobs.append(job)

    def _conclude(self, job: Arrival, act: Callable[[], None]) -> None:
        future = self._hashers.submit(act)
        self._concluding[future] = job
        future.add_done_callback(self._news.put)

    def _hand_out(self, job: Arrival) -> bool:
        """Give one span to a worker; False when there is no place for it now."""
        if job.failed or not job.has_spans:
            self._jobs.remove(job)
            return True
        lead = self._lead(job)
        seat = self._seat(job, lead)
        if not seat:
            return False
        if span := job.next_span(self._span_segments(job, lead)):
            self._begin(job, span, seat, lead)
        return True

    def _seat(self, job: Arrival, lead: str) -> Seat | None:
        seat = Seat(self._desk.places, self._party, self._sources.stopped)
        return seat if seat.take(self._desk.terms_of(job.first_choice(lead))) else None

    def _begin(self, job: Arrival, span: Span, seat: Seat, lead: str) -> None:
        flow = Flow(span, job.partial.segments, self._desk.clock, lead)
        future = self._submit(job, job.fetch_span, flow, seat)
        self._flows[future] = flow

    def _submit(self, job: Arrival, act: Callable[..., None], *words: object) -> Future[None]:
        job.unfinished += 1
        future = self._workers.submit(act, *words)
        self._fetching[future] = job
        future.add_done_callback(self._news.put)
        return future

    def _help_the_slowest(self) -> bool:
        """Let a free connection take a part of what the slowest one has before it; False when that does not pay.

        It asks the source that has a place, which need not be the one that is slow.
        """
        slowest = max(self._flows, key=lambda future: _seconds_left(self._flows[future]), default=None)
        if slowest is None or self._pace.waits_for_processors:
            return False
        job, flow = self._fetching[slowest], self._flows[slowest]
        lead = self._lead(job)
        rate, ahead = self._rate_of(lead), flow.ahead()
        if not rate or not ahead or ahead.seconds < WORTH_S + self._latency_s:
            return False
        if ahead.is_stalled and not ahead.segments and lead == flow.lead and flow.end_stalled():
            return True
        if not (seat := self._seat(job, lead)):
            return False
        if span := flow.cut(ahead.segments_to_give(rate, self._latency_s)):
            self._begin(job, span, seat, lead)
        elif self._may_repeat and (repeat := flow.repeat(ahead.bytes_to_repeat(rate, self._latency_s))):
            self._submit(job, job.repeat, flow, repeat, seat, lead)
        else:
            seat.leave()
            return False
        return True

    def _span_segments(self, job: Arrival, lead: str) -> int:
        """A second's worth of a connection's rate, and no more than the share of each of the blob's connections.

        Where the rate tells how long that takes it is half of that share, so that all are done at about the same time.
        """
        connections = max(1, self._connections // max(1, len(self._under_way())))
        share = -(-job.uncut_segments // (connections if self._pace.fixed else 2 * connections - 1))
        if self._pace.fixed is None:
            seconds = span_s(self._latency_s, is_passed_on=self._desk.told is not tell_nobody)
            least = 1 if lead in self._rates else FIRST_SEGMENTS
            share = min(share, max(least, int(self._rate_of(lead) * seconds / self._desk.segment_bytes)))
        return max(1, min(SPAN_SEGMENTS, share))

    @property
    def _may_repeat(self) -> bool:
        return sum(flow.is_repeated for flow in self._flows.values()) < REPEATS_AT_ONCE

    def _settle_some(self) -> None:
        """Wait until something has ended or a place is free, and settle what has ended."""
        if not self._is_busy:
            self._desk.wait(self._sources.stopped, POLL_S)
            return
        with contextlib.suppress(queue.Empty):
            self._settle(self._news.get(timeout=self._patience_s()))
            while True:
                self._settle(self._news.get_nowait())

    def _patience_s(self) -> float:
        """How long to wait for news: no longer than until the next look at the pace, when that may change.

        When nothing may, until the next look at whether the run goes on: hashing what is long can take minutes.
        """
        if not (self._pending or self._jobs):
            return POLL_S if self._flows and len(self._fetching) < self._connections else _LONGEST_S
        return WINDOW_S if self._pace.may_grow(self._desk.clock()) else POLL_S

    def _settle(self, future: Future[None] | None) -> None:
        if future in self._concluding:
            self._settle_conclusion(self._concluding.pop(future), self._error_of(future))
        elif future:
            if flow := self._flows.pop(future, None):
                self._latency_s = flow.latency_s
                if flow.lead:
                    self._rates[flow.lead] = flow.mean_rate
            self._settle_span(self._fetching.pop(future), self._error_of(future))

    def _error_of(self, future: Future[None]) -> MirrorError | None:
        error = future.exception()
        if isinstance(error, OSError):
            return write_error(self._desk.partial, error)
        if error is not None and not isinstance(error, MirrorError):
            raise error
        return error

    def _settle_span(self, job: Arrival, error: MirrorError | None) -> None:
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

    def _settle_conclusion(self, job: Arrival, error: MirrorError | None) -> None:
        if error:
            self._note(job, error)
        if not (job.failed or job.adopted):
            self._enqueue(job)
            return
        if job.adopted:
            self._failures_in_a_row = 0
        self._close(job)

    def _note(self, job: Arrival, error: MirrorError) -> None:
        if not job.failed:
            job.failed = True
            self._errors.append(error)
            self._failures_in_a_row += isinstance(error, SourceUnavailable)

    def _close(self, job: Arrival) -> None:
        self._open.discard(job.partial)
        self._hashing_s += job.partial.hashing_s
        job.partial.close()
