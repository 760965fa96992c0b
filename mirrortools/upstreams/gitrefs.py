"""The refs of a git host on http(s), asked over our own client: one request, and no program to start.

No protocol version is asked for, so the answer is version 0's: every ref, what annotated tags lead to, and the
default branch (gitprotocol-http, gitprotocol-pack). Version 2 could leave refs out, and costs a second round trip and
a second question. Hosts that know nothing of git serve a text file instead; the default branch is in another one, which
is asked for when there are news.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final
from urllib.parse import urlsplit

from mirrortools import __version__
from mirrortools.errors import AccessDenied, SourceMissing, SourceUnavailable, UpstreamError
from mirrortools.upstreams.base import RemoteRefs
from mirrortools.upstreams.git import remote_error, served_refs
from mirrortools.upstreams.http import ANSWER_BYTES, Credential, HttpClient, Request

# Some hosts tell git from a browser by the name, and send browsers to a page.
_HEADERS: Final = {"User-Agent": f"git/mirrortools-{__version__}", "Pragma": "no-cache"}
_HEAD_BYTES: Final = 4096
_SMART: Final = re.compile(rb"[0-9a-fA-F]{4}(?:# service=|ERR |version )")
_NO_REFS: Final = "capabilities^{}"
_OID: Final = re.compile(r"[0-9a-f]{40}\Z")
_LENGTH: Final = re.compile(rb"[0-9a-fA-F]{4}\Z")
_LENGTH_BYTES: Final = 4


def ask_refs(client: HttpClient, url: str, credential: Credential | None) -> RemoteRefs:
    """Ask the repository at `url` for its refs as they are now. Raises UpstreamError."""
    try:
        answer = _ask(client, f"{url}/info/refs?service=git-upload-pack", credential, ANSWER_BYTES)
    except SourceMissing as error:
        raise SourceMissing(f"{error}; check the name of the repository, and that it exists there") from error
    if _SMART.match(answer):
        return read_advertisement(url, answer)
    return replace(read_info_refs(url, answer), ask_head=lambda: _ask_head(client, url, credential))


def _ask(client: HttpClient, url: str, credential: Credential | None, limit: int) -> bytes:
    # git would not follow a redirect with a credential either, and it is git that fetches from there.
    request = Request(url, headers=_HEADERS, credential=credential, follows=credential is None)
    with client.budget.asking(urlsplit(url).netloc, 1), client.open(request) as body:
        return body.read_all(limit)


def _ask_head(client: HttpClient, url: str, credential: Credential | None) -> str:
    """The default branch of a host that serves files; empty when it does not tell."""
    try:
        text = _ask(client, f"{url}/HEAD", credential, _HEAD_BYTES).decode(errors="replace")
    except (SourceMissing, AccessDenied):
        return ""
    return text.removeprefix("ref: ").rstrip() if text.startswith("ref: ") else ""


def read_advertisement(url: str, answer: bytes) -> RemoteRefs:
    """Read a smart host's answer (gitprotocol-pack, "reference discovery"). Raises UpstreamError."""
    first, *lines = _lines(url, answer) or [""]
    first, _, capabilities = first.partition("\0")
    known = [word.partition("=")[::2] for word in capabilities.split(" ")]
    for name, value in known:
        if name == "object-format" and value != "sha1":
            raise SourceUnavailable(f"{url}: names its objects by {value[:20]!r}; only sha1 is supported")
    head = next((value[5:] for name, value in known if name == "symref" and value.startswith("HEAD:")), "")
    return served_refs(_pairs(url, (line.partition(" ")[::2] for line in [first, *lines] if line)), head)


def _lines(url: str, answer: bytes) -> list[str]:
    """The advertisement itself: behind the service's name, and up to the flush that says that it is whole."""
    packets = list(_packets(url, answer))
    if None in packets and (packets[0] or b"").startswith(b"# "):
        del packets[: packets.index(None) + 1]
    *lines, end = packets or [b""]
    if end is not None or None in lines:
        raise _nonsense(url, answer)
    return [line.removesuffix(b"\n").decode(errors="surrogateescape") for line in lines if line is not None]


def read_info_refs(url: str, answer: bytes) -> RemoteRefs:
    """Read the `info/refs` file of a host that knows nothing of git. Raises SourceUnavailable."""
    lines = answer.decode(errors="surrogateescape").split("\n")
    if lines.pop():
        raise _nonsense(url, answer)
    return served_refs(_pairs(url, (line.partition("\t")[::2] for line in lines)), "")


def _packets(url: str, answer: bytes) -> Iterator[bytes | None]:
    """The content of each pkt-line, None for a flush (gitprotocol-common). Raises UpstreamError."""
    at = 0
    while at < len(answer):
        digits = answer[at : at + _LENGTH_BYTES]
        length = int(digits, 16) if _LENGTH.match(digits) else -1
        if length == 0:
            yield None
            at += _LENGTH_BYTES
            continue
        if length < _LENGTH_BYTES or at + length > len(answer):
            raise _nonsense(url, answer[at:])
        packet = answer[at + _LENGTH_BYTES : at + length]
        if packet.startswith(b"ERR "):
            raise _refusal(url, packet[4:])
        yield packet
        at += length


def _refusal(url: str, said: bytes) -> UpstreamError:
    """What a host says instead of refs: the same words as over git's own connection."""
    return remote_error(url, f"fatal: remote error: {said[:500].decode(errors='replace')}")


def _pairs(url: str, pairs: Iterable[tuple[str, ...]]) -> Iterator[tuple[str, str]]:
    """Object ids and names, once the ids are such. Raises SourceUnavailable."""
    for oid, name in pairs:
        if oid == "shallow" or name == _NO_REFS:
            continue
        if not _OID.match(oid) or not name:
            raise _nonsense(url, f"{oid} {name}".encode(errors="surrogateescape"))
        yield oid, name


def _nonsense(url: str, said: bytes) -> SourceUnavailable:
    return SourceUnavailable(f"{url}: this is not what a git host says of its refs: {said[:60]!r}; check the `source`")
