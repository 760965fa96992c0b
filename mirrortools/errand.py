"""One repository on its way to one edge: what is lacking goes out, the edge hashes it, and its refs move last."""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mirrortools.access import reason
from mirrortools.cargo import Cargo
from mirrortools.config import EdgeConfig
from mirrortools.deltas import Delta, Deltas
from mirrortools.errors import EdgeRefused, IntegrityError, MirrorError, StoreError, UpstreamError
from mirrortools.model import Blob, Publication, RepoId
from mirrortools.room import Need, check_disk, check_quota
from mirrortools.squeeze import Wire, worth_it
from mirrortools.statements import Signed
from mirrortools.store import Store, hash_file
from mirrortools.transports import Batch, Session

if TYPE_CHECKING:
    from mirrortools.fanout import FanOut

PING_INTERVAL_S: Final = 60
_MALFORMED: Final = (KeyError, TypeError, ValueError, AttributeError)

Progress = Callable[[str, RepoId, int, int], None]
"""Told an edge, a repository, how many bytes went out and how many are planned. Called from several threads."""


def no_progress(edge: str, repo: RepoId, sent_bytes: int, planned_bytes: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """What came of one repository's delivery to one edge.

    `blobs` and `bytes_planned` are what the edge lacked, `bytes_sent` what left this host as content and rsync's
    protocol; after an error it is the content that rsync had counted; `bytes_saved` is what the edge took from older
    blobs instead, `bytes_relayed` what other edges, its `feeders`, passed on to it. `changed` is whether the edge shows
    another thing than before.
    """

    edge: str
    repo: RepoId
    changed: bool
    blobs: int
    bytes_planned: int
    bytes_sent: int
    duration_s: float
    error: MirrorError | None = None
    bytes_saved: int = 0
    bytes_relayed: int = 0
    feeders: tuple[str, ...] = ()

    def behind(self, vanguard: Delivery) -> Delivery:
        """Both as one: what went there before the repository was published, and this."""
        return replace(
            self,
            blobs=self.blobs + vanguard.blobs,
            bytes_planned=self.bytes_planned + vanguard.bytes_planned,
            bytes_sent=self.bytes_sent + vanguard.bytes_sent,
            duration_s=self.duration_s + vanguard.duration_s,
            bytes_relayed=self.bytes_relayed + vanguard.bytes_relayed,
            feeders=tuple(dict.fromkeys((*vanguard.feeders, *self.feeders))),
        )

    def after(self, earlier: Delivery) -> Delivery:
        """Both tries as one: what this one came to, what both cost."""
        return replace(
            self,
            blobs=max(self.blobs, earlier.blobs),
            bytes_planned=max(self.bytes_planned, earlier.bytes_planned),
            bytes_sent=self.bytes_sent + earlier.bytes_sent,
            duration_s=self.duration_s + earlier.duration_s,
        )


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
        self._saved_bytes = 0
        self._relayed_bytes = 0
        self._feeders: dict[str, None] = {}

    def plan(self, blobs: int, planned_bytes: int, saved_bytes: int = 0) -> None:
        """Know what there is to do, and how many bytes of it the edge can take from older blobs."""
        self._blobs, self._planned_bytes, self._saved_bytes = blobs, planned_bytes, saved_bytes
        self._progress(self._edge, self._repo, 0, planned_bytes)

    def save(self, saved_bytes: int) -> None:
        """Know how much the edge took from older blobs in fact: the rest of what was hoped for must be sent."""
        self._planned_bytes += self._saved_bytes - saved_bytes
        self._saved_bytes = saved_bytes

    def batch_at(self, content_bytes: int) -> None:
        """Know how far the batch under way is."""
        self._batch_bytes = content_bytes
        self._progress(self._edge, self._repo, self._sent_bytes + content_bytes, self._planned_bytes)

    def batch_done(self, wire_bytes: int) -> None:
        """Know what a finished batch cost."""
        self._sent_bytes += wire_bytes
        self._batch_bytes = 0

    def relayed(self, content_bytes: int, feeders: Iterable[str]) -> None:
        """Know how much came from other edges, and from which."""
        self._relayed_bytes += max(0, content_bytes)
        self._feeders |= dict.fromkeys(feeders)

    def delivery(self, changed: bool, error: MirrorError | None) -> Delivery:
        """What came of it."""
        duration_s = time.monotonic() - self._started_s
        sent_bytes = self._sent_bytes + self._batch_bytes
        done = (changed, self._blobs, self._planned_bytes, sent_bytes, duration_s, error)
        return Delivery(self._edge, self._repo, *done, self._saved_bytes, self._relayed_bytes, tuple(self._feeders))


@dataclass(frozen=True, slots=True)
class Reached:
    """An edge that was reached, and the ways there: its session, what is known of the wire, and other edges.

    `fan_out` is where it meets them, None when it does not; `is_alone` is whether none can feed it, or draw from it. As
    much as `carried_bytes` may go in a request.
    """

    edge: EdgeConfig
    session: Session
    wire: Wire
    fan_out: Callable[[], FanOut] | None = None
    is_alone: bool = False
    carried_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Errand:
    """One repository on its way to one edge that was reached."""

    reached: Reached
    store: Store
    publication: Publication
    signed: Signed
    meter: Meter
    deltas: Deltas
    older: Mapping[Blob, Blob]

    @property
    def edge(self) -> EdgeConfig:
        """Where it goes."""
        return self.reached.edge

    @property
    def session(self) -> Session:
        """The conversation with the edge."""
        return self.reached.session

    def run(self, held: Container[str]) -> bool:
        """Send what is lacking, have it hashed, publish; return whether the edge shows another thing than before.

        `held` are the parts that it has: their manifests need not travel. Of a blob that has an older one on the edge,
        what is new travels alone. What this host has lost comes from other edges.
        """
        deltas = self._deltas()
        holding = self._begin([delta.fresh for delta in deltas if delta.fresh.size])
        cargo = Cargo.of(holding.lacking, self.publication.blobs, self.store.served, deltas)
        check_room(self.reached, self.publication.repo, holding, cargo.passing_bytes)
        self.meter.plan(len(cargo.lacking), cargo.planned_bytes, cargo.saved_bytes)
        lost = frozenset(blob for blob in cargo.travelling if blob in cargo.lacking and not self.store.has(blob))
        feeders = self._rescue(cargo, lost)
        bad, shown = self._bring(cargo.without(lost), holding.folder, held)
        if bad:
            for delta in cargo.deltas:
                if delta.blob in bad:
                    self.deltas.doubt(delta)
            self._refuse_lost(lost & bad.keys(), feeders)
            self._check_own(bad)
            # What the edge found wrong is gone there: the same files once more, whole, and from here alone: who fed it
            # may have them wrong too.
            direct = replace(self, reached=replace(self.reached, fan_out=None))
            bad, shown = direct._bring(cargo.whole(bad), holding.folder, held)
        if bad:
            reason = next(iter(bad.values()))
            raise IntegrityError(
                f"edge {self.edge.name}: {self.publication.repo}: {reason}, twice; "
                f"look at the edge's disk and memory, then run `mirrortool deliver` again"
            )
        return bool((shown or self.session.ask(self._publishing(held))).get("changed"))

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

    def _deltas(self) -> list[Delta]:
        """How to make lacking blobs of which nothing has arrived out of older ones that the edge has.

        They are made before the delivery begins, which has to name what may come.
        """
        if not self.older:
            return []
        holding = self._holding("have", self.publication.blobs)
        alive = _Pinger(self.session, self.meter, 0)
        deltas = []
        for blob in holding.incomplete:
            if blob in self.older and not holding.lacking[blob] and self.store.has(blob):
                deltas.append(self.deltas.between(self.older[blob], blob))
                alive.ping()
        return [delta for delta in deltas if delta]

    def _begin(self, fresh: Iterable[Blob]) -> Holding:
        return self._holding("begin", self.publication.blobs.union(fresh))

    def _holding(self, ask: str, blobs: frozenset[Blob]) -> Holding:
        answer = self.session.ask(self._request(ask, blobs))
        with understood(self.edge.name):
            return Holding.from_json(answer, blobs)

    def _patch(self, cargo: Cargo) -> None:
        """Have blobs made on the edge out of older ones. Those that it cannot make it will call bad."""
        if not cargo.deltas:
            return
        words = {"ask": "patch", "repo": self.publication.repo.path}
        patched = [d for d in cargo.deltas if self.session.ask({**words, **d.to_json()}).get("patched") is True]
        self.meter.save(sum(delta.saved_bytes for delta in patched))

    def _bring(
        self, cargo: Cargo, folder: str, held: Container[str]
    ) -> tuple[Mapping[Blob, str], Mapping[str, Any] | None]:
        """Send what is lacking, and have it adopted.

        Give the blobs that the edge found wrong, with its reasons; and, when all was asked at once, its answer to
        `publish`.
        """
        if not cargo.lacking:
            return {}, None
        files, carried_bytes = cargo.travelling, self.reached.carried_bytes
        if carried_bytes and sum(file.size for file in files) <= carried_bytes:
            if files and not cargo.deltas:
                return self._at_once(cargo, files, held)
            self._carry(cargo, files)
        elif rest := self._pass_on(cargo, files):
            self._send(cargo, folder, rest)
        self._patch(cargo)
        return self._bad(cargo, self.session.ask(self._request("adopt", cargo.lacking))), None

    def _at_once(
        self, cargo: Cargo, files: Collection[Blob], held: Container[str]
    ) -> tuple[Mapping[Blob, str], Mapping[str, Any] | None]:
        """Send little blobs in a request, with all that is asked of them behind it, and wait once.

        A blob that is found wrong is gone by the time of `publish`, which is refused then.
        """
        requests = [self._carrying(cargo, files), self._request("adopt", cargo.lacking), self._publishing(held)]
        carried, adopted, shown = self.session.ask_all(requests)
        answer = _granted(adopted, carried)
        self.meter.batch_done(sum(file.size for file in files))
        bad = self._bad(cargo, answer)
        return bad, None if bad else _granted(shown)

    def _publishing(self, held: Container[str]) -> dict[str, Any]:
        document = self.publication.to_json(held)
        return {"ask": "publish", "publication": document, "signed": self.signed.to_json()}

    def _bad(self, cargo: Cargo, answer: Mapping[str, Any]) -> dict[Blob, str]:
        """The blobs that the edge found wrong, by its answer to `adopt`, with its reasons."""
        with understood(self.edge.name):
            bad = {Blob(str(a), str(d), int(size)): str(reason) for a, d, size, reason in answer["bad"]}
            if not bad.keys() <= cargo.lacking:
                raise ValueError("it calls blobs bad that were not sent")
            return bad

    def _carry(self, cargo: Cargo, files: Collection[Blob]) -> None:
        """Send files in a request."""
        if files:
            self.session.ask(self._carrying(cargo, files))
            self.meter.batch_done(sum(file.size for file in files))

    def _carrying(self, cargo: Cargo, files: Collection[Blob]) -> dict[str, Any]:
        """Files in a request, which is quicker than to begin anything else as long as they are little."""
        try:
            contents = [
                [
                    file.algorithm,
                    file.digest,
                    file.size,
                    b64encode((cargo.source(file) / file.path).read_bytes()).decode(),
                ]
                for file in files
            ]
        except OSError as error:
            raise StoreError(f"{error.filename}: {reason(error)}; `mirrortool sync` fetches what is gone") from error
        return {"ask": "carry", "repo": self.publication.repo.path, "contents": contents}

    def _rescue(self, cargo: Cargo, lost: frozenset[Blob]) -> tuple[str, ...]:
        """Have other edges feed what this host does not hold any more; gives which did. Raises StoreError."""
        if not lost:
            return ()
        if self.reached.fan_out is None:
            raise StoreError(self._loss(lost, ()))
        from mirrortools.fanout import Parcel

        lacking = {blob: cargo.travelling[blob] for blob in lost}
        begun = self.publication.blobs - (cargo.lacking - lost)
        parcel = Parcel(self.edge, self.publication.repo, lacking, begun, (), lost=True)
        fan_out = self.reached.fan_out()
        brought = fan_out.bring(parcel, self.session, self.meter.batch_at)
        if brought is None:
            raise StoreError(self._loss(lost, fan_out.called))
        self.meter.batch_done(0)
        self.meter.relayed(parcel.bytes_planned, brought.feeders)
        return brought.feeders

    def _loss(self, lost: Collection[Blob], asked: Sequence[str]) -> str:
        """What to say of blobs that neither this host nor an edge that was asked can give."""
        others = f"nor had the edges that were asked for them ({', '.join(asked)})" if asked else "and no edge has them"
        return (
            f"{self.store.path(min(lost))}: gone from the origin, with {len(lost) - 1} more that edge {self.edge.name} "
            f"lacks, {others}; `mirrortool sync --repo {self.publication.repo}` fetches them again"
        )

    def _refuse_lost(self, bad: Collection[Blob], feeders: Sequence[str]) -> None:
        """When what other edges gave is wrong, nobody is left to ask. Raises IntegrityError."""
        if bad:
            again = " ".join(f"--edge {name}" for name in feeders)
            raise IntegrityError(
                f"edge {self.edge.name}: {self.publication.repo}: {min(bad)} came wrong from {', '.join(feeders)}, and "
                f"this host has lost it; run `mirrortool sync --repo {self.publication.repo}` to fetch it again, then "
                f"`mirrortool check --repo {self.publication.repo} {again} --repair`"
            )

    def _pass_on(self, cargo: Cargo, files: Iterable[Blob]) -> list[Blob]:
        """Bring files by way of other edges where that goes; what is left to be sent.

        For a single edge what shrinks on a slow way is left: a relay does not compress.
        """
        squeezed = self._squeezable(cargo, files) if self.reached.is_alone else set()
        relayed = [file for file in files if file not in squeezed]
        return sorted(squeezed) if relayed and self._relayed(cargo, relayed) else list(files)

    def _relayed(self, cargo: Cargo, files: Iterable[Blob]) -> bool:
        """Bring files by way of other edges, or from here as they would; whether that brought them all."""
        if self.reached.fan_out is None:
            return False
        from mirrortools.fanout import Parcel

        lacking = {file: cargo.travelling[file] for file in files}
        # What it makes itself it can pass on when that is made, not now.
        begun = self.publication.blobs - {delta.blob for delta in cargo.deltas}
        recipes = [delta.to_json() for delta in cargo.deltas if delta.fresh in lacking or not delta.fresh.size]
        parcel = Parcel(self.edge, self.publication.repo, lacking, begun, cargo.sources, recipes)
        brought = self.reached.fan_out().bring(parcel, self.session, self.meter.batch_at)
        self.meter.batch_done(brought.sent_bytes if brought else 0)
        if brought is None:
            return False
        self.meter.relayed(parcel.bytes_planned - brought.sent_bytes, brought.feeders)
        return True

    def _send(self, cargo: Cargo, folder: str, files: Iterable[Blob]) -> None:
        """Send files of which so much is there already; on a slow way those compressed that shrink."""
        squeezed = self._squeezable(cargo, files)
        batches: dict[tuple[Path, bool], list[Blob]] = {}
        for file in files:
            batches.setdefault((cargo.source(file), file in squeezed), []).append(file)
        for (source, compress), some in batches.items():
            progress = _Pinger(self.session, self.meter, sum(cargo.travelling[file] for file in some))
            started_s = time.monotonic()
            sent_bytes = self.session.send(Batch(sorted(some), source, folder, progress, compress)).bytes_on_wire
            self.reached.wire.took(sent_bytes, time.monotonic() - started_s)
            self.meter.batch_done(sent_bytes)

    def _squeezable(self, cargo: Cargo, files: Iterable[Blob]) -> set[Blob]:
        if not self.reached.wire.is_slow:
            return set()
        try:
            return {file for file in files if worth_it([file], cargo.source(file))}
        except OSError as error:
            raise StoreError(f"{error.filename}: {reason(error)}; `mirrortool sync` fetches what is gone") from error

    def _request(self, ask: str, blobs: Iterable[Blob]) -> dict[str, Any]:
        return {"ask": ask, "repo": self.publication.repo.path, "blobs": blob_items(blobs)}


def _granted(answer: dict[str, Any] | MirrorError, *before: dict[str, Any] | MirrorError) -> dict[str, Any]:
    """An answer, unless it or one `before` it is a refusal, the first of which is raised."""
    for each in (*before, answer):
        if isinstance(each, MirrorError):
            raise each
    assert isinstance(answer, dict)  # noqa: S101  (it was looked at)
    return answer


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
        self.ping()

    def ping(self) -> None:
        """Say that the origin is there, when it has been silent for long."""
        if time.monotonic() - self._pinged_s > PING_INTERVAL_S:
            self._pinged_s = time.monotonic()
            self._session.ask({"ask": "ping"})


def check_room(reached: Reached, repo: RepoId, holding: Holding, passing_bytes: int = 0) -> None:
    """Refuse before the first byte what an edge has no room for; so much of it is needed for a while alone.

    Raises NoSpace, EdgeError.
    """
    all_bytes = sum(blob.size for blob in holding.lacking)
    arrived_bytes = all_bytes - holding.bytes_planned
    need = Need(repo, len(holding.lacking), all_bytes - passing_bytes, arrived_bytes, passing_bytes)
    check_disk(reached.edge, need, holding.free_bytes)
    if reached.edge.quota_bytes is not None and need.blobs:
        answer = reached.session.ask({"ask": "usage"})
        with understood(reached.edge.name):
            used_bytes = int(answer["used_bytes"])
        check_quota(reached.edge, need, used_bytes)


def blob_items(blobs: Iterable[Blob]) -> list[list[Any]]:
    """Blobs as they travel, in a stable order."""
    return [[blob.algorithm, blob.digest, blob.size] for blob in sorted(blobs)]


@contextmanager
def understood(edge: str) -> Iterator[None]:
    """Turn an answer that makes no sense into EdgeRefused; no act belongs inside."""
    try:
        yield
    except _MALFORMED as error:
        raise EdgeRefused(f"edge {edge}: an answer that makes no sense: {error!r}") from error
    except UpstreamError as error:
        raise EdgeRefused(f"edge {edge}: an answer that makes no sense: {error}") from error
