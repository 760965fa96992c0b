"""HTTP/1.1 on one connected socket, from the client's side (RFC 9112), as little of it as pulling needs.

Why not http.client's answers: their heads are parsed as mail, which costs more than a small file's transfer, and
several requests cannot be under way. Bodies go from the socket into the caller's buffer.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Mapping
from typing import Final, NamedTuple, Protocol, runtime_checkable

HEAD_BYTES: Final = 64 << 10
_RECORDS_BYTES: Final = 512 << 10
_RECORDS_S: Final = 0.1
_INTERIM: Final = range(100, 200)
_NO_BODY: Final = (204, 304)
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([0-9]{3})(?: ([^\r\n]*))?\r?\Z")
_HEAD_END: Final = re.compile(rb"\r?\n\r?\n")
_LINE_END: Final = re.compile(rb"\n")
_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_LENGTH: Final = re.compile(r"[0-9]{1,18}\Z")
_CHUNK_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?\r?\n\Z")


class NotHttp(Exception):  # noqa: N818  (says what the other side is)
    """The other side does not speak HTTP/1.1 as it should."""


class Head(NamedTuple):
    """An answer without its body. Header names are in lower case; values of a repeated name are joined by `, `."""

    status: int
    reason: str
    headers: Mapping[str, str]
    keeps_alive: bool

    @property
    def chunked(self) -> bool:
        """Whether the body comes in chunks."""
        return self.headers.get("transfer-encoding", "").lower().rpartition(",")[2].strip() == "chunked"

    @property
    def length(self) -> int | None:
        """The body's length when it is told. Raises NotHttp."""
        if self.status in _NO_BODY:
            return 0
        if "transfer-encoding" in self.headers:
            return None
        return _one_length(self.headers["content-length"]) if "content-length" in self.headers else None


def parse_head(data: bytes) -> Head:
    """Read a status line and header lines, without the empty line behind them. Raises NotHttp."""
    first, *lines = data.split(b"\n")
    match = _STATUS_LINE.match(first)
    if not match:
        raise NotHttp(f"it begins with {first[:80]!r}")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not _NAME.match(name):
            raise NotHttp(f"it has the header line {line[:80]!r}")
        key, text = name.decode("ascii").lower(), value.strip(b" \t\r").decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    connection = headers.get("connection", "").lower()
    keeps_alive = "close" not in connection and (match[1] == b"1" or "keep-alive" in connection)
    return Head(int(match[2]), (match[3] or b"").decode("latin-1").strip(), headers, keeps_alive)


def _one_length(value: str) -> int:
    """A Content-Length; a list of equal ones counts as one (RFC 9112, 6.3)."""
    values = {part.strip() for part in value.split(",")}
    length = values.pop()
    if values or not _LENGTH.match(length):
        raise NotHttp(f"it has the Content-Length {value[:80]!r}")
    return int(length)


@runtime_checkable
class _TlsEnds(Protocol):
    """What `ssl.SSLSocket` has beyond its type: whether an end without close_notify passes for an end.

    http.client leaves it set. Who cuts the connection could then end a body that has no length.
    """

    suppress_ragged_eofs: bool

    def read(self, len: int, buffer: memoryview) -> int:  # noqa: A002  (its name there)
        """What recv_into does, with less around it; at most one record comes."""
        ...


class Wire:
    """A connection that requests are written to and answers are read from, in the same order.

    Raises NotHttp and OSError. After either, or a body that was not read to its end, it is of no more use.
    """

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._tls = connected if isinstance(connected, _TlsEnds) else None
        if self._tls:
            self._tls.suppress_ragged_eofs = False
        self._ahead = b""
        self._at = 0
        self._left: int | None = 0
        self._in_chunk = 0
        self._chunked = False
        self._keeps_alive = True
        self._is_tcp = connected.family in (socket.AF_INET, socket.AF_INET6)

    def ask(self, requests: bytes) -> None:
        """Write one request, or several."""
        self._socket.sendall(requests)

    def wait(self) -> None:
        """Return when the first bytes of an answer are there. Raises ConnectionResetError when none will come."""
        if self._at == len(self._ahead):
            self._ahead, self._at = self._receive_some(), 0

    def head(self) -> Head:
        """Read the next answer's head; interim answers are passed over."""
        while True:
            head = parse_head(self._head_bytes())
            if head.status not in _INTERIM:
                break
        self._keeps_alive = head.keeps_alive
        self._left, self._in_chunk = head.length, 0
        self._chunked = self._left is None and head.chunked
        return head

    def whole_body(self, limit: int) -> bytes | None:
        """The body when all of it came with its head and it has `limit` bytes at most; None: it has to be read."""
        if self._left is None or self._left > min(limit, len(self._ahead) - self._at):
            return None
        body = self._ahead[self._at : self._at + self._left]
        self._at, self._left = self._at + self._left, 0
        return body

    def readinto(self, buffer: memoryview) -> int:
        """Fill the beginning of `buffer` with the body; 0 at its end, or when the connection ended too early."""
        if self._chunked:
            return self._read_chunked(buffer)
        if self._left is None:
            return self._receive(buffer)
        count = self._receive(buffer[: self._left]) if self._left else 0
        self._left -= count
        return count

    @property
    def left(self) -> int | None:
        """How many bytes of the body are still to come, when that is known."""
        return None if self._chunked else self._left

    @property
    def reusable(self) -> bool:
        """Whether the body was read to its end and another answer may follow."""
        return self._keeps_alive and self._left == 0 and not self._chunked

    def wake(self) -> None:
        """Make whoever reads or writes here, in another thread, fail at once."""
        socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _read_chunked(self, buffer: memoryview) -> int:
        if self._in_chunk == 0:
            match = _CHUNK_SIZE.match(self._line())
            if not match:
                raise NotHttp("it has a chunk without a size")
            self._in_chunk = int(match[1], 16)
            if self._in_chunk == 0:
                while self._line() not in (b"\r\n", b"\n"):
                    """Trailers say nothing to us."""
                self._chunked, self._left = False, 0
                return 0
        count = self._receive(buffer[: self._in_chunk])
        self._in_chunk -= count
        if self._in_chunk == 0 and self._line() not in (b"\r\n", b"\n"):
            raise NotHttp("it has a chunk that is longer than its size")
        if count == 0:
            raise NotHttp("it ended in the middle of a chunk")
        return count

    def _receive(self, buffer: memoryview) -> int:
        if not buffer:
            return 0
        count = min(len(buffer), len(self._ahead) - self._at)
        if count:
            buffer[:count] = self._ahead[self._at : self._at + count]
            self._at += count
            return count
        return _receive_records(self._tls, buffer) if self._tls else self._socket.recv_into(buffer)

    def _receive_some(self) -> bytes:
        received = self._socket.recv(HEAD_BYTES)
        if not received:
            raise ConnectionResetError(0, "the server closed the connection")
        # A server may hold small answers back until those before are acknowledged, which is put off by 40 ms here
        # (Nagle's algorithm, delayed ACK). Bodies that are read by themselves are long enough not to need it.
        if self._is_tcp:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return received

    def _head_bytes(self) -> bytes:
        return self._until(_HEAD_END)

    def _line(self) -> bytes:
        return self._until(_LINE_END) + b"\n"

    def _until(self, end: re.Pattern[bytes]) -> bytes:
        """What comes before `end`, which is taken away too."""
        while not (found := end.search(self._ahead, self._at)):
            self._ahead, self._at = self._ahead[self._at :], 0
            if len(self._ahead) > HEAD_BYTES:
                raise NotHttp(f"it has a head of more than {HEAD_BYTES} bytes")
            self._ahead += self._receive_some()
        before, self._at = self._ahead[self._at : found.start()], found.end()
        return before


def _receive_records(tls: _TlsEnds, buffer: memoryview) -> int:
    """Several records of TLS at once: each is 16 KiB at most, which is little for the work that follows it."""
    read, clock, enough, count = tls.read, time.monotonic, min(len(buffer), _RECORDS_BYTES), 0
    ends_s = clock() + _RECORDS_S
    while count < enough:
        received = read(enough - count, buffer[count:])
        count += received
        if not received or clock() > ends_s:
            break
    return count
