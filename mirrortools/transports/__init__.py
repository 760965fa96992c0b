"""The ways to put a publication on an edge, by the scheme of the edge's URL."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from mirrortools.config import EdgeConfig
from mirrortools.errors import ConfigError
from mirrortools.transports.archive import installed_receiver, receiver_archive
from mirrortools.transports.base import Batch, Pipe, Sent, Session, Transport
from mirrortools.transports.local import LocalTransport
from mirrortools.transports.ssh import SshTransport

KINDS: Final[Mapping[str, Callable[[EdgeConfig, Path], Transport]]] = {
    "ssh": SshTransport,
    "file": LocalTransport,
}


def transport_to(edge: EdgeConfig, state: Path) -> Transport:
    """The way to `edge`; `state` is the origin's state folder. Raises ConfigError."""
    if edge.scheme not in KINDS:
        raise ConfigError(f"edge {edge.name}: {edge.url}: expected a url that begins with {' or '.join(KINDS)}")
    return KINDS[edge.scheme](edge, state)


__all__ = [
    "KINDS",
    "Batch",
    "Pipe",
    "Sent",
    "Session",
    "Transport",
    "installed_receiver",
    "receiver_archive",
    "transport_to",
]
