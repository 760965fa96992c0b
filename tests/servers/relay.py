"""A TCP port that passes everything on to another one, counts it, and cuts connections when told to."""

from __future__ import annotations

import socket
import socketserver
from contextlib import suppress
from threading import Lock, Thread

from tests.servers.threads import InThreads

_CHUNK_BYTES = 256 * 1024


class Relay(InThreads, socketserver.TCPServer):
    """Passes connections to `port` on to `target` on loopback.

    `received_bytes` came from clients, `sent_bytes` went to them, since the last `forget`.
    """

    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, port: int, target: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.target = target
        self.received_bytes = 0
        self.sent_bytes = 0
        self._left: int | None = None
        self._open: set[socket.socket] = set()
        self._lock = Lock()

    def forget(self) -> None:
        """Begin to count anew."""
        self.received_bytes = self.sent_bytes = 0

    def cut_after(self, size: int) -> None:
        """Cut all connections, once, when clients have sent `size` more bytes."""
        self._left = size

    def heal(self) -> None:
        """Forget what `cut_after` was told."""
        self._left = None

    def cut(self) -> None:
        """Cut all connections now."""
        with self._lock:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def pump(self, source: socket.socket, target: socket.socket, *, from_client: bool) -> None:
        """Pass bytes on until one side has no more."""
        buffer = memoryview(bytearray(_CHUNK_BYTES))
        with suppress(OSError):
            while count := source.recv_into(buffer):
                allowed = self._count(count, from_client=from_client)
                target.sendall(buffer[:allowed])
                if allowed < count:
                    return self.cut()
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)
        return None

    def watch(self, *connections: socket.socket) -> None:
        """Take connections among those that `cut` cuts."""
        with self._lock:
            self._open.update(connections)

    def unwatch(self, *connections: socket.socket) -> None:
        """Take connections out of those that `cut` cuts."""
        with self._lock:
            self._open.difference_update(connections)

    def _count(self, count: int, *, from_client: bool) -> int:
        """Count bytes; how many of them may pass."""
        with self._lock:
            if not from_client:
                self.sent_bytes += count
                return count
            allowed = count
            if self._left is not None:
                allowed = min(count, self._left)
                self._left = None if allowed < count else self._left - allowed
            self.received_bytes += allowed
            return allowed

    def let_go(self) -> None:
        self.cut()


class _Handler(socketserver.BaseRequestHandler):
    """One connection."""

    server: Relay

    def handle(self) -> None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.server.target)) as inside:
            self.server.watch(self.request, inside)
            try:
                self._both_ways(inside)
            finally:
                self.server.unwatch(self.request, inside)

    def _both_ways(self, inside: socket.socket) -> None:
        back = Thread(target=self.server.pump, args=(inside, self.request), kwargs={"from_client": False})
        back.start()
        self.server.pump(self.request, inside, from_client=True)
        back.join()
