"""Edges that are called before anybody needs them: a login takes longer than all that is to be loaded here first."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Final

from mirrortools.errors import MirrorError
from mirrortools.transports.archive import receiver_archive
from mirrortools.transports.base import Session, Transport

# A connection that nobody has used for so long is not relied on: it may be cut off without either side knowing.
KEPT_S: Final = 30


class Early:
    """A `Transport` over another one that begins to connect at once, and waits for nothing.

    What fails then fails once more, and is told, when the edge is needed.
    """

    def __init__(self, transport: Transport, clock: Callable[[], float] = time.monotonic) -> None:
        self._transport = transport
        self._clock = clock
        self._called_s = clock()
        self._session: Session | None = None
        with suppress(MirrorError):
            self._session = transport.open(receiver_archive())

    def open(self, receiver: bytes) -> Session:
        """The session that was begun, the first time. Raises EdgeUnreachable, EdgeRefused."""
        if self._clock() - self._called_s > KEPT_S or (self._session and self._session.ended):
            self.close()
        session, self._session = self._session, None
        return session or self._transport.open(receiver)

    def close(self) -> None:
        """End what nobody needed."""
        session, self._session = self._session, None
        if session:
            session.abort()
            session.close()


@contextmanager
def called(transports: Iterable[tuple[str, Transport]]) -> Iterator[Mapping[str, Transport]]:
    """Ways to edges by their names, all of which are called now. What nobody needed by the end is ended."""
    ways: dict[str, Early] = {}
    try:
        for name, transport in transports:
            ways[name] = Early(transport)
        yield ways
    finally:
        for way in ways.values():
            way.close()
