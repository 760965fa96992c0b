"""Signposts tell nginx by one realpath what takes two in the tree: which commit a ref names, and which blob a file is.

They lie in `<root>/signposts`, beside the public tree, on each host that publishes (ADR 25):

    <kind>@<org>@<name>@<quoted ref>      symlink to the folder of the commit
    <kind>@<org>@<name>@<sha>/<path>      symlink to the mark of the file's blob
    @<kind>@<org>@<name>@<sha>/<digest>   a mark, an empty file: its realpath names commit and digest

They only repeat what the tree says. Where there is none, or a part is lost, nginx asks the tree's links. So they are
made when the refs have moved, and need not be durable. But one of a ref may never be older than the ref: it steps
aside, durably, before the ref moves, to what the tree says, and follows behind it. A URL cannot name a mark, because
the kind that begins its name is never empty. Only the standard library is used here, because the receiver runs this
module on edges.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from mirrortools.files import make_folder, move_folder, sync_folder
from mirrortools.model import KINDS, Manifest, Realm, RepoId, Revision

SIGNPOSTS: Final = "signposts"
# A file costs an inode. Who takes a revision with more of them than this asks for most by the commit.
MOST_FILES: Final = 1000
# Names of files have 255 bytes, and one that is being written has some more.
_LONGEST_NAME: Final = 200


class Signposts:
    """The signposts of one root's public repositories. The caller holds the lock of the repository.

    nginx remembers for some seconds which files are there, and cannot go on where a realpath fails. So what a URL led
    to goes on leading somewhere while it is replaced, and a commit's signposts stay. Everything raises OSError.
    """

    def __init__(self, root: Path) -> None:
        self._folder = root / SIGNPOSTS

    def lacks(self, manifest: Manifest) -> bool:
        """Whether the files of a revision are to be marked and are not."""
        return _is_wanted(manifest) and not self._has(manifest.revision)

    def put_up(self, manifest: Manifest, stage: Path) -> None:
        """Mark the files of a published revision, unless it is too large, by way of the empty folder `stage`."""
        if not _is_wanted(manifest):
            return
        links, marks = self._links(manifest.revision), self._marks(manifest.revision)
        make_folder(self._folder)
        _write_marks({entry.blob.digest for entry in manifest.files.values()}, marks)
        _write_links(manifest, stage / "links", marks.name)
        if links.is_dir():
            move_folder(stage / "links", links)
        else:
            (stage / "links").rename(links)

    def step_aside(self, repo: RepoId, refs: Mapping[str, str], former: Iterable[str]) -> None:
        """Let the tree say what is meant by refs that are to be other than `refs` (quoted name → commit), durably."""
        aside = {}
        for ref in {*refs, *former}:
            told = _target(self._link(repo, ref))
            if told not in (None, _in_tree(repo, ref), _name(repo, refs.get(ref, ""))):
                aside[ref] = _in_tree(repo, ref)
        self._point(repo, aside)
        if aside:
            sync_folder(self._folder)

    def follow(self, repo: RepoId, refs: Mapping[str, str], former: Mapping[str, str]) -> None:
        """Let signposts lead where `refs` (quoted name → commit) do by now, and did not by `former`.

        One of a ref whose commit has none, as the former one had, leads to the tree until the next time; others go.
        """
        wanted = {ref: _name(repo, commit) for ref, commit in refs.items() if self._has_for(repo, ref, commit)}
        self._point(repo, {ref: to for ref, to in wanted.items() if _target(self._link(repo, ref)) != to})
        for ref in {*refs, *former} - {*wanted}:
            stays = ref in refs and ref in former and self._has_for(repo, ref, former[ref])
            if _is_short(repo, ref) and not stays:
                self._link(repo, ref).unlink(missing_ok=True)

    def take_down_stale(self) -> None:
        """Take away those of refs that name another commit than the tree: it was filled by another program since.

        This may run beside publications, whose signposts it may take for stale: then nginx asks the tree.
        """
        for link in self._folder.iterdir() if self._folder.is_dir() else ():
            told = _target(link) if link.name.startswith(KINDS) else None
            if told and not told.startswith("../") and told != self._by_tree(link):
                link.unlink(missing_ok=True)

    def _by_tree(self, link: Path) -> str:
        """Where the signpost of a ref should lead, by the tree."""
        kind, owner, name, ref = link.name.split("@", 3)
        repo = RepoId(kind, f"{owner}/{name}" if name else owner)
        commit = _target(self._folder / _in_tree(repo, ref)) or ""
        return _name(repo, commit.rpartition("/")[2])

    def wrong(self, manifest: Manifest) -> list[str]:
        """The files of a revision whose signposts do not lead to the mark of their blob."""
        links, marks = self._links(manifest.revision), self._marks(manifest.revision).name
        return [
            path
            for path, entry in manifest.files.items()
            if _target(links / path) not in (None, _to_mark(path, marks, entry.blob.digest))
        ]

    def _has_for(self, repo: RepoId, ref: str, commit: str) -> bool:
        """Whether the signpost of a ref may lead to a commit."""
        return _is_short(repo, ref) and self._has(Revision(repo, commit))

    def _has(self, revision: Revision) -> bool:
        return _is_short(revision.repo, revision.commit) and self._links(revision).is_dir()

    def _links(self, revision: Revision) -> Path:
        return self._folder / _name(revision.repo, revision.commit)

    def _marks(self, revision: Revision) -> Path:
        return self._folder / f"@{_name(revision.repo, revision.commit)}"

    def _link(self, repo: RepoId, ref: str) -> Path:
        return self._folder / _name(repo, ref)

    def _point(self, repo: RepoId, targets: Mapping[str, str]) -> None:
        """Make or replace the signposts of refs (quoted name → target)."""
        for ref, target in targets.items():
            link = self._link(repo, ref)
            beside = link.with_name(f".{link.name}.{os.getpid()}.new")
            beside.unlink(missing_ok=True)
            beside.symlink_to(target)
            beside.replace(link)


def _is_wanted(manifest: Manifest) -> bool:
    return len(manifest.files) <= MOST_FILES and _is_short(manifest.revision.repo, manifest.revision.commit)


def _is_short(repo: RepoId, revision: str) -> bool:
    return len(_name(repo, revision)) <= _LONGEST_NAME


def _name(repo: RepoId, revision: str) -> str:
    """What the signposts of a ref or commit are called: nginx puts it together from the parts of a URL."""
    owner, _, name = repo.name.partition("/")
    return f"{repo.kind}@{owner}@{name}@{revision}"


def _to_mark(path: str, marks: str, digest: str) -> str:
    """Where the signpost of a file leads, from its own folder."""
    return f"{'../' * (path.count('/') + 1)}{marks}/{digest}"


def _in_tree(repo: RepoId, ref: str) -> str:
    """Where the tree says what a ref means, from the folder of signposts."""
    return f"../{Realm.PUBLIC.value}/{repo.path}/refs/{ref}"


def _write_marks(digests: Iterable[str], folder: Path) -> None:
    """Make those marks that are not there yet: one empty file by many names, as far as a file may have so many."""
    folder.mkdir(exist_ok=True)
    with os.scandir(folder) as found:
        present = {entry.name for entry in found}
    first = f"{folder}/{min(present)}" if present else None
    for digest in {*digests} - present:
        mark = f"{folder}/{digest}"
        if not (first and _has_second_name(first, mark)):
            os.close(os.open(mark, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o444))
            first = mark


def _has_second_name(path: str, name: str) -> bool:
    """Give a file a second name; whether that could be."""
    try:
        os.link(path, name)
    except OSError:
        return False
    return True


def _write_links(manifest: Manifest, folder: Path, marks: str) -> None:
    """Write the signposts of a revision's files, whose marks are in a folder of that name."""
    folder.mkdir()
    made = {""}
    for path, entry in manifest.files.items():
        parent = path.rpartition("/")[0]
        if parent not in made:
            (folder / parent).mkdir(parents=True, exist_ok=True)
            made.add(parent)
        os.symlink(_to_mark(path, marks, entry.blob.digest), f"{folder}/{path}")  # noqa: PTH211  (a thousand of them)


def _target(link: Path) -> str | None:
    """Where a symlink leads; None when it is none."""
    try:
        return str(link.readlink())
    except OSError:
        return None
