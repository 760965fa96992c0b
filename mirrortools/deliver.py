"""Bring publications to edges: what an edge lacks goes out, it hashes that itself, and its refs move last.

All edges are served at once, a thread for each, and one that fails does not hold the others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from socket import gethostname
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from mirrortools import __version__
from mirrortools.config import EdgeConfig
from mirrortools.deltas import LEAST_BYTES, Deltas
from mirrortools.errand import Delivery, Errand, Holding, Meter, Progress, Reached, blob_items, no_progress, understood
from mirrortools.errors import EdgeRefused, EdgeUnreachable, MirrorError
from mirrortools.foresight import Foresight, foreseen
from mirrortools.frames import PROTOCOL_VERSION, RELAY_VERSION
from mirrortools.lending import Candidate, Lending
from mirrortools.model import Blob, Publication, Realm, RepoId, Revision
from mirrortools.readers import Access
from mirrortools.sealing import SealedSession
from mirrortools.share import share_name, share_of
from mirrortools.shown import digest_of
from mirrortools.signing import Signer
from mirrortools.squeeze import Wire
from mirrortools.statements import Signed
from mirrortools.store import Store
from mirrortools.throttle import Throttle
from mirrortools.transports import Session, Transport, receiver_archive, transport_to
from mirrortools.tree import Tree

if TYPE_CHECKING:
    from mirrortools.fanout import FanOut
    from mirrortools.inflow import Inflow

# A receiver ends when nobody asks for long (a run may fetch for hours between two deliveries); well before that, a
# new one is started.
MAX_IDLE_S: Final = 300
# Statements are numbered by the time of their making, mostly: how far an edge's may be ahead of this host's clock.
SERIALS_AHEAD_S: Final = 86400
# What is so little goes in a request: a chain, or an rsync, takes longer to begin. To many it would leave here often.
_CARRIED_BYTES: Final = 2 << 20
_CARRIED_TO_MANY_BYTES: Final = 128 << 10
# How many of the revisions that an edge has are looked through for older blobs.
_OLDER_REVISIONS: Final = 4


@dataclass(frozen=True, slots=True)
class Here:
    """What deliveries of a realm are made of: blobs and revisions of this host, the key that it signs with, deltas.

    `access` tells who may read on an edge; None where nobody has to be told.
    """

    store: Store
    tree: Tree
    signer: Signer
    deltas: Deltas
    access: Callable[[str], Access] | None = None

    @classmethod
    def of(cls, root: Path, realm: Realm = Realm.PUBLIC, access: Callable[[str], Access] | None = None) -> Here:
        """Those of one root."""
        return cls(Store(root, realm), Tree(root, realm), Signer(root), Deltas(root, realm), access)

    def older(self, publication: Publication, parts: Mapping[str, str]) -> dict[Blob, Blob]:
        """For blobs of a publication: one that an edge with these `parts` has at the same path, or that is most alike.

        Raises StoreError.
        """
        there = [commit for commit in parts if commit != "refs"]
        latest = self.tree.latest(publication.repo, there, _OLDER_REVISIONS)
        manifests = [m for c in latest if (m := self.tree.manifest(Revision(publication.repo, c)))]
        by_path = {path: entry.blob for manifest in reversed(manifests) for path, entry in manifest.files.items()}
        held = {blob for manifest in manifests for blob in manifest.blobs}
        large = [blob for blob in held if blob.size >= LEAST_BYTES]
        found: dict[Blob, Blob] = {}
        for manifest in publication.manifests.values():
            for path, entry in manifest.files.items():
                if entry.blob.size >= LEAST_BYTES and entry.blob not in held:
                    base = by_path.get(path) or self.deltas.most_alike(entry.blob, large)
                    found |= {entry.blob: base} if base else {}
        return found


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


class Together:
    """Where the errands of one delivery meet, made when the first of them has something to send."""

    def __init__(self, rates: Mapping[str, float], total: Throttle, edges: int, *, is_alone: bool) -> None:
        self.is_alone = is_alone
        self.lending = Lending(edges)
        self.is_limited = total.is_limited
        self._words = rates, total
        self._fan_out: FanOut | None = None
        self._lock = Lock()

    def fan_out(self) -> FanOut:
        """The same for all."""
        from mirrortools.fanout import FanOut

        with self._lock:
            self._fan_out = self._fan_out or FanOut(*self._words, lending=self.lending)
            return self._fan_out

    def has_fed(self, edge: str) -> bool:
        """Whether an edge got bytes by way of the others, so that they can draw from it already."""
        return self._fan_out is not None and self._fan_out.has(edge)

    def close(self) -> None:
        """End what this host sends."""
        if self._fan_out:
            self._fan_out.close()

    @property
    def rates(self) -> Mapping[str, float]:
        """What edges took, in bytes a second."""
        return self._fan_out.rates if self._fan_out else {}


Said = Callable[[EdgeConfig], str]
"""Gives what this host says of one publication to an edge with these rules: its share's statement, as notes name it."""


class EdgeSession:
    """One edge for one run and realm: reached when the first repository needs it; not tried again when that fails.

    `repos` are repositories that will be delivered: the edge says in its first answer what it holds of them all. An
    edge that is believed may say so by its notes, of what it has seen in the last day; else it looks.
    """

    def __init__(
        self,
        edge: EdgeConfig,
        transport: Transport,
        here: Here,
        repos: Iterable[RepoId] = (),
        clock: Callable[[], float] = time.monotonic,
        *,
        believes: bool = False,
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
        self._believes = believes
        self._noted: dict[str, str] = {}
        self._known_signer: object = None
        self._wire = Wire(edge.rate_limit_bytes_s)
        self._can_relay = self._can_carry = False
        self._has_granted = False
        self._turn = Lock()

    def share(self, publication: Publication) -> Publication:
        """What of a publication this edge is to show."""
        return share_of(publication, self.edge)

    def deliver(
        self, publication: Publication, progress: Progress = no_progress, together: Together | None = None
    ) -> Delivery:
        """Bring one repository, or the edge's share of it, to the edge, together with others perhaps.

        What fails is in the answer.
        """
        publication = self.share(publication)
        with self._turn:
            meter = Meter(self.edge.name, publication.repo, progress)
            changed, error = False, None
            try:
                changed = self._bring(publication, meter, together)
            except MirrorError as failure:
                error = failure
                self._give_up_if_unreachable(failure)
            self._used_s = self._clock()
            return meter.delivery(changed, error)

    def is_shown(self, repo: RepoId, said: Said) -> bool:
        """Whether the edge has noted that it shows just what is `said` of a repository. It is not asked for that.

        Raises StoreError, NoSpace.
        """
        noted = self._noted.get(repo.path)
        is_settled = self._failure is None and self._known_signer == self._here.signer.signer
        if noted is None or not is_settled or (self._here.access and not self._has_granted):
            return False
        return noted == said(self.edge)

    def forward(self, prospect: Publication, fan_out: FanOut, progress: Progress) -> Delivery:
        """Bring blobs of what is to be published to the edge, while they come; nothing shows there.

        What an older blob there saves bytes for is left to the delivery. What fails is in the answer.
        """
        prospect = self.share(prospect)
        with self._turn:
            meter = Meter(self.edge.name, prospect.repo, progress)
            error = None
            try:
                self._send_ahead(prospect, fan_out, meter)
            except MirrorError as failure:
                error = failure
                self._give_up_if_unreachable(failure)
            self._used_s = self._clock()
            return meter.delivery(changed=False, error=error)

    def lend(self, publication: Publication, fan_out: FanOut) -> None:
        """Have the edge feed others what it has of a publication, until they need it no more.

        Which blobs that may be is sealed, as in a delivery. Raises EdgeError, NoSpace, Locked.
        """
        from mirrortools.fanout import Parcel

        publication = self.share(publication)
        with self._turn:
            session, repo, blobs = self._opened(publication.repo), publication.repo, publication.blobs
            answer = session.ask({"ask": "begin", "repo": repo.path, "blobs": blob_items(blobs)})
            with understood(self.edge.name):
                lost = Holding.from_json(answer, blobs).lacking.keys()
            fan_out.lend(Parcel(self.edge, repo, {}, blobs - lost, self._here.store.served), session)

    @property
    def is_lost(self) -> bool:
        """Whether it could not be reached in this run."""
        return self._failure is not None

    @property
    def can_relay(self) -> bool:
        """Whether other edges can draw from it, as it said when it was reached."""
        return self._can_relay

    def _send_ahead(self, prospect: Publication, fan_out: FanOut, meter: Meter) -> None:
        from mirrortools.vanguard import Vanguard

        repo, blobs = prospect.repo, frozenset(blob for blob in prospect.blobs if blob.algorithm == "sha256")
        session = self._opened(repo)
        self._introduce(session)
        if self._can_relay and blobs:
            older = self._here.older(prospect, self._held_of(session, repo).parts)
            reached = Reached(self.edge, session, self._wire)
            Vanguard(reached, repo, blobs, older, self._here.store.served, meter).run(fan_out)

    def foresee(self, publication: Publication) -> Foresight:
        """Tell what a delivery would send, and why; nothing changes on the edge. Raises EdgeError, StoreError."""
        publication = self.share(publication)
        with self._turn:
            session = self._opened(publication.repo)
            held = self._held_of(session, publication.repo)
            blobs = publication.blobs
            answer = session.ask({"ask": "have", "repo": publication.repo.path, "blobs": blob_items(blobs)})
            with understood(self.edge.name):
                holding = Holding.from_json(answer, blobs)
            older = self._here.older(publication, held.parts)
            return foreseen(self.edge.name, publication, holding, older, self._here.deltas)

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

    def forgive(self) -> None:
        """Let an edge that was cut off be reached once more."""
        with self._turn:
            self._failure = None
            self._held, self._noted = {}, {}

    def abort(self) -> None:
        """End whatever runs now, from any thread."""
        self._failure = self._failure or EdgeUnreachable(f"edge {self.edge.name}: the run was ended")
        session = self._session
        if session:
            session.abort()

    def _bring(self, publication: Publication, meter: Meter, together: Together | None) -> bool:
        session = self._opened(publication.repo)
        self._introduce(session)
        self._grant(session)
        if self._has_noted(session, publication):
            return False
        held = self._held_of(session, publication.repo)
        signed, parts = self._signed(publication, held)
        if held.shows(parts, signed):
            return False
        older = self._here.older(publication, held.parts)
        reached = self._reached(session, together)
        errand = Errand(reached, self._here.store, publication, signed, meter, self._here.deltas, older)
        changed = errand.run({part for part, digest in parts.items() if held.parts.get(part) == digest})
        self._held[publication.repo.path] = Held(signed.statement.serial, parts)
        return changed

    def _has_noted(self, session: Session, publication: Publication) -> bool:
        """Whether the edge says by its notes that it shows just this; any other note does not count any more."""
        repo = publication.repo
        if self._believes and repo.path not in self._held and repo.path not in self._noted:
            self._learn(session.ask({"ask": "state", "repos": [repo.path], "brief": True}))
        if repo.path not in self._noted:
            return False
        signed = self._here.signer.signed(publication, 0, share_name(self.edge))
        if self._noted[repo.path] == digest_of(signed.text):
            return True
        del self._noted[repo.path]
        return False

    def _reached(self, session: Session, together: Together | None) -> Reached:
        fan_out = together.fan_out if together and self._can_relay else None
        is_alone = together is None or together.is_alone
        carried_bytes = 0
        if self._can_carry and (together is None or not together.is_limited) and not self.edge.rate_limit_bytes_s:
            carried_bytes = _CARRIED_BYTES if is_alone else _CARRIED_TO_MANY_BYTES
        return Reached(self.edge, session, self._wire, fan_out, is_alone, carried_bytes)

    def _signed(self, publication: Publication, held: Held) -> tuple[Signed, dict[str, str]]:
        """The statement for what this edge shows, and its parts.

        An edge whose rules have changed may show another share by a statement with the same number, made in the same
        second; the new one has to be above it.
        """
        signer, parts, name = self._here.signer, publication.digests(), share_name(self.edge)
        signed = signer.signed(publication, held.serial, name)
        if held.parts and signed.statement.serial == held.serial and not held.shows(parts, signed):
            signed = signer.signed(publication, held.serial + 1, name)
        return signed, parts

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
            session = self._session = self._transport.open(receiver_archive())
            self._session = SealedSession(session, self._here.signer, self._greet(session, repos))
        except MirrorError as error:
            self._failure = error
            self._close()
            raise
        return self._session

    def _greet(self, session: Session, repos: Iterable[RepoId]) -> str:
        """Say who is there, and learn what the edge holds; gives the challenge that requests are sealed with."""
        names = sorted(repo.path for repo in repos)
        hello = {
            "ask": "hello",
            "version": PROTOCOL_VERSION,
            "release": __version__,
            "caller": gethostname(),
            "repos": names,
            "realm": self._here.tree.realm,
            "brief": self._believes,
        }
        answer = session.ask(hello)
        if answer.get("realm", Realm.PUBLIC) != self._here.tree.realm:
            raise EdgeRefused(
                f"edge {self.edge.name}: the receiver there is older than private repositories; run "
                f"`mirrortool edge provision {self.edge.name}`"
            )
        if not answer.get("rsync"):
            raise EdgeRefused(f"edge {self.edge.name}: rsync is not installed there; install it and run again")
        self._can_relay = self.edge.scheme == "ssh" and answer.get("relay") == RELAY_VERSION
        self._can_carry = answer.get("carries") is True
        self._learn(answer)
        self._known_signer = answer.get("signer")
        return str(answer.get("challenge"))

    def _introduce(self, session: Session) -> None:
        """Let the edge know the key that signs, when it knows none, or the former one."""
        known, signer = self._known_signer, self._here.signer.signer
        if known != signer:
            introduction = self._here.signer.introduce(known) if isinstance(known, str) else None
            session.ask({"ask": "trust", "signer": signer, "introduction": introduction})
            self._known_signer = signer

    def _grant(self, session: Session) -> None:
        """Say who may read there, once a call, so that what was revoked is so there too."""
        if self._here.access and not self._has_granted:
            session.ask({"ask": "access", "access": self._here.access(self.edge.name).to_json()})
            self._has_granted = True

    def _held_of(self, session: Session, repo: RepoId) -> Held:
        if repo.path not in self._held:
            self._learn(session.ask({"ask": "state", "repos": [repo.path]}))
        return self._held.get(repo.path, Held(0, {}))

    def _learn(self, answer: Mapping[str, Any]) -> None:
        latest = int(time.time()) + SERIALS_AHEAD_S
        with understood(self.edge.name):
            self._held |= {str(name): Held.from_json(held, latest) for name, held in answer["state"].items()}
            # An edge with a receiver that knows no notes has said all in its state.
            self._noted |= {str(name): str(digest) for name, digest in answer.get("shown", {}).items()}

    def _give_up_if_unreachable(self, error: MirrorError) -> None:
        if isinstance(error, EdgeUnreachable) and self._failure is None:
            self._failure = error
            self._close()

    def _close(self) -> None:
        if self._session:
            self._session.close()
            self._session = None


class EdgePool:
    """The edges of one run. Use it as a context manager; `repos` are the public ones that the run will deliver.

    What is private goes by conversations of its own, which tell of nothing but the repository that is delivered, and to
    edges that may have it; `access` says who may read there.

    Several threads may deliver different repositories at once; each edge takes them one after the other. `rates` are
    what edges took, in bytes a second: at first those of earlier runs. `believes` is whether edges may answer by their
    notes.
    """

    def __init__(
        self,
        edges: Mapping[str, EdgeConfig],
        root: Path,
        repos: Iterable[RepoId] = (),
        limit_bytes_s: int | None = None,
        rates: Mapping[str, float] | None = None,
        access: Callable[[str], Access] | None = None,
        *,
        believes: bool = False,
    ) -> None:
        self._total = Throttle(limit_bytes_s)
        self.rates = dict(rates or {})
        self._state, self._limit_bytes_s, self._believes = root / "state", limit_bytes_s, believes
        self._here = {Realm.PUBLIC: Here.of(root), Realm.PRIVATE: Here.of(root, Realm.PRIVATE, access)}
        public = tuple(repos)
        self._sessions = {(name, Realm.PUBLIC): self._session_with(edge, public) for name, edge in edges.items()}
        for name, edge in edges.items():
            if edge.private:
                self._sessions[name, Realm.PRIVATE] = self._session_with(edge, (), Realm.PRIVATE)
        self._further: set[EdgeSession] = set()

    def session(self, edge: str, realm: Realm = Realm.PUBLIC) -> EdgeSession:
        """The run's session with one edge. Raises EdgeRefused when it is not for what is private."""
        if (edge, realm) not in self._sessions:
            raise EdgeRefused(f"edge {edge}: is not for what is private; its entry does not say `private: true`")
        return self._sessions[edge, realm]

    def further_session(self, edge: str, publication: Publication) -> EdgeSession:
        """One more session with an edge, for one repository, beside the run's; `end_further` it."""
        realm = publication.realm
        session = self._session_with(self.session(edge, realm).edge, [publication.repo], realm)
        self._further.add(session)
        return session

    def end_further(self, session: EdgeSession) -> None:
        """End such a session."""
        self._further.discard(session)
        session.close()

    def _session_with(self, edge: EdgeConfig, repos: Iterable[RepoId], realm: Realm = Realm.PUBLIC) -> EdgeSession:
        transport = transport_to(_limited(edge, self._limit_bytes_s), self._state)
        return EdgeSession(edge, transport, self._here[realm], repos, believes=self._believes)

    def fan_out(self, inflow: Inflow) -> FanOut:
        """Where edges meet that are brought what comes in here."""
        from mirrortools.fanout import FanOut

        return FanOut(self.rates, self._total, inflow)

    def deliver(
        self,
        publication: Publication,
        edges: Sequence[str],
        progress: Progress = no_progress,
        choose: Callable[[str], EdgeSession] | None = None,
    ) -> list[Delivery]:
        """Bring a repository to `edges`, all at once; give what came of each, in their order.

        `choose` gives the session with an edge, when that is not the run's; it may take its time.
        """
        shown = self._shown(publication, edges)
        if len(shown) < len(edges):
            shown |= self._bring(publication, edges, shown, progress, choose)
        return [shown[name] for name in edges]

    def _shown(self, publication: Publication, edges: Sequence[str]) -> dict[str, Delivery]:
        """The edges that have noted that they show a publication: there is nothing to do, and nothing to ask."""
        repo, signer, known = publication.repo, self._here[publication.realm].signer, dict[str, str]()

        def said(edge: EdgeConfig) -> str:
            name = share_name(edge)
            if name not in known:
                known[name] = digest_of(signer.signed(share_of(publication, edge), 0, name).text)
            return known[name]

        shown: dict[str, Delivery] = {}
        with suppress(MirrorError):  # what is wrong here is told for each edge
            for name in edges:
                session = self._sessions.get((name, publication.realm))
                if session and session.is_shown(repo, said):
                    shown[name] = Meter(name, repo, no_progress).delivery(changed=False, error=None)
        return shown

    def _bring(
        self,
        publication: Publication,
        edges: Sequence[str],
        shown: Mapping[str, Delivery],
        progress: Progress,
        choose: Callable[[str], EdgeSession] | None,
    ) -> dict[str, Delivery]:
        """Bring a repository to those of `edges` that do not show it; the others may be called to help."""
        choose = choose or (lambda name: self.session(name, publication.realm))
        rest = [name for name in edges if name not in shown]
        full = list(shown) if self._may_draw(rest, publication.realm) else []
        together = Together(self.rates, self._total, len(rest), is_alone=len(edges) == 1)

        def bring(name: str) -> Delivery:
            if name in shown:
                self._lend(self.session(name, publication.realm), publication, together)
                return shown[name]
            try:
                session = choose(name)
                delivery = session.deliver(publication, progress, together)
            finally:
                together.lending.one_done()
            if not delivery.error:
                self._lend(session, publication, together)
            return delivery

        def bring_again(name: str) -> Delivery:
            session = choose(name)
            session.forgive()
            return session.deliver(publication, progress, together)

        with closing(together):
            deliveries = self._all_at_once([*rest, *full], bring)
            # Those that were cut off in the middle have one more try when others can feed them now.
            cut_off = [name for name, delivery in deliveries.items() if _was_cut_off(delivery)]
            if not all(delivery.error for delivery in deliveries.values()):
                for name, delivery in self._all_at_once(cut_off, bring_again).items():
                    deliveries[name] = delivery.after(deliveries[name])
            self.rates.update(together.rates)
            return deliveries

    def _may_draw(self, rest: Iterable[str], realm: Realm) -> bool:
        """Whether any of these edges may have something to draw: for those that were lost nobody need wait."""
        sessions = [self._sessions.get((name, realm)) for name in rest]
        return any(session and not session.is_lost for session in sessions)

    def _lend(self, session: EdgeSession, publication: Publication, together: Together) -> None:
        """Have an edge feed others when it is called to; what fails there this host does.

        In a session of its own, as its other repositories are not to wait.
        """
        name = session.edge.name
        if not session.can_relay or together.has_fed(name):
            return
        if not together.lending.await_call(Candidate(name, session.share(publication))):
            return
        further = self.further_session(name, publication)
        try:
            with suppress(MirrorError):
                further.lend(publication, together.fan_out())
        finally:
            together.fan_out().dismiss(name)
            self.end_further(further)

    def abort(self) -> None:
        """End whatever runs now for any edge, from any thread."""
        for session in self._all_sessions:
            session.abort()

    def close(self) -> None:
        """End the receivers, all at once."""
        sessions = self._all_sessions
        with ThreadPoolExecutor(max(1, len(sessions)), "end") as threads:
            list(threads.map(EdgeSession.close, sessions))
        for here in self._here.values():
            here.deltas.close()

    @property
    def _all_sessions(self) -> list[EdgeSession]:
        return [*self._sessions.values(), *self._further]

    def _all_at_once(self, edges: Sequence[str], act: Callable[[str], Delivery]) -> dict[str, Delivery]:
        """What came of each, in their order; a thread for each. All are ended when this one is."""
        if not edges:
            return {}
        with ThreadPoolExecutor(len(edges), "edge") as threads:
            work = {name: threads.submit(act, name) for name in edges}
            try:
                return {name: delivery.result() for name, delivery in work.items()}
            except BaseException:
                self.abort()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _limited(edge: EdgeConfig, limit_bytes_s: int | None) -> EdgeConfig:
    """An edge that is sent no more by rsync than all together may be sent."""
    limits = [limit for limit in (edge.rate_limit_bytes_s, limit_bytes_s) if limit]
    return replace(edge, rate_limit_bytes_s=min(limits, default=None))


def _was_cut_off(delivery: Delivery) -> bool:
    """Whether an edge was reached, told what it lacks, and was lost then."""
    return isinstance(delivery.error, EdgeUnreachable) and delivery.blobs > 0
