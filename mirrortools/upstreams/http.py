"""HTTP/1.1 for pulling: kept-alive connections, ranges, and no trust in the other side.

A credential is sent to the origin it belongs to and to no other, redirects included (invariant I9). Bodies
are identity-coded, capped in length, and given up when they drip. http.client does the protocol; body bytes
go from the socket into the caller's buffer.
"""

from __future__ import annotations

import base64
import contextlib
import email.utils
import http.client
import re
import socket
import ssl
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from mirrortools import __version__
from mirrortools.errors import AccessDenied, RateLimited, SourceMissing, SourceUnavailable, UpstreamError

TIMEOUT_S = 30.0
MINIMUM_RATE = 1024
RATE_WINDOW_S = 30.0
ANSWER_BYTES = 64 << 20
_REDIRECTS = 5
_DEFAULT_PAUSE_S = 5.0
_DRAINED_BYTES = 64 << 10
# ValueError: a header or an address of the other side's making that cannot be sent.
_NETWORK_ERRORS = (OSError, http.client.HTTPException, ValueError)
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/(?:[0-9]{1,18}|\*)")
_KEPT_HEADERS = ("range", "if-range", "accept", "content-type")


def shown(url: str) -> str:
    """A URL as messages may have it: without a user's name, a password or a signature."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return repr(url[:200])
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}" + ("?…" if parts.query else "")


def origin_of(url: str) -> tuple[str, str, int]:
    """Scheme, host and port: what a credential belongs to (RFC 6454). Raises SourceUnavailable."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    except ValueError as error:
        raise SourceUnavailable(f"{shown(url)}: not a URL: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SourceUnavailable(f"{shown(url)}: only http and https links are followed")
    return parts.scheme, parts.hostname.lower(), port


@dataclass(frozen=True, slots=True)
class Credential:
    """An `Authorization` value and the origin that may see it."""

    origin: tuple[str, str, int]
    authorization: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked: headers given here go to the URL's own origin only."""

    url: str
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None


class Body:
    """The bytes of one answer. `start` is the offset of the first one."""

    def __init__(self, url: str, response: http.client.HTTPResponse) -> None:
        self.url = shown(url)
        self.start = 0
        self._left = response.length
        self._response = response
        self._window_start = time.monotonic()
        self._window_bytes = 0

    def readinto(self, buffer: memoryview) -> int:
        """Fill the beginning of `buffer`; 0 at the end. Raises SourceUnavailable when cut short or slow."""
        if self._left == 0 or not buffer:
            return 0
        try:
            count = self._receive(buffer)
        except _NETWORK_ERRORS as error:
            raise SourceUnavailable(f"{self.url}: broke off: {describe(error)}") from error
        if self._left is not None:
            self._left -= count
            if count == 0:
                raise SourceUnavailable(f"{self.url}: the body ended {self._left} bytes too early")
        self._watch_rate(count)
        return count

    def _receive(self, buffer: memoryview) -> int:
        if self._left is None or self._response.chunked:
            data = self._response.read1(len(buffer))
            buffer[: len(data)] = data
            return len(data)
        # One recv(2), straight into the buffer: HTTPResponse.readinto would wait until all of it is full.
        return self._response.fp.readinto1(buffer[: self._left])

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

    def drain(self) -> None:
        """Read what is left of a short body that nobody wants, so that the connection can serve again."""
        if self._left is not None and self._left <= _DRAINED_BYTES:
            with contextlib.suppress(SourceUnavailable):
                self.read_all()

    @property
    def exhausted(self) -> bool:
        """Whether every byte was read, so that the connection can serve again."""
        return self._left == 0 or self._response.isclosed()


class HttpClient:
    """Asks over pooled connections. Thread-safe: each connection is in one thread's hands at a time.

    `proxies` maps a URL scheme to a proxy URL; `bypass` tells hosts that are asked directly.
    """

    def __init__(
        self,
        ca_file: str | None = None,
        proxies: Mapping[str, str] | None = None,
        bypass: Callable[[str], bool] = lambda _host: False,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._tls = ssl.create_default_context(cafile=ca_file)
        self._proxies = dict(proxies or {})
        self._bypass = bypass
        self._timeout_s = timeout_s
        self._idle: dict[tuple[str, str, int], list[http.client.HTTPConnection]] = defaultdict(list)
        self._busy: dict[http.client.HTTPConnection, socket.socket] = {}
        self._broken_off = False
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the idle connections."""
        with self._lock:
            for connections in self._idle.values():
                for connection in connections:
                    connection.close()
            self._idle.clear()

    def break_off(self) -> None:
        """Wake the threads that wait for a server, with an error; nothing can be asked afterwards."""
        with self._lock:
            self._broken_off = True
            for busy in self._busy.values():
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(busy, socket.SHUT_RDWR)

    @contextlib.contextmanager
    def open(self, request: Request, credential: Credential | None = None) -> Iterator[Body]:
        """Ask, follow redirects, and give the body of a 200 or 206. Raises UpstreamError by status."""
        for _ in range(_REDIRECTS + 1):
            with self._exchange(request, credential) as (response, body):
                if response.status in (200, 206):
                    body.start = content_start(request.url, response)
                    yield body
                    return
                body.drain()
                if response.status not in (301, 302, 303, 307, 308):
                    raise error_for(request.url, response)
                request = _redirected(request, response)
        raise SourceUnavailable(f"{shown(request.url)}: more than {_REDIRECTS} redirects")

    @contextlib.contextmanager
    def _exchange(
        self, request: Request, credential: Credential | None
    ) -> Iterator[tuple[http.client.HTTPResponse, Body]]:
        origin = origin_of(request.url)
        headers = _headers(request, credential if credential and credential.origin == origin else None)
        connection, response = self._send(origin, request, headers)
        body = Body(request.url, response)
        try:
            yield response, body
        finally:
            reusable = body.exhausted and not response.will_close
            response.close()
            self._put_back(origin, connection, reusable)

    def _send(
        self, origin: tuple[str, str, int], request: Request, headers: Mapping[str, str]
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        kept = self._take(origin)
        if kept:
            try:
                return kept, self._ask(kept, request, headers)
            except _NETWORK_ERRORS:
                self._put_back(origin, kept, reusable=False)  # an idle connection was closed: once more on a new one
        connection = self._new_connection(origin)
        try:
            return connection, self._ask(connection, request, headers)
        except _NETWORK_ERRORS as error:
            self._put_back(origin, connection, reusable=False)
            raise SourceUnavailable(f"{shown(request.url)}: {describe(error)}") from error

    def _ask(
        self, connection: http.client.HTTPConnection, request: Request, headers: Mapping[str, str]
    ) -> http.client.HTTPResponse:
        if connection.sock is None:
            connection.connect()
        with self._lock:
            if self._broken_off:
                raise OSError("interrupted")
            self._busy[connection] = connection.sock
        proxy_headers = getattr(connection, "proxy_headers", None)
        target = _target(urlsplit(request.url), absolute=proxy_headers is not None)
        connection.request(request.method, target, request.body, {**headers, **(proxy_headers or {})})
        return connection.getresponse()

    def _take(self, origin: tuple[str, str, int]) -> http.client.HTTPConnection | None:
        with self._lock:
            return self._idle[origin].pop() if self._idle[origin] else None

    def _put_back(self, origin: tuple[str, str, int], connection: http.client.HTTPConnection, reusable: bool) -> None:
        with self._lock:
            self._busy.pop(connection, None)
            if reusable and not self._broken_off:
                self._idle[origin].append(connection)
                return
        connection.close()

    def _new_connection(self, origin: tuple[str, str, int]) -> http.client.HTTPConnection:
        scheme, host, port = origin
        proxy = None if self._bypass(host) else self._proxies.get(scheme)
        if not proxy:
            return self._to(scheme, host, port)
        _, proxy_host, proxy_port = origin_of(proxy)
        connection = self._to(scheme, proxy_host, proxy_port)
        if scheme == "https":
            connection.set_tunnel(host, port, headers=_proxy_headers(proxy))
        else:
            connection.proxy_headers = _proxy_headers(proxy)  # type: ignore[attr-defined]
        return connection

    def _to(self, scheme: str, host: str, port: int) -> http.client.HTTPConnection:
        if scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=self._timeout_s, context=self._tls)
        return http.client.HTTPConnection(host, port, timeout=self._timeout_s)


def _proxy_headers(proxy: str) -> dict[str, str]:
    parts = urlsplit(proxy)
    if parts.username is None:
        return {}
    user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"Proxy-Authorization": f"Basic {base64.b64encode(user.encode()).decode()}"}


def _target(parts: SplitResult, *, absolute: bool) -> str:
    """What stands in the request line; a proxy wants to know the host too (RFC 9112, 3.2.2)."""
    place = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}" if absolute else ""
    return place + (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _headers(request: Request, credential: Credential | None) -> dict[str, str]:
    headers = {
        "User-Agent": f"mirrortools/{__version__}",
        "Accept": "*/*",
        "Accept-Encoding": "identity",
        **request.headers,
    }
    if credential and "Authorization" not in headers:
        headers["Authorization"] = credential.authorization
    return headers


def _redirected(request: Request, response: http.client.HTTPResponse) -> Request:
    location, here = response.headers.get("Location"), shown(request.url)
    if not location:
        raise SourceUnavailable(f"{here}: a redirect ({response.status}) to nowhere")
    try:
        url = urljoin(request.url, location)
    except ValueError as error:
        raise SourceUnavailable(f"{here}: a redirect to {shown(location)}, which is not a URL") from error
    if request.url.startswith("https:") and not url.startswith("https:"):
        raise SourceUnavailable(f"{here}: redirects from https to {shown(url)}, which is refused")
    headers = request.headers
    if origin_of(url) != origin_of(request.url):
        headers = {name: value for name, value in headers.items() if name.lower() in _KEPT_HEADERS}
    if request.method == "POST" and response.status in (301, 302, 303):
        raise SourceUnavailable(f"{here}: redirects a POST to {shown(url)}; configure that address instead")
    return Request(url, request.method, headers, request.body)


def content_start(url: str, response: http.client.HTTPResponse) -> int:
    """The offset of an answer's first byte (RFC 9110, 14.4). Raises SourceUnavailable for a 206 that hides it."""
    if response.status != 206:
        return 0
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    if not match:
        raise SourceUnavailable(f"{shown(url)}: sent a part without saying which one (no usable Content-Range)")
    return int(match[1])


def error_for(url: str, response: http.client.HTTPResponse) -> UpstreamError:
    """The error that says what to do about a status other than 200 and 206."""
    status, code = response.status, response.headers.get("X-Error-Code", "")
    text = f"{shown(url)}: HTTP {status} {response.reason}" + (f" ({code})" if code else "")
    return error_for_status(status, text, asked_pause_s(response.headers))


def error_for_status(status: int, text: str, pause_s: float | None) -> UpstreamError:
    """The error that a status stands for; `pause_s` is what Retry-After said."""
    if status == 401:
        return AccessDenied(f"{text}: the source wants a token; set `token_file` for this source")
    if status == 403:
        return AccessDenied(f"{text}: denied; does the token's account have access, its licence accepted?")
    if status in (404, 410):
        return SourceMissing(text)
    if status == 429 or (status == 503 and pause_s is not None):
        return RateLimited(text, _DEFAULT_PAUSE_S if pause_s is None else pause_s)
    return SourceUnavailable(text)


def asked_pause_s(headers: http.client.HTTPMessage) -> float | None:
    """How long a server wants to be left alone: `Retry-After`, else the `t` of `RateLimit`; None when it is silent."""
    pause_s = retry_after_s(headers.get("Retry-After"))
    if pause_s is None and (match := re.search(r";\s*t=([0-9]{1,9})", headers.get("RateLimit") or "")):
        return float(match[1])
    return pause_s


def retry_after_s(value: str | None) -> float | None:
    """Read a Retry-After header: seconds or a date (RFC 9110, 10.2.3). None when absent or unreadable."""
    if value is None:
        return None
    if re.fullmatch(r"\s*[0-9]+\s*", value):
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


def describe(error: BaseException) -> str:
    """One line for the operator on what the network did."""
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message}); set `ca_file` for a private authority"
    if isinstance(error, socket.gaierror):
        return f"its name cannot be resolved ({error.strerror})"
    if isinstance(error, http.client.InvalidURL) or (isinstance(error, ValueError) and not isinstance(error, OSError)):
        return "its address, or a header that goes with it, cannot be sent"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__} {error}".strip()
