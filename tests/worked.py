"""A repository that a test works on with git, and a root that mirrors it without a network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from mirrortools.config import RepositoryConfig, Source
from mirrortools.model import RepoId
from mirrortools.plain import adopt_plain
from mirrortools.publish import GitRefs, Press
from mirrortools.resolve import Place
from mirrortools.store import Store
from mirrortools.tree import Tree
from mirrortools.upstreams import GitMirror, RemoteRefs
from mirrortools.upstreams.git import Remote
from tests.servers.author import run_git

REPO = RepoId.parse("acme/tiny")


class Worked:
    """A working repository, and a root that mirrors it without a network."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root = folder / "work", folder / "root"
        run_git("init", "--quiet", "--initial-branch=main", str(self.folder))
        self.store, self.tree = Store(self.root), Tree(self.root)
        self.mirror = GitMirror(folder / "mirror.git")

    def git(self, *words: str) -> str:
        """Run git in the working repository."""
        return run_git("-C", str(self.folder), *words)

    def commit(self, **files: str) -> str:
        """Commit files whose names have `_` in the place of the dot."""
        for name, content in files.items():
            (self.folder / name.replace("_", ".")).write_text(content)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "Update")
        return self.git("rev-parse", "HEAD")

    def place(self, only: tuple[str, ...] | None = None, **settings: Any) -> Place:
        """Where the repository is resolved."""
        config = RepositoryConfig(REPO, "job", Source(f"file://{self.folder}"), None)
        return Place(replace(config, **settings), self.mirror, self.tree, only)

    def look(self, place: Place) -> RemoteRefs:
        """Ask for the refs and bring what is wanted."""
        remote = Remote(f"file://{self.folder}", {})
        found = self.mirror.remote_refs(remote)
        wanted = place.select(found)
        self.mirror.fetch(remote, wanted.refs, wanted.commits)
        return found

    def publish(self, place: Place) -> None:
        """Bring everything that is wanted, and publish it."""
        found = self.look(place)
        target = place.resolve(place.select(found), found)
        place.refuse_moved_back(target)
        manifests = place.manifests(target)
        blobs = {blob for manifest in manifests.values() for blob in manifest.blobs}
        adopt_plain(sorted(blobs), self.mirror, self.store, self.root / "stage")
        self.press.publish(manifests, target.commits, GitRefs(target.oids, target.peeled, target.head))

    @property
    def press(self) -> Press:
        """What publishes."""
        return Press(REPO, self.mirror, self.store, self.tree, self.root / "stage")

    def serves(self, place: Place) -> bool:
        """Whether nothing is new."""
        found = self.mirror.remote_refs(Remote(f"file://{self.folder}", {}))
        return place.serves(place.select(found), found)
