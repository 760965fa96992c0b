"""The bare repository that `git clone` reads over dumb HTTP; its packs are symlinks to blobs.

Only the standard library is used here, because the receiver runs this module on edges.
"""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path
from typing import Final

from mirrortools.files import make_folder, point_link, unlink_all, write_file
from mirrortools.model import GitSnapshot, RepoId, check_full_ref
from mirrortools.revision import link_target

_CONFIG: Final = b"[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n"


class BareRepository:
    """That of one repository below `served`. Everything raises OSError."""

    def __init__(self, served: Path, repo: RepoId) -> None:
        self._final = f"{repo.path}.git"
        self.folder = served / self._final

    @property
    def _packs(self) -> Path:
        return self.folder / "objects" / "pack"

    def show(self, snapshot: GitSnapshot) -> None:
        """Let a clone see `snapshot`, packs before refs; those that are there stay. Raises HostileTree."""
        make_folder(self.folder / "refs")  # without it git does not take the folder for a repository
        self._point_packs(snapshot)
        for name, content in _files(snapshot).items():
            make_folder((self.folder / name).parent)
            write_file(self.folder / name, content)

    def _point_packs(self, snapshot: GitSnapshot) -> None:
        make_folder(self._packs)
        for name, blob in sorted(snapshot.packs.items()):
            link, target = self._packs / name, link_target(f"{self._final}/objects/pack", blob)
            if not link.is_symlink() or str(link.readlink()) != target:
                point_link(link, target)

    def drop_packs(self, kept: Container[str]) -> None:
        """Take away all packs but those."""
        unlink_all(self._packs, [link.name for link in self._packs.iterdir() if link.name not in kept])


def _files(snapshot: GitSnapshot) -> dict[str, bytes]:
    """The files of a bare repository but for its packs, in the order in which they must be written."""
    head = snapshot.head if snapshot.head.startswith("refs/") else f"refs/heads/{snapshot.head}"
    check_full_ref(head)
    packs = [f"P {name}\n" for name in sorted(snapshot.packs) if name.endswith(".pack")]
    packed, listed = ["# pack-refs with: peeled fully-peeled sorted \n"], []
    for name, oid in sorted(snapshot.refs.items()):
        packed.append(f"{oid} {name}\n")
        listed.append(f"{oid}\t{name}\n")
        if peeled := snapshot.peeled.get(name):
            packed.append(f"^{peeled}\n")
            listed.append(f"{peeled}\t{name}^{{}}\n")
    return {
        "config": _CONFIG,
        "objects/info/packs": "".join([*packs, "\n"]).encode(),
        "packed-refs": "".join(packed).encode(),
        "info/refs": "".join(listed).encode(),
        "HEAD": f"ref: {head}\n".encode(),
    }
