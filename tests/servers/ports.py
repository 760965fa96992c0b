"""Ports on loopback that nobody uses."""

from __future__ import annotations

import random
import socket
from typing import Final

# Below the range from which Linux takes the ports of outgoing connections, so that none is taken in between.
_FIRST: Final = 20000
_LAST: Final = 32000
_given: Final[set[int]] = set()


def free_port() -> int:
    """A TCP port that nothing listens on and that this process has not been given before."""
    for _ in range(1000):
        port = random.randint(_FIRST, _LAST)
        if port not in _given and _can_bind(port):
            _given.add(port)
            return port
    raise OSError(f"no free port between {_FIRST} and {_LAST} on 127.0.0.1")


def port_answers(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a TCP connection to `port` is accepted now."""
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False


def http_answers(port: int, host: str = "127.0.0.1") -> bool:
    """Whether an HTTP server answers at `port` now.

    `nginx -t` listens for a moment too, so that a connection that is accepted says little of `mirrortool serve`.
    """
    try:
        with socket.create_connection((host, port), timeout=1) as connection:
            connection.sendall(b"HEAD / HTTP/1.0\r\n\r\n")
            return connection.recv(5) == b"HTTP/"
    except OSError:
        return False


def _can_bind(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("0.0.0.0", port))
        except OSError:
            return False
    return True
