"""What deliveries are recorded as: how far they are while they run, and what came of them afterwards."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from mirrortools.errors import MirrorError
from mirrortools.model import Publication, RepoId
from mirrortools.state import Contact, Sending, State, UnderWay

if TYPE_CHECKING:
    from mirrortools.errand import Delivery, Progress

_NOTED_EVERY_S: Final = 1.0


class Outgoing:
    """Writes how far deliveries are into the state, each once a second at most, and passes it on. Thread-safe."""

    def __init__(self, state: State, pass_on: Progress, clock: Callable[[], float] = time.time) -> None:
        self._state = state
        self._pass_on = pass_on
        self._clock = clock
        self._known: dict[tuple[str, RepoId], UnderWay] = {}
        self._turn = threading.Lock()

    def __call__(self, edge: str, repo: RepoId, sent_bytes: int, planned_bytes: int) -> None:
        """An edge has been sent so much of what is planned."""
        self._pass_on(edge, repo, sent_bytes, planned_bytes)
        now = self._clock()
        with self._turn:
            known = self._known.get((edge, repo))
            if known and now - known.noted_at < _NOTED_EVERY_S:
                return
            started_at = known.started_at if known else now
            delivery = UnderWay(edge, str(repo), os.getpid(), started_at, now, sent_bytes, planned_bytes)
            self._known[edge, repo] = delivery
        self._state.go(delivery)

    def note(self, publication: Publication | None, deliveries: Iterable[Delivery]) -> None:
        """Keep what came of deliveries; None when it does not matter of what, as none was reached."""
        now = self._clock()
        self._state.delivered([_contact(publication, done, now) for done in deliveries], now)


def _contact(publication: Publication | None, done: Delivery, now: float) -> Contact:
    text = str(done.error) if done.error else None
    sending = None
    if done.error or done.changed or done.blobs:
        sending = Sending(
            edge=done.edge,
            repo=str(done.repo),
            revision=default_commit(publication) if publication else None,
            ended_at=now,
            duration_s=done.duration_s,
            blobs=done.blobs,
            sent_bytes=done.bytes_sent,
            saved_bytes=0 if done.error else done.bytes_saved,
            error=text,
            exit_status=done.error.exit_status if done.error else 0,
        )
    return Contact(done.edge, str(done.repo), done.bytes_sent, text, sending)


def default_commit(publication: Publication) -> str | None:
    """The commit of the default branch, or, without one, the newest; None when there is none."""
    newest = max(publication.manifests.values(), key=lambda manifest: manifest.committed_at, default=None)
    return publication.refs.get(publication.git.head) or (newest.revision.commit if newest else None)


@dataclass(slots=True)
class EdgeTally:
    """What a run came to for one edge. `wanted_bytes` is the size of what it lacked, `failures` has the first error
    of each repository that failed.
    """

    edge: str
    repositories: int = 0
    changed: int = 0
    sent_bytes: int = 0
    wanted_bytes: int = 0
    duration_s: float = 0.0
    failures: dict[RepoId, MirrorError] = field(default_factory=dict)

    def add(self, done: Delivery) -> None:
        """Count one delivery. The edge takes them one after the other, so their times add up."""
        self.repositories += 1
        self.changed += done.changed
        self.sent_bytes += done.bytes_sent
        if done.error:
            self.failures[done.repo] = done.error
        else:
            self.wanted_bytes += done.bytes_planned + done.bytes_saved
        if done.blobs or done.changed or done.error:
            self.duration_s += done.duration_s

    @property
    def exit_status(self) -> int:
        """That of its first error; 0 when all went well."""
        return next((error.exit_status for error in self.failures.values()), 0)

    @property
    def is_remarkable(self) -> bool:
        """Whether anything went there, or went wrong."""
        return bool(self.changed or self.sent_bytes or self.failures)

    @property
    def rate_bytes_s(self) -> float:
        """How many bytes a second went out."""
        return self.sent_bytes / self.duration_s if self.duration_s > 0 else 0.0
