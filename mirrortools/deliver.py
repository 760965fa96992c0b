"""Bring publications to one edge: what it lacks goes out, it hashes that itself, and its refs move last."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from socket import gethostname
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from mirrortools import __version__
from mirrortools.config import EdgeConfig
from mirrortools.errand import Delivery, Errand, Holding, Meter, Progress, Reached, blob_items, no_progress, understood
from mirrortools.errors import EdgeRefused, EdgeUnreachable, MirrorError
from mirrortools.foresight import Foresight, foreseen
from mirrortools.frames import PROTOCOL_VERSION, RELAY_VERSION
from mirrortools.here import Here
from mirrortools.model import Publication, Realm, RepoId
from mirrortools.said import Agenda
from mirrortools.sealing import SealedSession
from mirrortools.share import share_name, share_of
from mirrortools.shown import digest_of
from mirrortools.squeeze import Wire
from mirrortools.statements import Signed
from mirrortools.together import Together
from mirrortools.transports import Session, Transport, receiver_archive

if TYPE_CHECKING:
    from mirrortools.fanout import FanOut

# A receiver ends when nobody asks for long (a run may fetch for hours between two deliveries); well before that, a
# new one is started.
MAX_IDLE_S: Final = 300
# Statements are numbered by the time of their making, mostly: how far an edge's may be ahead of this host's clock.
SERIALS_AHEAD_S: Final = 86400
# What is so little goes in a request: a chain, or an rsync, takes longer to begin. To many it would leave here often.
_CARRIED_BYTES: Final = 2 << 20
_CARRIED_TO_MANY_BYTES: Final = 128 << 10
# Sessions begin all at once, and each would pack the receiver for itself.
_PACKING: Final = Lock()


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


Said = Callable[[EdgeConfig], str]
"""Gives what this host says of one publication to an edge with these rules: its share's statement, as notes name it."""


class EdgeSession:
    """One edge for one run and realm: reached when the first repository needs it; not tried again when that fails.

    `repos` are repositories that will be delivered: the edge says in its first answer what it holds of them all. An
    edge that is believed may say so by its notes, of what it has seen in the last day; else it looks. One with an
    `agenda` is asked about that instead.
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
        agenda: Callable[[], Agenda] | None = None,
    ) -> None:
        self.edge = edge
        self._transport = transport
        self._here = here
        self._clock = clock
        self._used_s = clock()
        self._session: Session | None = None
        self._failure: MirrorError | None = None
        self._held: dict[str, Held] = {}
        self._believes = believes
        self._agenda = agenda or partial(Agenda.of, tuple(repos))
        self._noted: dict[str, str] = {}
        self._agreed: Mapping[str, str] = {}
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
        noted = self._noted_of(repo.path)
        is_settled = self._failure is None and self._known_signer == self._here.signer.signer
        if not noted or not is_settled or (self._here.access and not self._has_granted):
            return False
        return noted == said(self.edge)

    def reach(self) -> bool:
        """Hear what the edge shows, and tell it what it has to know; whether that came about.

        Why not is told when something is delivered.
        """
        with self._turn:
            try:
                session = self._opened()
                self._introduce(session)
                self._grant(session)
            except MirrorError as failure:
                self._give_up_if_unreachable(failure)
                return False
            finally:
                self._used_s = self._clock()
            return True

    def out_of_step(self) -> set[str]:
        """The paths of those on the agenda of which it has not noted what was said when it was reached."""
        said = self._agenda().said
        return {path for path, noted in self._noted.items() if noted != said.get(path)}

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
            fan_out.lend(Parcel(self.edge, repo, {}, blobs - lost, [self._here.store.served]), session)

    @property
    def is_lost(self) -> bool:
        """Whether it could not be reached in this run."""
        return self._failure is not None

    @property
    def failure(self) -> MirrorError | None:
        """Why it could not be reached."""
        return self._failure

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
            deltas, relays = self._here.deltas, self._can_relay
            return foreseen(self.edge.name, publication, holding, older, deltas, relays=relays)

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
            self._held, self._noted, self._agreed = {}, {}, {}

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
        if self._believes and repo.path not in self._held and self._noted_of(repo.path) is None:
            self._learn(session.ask({"ask": "state", "repos": [repo.path], "brief": True}))
        noted = self._noted_of(repo.path)
        if not noted:
            return False
        signed = self._here.signer.signed(publication, 0, share_name(self.edge))
        if noted == digest_of(signed.text):
            return True
        self._noted[repo.path] = ""
        return False

    def _noted_of(self, path: str) -> str | None:
        """What it has noted of a repository; empty when that does not count, None when it was not asked."""
        return self._noted.get(path, self._agreed.get(path))

    def _reached(self, session: Session, together: Together | None) -> Reached:
        fan_out = together.fan_out if together and self._can_relay else None
        is_alone = together is None or together.is_alone
        carried_bytes = 0
        if self._can_carry and (together is None or not together.is_limited) and not self.edge.rate_limit_bytes_s:
            carried_bytes = _CARRIED_BYTES if is_alone else _CARRIED_TO_MANY_BYTES
        is_helped = together is not None and together.is_helped
        return Reached(self.edge, session, self._wire, fan_out, is_alone and not is_helped, carried_bytes)

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

    def _opened(self, repo: RepoId | None = None) -> Session:
        if self._failure:
            raise self._failure
        if self._clock() - self._used_s > MAX_IDLE_S:
            self._close()
        if self._session is None:
            self._session = self._open([repo.path] if repo else [])
        if self._failure:  # abort came in between
            raise self._failure
        return self._session

    def _open(self, paths: Iterable[str]) -> Session:
        try:
            with _PACKING:
                archive = receiver_archive()
            session = self._session = self._transport.open(archive)
            self._session = SealedSession(session, self._here.signer, self._greet(session, paths))
        except MirrorError as error:
            self._failure = error
            self._close()
            raise
        return self._session

    def _greet(self, session: Session, paths: Iterable[str]) -> str:
        """Say who is there, and learn what the edge holds; gives the challenge that requests are sealed with."""
        agenda = self._agenda()
        hello = {
            "ask": "hello",
            "version": PROTOCOL_VERSION,
            "release": __version__,
            "caller": gethostname(),
            "repos": sorted({*agenda.others, *paths} - agenda.said.keys()),
            "realm": self._here.tree.realm,
            "brief": self._believes,
            **({"roll": agenda.roll.to_json()} if agenda.said else {}),
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
        if agenda.said:
            self._compare(agenda, answer, session)
        self._known_signer = answer.get("signer")
        return str(answer.get("challenge"))

    def _compare(self, agenda: Agenda, answer: Mapping[str, Any], session: Session) -> None:
        """Know that the edge has noted what is said, but for the parts of the roll that it says differ.

        A receiver that is older than rolls is asked about each repository.
        """
        with understood(self.edge.name):
            differing = answer.get("differing", range(len(agenda.roll.digests)))
            asked = [*agenda.roll.in_parts(map(int, differing))]
        if "differing" not in answer:
            self._learn(session.ask({"ask": "state", "repos": asked, "brief": True}))
        self._noted = {**dict.fromkeys(asked, ""), **self._noted}
        self._agreed = agenda.said

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
