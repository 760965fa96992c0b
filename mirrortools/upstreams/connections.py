"""Kept-alive connections to origins, straight or through a proxy."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote, urlsplit

from mirrortools.upstreams.answers import Origin, origin_of
from mirrortools.upstreams.dialing import Dialer
from mirrortools.upstreams.wire import NotHttp, Wire

if TYPE_CHECKING:
    import ssl


@dataclass(eq=False, slots=True)
class Connection:
    """A wire to an origin. With `proxy_headers` a proxy reads the requests and wants whole URLs."""

    origin: Origin
    wire: Wire
    proxy_headers: Mapping[str, str] | None = None
    is_fresh: bool = True


class Way(NamedTuple):
    """How origins are reached.

    `tls` is called when the first connection needs it. `proxies` maps a URL scheme to a proxy URL; `bypass` tells
    hosts that are asked directly.
    """

    tls: Callable[[], ssl.SSLContext]
    dialer: Dialer
    proxies: Mapping[str, str] = MappingProxyType({})
    bypass: Callable[[str], bool] = lambda _host: False

    def connect(self, origin: Origin) -> Connection:
        """Make a new connection. Raises OSError, NotHttp, ValueError."""
        scheme, host, port = origin
        proxy = None if self.bypass(host) else self.proxies.get(scheme)
        if not proxy:
            return Connection(origin, Wire(self._connected(host, port, encrypted=scheme == "https")))
        if scheme == "https":
            return Connection(origin, Wire(self._through(proxy, origin)))
        _, proxy_host, proxy_port = origin_of(proxy)
        straight = Wire(self._connected(proxy_host, proxy_port, encrypted=False))
        return Connection(origin, straight, _proxy_headers(proxy))

    def _connected(self, host: str, port: int, *, encrypted: bool) -> socket.socket:
        connected = self.dialer.dial(host, port)
        return self._secured(connected, host) if encrypted else connected

    def _secured(self, connected: socket.socket, host: str) -> socket.socket:
        try:
            secured = self.tls().wrap_socket(connected, server_hostname=host, do_handshake_on_connect=False)
        except BaseException:
            connected.close()
            raise
        with self.dialer.in_the_making(secured):
            secured.do_handshake()
        return secured

    def _through(self, proxy: str, origin: Origin) -> socket.socket:
        """A connection whose bytes a proxy passes on (RFC 9110, 9.3.6)."""
        _, proxy_host, proxy_port = origin_of(proxy)
        _, host, port = origin
        connected = self.dialer.dial(proxy_host, proxy_port)
        with self.dialer.in_the_making(connected):
            wire = Wire(connected)
            wire.ask(_tunnel_request(f"[{host}]:{port}" if ":" in host else f"{host}:{port}", proxy))
            head = wire.head()
            if head.status // 100 != 2:
                raise NotHttp(f"the proxy {proxy_host} makes no way there: {head.status} {head.reason}")
        return self._secured(connected, host)


def _tunnel_request(authority: str, proxy: str) -> bytes:
    headers = {"Host": authority, **_proxy_headers(proxy)}
    lines = [f"CONNECT {authority} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("ascii")


def _proxy_headers(proxy: str) -> dict[str, str]:
    parts = urlsplit(proxy)
    if parts.username is None:
        return {}
    import base64

    user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"Proxy-Authorization": f"Basic {base64.b64encode(user.encode()).decode()}"}


class Connections:
    """The connections that are kept. Thread-safe: each is in one thread's hands at a time."""

    def __init__(self, way: Way) -> None:
        self._way = way
        self._idle: dict[Origin, list[Connection]] = defaultdict(list)
        self._busy: set[Connection] = set()
        self._broken_off = False
        self._lock = threading.Lock()

    def take(self, origin: Origin, fresh: bool = False) -> Connection:
        """One that is idle, or a new one. Raises OSError, NotHttp, ValueError."""
        with self._lock:
            kept = self._idle[origin].pop() if self._idle[origin] and not fresh else None
        connection = kept or self._way.connect(origin)
        with self._lock:
            if not self._broken_off:
                self._busy.add(connection)
                return connection
        connection.wire.close()
        raise OSError("interrupted")

    def put_back(self, connection: Connection, reusable: bool) -> None:
        """Keep it for the next request, or close it."""
        with self._lock:
            self._busy.discard(connection)
            if reusable and not self._broken_off:
                connection.is_fresh = False
                self._idle[connection.origin].append(connection)
                return
        connection.wire.close()

    def close(self) -> None:
        """Close those that are idle."""
        with self._lock:
            idle = [connection for connections in self._idle.values() for connection in connections]
            self._idle.clear()
        for connection in idle:
            connection.wire.close()

    def break_off(self) -> None:
        """Wake the threads that wait for a server, with an error; nothing can be asked afterwards."""
        self._way.dialer.break_off()
        with self._lock:
            self._broken_off = True
            for busy in self._busy:
                with contextlib.suppress(OSError):
                    busy.wire.wake()
