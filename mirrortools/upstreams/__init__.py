"""Places that we pull from, by the scheme of their URL. A new kind is one module and one line in KINDS.

The module of a kind, and the HTTP client, are imported when a source of that kind is opened.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from mirrortools.config import Source
from mirrortools.errors import ConfigError
from mirrortools.model import RepoId
from mirrortools.upstreams.base import ByteSource, Reader, RemoteRefs, Upstream
from mirrortools.upstreams.budget import Budget
from mirrortools.upstreams.git import GitMirror, TreeFile
from mirrortools.upstreams.patience import patient
from mirrortools.upstreams.program import end_programs

if TYPE_CHECKING:
    from mirrortools.upstreams.http import HttpClient

__all__ = [
    "KINDS",
    "Budget",
    "ByteSource",
    "Clients",
    "GitMirror",
    "Reader",
    "RemoteRefs",
    "TreeFile",
    "Upstream",
    "open_upstream",
    "patient",
]

Opener = Callable[[Source, RepoId, GitMirror, "Clients"], Upstream]


class Clients:
    """What upstreams share: an HTTP client for each certificate authority, and the budget. Thread-safe."""

    def __init__(
        self,
        proxies: Mapping[str, str] | None = None,
        bypass: Callable[[str], bool] = lambda _host: False,
        budget: Budget | None = None,
    ) -> None:
        self.budget = budget or Budget()
        self._proxies = proxies
        self._bypass = bypass
        self._clients: dict[Path | None, HttpClient] = {}
        self._lock = threading.Lock()

    def trusting(self, ca_file: Path | None) -> HttpClient:
        """The client that trusts `ca_file`, or the system's authorities when it is None."""
        from mirrortools.upstreams.http import HttpClient

        with self._lock:
            if ca_file not in self._clients:
                self._clients[ca_file] = HttpClient(
                    str(ca_file) if ca_file else None, self._proxies, self._bypass, budget=self.budget
                )
            return self._clients[ca_file]

    def break_off(self) -> None:
        """End what other threads ask for, programs among it; nothing can be asked afterwards."""
        with self._lock:
            clients = list(self._clients.values())
        for client in clients:
            client.break_off()
        self.budget.break_off()
        end_programs()

    def close(self) -> None:
        """Close all connections."""
        for client in self._clients.values():
            client.close()


def _open_git(source: Source, repo: RepoId, mirror: GitMirror, clients: Clients) -> Upstream:
    from mirrortools.upstreams.gitlfs import GitLfs

    return GitLfs(source, repo, mirror, clients.trusting(source.ca_file))


def _open_directory(source: Source, repo: RepoId, mirror: GitMirror, _clients: Clients) -> Upstream:
    from mirrortools.upstreams.directory import Directory

    return Directory(source, repo, mirror)


KINDS: Final[Mapping[str, Opener]] = {
    "http": _open_git,
    "https": _open_git,
    "ssh": _open_git,
    "file": _open_git,
    "dir": _open_directory,
}


def open_upstream(source: Source, repo: RepoId, mirror: GitMirror, clients: Clients) -> Upstream:
    """The upstream that `source` and `repo` name. Raises ConfigError for an unknown scheme."""
    scheme = urlsplit(source.url).scheme
    if scheme not in KINDS:
        raise ConfigError(f"{source.url}: unknown scheme; known are {', '.join(KINDS)}")
    return KINDS[scheme](source, repo, mirror, clients)
