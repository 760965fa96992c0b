"""Which repositories edges show as they are now: each edge is asked one question for all of them, all edges at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from mirrortools.config import EdgeConfig, RepositoryConfig
from mirrortools.deliver import EdgeSession
from mirrortools.model import Publication, Realm
from mirrortools.said import Said

Sessions = Mapping[tuple[str, Realm], EdgeSession]
"""The run's session with each edge, by its name and the realm."""


@dataclass(frozen=True, slots=True)
class Agreed:
    """Repositories that these edges show as they are now; those that are `lost` could not be reached."""

    repositories: Sequence[RepositoryConfig]
    edges: Sequence[str]
    lost: Sequence[str]


@dataclass(frozen=True, slots=True)
class Meeting:
    """Where this host and its edges compare what is said with what is shown, by the notes of both.

    `edges_of` says whom a repository goes to, `published` gives what is served of it.
    """

    said: Mapping[Realm, Said]
    sessions: Sessions
    edges: Mapping[str, EdgeConfig]
    edges_of: Callable[[RepositoryConfig], Sequence[str]]
    published: Callable[[RepositoryConfig], Publication | None]

    def agree(self, repositories: Iterable[RepositoryConfig]) -> Iterator[Agreed]:
        """The repositories of which nothing has to be looked at, in groups that go to the same edges."""
        for said in self.said.values():
            said.say_all(lambda known: [self.edges[name] for name in self.edges_of(known)], self.published)
        groups: dict[tuple[Realm, tuple[str, ...]], list[RepositoryConfig]] = {}
        for known in repositories:
            groups.setdefault((known.realm, tuple(self.edges_of(known))), []).append(known)
        reached = self._reach({(name, realm) for realm, names in groups for name in names})
        for (realm, names), group in groups.items():
            there = [name for name in names if (name, realm) in reached]
            lost = [name for name in names if (session := self.sessions.get((name, realm))) and session.is_lost]
            if names and len(there) + len(lost) == len(names):
                other = set[str]().union(*(self.sessions[name, realm].out_of_step() for name in there))
                yield Agreed(self._in_step(group, names, realm, other), there, lost)

    def _reach(self, wanted: set[tuple[str, Realm]]) -> set[tuple[str, Realm]]:
        """Those of the wanted edges that could be reached."""
        known = [key for key in wanted if key in self.sessions]
        with ThreadPoolExecutor(max(1, len(known)), "reach") as threads:
            try:
                reached = threads.map(lambda key: self.sessions[key].reach(), known)
                return {key for key, is_reached in zip(known, reached, strict=True) if is_reached}
            except BaseException:
                for key in known:
                    self.sessions[key].abort()
                raise

    def _in_step(
        self, group: Iterable[RepositoryConfig], names: Sequence[str], realm: Realm, other: Collection[str]
    ) -> Sequence[RepositoryConfig]:
        """Those of a group of which something is said to each of these edges, without those in `other` paths."""
        agendas = {id(agenda): agenda for name in names for agenda in [self.said[realm].agenda(self.edges[name])]}
        saids = [agenda.said for agenda in agendas.values()]
        return [
            known for known in group if known.repo.path not in other and all(known.repo.path in said for said in saids)
        ]
