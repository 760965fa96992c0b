"""The door that nginx shows every request to while a fault is chosen: it answers, or lets the request pass."""

from __future__ import annotations

import re
import select
import socketserver
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Event, Lock
from typing import BinaryIO

from tests.servers.threads import InThreads


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as the front sees it.

    `route` is git, batch or bytes; for bytes, `issued` is when the link was made (Unix seconds) and `stored` is
    the object's file below the storage folder.
    """

    route: str
    uri: str
    authorization: str
    range: str
    issued: float
    stored: str


@dataclass(frozen=True, slots=True)
class Status:
    """Answer with a status and nothing else."""

    code: int
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Hang:
    """Say nothing until the client leaves or the fault is healed."""


@dataclass(frozen=True, slots=True)
class Content:
    """Send the object, but badly; None means: not this way."""

    bytes_per_s: int | None = None
    cut_after: int | None = None
    stall_after: int | None = None
    ignore_range: bool | None = None

    def and_also(self, other: Content) -> Content:
        """Both at once; where both say something, `self` wins."""
        mine = {name: getattr(self, name) for name in self.__slots__ if getattr(self, name) is not None}
        return replace(other, **mine)


Outcome = Status | Hang | Content
Rule = Callable[[Asked], Outcome | None]


@dataclass(slots=True)
class Fault:
    """A rule that says what happens to a request, at most `times` times (None: always)."""

    rule: Rule
    times: int | None = None

    def outcome(self, asked: Asked) -> Outcome | None:
        """What happens to the request; None when this fault leaves it alone."""
        outcome = self.rule(asked) if self.times != 0 else None
        if outcome is not None and self.times is not None:
            self.times -= 1
        return outcome


class Front(InThreads, socketserver.UnixStreamServer):
    """An HTTP server on the unix socket `path` that applies the chosen faults.

    The file `flag` exists while there are faults; only then does nginx ask here.
    """

    request_queue_size = 256

    def __init__(self, path: Path, storage: Path, flag: Path) -> None:
        super().__init__(str(path), _Handler)
        self.storage = storage
        self.healed = Event()
        self._flag = flag
        self._faults: list[Fault] = []
        self._lock = Lock()

    def choose(self, fault: Fault) -> None:
        """Add a fault; earlier ones win where both apply."""
        with self._lock:
            self._faults.append(fault)
        self._flag.touch()

    def heal(self) -> None:
        """Forget all faults; answers that hang are ended."""
        self._flag.unlink(missing_ok=True)
        with self._lock:
            self._faults.clear()
            self.healed.set()
            self.healed = Event()

    def outcome(self, asked: Asked) -> Outcome | None:
        """What happens to a request: the first fault that has an opinion, and bad sending all together."""
        with self._lock:
            outcomes = [outcome for fault in self._faults if (outcome := fault.outcome(asked))]
        first = outcomes[0] if outcomes else None
        if isinstance(first, Content):
            for other in outcomes[1:]:
                first = first.and_also(other) if isinstance(other, Content) else first
        return first

    def let_go(self) -> None:
        self.heal()


class _Handler(BaseHTTPRequestHandler):
    """One request that nginx passed on, without its body."""

    server: Front

    def do_GET(self) -> None:
        asked = self._asked()
        outcome = self.server.outcome(asked)
        with suppress(ConnectionError):
            match outcome:
                case None:
                    self._head(200, {"X-Accel-Redirect": f"@{asked.route}"})
                case Status(code, headers):
                    self._head(code, {"Content-Length": "0", **headers})
                case Hang():
                    self._wait()
                case Content():
                    self._send(asked, outcome)

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815  (http.server looks for these names)

    def log_message(self, *words: object) -> None:
        """Say nothing: nginx keeps the log."""

    def _asked(self) -> Asked:
        named = {name: self.headers.get(name, "") for name in ("X-Route", "Authorization", "Range", "X-Stored")}
        issued = float(self.headers.get("X-Issued") or 0)
        return Asked(named["X-Route"], self.path, named["Authorization"], named["Range"], issued, named["X-Stored"])

    def _head(self, code: int, headers: Mapping[str, str]) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _send(self, asked: Asked, how: Content) -> None:
        path = self.server.storage / asked.stored
        if not path.is_file():
            return self._head(404, {"Content-Length": "0"})
        size = path.stat().st_size
        span = None if how.ignore_range else _span(asked.range, size)
        start, end = span or (0, size)
        length = {"Content-Length": str(end - start), "Content-Type": "application/octet-stream"}
        if start >= end and span:
            return self._head(416, {"Content-Length": "0", "Content-Range": f"bytes */{size}"})
        if span:
            self._head(206, {**length, "Content-Range": f"bytes {start}-{end - 1}/{size}"})
        else:
            self._head(200, length)
        if self.command == "HEAD":
            return None
        with path.open("rb") as file:
            return self._send_span(file, start, end, how)

    def _send_span(self, file: BinaryIO, start: int, end: int, how: Content) -> None:
        breaks = [size for size in (how.cut_after, how.stall_after) if size is not None]
        stop = min([end, *(start + size for size in breaks)])
        self._pour(file, start, stop, how.bytes_per_s)
        if stop < end and how.stall_after is not None and stop == start + how.stall_after:
            self._wait()

    def _pour(self, file: BinaryIO, start: int, stop: int, bytes_per_s: int | None) -> None:
        """Send a part of the file, at an even pace where one is given."""
        healed, began, offset = self.server.healed, time.monotonic(), start
        step = max(1, bytes_per_s // 20) if bytes_per_s else max(1, stop - start)
        while offset < stop:
            offset += self.connection.sendfile(file, offset, min(step, stop - offset))
            if bytes_per_s and not healed.is_set():
                healed.wait(max(0.0, began + (offset - start) / bytes_per_s - time.monotonic()))

    def _wait(self) -> None:
        healed = self.server.healed
        while not healed.wait(0.05) and not self._client_left():
            pass

    def _client_left(self) -> bool:
        readable, _, _ = select.select([self.connection], [], [], 0)
        return bool(readable)


def _span(header: str, size: int) -> tuple[int, int] | None:
    """The offsets [start, end) that a Range header asks for; None when it asks for no single range."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", header)
    if not match or match[0] == "bytes=-":
        return None
    if not match[1]:
        return max(0, size - int(match[2])), size
    return int(match[1]), min(size, int(match[2]) + 1) if match[2] else size
