"""What can be wrong with an upstream, chosen by a test."""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Mapping

from tests.servers.front import Asked, Content, Fault, Front, Hang, Rule, Status


class Faults:
    """The faults of an upstream. They add up until `heal`.

    A `route` is `git`, `batch` (the LFS batch API) or `bytes` (LFS content); `times` says how many requests meet
    the fault, None all.
    """

    _front: Front
    elsewhere_port: int

    def answer(
        self,
        status: int,
        times: int | None = None,
        *,
        retry_after: int | None = None,
        route: str = "bytes",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Answer with `status` and an empty body; `retry_after` is a header in seconds."""
        pause = {} if retry_after is None else {"Retry-After": str(retry_after)}
        self._choose(_on(route, Status(status, {**pause, **(headers or {})})), times)

    def hang(self, times: int | None = None, *, route: str = "bytes") -> None:
        """Accept requests and never answer."""
        self._choose(_on(route, Hang()), times)

    def limit_rate(self, bytes_per_s: int) -> None:
        """Send LFS content at an even pace, each answer on its own."""
        self._choose(_on("bytes", Content(bytes_per_s=bytes_per_s)))

    def cut_after(self, size: int, times: int | None = None) -> None:
        """Close the connection when `size` bytes of an answer with LFS content were sent."""
        self._choose(_on("bytes", Content(cut_after=size)), times)

    def stall_after(self, size: int, times: int | None = None) -> None:
        """Send `size` bytes of an answer with LFS content and then nothing, with the connection open."""
        self._choose(_on("bytes", Content(stall_after=size)), times)

    def ignore_ranges(self) -> None:
        """Answer requests for a range of LFS content with 200 and all of it."""
        self._choose(_on("bytes", Content(ignore_range=True)))

    def expire_links(
        self, after_s: float | None = None, *, after_requests: int | None = None, status: int = 403
    ) -> None:
        """Refuse links of the batch API that are older than `after_s`.

        Or, with `after_requests`, answer so many requests for LFS content, and then refuse all links that were
        issued until that moment, so that a client must ask the batch API once more.
        """
        if after_requests is not None:
            self._choose(_Expiry(after_requests, Status(status)))
        else:
            self._choose(lambda asked: _too_old(asked, after_s or 0.0, Status(status)))

    def require_token(self, token: str, *, on_bytes: bool = True) -> None:
        """Want `token` as Bearer, or as the password of Basic: 401 without one, 403 for another one.

        Without `on_bytes` the links of the batch API need none, as if they were signed.
        """
        routes = ("git", "batch", "bytes") if on_bytes else ("git", "batch")
        self._choose(lambda asked: _refusal(asked, token) if asked.route in routes else None)

    def redirect_bytes(self) -> None:
        """Redirect requests for LFS content to another host, which answers on `elsewhere_port`.

        What it was asked is in `requests()`, with that port and the Authorization header that it saw.
        """
        base = f"http://127.0.0.2:{self.elsewhere_port}"
        self._choose(lambda asked: Status(302, {"Location": base + asked.uri}) if asked.route == "bytes" else None)

    def heal(self) -> None:
        """Undo all faults that were chosen; what hangs is ended."""
        self._front.heal()

    def _choose(self, rule: Rule, times: int | None = None) -> None:
        self._front.choose(Fault(rule, times))


class _Expiry:
    """The rule that lets a number of requests pass and then kills all links that exist."""

    def __init__(self, requests: int, refusal: Status) -> None:
        self._left = requests
        self._refusal = refusal
        self._died_at = 0.0

    def __call__(self, asked: Asked) -> Status | None:
        if asked.route != "bytes":
            return None
        if self._left:
            self._left -= 1
            return None
        # Links carry whole milliseconds.
        self._died_at = self._died_at or int(time.time() * 1000) / 1000
        return self._refusal if asked.issued <= self._died_at else None


def _on(route: str, outcome: Status | Hang | Content) -> Rule:
    return lambda asked: outcome if asked.route == route else None


def _too_old(asked: Asked, lifetime_s: float, refusal: Status) -> Status | None:
    return refusal if asked.route == "bytes" and time.time() > asked.issued + lifetime_s else None


def _refusal(asked: Asked, token: str) -> Status | None:
    if not asked.authorization:
        return Status(401, {"WWW-Authenticate": 'Basic realm="upstream"'})
    return None if token == _token(asked.authorization) else Status(403)


def _token(authorization: str) -> str | None:
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return value
    try:
        return base64.b64decode(value).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return None
