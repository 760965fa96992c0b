"""What a transport gives: a conversation with the receiver on an edge, and a way to put files there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mirrortools.errors import MirrorError
from mirrortools.model import Blob

if TYPE_CHECKING:
    from mirrortools.feeding import PipeLink

Progress = Callable[[int], None]
"""Told how many bytes of a batch have gone out so far."""


def no_progress(sent_bytes: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Blobs to put on an edge: from `source`, which `Blob.path` is relative to, into `folder` below its root.

    There each file is called by its digest. A file that is there in part goes on where it ends. `compress` is for
    bytes that shrink, on a way that is slow.
    """

    blobs: Sequence[Blob]
    source: Path
    folder: str
    progress: Progress = no_progress
    compress: bool = False


@dataclass(frozen=True, slots=True)
class Sent:
    """What a batch cost: bytes that left this host, the protocol's own included."""

    bytes_on_wire: int


class Pipe(Protocol):
    """Bytes to and from a relay on an edge, past the receiver's conversation."""

    @property
    def link(self) -> PipeLink:
        """The two ends here."""

    def close(self) -> None:
        """End it."""


class Session(Protocol):
    """A running receiver and the way to it. One thread at a time, except for `abort` and `pipe`."""

    @property
    def ended(self) -> bool:
        """Whether the way there is known to be gone."""

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Give the receiver's answer. Raises EdgeUnreachable, EdgeRefused, NoSpace, Locked."""

    def ask_all(self, requests: Sequence[Mapping[str, Any]]) -> list[dict[str, Any] | MirrorError]:
        """Ask several things, none of which waits for the answer to the one before.

        Give each answer, or what the receiver says instead, as `ask` would raise it. Raises EdgeUnreachable, and
        EdgeRefused when the conversation ends.
        """

    def send(self, batch: Batch) -> Sent:
        """Put a batch on the edge. Raises EdgeUnreachable, EdgeRefused, NoSpace, StoreError."""

    def pipe(self, relay: str) -> Pipe:
        """Reach the relay of that name on the edge, through the same connection. Raises EdgeUnreachable, EdgeError."""

    def close(self) -> None:
        """End the receiver."""

    def abort(self) -> None:
        """End everything that runs for this session, from any thread and in the middle of anything."""


class Transport(Protocol):
    """A way to one edge."""

    def open(self, receiver: bytes) -> Session:
        """Start the receiver, a zip archive of modules, on the edge. Raises EdgeUnreachable, EdgeRefused."""
