"""Have this host and each edge hash the pieces of what they serve, which metalinks need, after all else is done."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mirrortools import piecework
from mirrortools.check import Examined, Examiner, Reach, examined_in, sessions
from mirrortools.config import Config, RepositoryConfig
from mirrortools.errand import understood
from mirrortools.model import Publication


def describe(
    repositories: Iterable[RepositoryConfig], config: Config, edges: Sequence[str], *, here: bool = True
) -> Iterator[Examined]:
    """Describe what this host serves, and what `edges` do; one that fails holds no other."""
    with sessions(config, edges) as opened:
        own: list[Examiner] = [OwnDescriber(config.root)] if here else []
        yield from examined_in(repositories, config.root, [*own, *map(EdgeDescriber, opened)])


@dataclass(frozen=True, slots=True)
class OwnDescriber:
    """Describes what is served here."""

    root: Path
    edge: None = None

    def examine(self, publication: Publication) -> Examined:
        """Hash pieces and write metalinks. Raises Locked, StoreError, NoSpace."""
        done = piecework.describe(self.root, publication)
        return Examined(publication.repo, None, done.blobs, done.size_bytes, done.bad)


@dataclass(frozen=True, slots=True)
class EdgeDescriber:
    """An edge that hashes its own copies."""

    reach: Reach

    @property
    def edge(self) -> str:
        """The edge's name."""
        return self.reach.edge

    def examine(self, publication: Publication) -> Examined:
        """Have it hash pieces and write metalinks. Raises EdgeError, Locked."""
        repo = publication.repo
        answer = self.reach.session(publication).ask(repo, {"ask": "describe", "repo": repo.path})
        with understood(self.edge):
            bad = tuple(str(problem) for problem in answer["bad"])
            return Examined(repo, self.edge, int(answer["blobs"]), int(answer["size_bytes"]), bad)
