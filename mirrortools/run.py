"""What a run is: the host that it is on, what it shall do, and what its repositories share."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from mirrortools.commons import Commons
from mirrortools.config import Config, RepositoryConfig
from mirrortools.model import Publication, RepoId
from mirrortools.outcomes import Watch
from mirrortools.resolve import Place
from mirrortools.state import State
from mirrortools.store import Store
from mirrortools.tree import Tree
from mirrortools.upstreams import Clients, GitMirror

if TYPE_CHECKING:
    from mirrortools.pool import EdgePool
    from mirrortools.transports import Transport

_LIVE_S = 1.0


class Origin(NamedTuple):
    """The host that syncs: its configuration and what lies below its root, of one realm.

    `ways` lead to edges that were called already, by their names.
    """

    config: Config
    store: Store
    tree: Tree
    state: State
    clients: Clients
    ways: Mapping[str, Transport] = MappingProxyType({})

    @property
    def root(self) -> Path:
        """The folder that everything is in."""
        return self.config.root

    def of(self, repository: RepositoryConfig) -> Origin:
        """The same host where a repository is served from."""
        if repository.realm is self.tree.realm:
            return self
        return self._replace(store=Store(self.root, repository.realm), tree=Tree(self.root, repository.realm))

    def place(self, repository: RepositoryConfig, only: tuple[str, ...] | None = None) -> Place:
        """Where one repository is resolved."""
        mirror = GitMirror(self.root / "state" / "git" / f"{repository.repo.path}.git")
        return Place(repository, mirror, self.tree, only)


class Wish(NamedTuple):
    """What a run shall do.

    `only` limits it to these revisions, `edges` limits whom to deliver to; None means what is configured. `looks` has
    edges look at what they show, where they may go by their notes else.
    """

    only: tuple[str, ...] | None = None
    edges: tuple[str, ...] | None = None
    dry_run: bool = False
    looks: bool = False

    def edges_of(self, repository: RepositoryConfig) -> list[str]:
        """The edges to bring a repository to."""
        return [name for name in repository.edges if self.edges is None or name in self.edges]

    def siblings_of(self, repository: RepositoryConfig) -> list[str]:
        """The edges that are to have a repository, and are not brought it in this run."""
        return [name for name in repository.edges if self.edges is not None and name not in self.edges]

    def delivers(self, repositories: Sequence[RepositoryConfig]) -> bool:
        """Whether any of these is brought to any edge."""
        return not self.dry_run and any(self.edges_of(repository) for repository in repositories)


@dataclass(frozen=True, slots=True)
class Call:
    """What all repositories of one run share."""

    origin: Origin
    wish: Wish
    watch: Watch
    pool: EdgePool | None
    commons: Commons

    @classmethod
    def begin(cls, origin: Origin, wish: Wish, watch: Watch, pool: EdgePool | None) -> Call:
        """That of a run in which nothing was done yet."""
        return cls(origin, wish, watch, pool, Commons(origin.state, origin.config.max_parallel, in_spite=wish.looks))

    def of(self, repository: RepositoryConfig) -> Call:
        """The same run, where a repository is served from."""
        return replace(self, origin=self.origin.of(repository))

    def published(self, repository: RepositoryConfig) -> Publication | None:
        """What is served of a repository. Raises StoreError."""
        return self.origin.place(repository).published()

    def stop(self) -> None:
        """Break off whatever is under way, in any thread."""
        self.commons.stopped.set()
        self.origin.clients.break_off()
        if self.pool:
            self.pool.abort()


class Live:
    """Writes how far a running sync is into the state, once a second at most, and passes it on."""

    def __init__(self, repo: RepoId, state: State, watch: Watch) -> None:
        self._repo = repo
        self._state = state
        self._watch = watch
        self._done_bytes = 0
        self._written_s = time.monotonic()
        self._lock = threading.Lock()

    def _note(self, **values: float | str | None) -> None:
        self._state.update(str(self._repo), **values)

    def begin(self) -> None:
        """The source is being asked."""
        self._note(status="pre-syncing", done_bytes=None, total_bytes=None)

    def lacking(self) -> None:
        """Upstream has something that is not served here."""
        known = self._state.repository(str(self._repo)).lacking_since
        self._note(lacking_since=known or time.time())

    def expect(self, total_bytes: int) -> None:
        """So much is to come."""
        self._note(status="syncing", done_bytes=0, total_bytes=total_bytes)

    def fetched(self, count: int) -> None:
        """More bytes are here."""
        self._watch.fetched(self._repo, count)
        with self._lock:
            self._done_bytes += count
            if time.monotonic() - self._written_s < _LIVE_S:
                return
            self._written_s = time.monotonic()
        self._note(done_bytes=self._done_bytes)

    def nothing_lacks(self) -> None:
        """What upstream has is served here; it may have gone back to that."""
        if self._state.repository(str(self._repo)).lacking_since is not None:
            self._note(lacking_since=None)

    def published(self, rules: str) -> None:
        """All that upstream has is served here, by these rules."""
        self._note(rules=rules, published_at=time.time(), lacking_since=None, done_bytes=None, total_bytes=None)
