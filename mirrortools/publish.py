"""From a git mirror and a store to what is served: the git snapshot, then the tree, refs last."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from mirrortools.files import make_folder
from mirrortools.model import Blob, GitSnapshot, Manifest, Publication, RepoId
from mirrortools.store import Store, hash_file, write_error
from mirrortools.tree import Tree
from mirrortools.upstreams import GitMirror

MOST_PACKS = 16


@dataclass(frozen=True, slots=True)
class GitRefs:
    """What `git clone` is to see: full ref names → object ids, tags → their commits, the default branch."""

    oids: Mapping[str, str]
    peeled: Mapping[str, str]
    head: str


@dataclass(frozen=True, slots=True)
class Press:
    """Where one repository is published.

    `mirrors` are the base URLs of all hosts that will serve it; `card` and `history` give what is made of a README
    and of git's log, in the store.
    """

    repo: RepoId
    mirror: GitMirror
    store: Store
    tree: Tree
    stage: Path
    mirrors: tuple[str, ...] = ()
    card: Callable[[Manifest], Blob | None] = lambda _: None
    history: Callable[[Manifest], Blob | None] = lambda _: None

    def publish(self, manifests: Mapping[str, Manifest], commits: Mapping[str, str], refs: GitRefs) -> Publication:
        """Make `commits` (full ref name → commit) visible, everything that they need first.

        Raises StoreError, NoSpace, and then every ref still names what it named before.
        """
        shown = {
            commit: replace(manifest, card=self.card(manifest), history=self.history(manifest))
            for commit, manifest in manifests.items()
        }
        publication = Publication(self.repo, commits, shown, self.snapshot(refs), self.mirrors, self.tree.realm)
        self.tree.publish(publication)
        return publication

    def snapshot(self, refs: GitRefs) -> GitSnapshot:
        """Pack what the last snapshot lacks, into the store. Raises StoreError, NoSpace.

        When the packs have become many, one takes the place of all.
        """
        before = self.tree.git(self.repo)
        old = before if before and len(before.packs) < 2 * MOST_PACKS and self._holds(before) else None
        known = frozenset(old.refs.values()) if old else frozenset()
        packs = dict(old.packs) if old else {}
        tips = frozenset(refs.oids.values())
        if tips - known:
            packs |= self._pack(tips, known)
        return GitSnapshot(packs, refs.oids, refs.head, refs.peeled)

    def _holds(self, snapshot: GitSnapshot) -> bool:
        return not self.store.missing(snapshot.packs.values())

    def _pack(self, tips: frozenset[str], known: frozenset[str]) -> dict[str, Blob]:
        folder = self.stage
        try:
            make_folder(self.stage)
            folder = Path(tempfile.mkdtemp(prefix="pack.", dir=self.stage))
            files = self.mirror.pack(folder, sorted(tips), sorted(known))
            named = [(file, Blob("sha256", hash_file(file, "sha256"), file.stat().st_size)) for file in files]
            self.store.adopt_all(named)
        except OSError as error:
            raise write_error(self.stage, error) from error
        finally:
            if folder != self.stage:
                shutil.rmtree(folder, ignore_errors=True)
        return {file.name: blob for file, blob in named}
