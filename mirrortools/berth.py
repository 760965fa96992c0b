"""Where what one delivery brings of a repository lies on an edge until it is adopted, and what its locks are called.

A repository has two berths, so that what goes ahead while its origin still fetches, which may take hours, keeps nobody
from what is published. Only the standard library is used here, because the receiver runs this module on edges.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import unquote

from mirrortools.errors import ConfigError
from mirrortools.model import RepoId, quote_ref

# No quoted repository ends so: an rsync is let into the folder of a repository alone.
_AHEAD: Final = "@ahead"


class Berth(NamedTuple):
    """One of a repository's two places below `root`: for what goes ahead of its publication, or for all else."""

    root: Path
    repo: RepoId
    is_ahead: bool = False

    @classmethod
    def named(cls, root: Path, name: str) -> Berth:
        """The berth whose folder has this name. Raises ConfigError when it is nobody's."""
        berth = cls(root, RepoId.parse(unquote(name.removesuffix(_AHEAD))), name.endswith(_AHEAD))
        if berth.name != name:
            raise ConfigError(f"{name}: not the name of a folder in state/incoming; expected {berth.name}")
        return berth

    @property
    def name(self) -> str:
        """What its folder is called, and its locks."""
        return f"{quote_ref(self.repo.path)}{_AHEAD if self.is_ahead else ''}"

    @property
    def other(self) -> Berth:
        """The repository's other one."""
        return self._replace(is_ahead=not self.is_ahead)

    @property
    def folder(self) -> Path:
        """Where its blobs arrive, whether that is there or not."""
        return self.root / "state" / "incoming" / self.name

    def lock(self, kind: str) -> Path:
        """The file of one of its locks."""
        return self.root / "state" / "locks" / f"{self.name}.{kind}"
