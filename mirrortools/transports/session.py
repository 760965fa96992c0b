"""A session over any way: one conversation, an rsync now and then, and what is piped to a relay."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from mirrortools.errors import EdgeUnreachable, MirrorError
from mirrortools.transports.archive import hand_over_command
from mirrortools.transports.base import Batch, Pipe, Sent
from mirrortools.transports.child import Child
from mirrortools.transports.conversation import Conversation
from mirrortools.transports.rsync import Rsync
from mirrortools.transports.way import Way


class ProcessSession:
    """A `Session` whose receiver and rsync are children of this process."""

    def __init__(self, way: Way, receiver: bytes) -> None:
        self._way = way
        self._aborted = False
        self._rsync: Rsync | None = None
        self._pipes: set[ProcessPipe] = set()
        self._conversation = Conversation(way, receiver)

    @property
    def ended(self) -> bool:
        """Whether the program that leads to the edge runs no more."""
        return self._conversation.child.ended

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Give the receiver's answer. Raises EdgeUnreachable, EdgeRefused, NoSpace, Locked."""
        return self._conversation.ask(request)

    def ask_all(self, requests: Sequence[Mapping[str, Any]]) -> list[dict[str, Any] | MirrorError]:
        """Give the receiver's answers. Raises EdgeUnreachable, EdgeRefused."""
        return self._conversation.ask_all(requests)

    def send(self, batch: Batch) -> Sent:
        """Put a batch on the edge. Raises EdgeUnreachable, EdgeRefused, NoSpace, StoreError."""
        self._rsync = Rsync(self._way, batch)
        try:
            self._refuse_when_aborted()
            return self._rsync.finish()
        finally:
            self._rsync.close()
            self._rsync = None

    def pipe(self, relay: str) -> Pipe:
        """Reach a relay. Raises EdgeUnreachable, EdgeError."""
        self._refuse_when_aborted()
        pipe = ProcessPipe(self._way, relay)
        self._pipes = {each for each in self._pipes if not each.closed} | {pipe}
        return pipe

    def close(self) -> None:
        """End the receiver."""
        for pipe in self._pipes:
            pipe.close()
        self._conversation.close()

    def abort(self) -> None:
        """End everything that runs for this session, from any thread and in the middle of anything."""
        self._aborted = True
        rsync = self._rsync
        if rsync:
            rsync.child.end()
        for pipe in self._pipes:
            pipe.child.end()
        self._conversation.child.end()

    def _refuse_when_aborted(self) -> None:
        if self._aborted:
            raise EdgeUnreachable(f"edge {self._way.edge}: the run was ended")


class ProcessPipe:
    """A child that hands its standard input and output on the edge over to a relay."""

    def __init__(self, way: Way, relay: str) -> None:
        from mirrortools.feeding import PipeLink

        words = way.command(hand_over_command(way.python, str(way.root), relay), joined=True)
        self.child = Child(words, way.env, subprocess.PIPE)
        self.closed = False
        self.link = PipeLink(self.child.stdout, self.child.stdin)

    def close(self) -> None:
        """End it, once."""
        if not self.closed:
            self.closed = True
            self.child.end()
            self.child.close()
