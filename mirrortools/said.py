"""What this host says of its publications, by notes in `<root>/state/said/<realm>`, so that none need be read for it.

A note has the digest of the statement of a publication, or of an edge's share of it, and by what it can be told that
the records that the publication is made of are the same: the number and the time of their folder. It does not count
when anything changed there, another revision is configured, the signing key is another one, the statement is to be
renewed, or a day has gone by. No note is made of what changed while the run went on, or a moment before: two changes
may bear the same time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Final

from mirrortools.config import EdgeConfig, RepositoryConfig
from mirrortools.errors import MirrorError
from mirrortools.here import Here
from mirrortools.model import Publication, RepoId
from mirrortools.notes import BELIEVED_S, MOST_VAIN, Notes
from mirrortools.roll import Roll
from mirrortools.share import share_name, share_of
from mirrortools.shown import digest_of
from mirrortools.statements import good_until

# When it was noted, until when it may be said (Unix seconds), the folder's number and time (ns), and the SHA-256.
_WORDS: Final = rb"[0-9]{1,12} [0-9]{1,12} [0-9]{1,20}\.[0-9]{1,20} [0-9a-f]{64}"
# Two changes within this time may look like one: file systems keep times by the kernel's clock, which ticks.
_MOMENT_NS: Final = 2 * 10**9


@dataclass(frozen=True, slots=True)
class Agenda:
    """What a conversation with an edge is about: digests of the statements that are `said` of repositories, by their
    paths; the roll of these; the paths of the `others`, of which nothing is said yet.
    """

    said: Mapping[str, str]
    roll: Roll
    others: Sequence[str]

    @classmethod
    def of(cls, repos: Iterable[RepoId]) -> Agenda:
        """One that says nothing yet of any."""
        return cls({}, Roll((), ()), [repo.path for repo in repos])


class Said:
    """What is said of the repositories of one realm in one run, which begins now. Thread-safe; `keep` its notes."""

    def __init__(self, root: Path, here: Here, repositories: Iterable[RepositoryConfig], now_s: float) -> None:
        self._here = here
        self._now_s = now_s
        self._repositories = {known.repo.path: known for known in repositories if known.realm is here.tree.realm}
        self._stamps = {path: _settled(here.tree.stamp(path), now_s) for path in self._repositories}
        self._notes = Notes(root / "state" / "said" / here.tree.realm, _WORDS)
        self._written = self._notes.read() if self._repositories else {}
        self._known = self._believed()
        self._fresh: dict[str, str] = {}
        self._agendas: dict[tuple[str, tuple[tuple[str, ...], ...]], Agenda] = {}
        self._terms: dict[tuple[tuple[str, ...], str], str] = {}
        self._turn = Lock()

    @property
    def is_about_any(self) -> bool:
        """Whether there are any such repositories."""
        return bool(self._repositories)

    def say(self, publication: Publication, edge: EdgeConfig) -> str:
        """The digest of what is said to an edge of a publication: as noted, or signed and noted now.

        Raises StoreError, NoSpace.
        """
        path, share = publication.repo.path, share_name(edge)
        key = self._key(path, share)
        if key in self._known and self._is_as_it_was(path):
            return self._known[key]
        signed = self._here.signer.signed(share_of(publication, edge), 0, share)
        self._known[key] = digest = digest_of(signed.text)
        if self._is_as_it_was(path):  # else it is noted in the next run
            until_s = int(good_until(signed.statement))
            self._fresh[key] = f"{int(self._now_s)} {until_s} {self._stamps[path]} {digest}"
        return digest

    def say_all(
        self,
        edges_of: Callable[[RepositoryConfig], Sequence[EdgeConfig]],
        published: Callable[[RepositoryConfig], Publication | None],
    ) -> None:
        """Have something to say of every repository to its edges; what is not noted has to be read.

        Of what fails nothing is said: who delivers it tells why.
        """
        for path, repository in self._repositories.items():
            shares = {share_name(edge): edge for edge in edges_of(repository)}
            lacking = [edge for share, edge in shares.items() if self._key(path, share) not in self._known]
            if lacking:
                with suppress(MirrorError):
                    self._say_to(lacking, published(repository))

    def _say_to(self, edges: Iterable[EdgeConfig], publication: Publication | None) -> None:
        if publication:
            for edge in edges:
                self.say(publication, edge)

    def agenda(self, edge: EdgeConfig) -> Agenda:
        """What a conversation with an edge is about: the repositories that it is to have."""
        share, groups = share_name(edge), tuple(names for names in self._by_edges if edge.name in names)
        with self._turn:
            if (share, groups) not in self._agendas:
                paths = [path for names in groups for path in self._by_edges[names]]
                self._agendas[share, groups] = self._agenda_of(paths, share)
            return self._agendas[share, groups]

    def keep(self) -> None:
        """Write down what was said for the first time; what cannot be written is read again in the next run."""
        of_today = {key: words for key, words in self._written.items() if self._is_of_today(words)}
        with suppress(OSError):
            if len(self._written) > len(of_today) + MOST_VAIN:
                self._notes.replace({**of_today, **self._fresh})
            elif self._fresh:
                self._notes.add(self._fresh)

    def _agenda_of(self, paths: Iterable[str], share: str) -> Agenda:
        known = {path: self._known.get(self._key(path, share)) for path in paths}
        said = {path: digest for path, digest in known.items() if digest}
        return Agenda(said, Roll.of(said), [path for path, digest in known.items() if not digest])

    @cached_property
    def _by_edges(self) -> Mapping[tuple[str, ...], Sequence[str]]:
        """The paths of the repositories by the edges that they go to: most go to the same."""
        found: dict[tuple[str, ...], list[str]] = {}
        for path, repository in self._repositories.items():
            found.setdefault(repository.edges, []).append(path)
        return found

    def _believed(self) -> dict[str, str]:
        """The digests in notes that count, by their keys."""
        found = {}
        for key, words in self._written.items():
            _, until_s, stamp, digest = words.split(" ")
            is_the_same = stamp == self._stamps.get(key.partition("#")[0])
            if is_the_same and self._now_s < int(until_s) and self._is_of_today(words):
                found[key] = digest
        return found

    def _is_of_today(self, words: str) -> bool:
        """Whether a note was made within a day."""
        return 0 <= self._now_s - int(words.partition(" ")[0]) < BELIEVED_S

    def _is_as_it_was(self, path: str) -> bool:
        """Whether the records of a repository are those of before the run; no, when that cannot be told."""
        stamp = self._stamps.get(path)
        return bool(stamp) and stamp == self._here.tree.stamp(path)

    def _key(self, path: str, share: str) -> str:
        """What a note is about: a repository, and all that makes the statement besides its records."""
        repository = self._repositories.get(path)
        terms = (repository.revisions if repository else ()), share
        if terms not in self._terms:
            text = json.dumps([*terms, self._here.signer.signer])
            self._terms[terms] = hashlib.sha256(text.encode()).hexdigest()[:16]
        return f"{path}#{self._terms[terms]}"


def _settled(stamp: str, now_s: float) -> str:
    """A stamp, unless something may change within the moment that it tells of; none then."""
    changed_ns = int(stamp.partition(".")[2] or 0)
    return stamp if changed_ns + _MOMENT_NS < now_s * 1e9 else ""
