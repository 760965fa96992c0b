"""A served repository once more, under other names: what deliveries look at, and nothing besides that a sync needs.

To publish ten thousand takes a quarter of an hour, and is not what is measured. Nothing is fsynced here.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from mirrortools.model import RepoId
from mirrortools.statements import LIFETIME_S, Signed, Statement
from mirrortools.tree import Tree


@dataclass(frozen=True, slots=True)
class Pattern:
    """What is served of `repo`, by paths behind its own: folders, parents first, symlinks' targets, files' content."""

    tree: Tree
    repo: RepoId
    folders: tuple[str, ...]
    links: dict[str, str]
    files: dict[str, bytes]

    @classmethod
    def of(cls, tree: Tree, repo: RepoId) -> Self:
        """That of a repository."""
        own = str(tree.served / repo.path)
        found = [*Path(own).rglob("*"), Path(f"{own}.git"), *Path(f"{own}.git").rglob("*")]
        behind = {str(path).removeprefix(own): path for path in sorted(found)}
        links = {name: str(path.readlink()) for name, path in behind.items() if path.is_symlink()}
        files = {name: path.read_bytes() for name, path in behind.items() if path.is_file() and name not in links}
        folders = ("", *(name for name in behind if name not in links and name not in files))
        return cls(tree, repo, folders, links, files)

    def copy(self, other: RepoId) -> None:
        """Serve the same as `other`, with a statement of its own, whose signature nobody checks who has it already."""
        own = str(self.tree.served / other.path)
        for name in self.folders:
            os.makedirs(f"{own}{name}", exist_ok=True)  # noqa: PTH103  (of ten thousand repositories)
        for name, target in self.links.items():
            os.symlink(target, f"{own}{name}")  # noqa: PTH211
        old, new = self.repo.name.encode(), other.name.encode()
        for name, content in self.files.items():
            Path(f"{own}{name}").write_bytes(content.replace(old, new))
        self._state(other, Path(f"{own}/meta/statement.json"))

    def _state(self, other: RepoId, record: Path) -> None:
        publication, signed = self.tree.publication(other), self.tree.statement(self.repo)
        if publication and signed:
            said = signed.statement
            new = Statement(other, said.serial, said.issued_at, said.issued_at + LIFETIME_S, publication.digests())
            record.write_text(json.dumps(Signed(new.text, signed.signature).to_json()))
