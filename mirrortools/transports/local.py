"""`file:///root`: an edge on this host or on a mounted disk; the same receiver, as a child process."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from mirrortools.config import EdgeConfig
from mirrortools.errors import EdgeUnreachable
from mirrortools.transports.base import Session
from mirrortools.transports.child import environment
from mirrortools.transports.session import ProcessSession


class LocalTransport:
    """The way to a folder. `state`, where others keep their sockets, is not needed."""

    def __init__(self, edge: EdgeConfig, state: Path) -> None:  # noqa: ARG002  (as every kind is called)
        self.edge = edge.name
        self.root = edge.root
        self.python = sys.executable
        self.env = environment()
        self.rate_limit_bytes_s = edge.rate_limit_bytes_s

    def open(self, receiver: bytes) -> Session:
        """Start the receiver."""
        return ProcessSession(self, receiver)

    def command(self, words: Sequence[str], *, joined: bool = False) -> list[str]:  # noqa: ARG002
        """The words themselves."""
        return list(words)

    def rsync_words(self, folder: Path) -> tuple[list[str], str]:
        """A folder is called by its path."""
        return [], str(folder)

    def unreachable(self, status: int, said: str) -> EdgeUnreachable | None:  # noqa: ARG002
        """Never: nothing stands between."""
        return None
