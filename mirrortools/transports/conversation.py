"""Talk with the receiver on an edge: requests to its standard input, answers from its standard output."""

from __future__ import annotations

import logging
import os
import select
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from mirrortools.errors import EdgeRefused, EdgeUnreachable, Locked, MirrorError, NoSpace
from mirrortools.frames import frame, read_frame
from mirrortools.transports.archive import LACKS, packed, receiver_command
from mirrortools.transports.child import Child
from mirrortools.transports.way import Way

SILENCE_TIMEOUT_S: Final = 60
_NOT_FOUND: Final = 127
# What is asked again and again, and says nothing of what a delivery waited for.
_ROUTINE: Final = ("flow", "ping")
_REFUSALS: Final[Mapping[str, type[MirrorError]]] = {"NoSpace": NoSpace, "Locked": Locked}

_log = logging.getLogger("mirrortools.edges")


class Conversation:
    """A receiver that runs on the edge for this call: the one that is kept there, or it is sent."""

    def __init__(self, way: Way, archive: bytes) -> None:
        self._way = way
        words = way.command(receiver_command(way.python, archive, str(way.root)))
        self.child = Child(words, way.env, subprocess.PIPE)
        self._unsent: bytes | None = archive

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Give the answer. Raises EdgeUnreachable, or what the receiver says: EdgeRefused, NoSpace, Locked.

        Where the receiver is not kept the first request goes out twice, the second time behind the archive.
        """
        try:
            data = frame(request)
        except EdgeRefused as error:
            raise EdgeRefused(f"edge {self._way.edge}: {request.get('repo') or 'the request'}: {error}") from error
        asked_s = time.monotonic()
        answer = self._exchange(data)
        if answer == LACKS and self._unsent is not None:
            answer = self._exchange(packed(self._unsent) + data)
        self._unsent = None
        if request.get("ask") not in _ROUTINE:
            _log.debug("edge %s: %s: %.0f ms", self._way.edge, request.get("ask"), 1000 * (time.monotonic() - asked_s))
        if answer is None:
            raise self._ended()
        if "error" in answer:
            kind = _REFUSALS.get(str(answer["error"]), EdgeRefused)
            raise kind(f"edge {self._way.edge}: {answer.get('text')}")
        return answer

    def close(self) -> None:
        """Say that there is nothing more to ask, and wait for the end."""
        self.child.close()

    def _exchange(self, data: bytes) -> dict[str, Any] | None:
        with suppress(BrokenPipeError):  # it ended early, perhaps with a last word
            self.child.write(data)
        try:
            while (answer := read_frame(self._read)) is not None and "working" in answer:
                continue
        except EdgeRefused as error:
            hint = "if its login shell prints something, let it do so in interactive shells only"
            raise EdgeRefused(f"edge {self._way.edge}: {error}; {hint}") from error
        return answer

    def _read(self, size_bytes: int) -> bytes:
        poll = select.poll()
        poll.register(self.child.stdout, select.POLLIN)
        if poll.poll(SILENCE_TIMEOUT_S * 1000):
            return os.read(self.child.stdout, size_bytes)
        silence = f"the receiver said nothing for {SILENCE_TIMEOUT_S} s"
        raise EdgeUnreachable(f"edge {self._way.edge}: {silence}; {self.child.said()}")

    def _ended(self) -> MirrorError:
        status, said = self.child.wait()
        unreachable = self._way.unreachable(status, said)
        if unreachable:
            return unreachable
        if status == _NOT_FOUND:
            return EdgeRefused(f"edge {self._way.edge}: python3 is not installed there; {said}")
        return EdgeRefused(f"edge {self._way.edge}: the receiver ended with status {status}; it said: {said}")
