"""What deliveries would send to edges, asked of the edges themselves; they keep the receiver, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from mirrortools.chain import Member
from mirrortools.config import Config, RepositoryConfig
from mirrortools.errors import MirrorError, StoreError
from mirrortools.foresight import Foresight
from mirrortools.lending import Candidate
from mirrortools.model import Publication
from mirrortools.pool import EdgePool, Scope
from mirrortools.resolve import Place
from mirrortools.route import routes
from mirrortools.share import share_of
from mirrortools.tree import Tree
from mirrortools.upstreams import GitMirror


def foresee(
    repositories: Sequence[RepositoryConfig], config: Config, only: Iterable[str] | None = None
) -> Iterator[Foresight]:
    """Tell it for each repository and each of its edges, or `only` these; one that fails holds no other."""
    allowed = set(config.edges if only is None else only)
    with EdgePool(Scope.of(repositories, config)) as pool:
        for repository in repositories:
            edges = [name for name in repository.edges if name in allowed]
            try:
                publication = _published(repository, config)
            except MirrorError as error:
                yield from (Foresight(name, repository.repo, error=error) for name in edges)
                continue
            helpers = [name for name in repository.edges if name not in allowed]
            yield from _routed([_foreseen(pool, name, publication) for name in edges], helpers, publication, config)


def _routed(
    found: Sequence[Foresight], siblings: Sequence[str], publication: Publication, config: Config
) -> list[Foresight]:
    """The same with whom each edge would draw from, of what does not go as a delta."""
    takers, lacking_bytes = [], {}
    full = [foresight.edge for foresight in found if foresight.relays and not foresight.items]
    for foresight in found:
        if foresight.relays and foresight.wants:
            edge = config.edge(foresight.edge)
            offers = frozenset(blob.digest for blob in share_of(publication, edge).blobs) - foresight.makes
            takers.append(Member(edge.name, foresight.wants, offers, region=edge.region))
            lacking_bytes[edge.name] = foresight.send_bytes("whole", "rest")
    edges = [(config.edge(name), name in full) for name in (*full, *siblings)]
    helpers = [Candidate(e.name, share_of(publication, e), e.region, seen) for e, seen in edges if e.scheme == "ssh"]
    known = routes(takers, lacking_bytes, helpers)
    return [replace(foresight, route=known.get(foresight.edge)) for foresight in found]


def _foreseen(pool: EdgePool, edge: str, publication: Publication) -> Foresight:
    try:
        return pool.session(edge, publication.realm).foresee(publication)
    except MirrorError as error:
        return Foresight(edge, publication.repo, error=error)


def _published(repository: RepositoryConfig, config: Config) -> Publication:
    mirror = GitMirror(config.root / "state" / "git" / f"{repository.repo.path}.git")
    publication = Place(repository, mirror, Tree(config.root, repository.realm)).published()
    if publication is None:
        raise StoreError(f"{repository.repo}: nothing is published yet; run `mirrortool sync` first")
    return publication
