"""Talk with the receiver on an edge: requests to its standard input, answers from its standard output."""

from __future__ import annotations

import logging
import os
import select
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, Final

from mirrortools.errors import EdgeRefused, EdgeUnreachable, Locked, MirrorError, NoSpace
from mirrortools.frames import frame, read_frame
from mirrortools.transports.archive import LACKS, packed, receiver_command
from mirrortools.transports.child import END_TIMEOUT_S, Child
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
        data, asked_s = self._framed(request), time.monotonic()
        self._write(data)
        answer = self._next_frame()
        if answer == LACKS and self._unsent is not None:
            self._write(packed(self._unsent) + data)
            answer = self._next_frame()
        self._unsent = None
        if request.get("ask") not in _ROUTINE:
            self._tell([request], asked_s)
        if answer is None:
            raise self._ended()
        understood = self._understood(answer)
        if isinstance(understood, MirrorError):
            raise understood
        return understood

    def ask_all(self, requests: Sequence[Mapping[str, Any]]) -> list[dict[str, Any] | MirrorError]:
        """Give the answers to requests that go out one behind the other, while answers come in.

        The first request of a conversation is not among them. What the receiver refuses is in the place of its answer.
        Raises EdgeUnreachable, EdgeRefused.
        """
        data, asked_s = b"".join([self._framed(request) for request in requests]), time.monotonic()
        writer = threading.Thread(target=self._write, args=[data])
        writer.start()
        try:
            answers = list(islice(iter(self._next_frame, None), len(requests)))
        except BaseException:
            self.child.end()
            raise
        finally:  # nobody may close what is still written to
            writer.join(END_TIMEOUT_S)
            if writer.is_alive():
                self.child.end()
                writer.join()
        self._tell(requests, asked_s)
        if len(answers) < len(requests):
            raise self._ended()
        return [self._understood(answer) for answer in answers]

    def close(self) -> None:
        """Say that there is nothing more to ask, and wait for the end."""
        self.child.close()

    def _framed(self, request: Mapping[str, Any]) -> bytes:
        """What is to be written for a request. Raises EdgeRefused when it is too large."""
        try:
            return frame(request)
        except EdgeRefused as error:
            raise EdgeRefused(f"edge {self._way.edge}: {request.get('repo') or 'the request'}: {error}") from error

    def _write(self, data: bytes) -> None:
        with suppress(BrokenPipeError):  # it ended early, perhaps with a last word
            self.child.write(data)

    def _tell(self, requests: Sequence[Mapping[str, Any]], asked_s: float) -> None:
        """Say how long was waited for the answers to requests."""
        names = ", ".join(str(request.get("ask")) for request in requests)
        _log.debug("edge %s: %s: %.0f ms", self._way.edge, names, 1000 * (time.monotonic() - asked_s))

    def _understood(self, answer: dict[str, Any]) -> dict[str, Any] | MirrorError:
        """An answer, or what the receiver says instead."""
        if "error" in answer:
            kind = _REFUSALS.get(str(answer["error"]), EdgeRefused)
            return kind(f"edge {self._way.edge}: {answer.get('text')}")
        return answer

    def _next_frame(self) -> dict[str, Any] | None:
        """The next answer; None when it has ended. Raises EdgeUnreachable, EdgeRefused."""
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
