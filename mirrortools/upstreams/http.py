"""HTTP/1.1 for pulling: kept-alive connections, ranges, and no trust in the other side.

A credential is sent to the origin it belongs to and to no other, redirects included (invariant I9). Bodies
are identity-coded, capped in length, and given up when they drip. http.client does the protocol; body bytes
go from the socket into the caller's buffer.
"""

from __future__ import annotations

import contextlib
import email.utils
import http.client
import socket
import ssl
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urljoin, urlsplit

from mirrortools import __version__
from mirrortools.errors import AccessDenied, RateLimited, SourceMissing, SourceUnavailable, UpstreamError

TIMEOUT_S = 30.0
MINIMUM_RATE = 1024
RATE_WINDOW_S = 30.0
ANSWER_BYTES = 64 << 20
_REDIRECTS = 5
_DEFAULT_PAUSE_S = 5.0
_NETWORK_ERRORS = (OSError, http.client.HTTPException)


def origin_of(url: str) -> tuple[str, str, int]:
    """Scheme, host and port: what a credential belongs to (RFC 6454). Raises SourceUnavailable."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    except ValueError as error:
        raise SourceUnavailable(f"{url}: not a URL: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SourceUnavailable(f"{url}: only http and https links are followed")
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
    """The bytes of one answer. `start` is the offset of the first one, `length` how many will come."""

    def __init__(self, url: str, response: http.client.HTTPResponse, start: int) -> None:
        self.url = url
        self.start = start
        self.headers = response.headers
        self.length = response.length
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
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the idle connections."""
        with self._lock:
            for connections in self._idle.values():
                for connection in connections:
                    connection.close()
            self._idle.clear()

    @contextlib.contextmanager
    def open(self, request: Request, credential: Credential | None = None) -> Iterator[Body]:
        """Ask, follow redirects, and give the body of a 200 or 206. Raises UpstreamError by status."""
        for _ in range(_REDIRECTS):
            with self._exchange(request, credential) as (response, body):
                if response.status not in (301, 302, 303, 307, 308):
                    raise_for_status(request.url, response)
                    yield body
                    return
                request = _redirected(request, response)
        raise SourceUnavailable(f"{request.url}: more than {_REDIRECTS} redirects")

    @contextlib.contextmanager
    def _exchange(
        self, request: Request, credential: Credential | None
    ) -> Iterator[tuple[http.client.HTTPResponse, Body]]:
        origin = origin_of(request.url)
        headers = _headers(request, credential if credential and credential.origin == origin else None)
        connection, response = self._send(origin, request, headers)
        body = Body(request.url, response, _content_start(response))
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
                kept.close()  # the server closed an idle connection: ask once more on a new one
        connection = self._connect(origin)
        try:
            return connection, self._ask(connection, request, headers)
        except _NETWORK_ERRORS as error:
            connection.close()
            raise SourceUnavailable(f"{request.url}: {describe(error)}") from error

    def _ask(
        self, connection: http.client.HTTPConnection, request: Request, headers: Mapping[str, str]
    ) -> http.client.HTTPResponse:
        parts = urlsplit(request.url)
        target = request.url if _speaks_to_proxy(connection) else _target(parts)
        connection.request(request.method, target, body=request.body, headers=dict(headers))
        return connection.getresponse()

    def _take(self, origin: tuple[str, str, int]) -> http.client.HTTPConnection | None:
        with self._lock:
            return self._idle[origin].pop() if self._idle[origin] else None

    def _put_back(self, origin: tuple[str, str, int], connection: http.client.HTTPConnection, reusable: bool) -> None:
        if not reusable:
            connection.close()
            return
        with self._lock:
            self._idle[origin].append(connection)

    def _connect(self, origin: tuple[str, str, int]) -> http.client.HTTPConnection:
        scheme, host, port = origin
        proxy = None if self._bypass(host) else self._proxies.get(scheme)
        if scheme == "https":
            if not proxy:
                return http.client.HTTPSConnection(host, port, timeout=self._timeout_s, context=self._tls)
            _, proxy_host, proxy_port = origin_of(proxy)
            secure = http.client.HTTPSConnection(proxy_host, proxy_port, timeout=self._timeout_s, context=self._tls)
            secure.set_tunnel(host, port)
            return secure
        if not proxy:
            return http.client.HTTPConnection(host, port, timeout=self._timeout_s)
        _, proxy_host, proxy_port = origin_of(proxy)
        connection = http.client.HTTPConnection(proxy_host, proxy_port, timeout=self._timeout_s)
        connection.speaks_to_proxy = True  # type: ignore[attr-defined]
        return connection


def _speaks_to_proxy(connection: http.client.HTTPConnection) -> bool:
    return getattr(connection, "speaks_to_proxy", False)


def _target(parts: SplitResult) -> str:
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


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
    location = response.headers.get("Location")
    if not location:
        raise SourceUnavailable(f"{request.url}: a redirect ({response.status}) to nowhere")
    url = urljoin(request.url, location)
    if request.url.startswith("https:") and not url.startswith("https:"):
        raise SourceUnavailable(f"{request.url}: redirects from https to {url}, which is refused")
    headers = request.headers
    if origin_of(url) != origin_of(request.url):
        headers = {name: value for name, value in headers.items() if name in ("Range", "If-Range", "Accept")}
    if request.method == "POST" and response.status in (301, 302, 303):
        raise SourceUnavailable(f"{request.url}: redirects a POST to {url}; configure that address instead")
    return Request(url, request.method, headers, request.body)


def _content_start(response: http.client.HTTPResponse) -> int:
    content_range = response.headers.get("Content-Range", "")
    if response.status == 206 and content_range.startswith("bytes "):
        start = content_range.removeprefix("bytes ").partition("-")[0]
        return int(start) if start.isdigit() else 0
    return 0


def raise_for_status(url: str, response: http.client.HTTPResponse) -> None:
    """Turn a status other than 200 and 206 into the error that says what to do."""
    status, code = response.status, response.headers.get("X-Error-Code", "")
    if status in (200, 206):
        return
    text = f"{url}: HTTP {status} {response.reason}" + (f" ({code})" if code else "")
    raise error_for_status(status, text, retry_after_s(response.headers.get("Retry-After")))


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


def retry_after_s(value: str | None) -> float | None:
    """Read a Retry-After header: seconds or a date (RFC 9110, 10.2.3). None when absent or unreadable."""
    if value is None:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def describe(error: BaseException) -> str:
    """One line for the operator on what the network did."""
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message}); set `ca_file` for a private authority"
    if isinstance(error, socket.gaierror):
        return f"its name cannot be resolved ({error.strerror})"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__} {error}".strip()
