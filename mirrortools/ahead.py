"""Deliveries that begin while this host is still fetching: what is on disk here goes on to the edges at once.

What goes ahead is never in the way of the fetch: it has threads and sessions of its own, reads from the files that
grow, and whatever goes wrong with it is left to the delivery that follows.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mirrortools.errand import Delivery, Progress
from mirrortools.model import Blob, Publication, Realm, RepoId

if TYPE_CHECKING:
    from mirrortools.deliver import EdgeSession
    from mirrortools.desk import Told
    from mirrortools.fanout import FanOut
    from mirrortools.inflow import Inflow
    from mirrortools.pool import EdgePool

# With less to fetch an edge would be reached hardly earlier than it is anyway.
LEAST_BYTES: Final = 32 << 20
_log = logging.getLogger("mirrortools.sync")


class Ahead:
    """One repository's deliveries, the part before its publication with them. Use it as a context manager.

    `edges` are those that it goes to; `progress` is told of both parts. `siblings` are to have it too, and may help.
    """

    def __init__(
        self, pool: EdgePool, root: Path, edges: Sequence[str], progress: Progress, siblings: Sequence[str] = ()
    ) -> None:
        self._pool = pool
        self._root = root
        self._edges = edges
        self._progress = progress
        self._siblings = siblings
        self._fan_out: FanOut | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._sessions: dict[str, EdgeSession] = {}
        self._vanguards: dict[str, Future[Delivery]] = {}

    @contextmanager
    def fetching(self, prospect: Publication, coming: Collection[Blob]) -> Iterator[Told]:
        """Bring `coming` blobs of what is to be published to the edges while the block fetches them.

        Gives who has to be told how they grow. What has not gone when the block ends goes on, unless it failed.
        """
        from mirrortools.desk import tell_nobody

        large = [blob for blob in coming if blob.algorithm == "sha256"]
        if sum(blob.size for blob in large) < LEAST_BYTES:
            yield tell_nobody
            return
        inflow = self._start(prospect, large)
        try:
            yield inflow.grown
        except BaseException:
            self._stop()
            raise
        inflow.end()

    def _start(self, prospect: Publication, coming: Collection[Blob]) -> Inflow:
        from mirrortools.inflow import Inflow
        from mirrortools.partial import part_of
        from mirrortools.store import Store

        self._stop()
        partial, store = self._root / "state" / "partial", Store(self._root, prospect.realm)
        inflow = Inflow(coming, lambda blob: (part_of(partial, blob), store.path(blob)))
        self._fan_out = fan_out = self._pool.fan_out(inflow)
        self._threads = threads = ThreadPoolExecutor(len(self._edges), "ahead")
        for name in self._edges:
            session = self._sessions[name] = self._pool.further_session(name, prospect)
            self._vanguards[name] = threads.submit(session.forward, prospect, fan_out, self._progress)
        return inflow

    def deliver(self, publication: Publication) -> list[Delivery]:
        """Bring what is published to the edges, each as soon as what went ahead is there."""
        deliveries = self._pool.deliver(
            publication,
            self._edges,
            self._tell_behind,
            lambda edge: self._session(edge, publication.realm),
            self._siblings,
        )
        if self._fan_out:
            self._pool.rates.update(self._fan_out.rates)
        return [self._whole(delivery) for delivery in deliveries]

    def _session(self, edge: str, realm: Realm) -> EdgeSession:
        """The session with an edge, after what went ahead has come there; the run's own when that went wrong."""
        vanguard = self._vanguards.get(edge)
        if vanguard is None:
            return self._pool.session(edge, realm)
        error = vanguard.result().error
        if error:
            _log.info("mirrortool: nothing went to edge %s while it was fetched: %s", edge, error)
            self._sessions[edge].close()  # so that the delivery can go on with what came there
            return self._pool.session(edge, realm)
        return self._sessions[edge]

    def _tell_behind(self, edge: str, repo: RepoId, sent_bytes: int, planned_bytes: int) -> None:
        """Tell how far the delivery is, with what went ahead."""
        vanguard = self._vanguards.get(edge)
        before_bytes = vanguard.result().bytes_planned if vanguard and not vanguard.result().error else 0
        self._progress(edge, repo, before_bytes + sent_bytes, before_bytes + planned_bytes)

    def _whole(self, delivery: Delivery) -> Delivery:
        vanguard = self._vanguards.get(delivery.edge)
        return delivery.behind(vanguard.result()) if vanguard else delivery

    def _stop(self) -> None:
        """End what goes ahead; what came stays where it is."""
        if self._fan_out:
            self._fan_out.close()
        for name, vanguard in self._vanguards.items():
            if not vanguard.done():
                self._sessions[name].abort()
        if self._threads:
            self._threads.shutdown(wait=True, cancel_futures=True)
        for session in self._sessions.values():
            self._pool.end_further(session)
        self._fan_out, self._threads, self._sessions, self._vanguards = None, None, {}, {}

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
