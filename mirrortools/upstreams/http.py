"""Pulling over HTTP: requests, redirects, ranges, and no trust in the other side.

A credential is sent to the origin it belongs to and to no other, redirects included (invariant I9). Bodies
are identity-coded, capped in length, and given up when they drip.
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from mirrortools import __version__
from mirrortools.errors import SourceUnavailable
from mirrortools.upstreams.answers import Origin, content_start, describe, error_for, origin_of, shown, version_of
from mirrortools.upstreams.budget import Budget
from mirrortools.upstreams.connections import Connection, Connections, Way
from mirrortools.upstreams.dialing import Dialer
from mirrortools.upstreams.wire import Head, NotHttp, Wire

if TYPE_CHECKING:
    import ssl

TIMEOUT_S = 30.0
MINIMUM_RATE = 1024
RATE_WINDOW_S = 30.0
ANSWER_BYTES = 64 << 20
PIPELINED = 32
_REDIRECTS = 5
_DRAINED_BYTES = 64 << 10
# ValueError: a header or an address of the other side's making that cannot be sent.
_NETWORK_ERRORS = (OSError, NotHttp, ValueError)
_KEPT_HEADERS = ("range", "if-range", "accept", "content-type")
_UNSENDABLE = re.compile(r"[^\x21-\x7e]")
_UNSENDABLE_VALUE = re.compile(r"[^\x20-\x7e\x80-\xff\t]")


@dataclass(frozen=True, slots=True)
class Credential:
    """An `Authorization` value and the origin that may see it."""

    origin: Origin
    authorization: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked: headers given here go to the URL's own origin only; `follows` tells whether redirects are."""

    url: str
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    credential: Credential | None = field(repr=False, default=None)
    follows: bool = True

    def encode(self, proxy_headers: Mapping[str, str] | None = None) -> bytes:
        """The bytes of the request; a proxy gets the whole URL (RFC 9112, 3.2.2). Raises ValueError."""
        parts = urlsplit(self.url)
        host = parts.netloc.rpartition("@")[2]
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if proxy_headers is not None:
            target = f"{parts.scheme}://{host}{target}"
        if _UNSENDABLE.search(target + host):
            raise ValueError("an address with characters that must be escaped")
        lines = [f"{self.method} {target} HTTP/1.1", f"Host: {host}"]
        lines += [_header_line(name, value) for name, value in {**self._headers(), **(proxy_headers or {})}.items()]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + (self.body or b"")

    def _headers(self) -> dict[str, str]:
        headers = {
            "User-Agent": f"mirrortools/{__version__}",
            "Accept": "*/*",
            "Accept-Encoding": "identity",
            **self.headers,
        }
        if self.body is not None:
            headers["Content-Length"] = str(len(self.body))
        known = {name.lower() for name in headers}
        if self.credential and self.credential.origin == origin_of(self.url) and "authorization" not in known:
            headers["Authorization"] = self.credential.authorization
        return headers

    def redirected(self, head: Head) -> Request:
        """The request that a redirect asks for. Raises SourceUnavailable where it must not be followed."""
        location, here = head.headers.get("location"), shown(self.url)
        if not location:
            raise SourceUnavailable(f"{here}: a redirect ({head.status}) to nowhere")
        try:
            url = urljoin(self.url, location)
        except ValueError as error:
            raise SourceUnavailable(f"{here}: a redirect to {shown(location)}, which is not a URL") from error
        if self.url.startswith("https:") and not url.startswith("https:"):
            raise SourceUnavailable(f"{here}: redirects from https to {shown(url)}, which is refused")
        if not self.follows:
            raise SourceUnavailable(f"{here}: redirects to {shown(url)}; configure that address instead")
        headers = self.headers
        if origin_of(url) != origin_of(self.url):
            headers = {name: value for name, value in headers.items() if name.lower() in _KEPT_HEADERS}
        if self.method == "POST" and head.status in (301, 302, 303):
            raise SourceUnavailable(f"{here}: redirects a POST to {shown(url)}; configure that address instead")
        return Request(url, self.method, headers, self.body, self.credential)


def _encoded(requests: Iterable[Request], connection: Connection) -> bytes:
    return b"".join(request.encode(connection.proxy_headers) for request in requests)


def _header_line(name: str, value: str) -> str:
    if not name or ":" in name or _UNSENDABLE.search(name) or _UNSENDABLE_VALUE.search(value):
        raise ValueError("a header that cannot be sent")
    return f"{name}: {value}"


class ConnectionLost(SourceUnavailable):
    """The other side closed the connection before all of an answer was there."""


def _unavailable(what: str, error: BaseException) -> SourceUnavailable:
    kind = ConnectionLost if isinstance(error, ConnectionError) else SourceUnavailable
    return kind(f"{what}: {describe(error)}")


class _Line:
    """Requests to one origin: those that are under way, in order, and those that will follow."""

    def __init__(self, requests: Iterator[Request]) -> None:
        self.under_way: deque[Request] = deque()
        self._later = requests

    def fill(self) -> Sequence[Request]:
        """Let as many be under way as may be; those that are."""
        self.under_way.extend(islice(self._later, PIPELINED - len(self.under_way)))
        return self.under_way

    def refill(self, connection: Connection) -> None:
        """Send more when half of them were answered; that the connection cannot take them is told when it is read."""
        count = len(self.under_way)
        if count <= PIPELINED // 2 and (added := list(self.fill())[count:]):
            with contextlib.suppress(*_NETWORK_ERRORS):
                connection.wire.ask(_encoded(added, connection))


class Body:
    """The bytes of one answer; `start` is the offset of the first one. Raises SourceUnavailable when that is hidden."""

    def __init__(self, url: str, wire: Wire, head: Head | None = None) -> None:
        self.url = shown(url)
        self.start = content_start(url, head) if head else 0
        self._wire = wire
        self._head = head
        self._window_start = time.monotonic()
        self._window_bytes = 0

    @property
    def version(self) -> str:
        """What If-Range takes; empty when nothing tells."""
        return version_of(self._head) if self._head else ""

    def header(self, name: str) -> str:
        """A header of the answer, by its name in lower case; empty when there is none."""
        return self._head.headers.get(name, "") if self._head else ""

    def readinto(self, buffer: memoryview) -> int:
        """Fill the beginning of `buffer`; 0 at the end. Raises SourceUnavailable when cut short or slow."""
        if self._wire.left == 0 or not buffer:
            return 0
        try:
            count = self._wire.readinto(buffer)
        except _NETWORK_ERRORS as error:
            raise _unavailable(f"{self.url}: broke off", error) from error
        if count == 0 and self._wire.left:
            raise ConnectionLost(f"{self.url}: the body ended {self._wire.left} bytes too early")
        self._watch_rate(count)
        return count

    def cancel(self) -> None:
        """Make whoever reads, in another thread, fail at once."""
        with contextlib.suppress(OSError):
            self._wire.wake()

    def _watch_rate(self, count: int) -> None:
        self._window_bytes += count
        elapsed = time.monotonic() - self._window_start
        if elapsed < RATE_WINDOW_S:
            return
        if self._window_bytes < MINIMUM_RATE * elapsed:
            raise SourceUnavailable(f"{self.url}: slower than {MINIMUM_RATE} bytes a second for {elapsed:.0f} s")
        self._window_start, self._window_bytes = time.monotonic(), 0

    def read_all(self, limit: int = ANSWER_BYTES) -> bytes:
        """The whole body of a small answer. Raises SourceUnavailable when it is longer than `limit` bytes."""
        parts = bytearray()
        buffer = memoryview(bytearray(1 << 16))
        while count := self.readinto(buffer):
            parts += buffer[:count]
            if len(parts) > limit:
                raise SourceUnavailable(f"{self.url}: the answer is longer than {limit} bytes")
        return bytes(parts)

    def json(self) -> object:
        """The whole body as JSON; None when it is something else. Raises SourceUnavailable as `read_all` does."""
        try:
            return json.loads(self.read_all())
        except (ValueError, RecursionError):
            return None

    def drain(self) -> None:
        """Read what is left of a short body that nobody wants, so that the connection can serve again."""
        if self._wire.left is not None and self._wire.left <= _DRAINED_BYTES:
            with contextlib.suppress(SourceUnavailable):
                self.read_all()


def _tls_context(ca_file: str | None) -> ssl.SSLContext:
    """What a TLS connection trusts. The system's authorities take longer to load than most answers to come."""
    import ssl

    return ssl.create_default_context(cafile=ca_file)


class HttpClient:
    """Asks over pooled connections. Thread-safe.

    `proxies` maps a URL scheme to a proxy URL; `bypass` tells hosts that are asked directly. Callers ask the `budget`
    before they put questions to a host.
    """

    def __init__(
        self,
        ca_file: str | None = None,
        proxies: Mapping[str, str] | None = None,
        bypass: Callable[[str], bool] = lambda _host: False,
        timeout_s: float = TIMEOUT_S,
        budget: Budget | None = None,
    ) -> None:
        self.budget = budget or Budget()
        tls = functools.cache(lambda: _tls_context(ca_file))
        if ca_file:
            tls()  # so that a file that cannot be read is told at once
        self._connections = Connections(Way(tls, Dialer(timeout_s), proxies or {}, bypass))

    def close(self) -> None:
        """Close the idle connections."""
        self._connections.close()

    def break_off(self) -> None:
        """Wake the threads that wait for a server, with an error; nothing can be asked afterwards."""
        self._connections.break_off()

    @contextlib.contextmanager
    def open(self, request: Request) -> Iterator[Body]:
        """Ask, follow redirects, and give the body of a 200 or 206. Raises UpstreamError by status."""
        for _ in range(_REDIRECTS + 1):
            with self._asked([request]) as connection:
                head = self._head(request, connection)
                if head.status in (200, 206):
                    yield Body(request.url, connection.wire, head)
                    return
                Body(request.url, connection.wire).drain()
                if head.status not in (301, 302, 303, 307, 308):
                    raise error_for(request.url, head)
                request = request.redirected(head)
        raise SourceUnavailable(f"{shown(request.url)}: more than {_REDIRECTS} redirects")

    def read_many(self, requests: Iterable[Request], limit: int) -> Iterator[bytes]:
        """The bodies of many small answers, several requests under way at once; `limit` is each one's cap in bytes.

        What a connection did not answer before it was closed is asked for on a new one, as long as each answers at
        least one request. Redirects are not followed. Raises UpstreamError at the first answer that is not a 200.
        """
        for _, same in groupby(requests, lambda request: origin_of(request.url)):
            line = _Line(same)
            while line.fill():
                yield from self._read_some(line, limit)

    def _read_some(self, line: _Line, limit: int) -> Iterator[bytes]:
        """What one connection answers."""
        answered = False
        with self._asked(line.under_way) as connection:
            while line.under_way:
                try:
                    content = self._whole_answer(line.under_way[0], connection, limit)
                except ConnectionLost:
                    if not answered:
                        raise
                    return
                line.under_way.popleft()
                answered = True
                yield content
                if not connection.wire.reusable:
                    return
                line.refill(connection)

    def _whole_answer(self, request: Request, connection: Connection, limit: int) -> bytes:
        head = self._head(request, connection)
        if head.status != 200:
            raise error_for(request.url, head)
        body = connection.wire.whole_body(limit)
        return Body(request.url, connection.wire).read_all(limit) if body is None else body

    @contextlib.contextmanager
    def _asked(self, requests: Sequence[Request]) -> Iterator[Connection]:
        """Send requests to one origin, over a connection that is kept when every answer was read."""
        connection = self._send(requests)
        whole = False
        try:
            yield connection
            whole = True
        finally:
            self._connections.put_back(connection, connection.wire.reusable and (whole or len(requests) == 1))

    def _send(self, requests: Sequence[Request]) -> Connection:
        url = requests[0].url
        fresh = False
        while True:
            try:
                connection = self._connections.take(origin_of(url), fresh)
            except _NETWORK_ERRORS as error:
                raise SourceUnavailable(f"{shown(url)}: {describe(error)}", unreachable=True) from error
            try:
                connection.wire.ask(_encoded(requests, connection))
                connection.wire.wait()
            except _NETWORK_ERRORS as error:
                self._connections.put_back(connection, reusable=False)
                if connection.is_fresh:
                    raise SourceUnavailable(f"{shown(url)}: {describe(error)}", unreachable=True) from error
                fresh = True  # the server had closed an idle connection: once more on a new one
            else:
                return connection

    @staticmethod
    def _head(request: Request, connection: Connection) -> Head:
        try:
            return connection.wire.head()
        except _NETWORK_ERRORS as error:
            raise _unavailable(shown(request.url), error) from error
