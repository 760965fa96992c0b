"""Bring publications to edges: what an edge lacks goes out, it hashes that itself, and its refs move last.

All edges are served at once, a thread for each, and one that fails does not hold the others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from socket import gethostname
from threading import Lock
from types import TracebackType
from typing import Any, Final, Self

from mirrortools.config import EdgeConfig
from mirrortools.errors import (
    EdgeRefused,
    EdgeUnreachable,
    IntegrityError,
    MirrorError,
    NoSpace,
    StoreError,
    UpstreamError,
)
from mirrortools.frames import PROTOCOL_VERSION
from mirrortools.model import Blob, Publication, RepoId
from mirrortools.signing import Signer
from mirrortools.statements import Signed
from mirrortools.store import Store, hash_file
from mirrortools.text import size
from mirrortools.transports import Batch, Session, Transport, receiver_archive, transport_to

PING_INTERVAL_S: Final = 60
# A receiver ends when nobody asks for long (a run may fetch for hours between two deliveries); well before that, a
# new one is started.
MAX_IDLE_S: Final = 300
# Statements are numbered by the time of their making, mostly: how far an edge's may be ahead of this host's clock.
SERIALS_AHEAD_S: Final = 86400
# Room for what publishing writes besides the blobs: links, folders and API answers of a revision.
_BYTES_PER_BLOB: Final = 8192
_MALFORMED: Final = (KeyError, TypeError, ValueError, AttributeError)

Progress = Callable[[str, RepoId, int, int], None]
"""Told an edge, a repository, how many bytes went out and how many are planned. Called from several threads."""


def no_progress(edge: str, repo: RepoId, sent_bytes: int, planned_bytes: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """What came of one repository's delivery to one edge.

    `blobs` and `bytes_planned` are what the edge lacked, `bytes_sent` what left this host as content and rsync's
    protocol; after an error it is the content that rsync had counted. `changed` is whether the edge shows another thing
    than before.
    """

    edge: str
    repo: RepoId
    changed: bool
    blobs: int
    bytes_planned: int
    bytes_sent: int
    duration_s: float
    error: MirrorError | None = None


@dataclass(frozen=True, slots=True)
class Here:
    """What deliveries are made of: the blobs of this host, and the key that it signs with."""

    store: Store
    signer: Signer


@dataclass(frozen=True, slots=True)
class Held:
    """What an edge says that it shows of a repository: its statement's number (0: none), and each part's digest."""

    serial: int
    parts: Mapping[str, str]

    @classmethod
    def from_json(cls, document: Mapping[str, Any], latest: int) -> Held:
        """Read an answer. A number above `latest` is refused: all others would have to follow it.

        Raises ValueError, KeyError, TypeError.
        """
        serial = int(document["serial"])
        if not 0 <= serial <= latest:
            raise ValueError(f"it has a statement with the number {serial}; are both clocks right?")
        return cls(serial, {str(part): str(digest) for part, digest in document["parts"].items()})

    def shows(self, parts: Mapping[str, str], signed: Signed) -> bool:
        """Whether that is all of a publication, by its latest statement. Older commits besides do not matter."""
        return self.serial == signed.statement.serial and parts.items() <= self.parts.items()


@dataclass(frozen=True, slots=True)
class Holding:
    """What an edge answers to `begin`: blobs that it lacks, how much of each it has from a broken delivery."""

    lacking: Mapping[Blob, int]
    folder: str
    free_bytes: int

    @classmethod
    def from_json(cls, document: Mapping[str, Any], asked: frozenset[Blob]) -> Holding:
        """Read an answer about the blobs that were `asked` for. Raises ValueError, KeyError, TypeError."""
        lacking = {Blob(str(a), str(d), int(size)): int(have) for a, d, size, have in document["missing"]}
        folder = str(document["folder"])
        if not lacking.keys() <= asked:
            raise ValueError("it names blobs that were not asked for")
        if not all(0 <= have <= blob.size for blob, have in lacking.items()):
            raise ValueError("it has more of a blob than there is")
        if not folder.startswith("state/incoming/") or ".." in folder:
            raise ValueError(f"it wants files in {folder!r}")
        return cls(lacking, folder, int(document["free_bytes"]))

    @property
    def incomplete(self) -> list[Blob]:
        """The blobs of which bytes must be sent."""
        return sorted(blob for blob, have in self.lacking.items() if have < blob.size or not blob.size)

    @property
    def bytes_planned(self) -> int:
        """How much must be sent."""
        return sum(blob.size - have for blob, have in self.lacking.items())


def check_space(edge: str, root: Path, holding: Holding) -> None:
    """Refuse a delivery that would fill an edge's disk. Raises NoSpace."""
    needed = holding.bytes_planned + _BYTES_PER_BLOB * len(holding.lacking)
    if needed > holding.free_bytes:
        raise NoSpace(
            f"edge {edge}: {size(needed)} are needed and {size(holding.free_bytes)} are free in {root}; "
            "free some space there, or give the edge fewer repositories"
        )


class EdgeSession:
    """One edge for one run: reached when the first repository needs it, and not tried again when that fails.

    `repos` are repositories that will be delivered: the edge says in its first answer what it holds of them all.
    """

    def __init__(
        self,
        edge: EdgeConfig,
        transport: Transport,
        here: Here,
        repos: Iterable[RepoId] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.edge = edge
        self._transport = transport
        self._here = here
        self._repos = tuple(repos)
        self._clock = clock
        self._used_s = clock()
        self._session: Session | None = None
        self._failure: MirrorError | None = None
        self._held: dict[str, Held] = {}
        self._turn = Lock()

    def deliver(self, publication: Publication, progress: Progress = no_progress) -> Delivery:
        """Bring one repository to the edge; what fails is in the answer."""
        with self._turn:
            meter = Meter(self.edge.name, publication.repo, progress)
            changed, error = False, None
            try:
                changed = self._bring(publication, meter)
            except MirrorError as failure:
                error = failure
                self._give_up_if_unreachable(failure)
            self._used_s = self._clock()
            return meter.delivery(changed, error)

    def ask(self, repo: RepoId, request: Mapping[str, Any]) -> dict[str, Any]:
        """Ask the receiver about a repository. Raises EdgeUnreachable, EdgeRefused, NoSpace, Locked."""
        with self._turn:
            try:
                return self._opened(repo).ask(request)
            except MirrorError as failure:
                self._give_up_if_unreachable(failure)
                raise
            finally:
                self._used_s = self._clock()

    def held(self, repo: RepoId) -> Held:
        """What the edge says that it shows of a repository. Raises EdgeError."""
        with self._turn:
            return self._held_of(self._opened(repo), repo)

    def close(self) -> None:
        """End the receiver on the edge."""
        with self._turn:
            self._close()

    def abort(self) -> None:
        """End whatever runs now, from any thread."""
        self._failure = self._failure or EdgeUnreachable(f"edge {self.edge.name}: the run was ended")
        session = self._session
        if session:
            session.abort()

    def _bring(self, publication: Publication, meter: Meter) -> bool:
        session = self._opened(publication.repo)
        held = self._held_of(session, publication.repo)
        signed = self._here.signer.signed(publication, after=held.serial)
        parts = publication.digests()
        if held.shows(parts, signed):
            return False
        errand = Errand(self.edge, session, self._here.store, publication, signed, meter)
        changed = errand.run({part for part, digest in parts.items() if held.parts.get(part) == digest})
        self._held[publication.repo.path] = Held(signed.statement.serial, parts)
        return changed

    def _opened(self, repo: RepoId) -> Session:
        if self._failure:
            raise self._failure
        if self._clock() - self._used_s > MAX_IDLE_S:
            self._close()
        if self._session is None:
            self._session = self._open({*self._repos, repo})
        if self._failure:  # abort came in between
            raise self._failure
        return self._session

    def _open(self, repos: Iterable[RepoId]) -> Session:
        try:
            self._session = self._transport.open(receiver_archive())
            self._greet(self._session, repos)
        except MirrorError as error:
            self._failure = error
            self._close()
            raise
        return self._session

    def _greet(self, session: Session, repos: Iterable[RepoId]) -> None:
        names = sorted(repo.path for repo in repos)
        hello = {"ask": "hello", "version": PROTOCOL_VERSION, "caller": gethostname(), "repos": names}
        answer = session.ask(hello)
        if not answer.get("rsync"):
            raise EdgeRefused(f"edge {self.edge.name}: rsync is not installed there; install it and run again")
        self._learn(answer)
        self._introduce(session, answer.get("signer"))

    def _introduce(self, session: Session, known: object) -> None:
        """Let the edge know the key that signs, when it knows none, or the former one."""
        signer = self._here.signer.signer
        if known != signer:
            introduction = self._here.signer.introduce(known) if isinstance(known, str) else None
            session.ask({"ask": "trust", "signer": signer, "introduction": introduction})

    def _held_of(self, session: Session, repo: RepoId) -> Held:
        if repo.path not in self._held:
            self._learn(session.ask({"ask": "state", "repos": [repo.path]}))
        return self._held.get(repo.path, Held(0, {}))

    def _learn(self, answer: Mapping[str, Any]) -> None:
        latest = int(time.time()) + SERIALS_AHEAD_S
        with understood(self.edge.name):
            self._held |= {str(name): Held.from_json(held, latest) for name, held in answer["state"].items()}

    def _give_up_if_unreachable(self, error: MirrorError) -> None:
        if isinstance(error, EdgeUnreachable) and self._failure is None:
            self._failure = error
            self._close()

    def _close(self) -> None:
        if self._session:
            self._session.close()
            self._session = None


class Meter:
    """Counts one delivery, and tells how far it is."""

    def __init__(self, edge: str, repo: RepoId, progress: Progress) -> None:
        self._edge = edge
        self._repo = repo
        self._progress = progress
        self._started_s = time.monotonic()
        self._sent_bytes = 0
        self._batch_bytes = 0
        self._blobs = 0
        self._planned_bytes = 0

    def plan(self, blobs: int, planned_bytes: int) -> None:
        """Know what there is to do."""
        self._blobs, self._planned_bytes = blobs, planned_bytes
        self._progress(self._edge, self._repo, 0, planned_bytes)

    def batch_at(self, content_bytes: int) -> None:
        """Know how far the batch under way is."""
        self._batch_bytes = content_bytes
        self._progress(self._edge, self._repo, self._sent_bytes + content_bytes, self._planned_bytes)

    def batch_done(self, wire_bytes: int) -> None:
        """Know what a finished batch cost."""
        self._sent_bytes += wire_bytes
        self._batch_bytes = 0

    def delivery(self, changed: bool, error: MirrorError | None) -> Delivery:
        """What came of it."""
        duration_s = time.monotonic() - self._started_s
        sent_bytes = self._sent_bytes + self._batch_bytes
        return Delivery(
            self._edge, self._repo, changed, self._blobs, self._planned_bytes, sent_bytes, duration_s, error
        )


@dataclass(frozen=True, slots=True)
class Errand:
    """One repository on its way to one edge that was reached."""

    edge: EdgeConfig
    session: Session
    store: Store
    publication: Publication
    signed: Signed
    meter: Meter

    def run(self, held: Container[str]) -> bool:
        """Send what is lacking, have it hashed, publish; return whether the edge shows another thing than before.

        `held` are the parts that it has: their manifests need not travel.
        """
        holding = self._begin()
        self.meter.plan(len(holding.lacking), holding.bytes_planned)
        check_space(self.edge.name, self.edge.root, holding)
        bad = self._send_and_adopt(holding)
        if bad:
            self._check_own(bad)
            # What the edge found wrong is gone there: the same files once more, whole.
            bad = self._send_and_adopt(Holding(dict.fromkeys(bad, 0), holding.folder, holding.free_bytes))
        if bad:
            reason = next(iter(bad.values()))
            raise IntegrityError(
                f"edge {self.edge.name}: {self.publication.repo}: {reason}, twice; "
                f"look at the edge's disk and memory, then run `mirrortool deliver` again"
            )
        document = self.publication.to_json(held)
        answer = self.session.ask({"ask": "publish", "publication": document, "signed": self.signed.to_json()})
        return bool(answer.get("changed"))

    def _check_own(self, bad: Iterable[Blob]) -> None:
        """When an edge finds blobs wrong, look first whether they are wrong here. Raises IntegrityError."""
        for blob in bad:
            path = self.store.path(blob)
            got = hash_file(path, blob.algorithm)
            if got != blob.digest:
                raise IntegrityError(
                    f"{path}: expected {blob.algorithm} {blob.digest}, got {got}: this host's own copy is damaged "
                    f"(edge {self.edge.name} found it); remove that file and run `mirrortool sync` to fetch it again"
                )

    def _begin(self) -> Holding:
        blobs = self.publication.blobs
        answer = self.session.ask(self._request("begin", blobs))
        with understood(self.edge.name):
            return Holding.from_json(answer, blobs)

    def _send_and_adopt(self, holding: Holding) -> dict[Blob, str]:
        """Give the blobs that the edge found wrong, with its reasons."""
        if not holding.lacking:
            return {}
        if holding.incomplete:
            self._send(holding)
        answer = self.session.ask(self._request("adopt", holding.lacking))
        with understood(self.edge.name):
            bad = {Blob(str(a), str(d), int(size)): str(reason) for a, d, size, reason in answer["bad"]}
            if not bad.keys() <= holding.lacking.keys():
                raise ValueError("it calls blobs bad that were not sent")
            return bad

    def _send(self, holding: Holding) -> None:
        lost = [blob for blob in holding.incomplete if not self.store.has(blob)]
        if lost:
            raise StoreError(
                f"{self.store.path(lost[0])}: gone from the origin, with {len(lost) - 1} more that edge "
                f"{self.edge.name} lacks; `mirrortool sync` fetches them again"
            )
        present_bytes = sum(holding.lacking[blob] for blob in holding.incomplete)
        progress = _Pinger(self.session, self.meter, present_bytes)
        batch = Batch(holding.incomplete, self.store.public, holding.folder, progress)
        self.meter.batch_done(self.session.send(batch).bytes_on_wire)

    def _request(self, ask: str, blobs: Iterable[Blob]) -> dict[str, Any]:
        items = [[blob.algorithm, blob.digest, blob.size] for blob in sorted(blobs)]
        return {"ask": ask, "repo": self.publication.repo.path, "blobs": items}


class _Pinger:
    """Passes rsync's progress on, and lets the receiver know now and then that the origin is still there.

    rsync counts what was there before as sent: `present_bytes`.
    """

    def __init__(self, session: Session, meter: Meter, present_bytes: int) -> None:
        self._session = session
        self._meter = meter
        self._present_bytes = present_bytes
        self._pinged_s = time.monotonic()

    def __call__(self, sent_bytes: int) -> None:
        self._meter.batch_at(max(0, sent_bytes - self._present_bytes))
        if time.monotonic() - self._pinged_s > PING_INTERVAL_S:
            self._pinged_s = time.monotonic()
            self._session.ask({"ask": "ping"})


@contextmanager
def understood(edge: str) -> Iterator[None]:
    """Turn an answer that makes no sense into EdgeRefused; no act belongs inside."""
    try:
        yield
    except _MALFORMED as error:
        raise EdgeRefused(f"edge {edge}: an answer that makes no sense: {error!r}") from error
    except UpstreamError as error:
        raise EdgeRefused(f"edge {edge}: an answer that makes no sense: {error}") from error


class EdgePool:
    """The edges of one run. Use it as a context manager; `repos` are those that the run will deliver.

    Several threads may deliver different repositories at once; each edge takes them one after the other.
    """

    def __init__(self, edges: Mapping[str, EdgeConfig], root: Path, repos: Iterable[RepoId] = ()) -> None:
        here, state, repos = Here(Store(root), Signer(root)), root / "state", tuple(repos)
        self._sessions = {
            name: EdgeSession(edge, transport_to(edge, state), here, repos) for name, edge in edges.items()
        }

    def session(self, edge: str) -> EdgeSession:
        """The run's session with one edge."""
        return self._sessions[edge]

    def deliver(
        self, publication: Publication, edges: Sequence[str], progress: Progress = no_progress
    ) -> list[Delivery]:
        """Bring a repository to `edges`, all at once; give what came of each, in their order."""
        sessions = [self._sessions[name] for name in edges]
        with ThreadPoolExecutor(max(1, len(sessions)), "edge") as threads:
            work = [threads.submit(session.deliver, publication, progress) for session in sessions]
            try:
                return [delivery.result() for delivery in work]
            except BaseException:
                for session in sessions:
                    session.abort()
                raise

    def abort(self) -> None:
        """End whatever runs now for any edge, from any thread."""
        for session in self._sessions.values():
            session.abort()

    def close(self) -> None:
        """End the receivers."""
        for session in self._sessions.values():
            session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
