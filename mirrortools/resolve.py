"""From an upstream's refs to the manifests of what is to be served, and whether that is allowed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from mirrortools.config import RepositoryConfig
from mirrortools.errors import RefMovedBack, SourceMissing
from mirrortools.model import Manifest, Publication, RepoId, Revision, short_ref
from mirrortools.plan import Selection, select_revisions, wants_path
from mirrortools.tree import Tree
from mirrortools.upstreams import GitMirror, RemoteRefs, TreeFile


class Target(NamedTuple):
    """Where a sync goes.

    `oids` is what git shows (full ref name → object id), `peeled` the commits of its annotated tags, `head` the
    default branch; `commits` has the commit of each ref, `served` all commits to serve, with a ref or without.
    """

    repo: RepoId
    oids: Mapping[str, str]
    peeled: Mapping[str, str]
    head: str
    commits: Mapping[str, str]
    served: frozenset[str]


@dataclass(frozen=True, slots=True)
class Place:
    """One configured repository, its local git mirror, and the tree that it is served from.

    `only` limits a run to these revisions: the others stay as they are. None means all that are configured.
    """

    repository: RepositoryConfig
    mirror: GitMirror
    tree: Tree
    only: tuple[str, ...] | None = None

    @property
    def repo(self) -> RepoId:
        """The repository's name."""
        return self.repository.repo

    def select(self, remote: RemoteRefs) -> Selection:
        """What of an upstream is wanted. Raises SourceMissing."""
        return select_revisions(self.repo, remote.oids, self.only or self.repository.revisions)

    def serves(self, wanted: Selection, remote: RemoteRefs) -> bool:
        """Whether the tree's refs and commits are those that are wanted, and git shows the same tags."""
        refs = {name: remote.commit(name) for name in wanted.refs}
        held, git = self.tree.refs(self.repo), self.tree.git(self.repo)
        if git is None or not wanted.refs.items() <= git.refs.items():
            return False
        kept = {name: held[name] for name in self._kept(wanted)}
        same = refs.items() <= held.items() if self.only else {**kept, **refs} == held
        return same and wanted.commits <= set(self.tree.commits(self.repo))

    def resolve(self, wanted: Selection, remote: RemoteRefs) -> Target:
        """Read from the mirror what was brought. Raises UpstreamError."""
        oids = dict(wanted.refs)
        leads_to = self._commits(oids, wanted.commits)
        commits = {name: leads_to[oid] for name, oid in oids.items()}
        peeled = {name: commits[name] for name, oid in oids.items() if commits[name] != oid}
        served = frozenset({*commits.values(), *wanted.commits})
        before, held = self.tree.git(self.repo), self.tree.refs(self.repo)
        kept = held if self.only else {name: held[name] for name in self._kept(wanted)}
        if before and kept:
            oids = {**{name: before.refs[name] for name in kept}, **oids}
            peeled = {**{name: oid for name, oid in before.peeled.items() if name in kept}, **peeled}
            commits = {**kept, **commits}
            served = frozenset({*served, *commits.values()})
        return Target(self.repo, oids, peeled, default_branch(remote.default_branch(), oids), commits, served)

    def _kept(self, wanted: Selection) -> list[str]:
        """Refs that are configured by name and are gone upstream: they stay as they are, and that is told."""
        return [name for name in self.tree.refs(self.repo) if {name, short_ref(name)} & {*wanted.missing}]

    def notes(self, wanted: Selection, remote: RemoteRefs) -> list[str]:
        """What an operator should hear of though it is no failure."""
        notes = [f"{self.repo}: no revision of upstream matches {pattern!r}" for pattern in wanted.idle]
        kept = {*wanted.refs, *self._kept(wanted)}
        for name, commit in self.tree.refs(self.repo).items():
            if not self.only and name not in kept:
                why = "is not configured any more" if name in remote.oids else "is gone upstream"
                notes.append(f"{self.repo}: {short_ref(name)} {why} and no longer served; commit {commit} stays")
        return notes

    def _commits(self, oids: Mapping[str, str], commits: frozenset[str]) -> dict[str, str]:
        found = self.mirror.commits([*oids.values(), *commits])
        for name, oid in [*oids.items(), *((commit, commit) for commit in commits)]:
            if oid not in found:
                raise SourceMissing(
                    f"{self.repo}: {short_ref(name)} leads to another object ({oid[:12]}) than a commit, so there "
                    f"is nothing to serve; leave it out of `revisions` in job {self.repository.job}"
                )
        return found

    def refuse_moved_back(self, target: Target) -> None:
        """Let refs go forward only, unless the job allows otherwise (invariant I11). Raises RefMovedBack."""
        if self.repository.force_push == "accept":
            return
        for name, old in self.tree.refs(self.repo).items():
            new = target.commits.get(name, old)
            if new != old and not self.mirror.is_ancestor(old, new):
                raise RefMovedBack(
                    f"{self.repo}: {short_ref(name)} went from {old[:12]} to {new[:12]}, which does not contain it: "
                    f"upstream rewrote its history, or something else answers for it. {old[:12]} stays published; to "
                    f"follow, set `force_push: accept` for this repository in job {self.repository.job}"
                )

    def manifests(self, target: Target) -> dict[str, Manifest]:
        """The files of each commit to serve, by the repository's include and exclude rules.

        Raises HostileTree; SourceMissing when the rules leave no file of any.
        """
        found = {commit: self._manifest(commit) for commit in sorted(target.served)}
        if all(manifest.filtered and not manifest.files for manifest in found.values()):
            raise SourceMissing(
                f"{self.repo}: `include` and `exclude` in job {self.repository.job} leave no file; there are "
                f"{self._some_files(min(found))}"
            )
        return found

    def _some_files(self, commit: str) -> str:
        names = [file.name for file in self.mirror.tree(commit)]
        return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")

    def _manifest(self, commit: str) -> Manifest:
        wanted = _Wanted(self.mirror.tree(commit), self.repository)
        files = self.mirror.entries(wanted)
        about = self.mirror.commit_info(commit)
        return Manifest(Revision(self.repo, commit), files, about.committed_at, about.title, wanted.passed_over > 0)

    def published(self) -> Publication | None:
        """What is served now of what is configured: every ref's commit and the pinned ones, no older ones."""
        git = self.tree.git(self.repo)
        refs = self.tree.refs(self.repo)
        wanted = {*refs.values(), *self.repository.revisions}
        commits = [commit for commit in self.tree.commits(self.repo) if commit in wanted]
        if git is None or not commits or not {*refs.values()} <= {*commits}:
            return None
        manifests = {commit: self.tree.manifest(Revision(self.repo, commit)) for commit in commits}
        found = {commit: manifest for commit, manifest in manifests.items() if manifest}
        return Publication(self.repo, refs, found, git, self.tree.mirrors(self.repo), self.tree.realm)

    @property
    def rules(self) -> str:
        """A digest of what is configured of a publication: when it changes, the same commit is published anew."""
        rules = json.dumps([self.repository.include, self.repository.exclude, self.repository.mirrors])
        return hashlib.sha256(rules.encode()).hexdigest()[:16]


class _Wanted:
    """Those of listed files that a repository's rules ask for; it counts the others."""

    def __init__(self, listed: Iterable[TreeFile], repository: RepositoryConfig) -> None:
        self.passed_over = 0
        self._listed = listed
        self._repository = repository

    def __iter__(self) -> Iterator[TreeFile]:
        include, exclude = self._repository.include, self._repository.exclude
        for file in self._listed:
            if not (include or exclude) or wants_path(file.name, include, exclude):
                yield file
            else:
                self.passed_over += 1


def default_branch(head: str, refs: Mapping[str, str]) -> str:
    """The branch that a clone checks out: upstream's when it is mirrored, else the first that is, else `main`."""
    if head in refs:
        return head
    return min((name for name in refs if name.startswith("refs/heads/")), default="refs/heads/main")
