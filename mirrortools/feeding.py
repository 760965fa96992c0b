"""Blobs on their way between two hosts, in pieces, over one link: who feeds sends what is here as soon as it is here.

Whoever takes says first, in a frame, what it lacks: `[digest, size, have]` for each blob, in its own order. Then pieces
follow: the digest (32 bytes, the shorter ones of git filled up with zeros), an offset, a length, and so many bytes. The
pieces of a blob come in order and without gaps, so that how much is there says all. A piece without bytes means that
the feeder is alive and has nothing new. Only the standard library is used here, because the receiver runs this module
on edges.
"""

from __future__ import annotations

import os
import select
import socket
import struct
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from mirrortools.stock import Reading, Stock
from mirrortools.throttle import Throttle

if TYPE_CHECKING:
    import ssl

PIECE_BYTES: Final = 1 << 20
# What arrived of a piece is passed on in parts of this size, so that a long chain is filled soon.
PART_BYTES: Final = 256 << 10
KEEP_ALIVE_S: Final = 0.5
SILENCE_S: Final = 5.0
_HEADER: Final = struct.Struct(">32sQI")
_ALIVE: Final = bytes(_HEADER.size)


class Link(Protocol):
    """A two-way stream of bytes. Raises OSError when it breaks, and after a long silence."""

    def read_into(self, view: memoryview) -> int:
        """Fill the beginning of `view`; 0 at the end."""

    def write(self, data: memoryview) -> None:
        """Write all of it."""

    def write_file(self, file: int, offset: int, count: int) -> bool:
        """Write bytes of a file past this process; False when they have to be read and written instead."""

    def close(self) -> None:
        """End it, from any thread; fine when it has ended."""


class SocketLink:
    """A link over a socket, in TLS or on this host."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        connection.settimeout(SILENCE_S)
        if connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def read_into(self, view: memoryview) -> int:
        """Fill the beginning of `view`; 0 at the end."""
        return self._connection.recv_into(view)

    def write(self, data: memoryview) -> None:
        """Write all of it."""
        self._connection.sendall(data)

    def write_file(self, file: int, offset: int, count: int) -> bool:  # noqa: ARG002
        """Never: TLS has to see it."""
        return False

    def close(self) -> None:
        """End it."""
        with suppress(OSError):
            # Not the TLS socket's own: another thread may be using it, and would go on in the clear.
            socket.socket.shutdown(self._connection, socket.SHUT_RDWR)

    def release(self) -> None:
        """Let go of the descriptor, by the only thread that used it."""
        self._connection.close()


class PipeLink:
    """A link over two descriptors, as ssh gives them; `close` closes both."""

    def __init__(self, incoming: int, outgoing: int) -> None:
        self._incoming, self._outgoing = incoming, outgoing
        self._closed = False

    def read_into(self, view: memoryview) -> int:
        """Fill the beginning of `view`; 0 at the end."""
        poll = select.poll()
        poll.register(self._incoming, select.POLLIN)
        for _ in range(int(SILENCE_S / KEEP_ALIVE_S)):
            if self._closed:
                raise OSError("the link was ended")
            if poll.poll(KEEP_ALIVE_S * 1000):
                return os.readv(self._incoming, [view])
        raise TimeoutError(f"nothing came for {SILENCE_S:.0f} s")

    def write(self, data: memoryview) -> None:
        """Write all of it."""
        while data:
            data = data[os.write(self._outgoing, data) :]

    def write_file(self, file: int, offset: int, count: int) -> bool:
        """By sendfile(2), which takes pipes too."""
        while count:
            moved = os.sendfile(self._outgoing, file, offset, count)
            if not moved:
                raise OSError("a file is shorter than it was")
            offset, count = offset + moved, count - moved
        return True

    def close(self) -> None:
        """Let whoever reads end soon."""
        self._closed = True

    def release(self) -> None:
        """Let go of the descriptors."""
        for descriptor in {self._incoming, self._outgoing}:
            with suppress(OSError):
                os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Want:
    """A blob that is lacking on one side, of which the first `have` bytes are there."""

    digest: str
    size: int
    have: int

    def __post_init__(self) -> None:
        if not 0 <= self.have <= self.size or len(bytes.fromhex(self.digest)) not in (20, 32):
            raise ValueError(f"{self.digest!r}: {self.have} of {self.size} bytes")


def feed(link: Link, stock: Stock, wants: Sequence[Want], throttles: Sequence[Throttle] = ()) -> Iterator[int]:
    """Send what is wanted as soon as it is here; gives, again and again, how many bytes went out.

    Ends when all is sent, or the stock ends. Raises OSError when the link breaks or a file cannot be read, KeyError
    when the stock knows nothing of a blob.
    """
    load = _Load(link, stock, wants, throttles)
    try:
        while load.left and not stock.ended:
            version = stock.version
            sent_bytes = load.send()
            if not sent_bytes and not stock.wait(version, KEEP_ALIVE_S):
                link.write(memoryview(_ALIVE))
            yield sent_bytes
    finally:
        load.close()


class _Load:
    """What is still to be sent over a link."""

    def __init__(self, link: Link, stock: Stock, wants: Sequence[Want], throttles: Sequence[Throttle]) -> None:
        self.left = OrderedDict((want.digest, want) for want in wants if want.have < want.size)
        self._link = link
        self._stock = stock
        self._throttles = throttles
        self._buffer = memoryview(bytearray(PIECE_BYTES + _HEADER.size))
        self._reading: Reading | None = None

    def send(self) -> int:
        """Send what fits into one buffer, many small pieces or a part of a large one; gives the bytes of content."""
        limit = PIECE_BYTES
        for throttle in self._throttles:
            limit = throttle.share(limit)
        found = self._next(limit)
        if found and found[2] >= PART_BYTES and self._send_file(*found):
            return found[2]
        filled = content = 0
        while found:
            filled = self._put(filled, *found)
            content += found[2]
            found = self._next(min(limit - content, len(self._buffer) - filled - _HEADER.size))
        if content:
            self._take(content)
            self._link.write(self._buffer[:filled])
        return content

    def close(self) -> None:
        """Let go of the file that is open."""
        if self._reading:
            self._reading.close()
        self._reading = None

    def _next(self, most_bytes: int) -> tuple[str, int, int] | None:
        """The first bytes that are here and lacking there: digest, offset, count."""
        if most_bytes <= 0:
            return None
        for digest, want in self.left.items():
            count = min(self._stock.have(digest) - want.have, most_bytes)
            if count > 0:
                self._sent(want, count)
                return digest, want.have, count
        return None

    def _sent(self, want: Want, count: int) -> None:
        if want.have + count < want.size:
            self.left[want.digest] = Want(want.digest, want.size, want.have + count)
        else:
            del self.left[want.digest]

    def _take(self, count: int) -> None:
        for throttle in self._throttles:
            throttle.take(count)

    def _send_file(self, digest: str, offset: int, count: int) -> bool:
        if self._stock.recent or not isinstance(self._link, PipeLink):
            return False  # what came just now may not be in the file yet
        self._take(count)
        self._link.write(memoryview(_header(digest, offset, count)))
        return self._link.write_file(self._reading_of(digest).file, offset, count)

    def _put(self, filled: int, digest: str, offset: int, count: int) -> int:
        """Put a piece into the buffer behind what fills it; gives what fills it then."""
        start = filled + _HEADER.size
        self._buffer[filled:start] = _header(digest, offset, count)
        reading = self._reading_of(digest)
        while count:
            read = reading.read_into(self._buffer[start : start + count], offset)
            if not read:
                raise OSError(f"{digest}: the file is shorter than it was")
            start, offset, count = start + read, offset + read, count - read
        return start

    def _reading_of(self, digest: str) -> Reading:
        if self._reading is None or self._reading.digest != digest:
            self.close()
            self._reading = Reading(self._stock, digest)
        return self._reading


def _header(digest: str, offset: int, count: int) -> bytes:
    return _HEADER.pack(bytes.fromhex(digest), offset, count)


class Intake(Protocol):
    """Where pieces go."""

    @property
    def lacking(self) -> bool:
        """Whether anything is still to come."""

    def expect(self, key: bytes, offset: int, count: int) -> None:
        """A piece of the blob whose digest begins `key` follows. Raises ValueError when it was not asked for."""

    def room(self, most_bytes: int) -> memoryview:
        """Where the next bytes of that piece go, so many at most. Raises NoSpace when they may not come."""

    def came(self, count: int) -> None:
        """The room is filled. Raises OSError."""


def take(link: Link, intake: Intake) -> None:
    """Take pieces until nothing lacks. Raises OSError when the link breaks, ValueError when other pieces come."""
    header = memoryview(bytearray(_HEADER.size))
    while intake.lacking:
        _fill(link, header)
        key, offset, count = _HEADER.unpack(header)
        if count:
            intake.expect(key, offset, count)
        while count:
            part = intake.room(min(count, PART_BYTES))
            _fill(link, part)
            intake.came(len(part))
            count -= len(part)


def _fill(link: Link, view: memoryview) -> None:
    while view:
        count = link.read_into(view)
        if not count:
            raise ConnectionResetError("the other side ended")
        view = view[count:]


def read_some(link: Link, most_bytes: int) -> bytes:
    """Between one and `most_bytes` bytes; none at the end. Frames are read by it."""
    buffer = bytearray(most_bytes)
    return bytes(buffer[: link.read_into(memoryview(buffer))])


def tls(connection: socket.socket, context: ssl.SSLContext, *, server: bool) -> SocketLink:
    """Shake hands over a new connection. Raises OSError."""
    connection.settimeout(SILENCE_S)
    try:
        return SocketLink(context.wrap_socket(connection, server_side=server))
    except BaseException:
        connection.close()
        raise
