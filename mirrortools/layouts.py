"""Where a user's files go: into a plain folder, or into the cache that the Hub's own client keeps."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from mirrortools.errors import HostileTree
from mirrortools.files import make_folder, sync_contents, write_file
from mirrortools.holding import RECORD
from mirrortools.model import COMMIT, Entry, Manifest, RepoId

# Beside the files while they are fetched, and no longer.
WORK: Final = ".mirrortool"


class Layout(Protocol):
    """Where each file of a revision lies below `root`, the folder that the record is in."""

    @property
    def root(self) -> Path:
        """The folder that the record is in."""
        ...

    @property
    def is_users_own(self) -> bool:
        """Whether a file with other content may be somebody's work, and is not to be replaced unasked."""
        ...

    def place(self, path: str, entry: Entry) -> str:
        """Where the content of a file lies, below `root`. Raises HostileTree."""
        ...

    def older(self, path: str) -> Path | None:
        """A file that may hold what an older revision had at a path."""
        ...

    def finish(self, manifest: Manifest, revision: str) -> Path:
        """Show what is in its place now, durably; the folder in which users find it. Raises OSError."""
        ...


@dataclass(frozen=True, slots=True)
class Folder:
    """A plain folder: each file at its path."""

    root: Path
    is_users_own: bool = True

    def place(self, path: str, _entry: Entry) -> str:
        """The path itself, unless `get` keeps its own records there."""
        if path.partition("/")[0] in (WORK, RECORD):
            raise HostileTree(f"{path}: a name that is kept for records of `get`; leave it out with --exclude")
        return path

    def older(self, path: str) -> Path | None:
        """What lies at the path now."""
        place = self.root / path
        return place if place.is_file() else None

    def finish(self, _manifest: Manifest, _revision: str) -> Path:
        """Nothing is left to be done."""
        return self.root


@dataclass(frozen=True, slots=True)
class HubCache:
    """One repository in a cache of huggingface_hub: blobs by the ETag, links to them for each commit, files for refs.

    `before` is a commit whose files the new ones take the place of; empty when there is none.
    """

    root: Path
    before: str = ""
    is_users_own: bool = False

    @classmethod
    def of(cls, cache: Path, repo: RepoId, revision: str) -> HubCache:
        """The place of a repository in a cache."""
        root = cache / f"{repo.kind}--{repo.name.replace('/', '--')}"
        return cls(root, _commit_before(root, revision))

    def place(self, _path: str, entry: Entry) -> str:
        """The ETag that the Hub gives the file names the blob."""
        return f"blobs/{entry.blob.digest}"

    def older(self, path: str) -> Path | None:
        """What the commit before has at the path."""
        place = self.root / "snapshots" / self.before / path
        return place if self.before and place.is_file() else None

    def finish(self, manifest: Manifest, revision: str) -> Path:
        """Make the links of the commit, then let the ref name it."""
        commit = manifest.revision.commit
        snapshot = self.root / "snapshots" / commit
        make_folder(snapshot)
        folders = {snapshot}
        for path, entry in manifest.files.items():
            link = snapshot / path
            if link.parent not in folders:
                make_folder(link.parent)
                folders.add(link.parent)
            _point(link, f"{'../' * (path.count('/') + 2)}{self.place(path, entry)}")
        sync_contents([*folders])
        if revision != commit:
            ref = self.root / "refs" / revision
            make_folder(ref.parent)
            write_file(ref, commit.encode())
        return snapshot


def _point(link: Path, target: str) -> None:
    """Make a link, in the place of whatever file is there."""
    with suppress(OSError):
        if os.readlink(link) == target:  # noqa: PTH115  (a string is compared)
            return
    beside = link.with_name(f".{link.name}.{os.getpid()}.new")
    beside.unlink(missing_ok=True)
    beside.symlink_to(target)
    beside.replace(link)


def _commit_before(root: Path, revision: str) -> str:
    """The commit that a ref names in a cache; else the one that was put there last."""
    with suppress(OSError, ValueError):
        named = (root / "refs" / revision).read_text()
        if COMMIT.match(named):
            return named
    snapshots = [path for path in _folders(root / "snapshots") if COMMIT.match(path.name)]
    return max(snapshots, key=lambda path: path.stat().st_mtime_ns).name if snapshots else ""


def _folders(folder: Path) -> Iterable[Path]:
    return [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []


def hub_cache(environ: Mapping[str, str]) -> Path:
    """Where huggingface_hub keeps its cache (its constants.py)."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if environ.get(name):
            return Path(os.path.expandvars(environ[name])).expanduser()
    home = environ.get("HF_HOME") or f"{environ.get('XDG_CACHE_HOME') or '~/.cache'}/huggingface"
    return Path(os.path.expandvars(home)).expanduser() / "hub"
