"""Whether this host, and each edge, holds what it serves: blobs hashed again, links compared, samples proved.

What is found is told; with `repair` it is also taken out of the way, so that a sync or a delivery brings it anew.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random, SystemRandom
from typing import Any, Final, Protocol

from mirrortools.audit import SAMPLE_BYTES, Audit, Sample, Subset
from mirrortools.config import Config, RepositoryConfig
from mirrortools.deliver import EdgeSession
from mirrortools.errand import understood
from mirrortools.errors import IntegrityError, MirrorError, StoreError
from mirrortools.model import Blob, Publication, Realm, RepoId
from mirrortools.pool import EdgePool, Scope
from mirrortools.resolve import Place
from mirrortools.tree import Tree
from mirrortools.upstreams import GitMirror

_ALL: Final = Subset()
_TOGETHER_BYTES: Final = 4 << 30
_TOGETHER: Final = 1000


@dataclass(frozen=True, slots=True)
class Examined:
    """What came of examining one repository in one place: `edge` is None for this host.

    `findings` say which file or ref is not as it should be, and why; `failure` why it could not be examined at all.
    """

    repo: RepoId
    edge: str | None
    blobs: int = 0
    size_bytes: int = 0
    findings: tuple[str, ...] = ()
    failure: MirrorError | None = None

    @property
    def error(self) -> MirrorError | None:
        """What to end with, when something is wrong."""
        return self.failure or (IntegrityError(self.findings[0]) if self.findings else None)


@dataclass(frozen=True, slots=True)
class Examination:
    """How closely to look: at which part of the blobs, and whether to take away what is bad.

    `progress` is told how many more bytes have been hashed.
    """

    subset: Subset = _ALL
    repair: bool = False
    progress: Callable[[int], None] = lambda _bytes: None


@dataclass(frozen=True, slots=True)
class Reach:
    """An edge that can be asked about what is public, and about what is private."""

    edge: str
    pool: EdgePool

    def session(self, publication: Publication) -> EdgeSession:
        """The session that a publication belongs to."""
        return self.pool.session(self.edge, publication.realm)


class Examiner(Protocol):
    """One place that can be examined."""

    @property
    def edge(self) -> str | None:
        """Its name; None for this host."""

    def examine(self, publication: Publication) -> Examined:
        """Look at one repository. Raises MirrorError when that is not possible."""


def check(
    repositories: Iterable[RepositoryConfig], config: Config, how: Examination, edges: Sequence[str] = ()
) -> Iterator[Examined]:
    """Examine what this host serves, or what `edges` do instead; one that fails holds no other."""
    with sessions(config, edges) as opened:
        examiners: list[Examiner] = [EdgeExaminer(session, how) for session in opened]
        yield from examined_in(repositories, config.root, examiners or [OwnExaminer(config.root, how)])


def audit(
    repositories: Iterable[RepositoryConfig], config: Config, edges: Sequence[str], samples: int
) -> Iterator[Examined]:
    """Have `edges` prove that they have `samples` random ranges of each repository; one that fails holds no other."""
    with sessions(config, edges) as opened:
        provers = [Prover(session, config.root, samples) for session in opened]
        yield from examined_in(repositories, config.root, provers)


@contextmanager
def sessions(config: Config, edges: Sequence[str]) -> Iterator[list[Reach]]:
    """A way to each of `edges`, as long as the block lasts."""
    with EdgePool(Scope({name: config.edge(name) for name in edges}, config.root)) as pool:
        yield [Reach(name, pool) for name in edges]


def examined_in(
    repositories: Iterable[RepositoryConfig], root: Path, examiners: Sequence[Examiner]
) -> Iterator[Examined]:
    """Each repository in each of the places that are to have it; one that fails holds no other."""
    for repository in repositories:
        for examiner in examiners:
            if examiner.edge is None or examiner.edge in repository.edges:
                yield _examined(repository, root, examiner)


def _examined(repository: RepositoryConfig, root: Path, examiner: Examiner) -> Examined:
    repo = repository.repo
    mirror = GitMirror(root / "state" / "git" / f"{repo.path}.git")
    try:
        publication = Place(repository, mirror, Tree(root, repository.realm)).published()
        if publication is None:
            raise StoreError(f"{repo}: nothing is published yet; run `mirrortool sync` first")
        return examiner.examine(publication)
    except MirrorError as error:
        return Examined(repo, examiner.edge, failure=error)


@dataclass(frozen=True, slots=True)
class OwnExaminer:
    """Examines what is served here. A blob that several repositories have is read once."""

    root: Path
    how: Examination
    edge: None = None
    _seen: set[tuple[Realm, Blob]] = field(default_factory=set)

    def examine(self, publication: Publication) -> Examined:
        """Hash the blobs and compare the links. Raises StoreError when what is bad cannot be taken away."""
        realm, audit = publication.realm, Audit(self.root, publication.realm)
        blobs = [blob for blob in _part(publication, self.how) if (realm, blob) not in self._seen]
        self._seen.update((realm, blob) for blob in blobs)
        bad: dict[Blob, str] = {}
        for some in _batches(blobs):
            bad |= audit.bad_blobs(some)
            self.how.progress(_size(some))
        wrong = {commit: audit.wrong_links(manifest) for commit, manifest in publication.manifests.items()}
        if self.how.repair:
            _take_away(audit, publication, bad, wrong)
        findings = _findings(publication, bad, wrong)
        return Examined(publication.repo, None, len(blobs), _size(blobs), findings)


def _take_away(audit: Audit, publication: Publication, bad: Iterable[Blob], wrong: Mapping[str, Sequence[str]]) -> None:
    for blob in bad:
        audit.set_aside(blob)
    for commit, paths in wrong.items():
        if paths:
            audit.forget(publication.manifests[commit])


@dataclass(frozen=True, slots=True)
class EdgeExaminer:
    """An edge that hashes everything itself."""

    reach: Reach
    how: Examination

    @property
    def edge(self) -> str:
        """The edge's name."""
        return self.reach.edge

    def examine(self, publication: Publication) -> Examined:
        """Have it hash the blobs that it should have, and compare its links. Raises EdgeError."""
        session = self.reach.session(publication)
        publication = session.share(publication)
        repo, blobs = publication.repo, _part(publication, self.how)
        stale = _staleness(publication, session)
        bad: dict[Blob, str] = {}
        for some in _batches(blobs):
            answer = session.ask(repo, {"ask": "audit", "blobs": _items(some), "set_aside": self.how.repair})
            bad |= self._bad(answer, some)
            self.how.progress(_size(some))
        answer = session.ask(repo, {"ask": "links", "repo": repo.path, "set_aside": self.how.repair})
        with understood(self.edge):
            wrong = {str(commit): [str(path) for path in paths] for commit, paths in answer["wrong"].items()}
        findings = _findings(publication, bad, wrong) or stale
        return Examined(repo, self.edge, len(blobs), _size(blobs), findings)

    def _bad(self, answer: Mapping[str, Any], asked: Sequence[Blob]) -> dict[Blob, str]:
        with understood(self.edge):
            bad = {Blob(str(a), str(d), int(size)): str(problem) for a, d, size, problem in answer["bad"]}
            if not bad.keys() <= set(asked):
                raise ValueError("it calls blobs bad that it was not asked about")
            return bad


@dataclass(frozen=True, slots=True)
class Prover:
    """An edge that proves random ranges, compared with this host's own.

    It cannot answer without the bytes, and need not read all that it holds.
    """

    reach: Reach
    root: Path
    samples: int
    choose: Random = field(default_factory=SystemRandom)

    @property
    def edge(self) -> str:
        """The edge's name."""
        return self.reach.edge

    def examine(self, publication: Publication) -> Examined:
        """Ask for proofs. Raises EdgeError."""
        session = self.reach.session(publication)
        publication = session.share(publication)
        samples = choose_samples(sorted(publication.blobs), self.samples, self.choose)
        nonce = secrets.token_hex(16)
        stale = _staleness(publication, session)
        own = Audit(self.root, publication.realm)
        expected, proofs = own.prove(samples, nonce), self._proofs(session, publication.repo, samples, nonce)
        bad = {
            sample.blob: "is not there" if proof is None else f"holds other bytes from {sample.offset} on"
            for sample, proof, own in zip(samples, proofs, expected, strict=True)
            if own not in (None, proof)
        }
        size_bytes = sum(sample.length for sample in samples)
        blobs = len({sample.blob for sample in samples})
        return Examined(publication.repo, self.edge, blobs, size_bytes, _findings(publication, bad, {}) or stale)

    def _proofs(self, session: EdgeSession, repo: RepoId, samples: Sequence[Sample], nonce: str) -> list[str | None]:
        items = [[*_items([sample.blob])[0], sample.offset, sample.length] for sample in samples]
        answer = session.ask(repo, {"ask": "prove", "samples": items, "nonce": nonce})
        with understood(self.edge):
            proofs = [None if proof is None else str(proof) for proof in answer["proofs"]]
            if len(proofs) != len(samples):
                raise ValueError("it proves another number of samples than was asked for")
            return proofs


def choose_samples(blobs: Sequence[Blob], count: int, choose: Random) -> list[Sample]:
    """So many blocks of `blobs`, a large blob more often than a small one; none when there is no byte."""
    whole = [blob for blob in blobs if blob.size]
    chosen = choose.choices(whole, weights=[blob.size for blob in whole], k=count) if whole else []
    places = [(blob, choose.randrange(-(-blob.size // SAMPLE_BYTES)) * SAMPLE_BYTES) for blob in chosen]
    return [Sample(blob, offset, min(SAMPLE_BYTES, blob.size - offset)) for blob, offset in places]


def _part(publication: Publication, how: Examination) -> list[Blob]:
    return [blob for blob in sorted(publication.blobs) if how.subset.has(blob)]


def _batches(blobs: Iterable[Blob]) -> Iterator[list[Blob]]:
    some: list[Blob] = []
    size_bytes = 0
    for blob in blobs:
        some.append(blob)
        size_bytes += blob.size
        if len(some) == _TOGETHER or size_bytes >= _TOGETHER_BYTES:
            yield some
            some, size_bytes = [], 0
    if some:
        yield some


def _size(blobs: Iterable[Blob]) -> int:
    return sum(blob.size for blob in blobs)


def _items(blobs: Iterable[Blob]) -> list[list[Any]]:
    return [[blob.algorithm, blob.digest, blob.size] for blob in blobs]


def _findings(publication: Publication, bad: Mapping[Blob, str], wrong: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    names = {blob: name for name, blob in publication.git.packs.items()}
    for manifest in publication.manifests.values():
        names |= {entry.blob: path for path, entry in manifest.files.items()}
    files = [f"{names.get(blob, blob.digest)}: {problem}" for blob, problem in bad.items()]
    links = [f"{path} at {commit[:12]}: leads elsewhere" for commit, paths in wrong.items() for path in paths]
    return (*files, *links)


def _staleness(publication: Publication, session: EdgeSession) -> tuple[str, ...]:
    """What to say of an edge that shows another publication than this host does."""
    shows_it = publication.digests().items() <= session.held(publication.repo).parts.items()
    return () if shows_it else ("shows another publication than this host does: `mirrortool deliver` brings it",)
