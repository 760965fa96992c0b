"""A session whose requests carry this host's signature, where an edge wants one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mirrortools.errors import MirrorError
from mirrortools.seals import SEAL, needs_seal, sealed_text
from mirrortools.signing import Signer
from mirrortools.transports import Batch, Pipe, Sent, Session


class SealedSession:
    """A `Session` over another one, with the challenge that its receiver gave."""

    def __init__(self, session: Session, signer: Signer, challenge: str) -> None:
        self._session = session
        self._signer = signer
        self._challenge = challenge

    @property
    def ended(self) -> bool:
        """Whether the way there is known to be gone."""
        return self._session.ended

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Give the receiver's answer. Raises StoreError, EdgeUnreachable, EdgeRefused, NoSpace, Locked."""
        return self._session.ask(self._sealed(request))

    def ask_all(self, requests: Sequence[Mapping[str, Any]]) -> list[dict[str, Any] | MirrorError]:
        """Give the receiver's answers. Raises StoreError, EdgeUnreachable, EdgeRefused."""
        return self._session.ask_all([self._sealed(request) for request in requests])

    def _sealed(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        if not needs_seal(request):
            return request
        return {**request, SEAL: self._signer.seal(sealed_text(request, self._challenge))}

    def send(self, batch: Batch) -> Sent:
        """Put a batch on the edge. Raises EdgeUnreachable, EdgeRefused, NoSpace, StoreError."""
        return self._session.send(batch)

    def pipe(self, relay: str) -> Pipe:
        """Reach the relay of that name. Raises EdgeUnreachable, EdgeError."""
        return self._session.pipe(relay)

    def close(self) -> None:
        """End the receiver."""
        self._session.close()

    def abort(self) -> None:
        """End everything that runs for this session."""
        self._session.abort()
