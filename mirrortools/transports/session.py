"""A session over any way: one conversation, and an rsync now and then."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mirrortools.errors import EdgeUnreachable
from mirrortools.transports.base import Batch, Sent
from mirrortools.transports.conversation import Conversation
from mirrortools.transports.rsync import Rsync
from mirrortools.transports.way import Way


class ProcessSession:
    """A `Session` whose receiver and rsync are children of this process."""

    def __init__(self, way: Way, receiver: bytes) -> None:
        self._way = way
        self._aborted = False
        self._rsync: Rsync | None = None
        self._conversation = Conversation(way, receiver)

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Give the receiver's answer. Raises EdgeUnreachable, EdgeRefused, NoSpace, Locked."""
        return self._conversation.ask(request)

    def send(self, batch: Batch) -> Sent:
        """Put a batch on the edge. Raises EdgeUnreachable, EdgeRefused, NoSpace, StoreError."""
        self._rsync = Rsync(self._way, batch)
        try:
            if self._aborted:
                raise EdgeUnreachable(f"edge {self._way.edge}: the run was ended")
            return self._rsync.finish()
        finally:
            self._rsync.close()
            self._rsync = None

    def close(self) -> None:
        """End the receiver."""
        self._conversation.close()

    def abort(self) -> None:
        """End everything that runs for this session, from any thread and in the middle of anything."""
        self._aborted = True
        rsync = self._rsync
        if rsync:
            rsync.child.end()
        self._conversation.child.end()
