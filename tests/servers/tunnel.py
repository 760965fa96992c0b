"""A proxy on loopback that passes bytes on to where CONNECT says (RFC 9110, 9.3.6), and remembers what it was asked."""

from __future__ import annotations

import socket
import socketserver
from contextlib import suppress
from threading import Thread

from tests.servers.threads import InThreads


class Tunnel(InThreads, socketserver.TCPServer):
    """A context manager; `heads` has the head of every request, its first line in front."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.port: int = self.socket.getsockname()[1]
        self.heads: list[list[str]] = []


class _Handler(socketserver.StreamRequestHandler):
    """One connection."""

    server: Tunnel

    def handle(self) -> None:
        head = [line.decode("latin-1").strip() for line in iter(self.rfile.readline, b"\r\n") if line]
        self.server.heads.append(head)
        method, target, _ = head[0].split(" ")
        host, _, port = target.rpartition(":")
        if method != "CONNECT":
            self.wfile.write(b"HTTP/1.1 405 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        with socket.create_connection((host.strip("[]"), int(port))) as inside:
            self.wfile.write(b"HTTP/1.1 200 Connected\r\n\r\n")
            back = Thread(target=_pump, args=(inside, self.connection))
            back.start()
            _pump(self.connection, inside)
            back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    """Pass bytes on until one side has no more."""
    with suppress(OSError):
        while piece := source.recv(1 << 16):
            target.sendall(piece)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
