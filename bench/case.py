"""What every competitor is given, what it answers with, and how what it fetched is checked."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

PROJECT = Path(__file__).resolve().parents[1]
_FOREIGN = ("GIT_", "HF_", "HUGGING", "CURL_", "SSL_CERT", "MIRRORTOOL_", "PYTHONDONTWRITEBYTECODE")


class DidNotRun(Exception):  # noqa: N818  (says what happened; the report shows its text)
    """A competitor could not do the work; the text says why."""


class WrongBytes(Exception):  # noqa: N818
    """A competitor ended well, but what it fetched is not what the server has."""


@dataclass(frozen=True, slots=True)
class Case:
    """Repositories on a server: `files` maps the paths of the only repository's LFS files to digest and size.

    `public` is the folder that the server serves. `ca_file` is the server's authority when `url` is https.
    """

    url: str
    repos: Sequence[str]
    public: Path
    files: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    ca_file: Path | None = None

    @property
    def repo(self) -> str:
        """The only repository."""
        (repo,) = self.repos
        return repo

    @property
    def total_bytes(self) -> int:
        return sum(size for _, size in self.files.values())

    def link(self, path: str) -> str:
        """Where a plain client gets a file of the repository."""
        return f"{self.url}/{self.repo}/resolve/main/{path}"

    def served(self, path: str) -> Path:
        """Where the server itself has a file's content."""
        digest, _ = self.files[path]
        return self.public / "blobs" / "sha256" / digest[:2] / digest[2:4] / digest


@dataclass(frozen=True, slots=True)
class Step:
    """A command whose time is measured; `env` is all of its environment."""

    command: Sequence[str | Path]
    env: Mapping[str, str]
    cwd: Path | None = None


class Competitor(Protocol):
    """One way to do a work.

    `role` is `ours`, `limit` (what the machine allows) or `peer`; `durable` says that what it wrote survives a power
    cut when it ends; `keeps` that its folder is used again in the next round.
    """

    @property
    def name(self) -> str: ...
    @property
    def about(self) -> str: ...
    @property
    def role(self) -> str: ...
    @property
    def durable(self) -> bool: ...
    @property
    def keeps(self) -> bool: ...

    def ready(self, case: Case, folder: Path) -> AbstractContextManager[Step]:
        """Prepare, outside of the measured time, in an empty folder (unless it keeps it). Raises DidNotRun."""

    def check(self, case: Case, folder: Path, stdout: str) -> None:
        """See that every byte is right. Raises WrongBytes."""

    def engine_s(self, stdout: str) -> float | None:
        """The duration that the program itself tells, without its start."""


def environment(home: Path, **more: str) -> dict[str, str]:
    """Our environment without what would steer a client, and a home without settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    kept = {name: value for name, value in kept.items() if not name.lower().endswith("_proxy")}
    return {**kept, "HOME": str(home), "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0", **more}


def check_files(case: Case, found: Mapping[str, Path]) -> None:
    """See that the file found for each path has the path's content. Raises WrongBytes."""
    for path, (digest, size) in case.files.items():
        place = found.get(path)
        if place is None or not place.is_file():
            raise WrongBytes(f"{path}: is not there ({place})")
        if place.stat().st_size != size or sha256(place) != digest:
            raise WrongBytes(f"{path}: has other content than the server's ({place})")


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def one_line(text: str) -> str:
    """The end of what a program said, fit for a list or a table, without the place of this clone."""
    return " ".join(text.replace(f"{PROJECT}/", "").split())[-400:].replace("|", "/")
