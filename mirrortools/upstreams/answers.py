"""What URLs and answers of HTTP servers mean to us: origins, statuses, pauses, and words for the operator."""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections.abc import Mapping
from datetime import timedelta
from urllib.parse import urlsplit

from mirrortools.errors import AccessDenied, RateLimited, SourceMissing, SourceUnavailable, UpstreamError
from mirrortools.upstreams.wire import Head, NotHttp

_DEFAULT_PAUSE_S = 5.0
_SETTLED = timedelta(seconds=1)
_STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e\x80-\xff]*"')
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/(?:[0-9]{1,18}|\*)")

Origin = tuple[str, str, int]
"""Scheme, host and port."""


def shown(url: str) -> str:
    """A URL as messages may have it: without a user's name, a password or a signature."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return repr(re.sub(r"//.*@", "//", url.partition("?")[0])[:200])
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}" + ("?…" if parts.query else "")


def origin_of(url: str) -> Origin:
    """Scheme, host and port: what a credential belongs to (RFC 6454). Raises SourceUnavailable."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    except ValueError as error:
        raise SourceUnavailable(f"{shown(url)}: not a URL: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SourceUnavailable(f"{shown(url)}: only http and https links are followed")
    return parts.scheme, parts.hostname.lower(), port


def content_start(url: str, head: Head) -> int:
    """The offset of an answer's first byte (RFC 9110, 14.4). Raises SourceUnavailable for a 206 that hides it."""
    if head.status != 206:
        return 0
    match = _CONTENT_RANGE.fullmatch(head.headers.get("content-range", "").strip())
    if not match:
        raise SourceUnavailable(f"{shown(url)}: sent a part without saying which one (no usable Content-Range)")
    return int(match[1])


def version_of(head: Head) -> str:
    """What tells this version of a file from any other, as If-Range takes it (RFC 9110, 13.1.5); empty: nothing does.

    That is a strong ETag, or the time of the last change where there is no ETag at all and the answer is younger.
    """
    etag = head.headers.get("etag")
    if etag is not None:
        return etag if _STRONG_ETAG.fullmatch(etag) else ""
    import email.utils  # hardly any server has no ETag

    changed, answered = head.headers.get("last-modified", ""), head.headers.get("date", "")
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        if email.utils.parsedate_to_datetime(answered) - email.utils.parsedate_to_datetime(changed) >= _SETTLED:
            return changed
    return ""


def error_for(url: str, head: Head) -> UpstreamError:
    """The error that says what to do about a status other than 200 and 206."""
    code = head.headers.get("x-error-code", "")
    text = f"{shown(url)}: HTTP {head.status} {head.reason}" + (f" ({code})" if code else "")
    return error_for_status(head.status, text, asked_pause_s(head.headers))


def error_for_status(status: int, text: str, pause_s: float | None) -> UpstreamError:
    """The error that a status stands for; `pause_s` is what Retry-After said."""
    if status == 401:
        return AccessDenied(f"{text}: the source wants a token; set or check `token_file` for this source")
    if status == 403:
        return AccessDenied(f"{text}: denied; check `token_file`: does its account have access, its licence accepted?")
    if status == 407:
        return AccessDenied(
            f"{text}: the proxy wants a name and a password; put them into `http_proxy` or `https_proxy`"
        )
    if status in (404, 410):
        return SourceMissing(text)
    if status == 429 or (status == 503 and pause_s is not None):
        asked = "" if pause_s is None else f"; it asked to be left alone for {pause_s:.6g} s"
        return RateLimited(f"{text}{asked}", _DEFAULT_PAUSE_S if pause_s is None else pause_s)
    return SourceUnavailable(text)


def asked_pause_s(headers: Mapping[str, str]) -> float | None:
    """How long a server wants to be left alone: `Retry-After`, else the `t` of `RateLimit`; None when it is silent."""
    pause_s = retry_after_s(headers.get("retry-after"))
    if pause_s is None and (match := re.search(r";\s*t=([0-9]{1,9})", headers.get("ratelimit", ""))):
        return float(match[1])
    return pause_s


def retry_after_s(value: str | None) -> float | None:
    """Read a Retry-After header: seconds or a date (RFC 9110, 10.2.3). None when absent or unreadable."""
    if value is None:
        return None
    if re.fullmatch(r"\s*[0-9]+\s*", value):
        return float(value)
    import email.utils  # hardly any server writes a date here

    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


def describe(error: BaseException) -> str:
    """One line for the operator on what the network did."""
    import ssl  # for who never speaks TLS, a failure is the only use of it

    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message}); set `ca_file` for a private authority"
    if isinstance(error, socket.gaierror):
        return f"its name cannot be resolved ({error.strerror})"
    if isinstance(error, NotHttp):
        return f"it does not speak HTTP: {error}"
    if isinstance(error, ValueError) and not isinstance(error, OSError):
        return "its address, or a header that goes with it, cannot be sent"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__} {error}".strip()
