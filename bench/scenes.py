"""What there is before a run of bench/deliver: on the origin, and on edges."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol

from bench.content import Content
from bench.farm import Farm, Published
from bench.served import Pattern
from mirrortools.model import RepoId
from mirrortools.shown import Shown
from mirrortools.tree import Tree

_MODELS: Final = Path("public", "models")


class Scene(Protocol):
    """What edges have, while the `with` block lasts."""

    def set_up(self, farm: Farm, content: Content) -> AbstractContextManager[Published]:
        """Publish `content` on the origin, and give edges what they are to have."""


@dataclass(frozen=True, slots=True)
class Nothing:
    """Edges have nothing."""

    @contextmanager
    def set_up(self, farm: Farm, content: Content) -> Iterator[Published]:
        """Publish `content`, unless an earlier run did."""
        published = farm.publish(content)
        farm.clear()
        yield published


NOTHING: Final = Nothing()


@dataclass(frozen=True, slots=True)
class Before:
    """Edges show what there was before; and, on both sides, other repositories with so many entries lie in the tree."""

    content: Content
    ballast: int = 0

    @contextmanager
    def set_up(self, farm: Farm, content: Content) -> Iterator[Published]:
        """Publish one after the other, unless an earlier run did, and let each edge have the first."""
        farm.root = farm.folder / f"origin-{content.topic}"  # whose tree holds nothing else
        published = farm.publish_after(self.content, content)
        farm.clear()
        farm.hand_out(content.repo)
        with self._laid(farm):
            yield published

    @contextmanager
    def _laid(self, farm: Farm) -> Iterator[None]:
        """Ballast on the origin and on the first edge; it is made once, and moved."""
        places = [farm.root / _MODELS / "ballast", farm.edge_root(farm.edges[0]) / _MODELS / "ballast"]
        kept = [farm.folder / "ballast" / f"{self.ballast}-{number}" for number in range(len(places))]
        if not self.ballast:
            yield
            return
        for store in kept:
            if not store.exists():
                self._make(farm, store)
        for store, place in zip(kept, places, strict=True):
            store.rename(place)
        try:
            yield
        finally:
            for store, place in zip(kept, places, strict=True):
                place.rename(store)

    def _make(self, farm: Farm, store: Path) -> None:
        """Hard links of one repository, again and again: few inodes, many entries."""
        source = farm.root / _MODELS / RepoId.parse(self.content.repo).name
        making = store.with_name(f"{store.name}.new")
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(parents=True)
        first = making / "copy-0000"
        # What links to the origin's own inodes would change them: one real copy, then links to it.
        shutil.copytree(source, first, symlinks=True, ignore=shutil.ignore_patterns("*.meta4"))
        entries = sum(1 for _ in first.rglob("*"))
        for number in range(1, max(1, self.ballast // entries)):
            subprocess.run(["cp", "-al", first, making / f"copy-{number:04}"], check=True)
        making.rename(store)


@dataclass(frozen=True, slots=True)
class InSync:
    """So many repositories, which all edges show. One is delivered, the others are copies of it (`served.py`).

    The edges share one root: nothing changes in it.
    """

    repositories: int

    @contextmanager
    def set_up(self, farm: Farm, content: Content) -> Iterator[Published]:
        """Publish and deliver one, and copy it."""
        farm.root = farm.folder / f"origin-{self.repositories}"
        ready = farm.folder / "in-sync" / str(self.repositories)
        names = [f"many/copy-{number:05}" for number in range(1, self.repositories)]
        if not ready.exists():
            self._make(farm, content, names, ready)
        _note(ready, [content.repo, *names])
        farm.shared_root = ready
        yield replace(farm.published(content.repo), others=names)

    def _make(self, farm: Farm, content: Content, names: list[str], ready: Path) -> None:
        farm.publish(content)
        farm.clear()
        farm.deliver_once(content.repo)
        many, making = farm.root / _MODELS / "many", farm.edge_root(farm.edges[0])
        shutil.rmtree(many, ignore_errors=True)
        pattern = Pattern.of(Tree(farm.root), RepoId.parse(content.repo))
        for name in names:
            pattern.copy(RepoId.parse(name))
        # Nothing that is served is ever written in place, so both sides may have the same files.
        subprocess.run(["cp", "-al", many, making / _MODELS / "many"], check=True)
        ready.parent.mkdir(parents=True, exist_ok=True)
        making.rename(ready)


def _note(root: Path, names: list[str]) -> None:
    """What edges have noted in the last day of what they show."""
    tree = Tree(root)
    shown = Shown(root, tree.realm, tree.stated_ns)
    shown.forget_all()
    for repo in map(RepoId.parse, names):
        if signed := tree.statement(repo):
            shown.note(repo, signed.text, time.time())
