"""The ways to put a publication on an edge, by the scheme of the edge's URL."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from mirrortools.config import EdgeConfig
from mirrortools.errors import ConfigError
from mirrortools.transports.archive import installed_receiver, receiver_archive
from mirrortools.transports.base import Batch, Pipe, Sent, Session, Transport
from mirrortools.transports.early import called
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


def limited(edge: EdgeConfig, limit_bytes_s: int | None) -> EdgeConfig:
    """An edge that is sent no more by rsync than all together may be sent."""
    limits = [limit for limit in (edge.rate_limit_bytes_s, limit_bytes_s) if limit]
    return replace(edge, rate_limit_bytes_s=min(limits, default=None))


__all__ = [
    "KINDS",
    "Batch",
    "Pipe",
    "Sent",
    "Session",
    "Transport",
    "called",
    "installed_receiver",
    "limited",
    "receiver_archive",
    "transport_to",
]
