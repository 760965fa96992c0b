"""The bytes of LFS blobs: links from the batch API, renewed when they expire (git-lfs/docs/api/batch.md)."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from mirrortools.errors import AccessDenied, SourceMissing, SourceUnavailable, UpstreamError
from mirrortools.model import Blob
from mirrortools.upstreams.answers import error_for_status, shown
from mirrortools.upstreams.base import Reader
from mirrortools.upstreams.http import Credential, HttpClient, Request
from mirrortools.upstreams.links import Link, Links, has_expired
from mirrortools.upstreams.ranges import Ranges

_MEDIA_TYPE = "application/vnd.git-lfs+json"
_MALFORMED = (ValueError, KeyError, TypeError, AttributeError, OverflowError)


@dataclass(frozen=True, slots=True)
class LfsServer:
    """An LFS server's address (`…/info/lfs`) and what it wants to be sent until `expires_at` (Unix seconds)."""

    url: str
    credential: Credential | None = None
    headers: Mapping[str, str] = field(repr=False, default_factory=dict)
    expires_at: float = float("inf")


class LfsBytes:
    """Reads blobs from an LFS server. Asks for links 100 at a time, in the order that `prepare` was told.

    `find_server` is called when the first link is needed, and again when what it told has expired.
    """

    def __init__(self, name: str, find_server: Callable[[], LfsServer], client: HttpClient) -> None:
        self.name = name
        self._find_server = find_server
        self._server: LfsServer | None = None
        self._choosing = threading.Lock()
        self._client = client
        self._links = Links(self._batch)
        self._ranges = Ranges(client)

    def break_off(self) -> None:
        """End what other threads read."""
        self._client.break_off()

    def prepare(self, blobs: Sequence[Blob]) -> None:
        """Remember the order in which blobs will be wanted."""
        self._links.prepare(blobs)

    @contextlib.contextmanager
    def open(self, blob: Blob, start: int, stop: int) -> Iterator[Reader]:
        """Read the bytes [start, stop). A link that is refused is asked for once more. Raises UpstreamError."""
        link = self._link(blob)
        with contextlib.ExitStack() as stack:
            try:
                reader = stack.enter_context(self._ranges.read(link, blob, start, stop))
            except AccessDenied:
                reader = stack.enter_context(self._ranges.read(self._link(blob, instead_of=link), blob, start, stop))
            yield reader

    def read_many(self, blobs: Sequence[Blob]) -> Iterator[tuple[Blob, bytes]]:
        """Read whole small blobs, several requests under way at once. Raises UpstreamError at the first trouble."""
        yield from self._ranges.read_many([(blob, self._link(blob)) for blob in blobs])

    def segment_hashes(self, blob: Blob) -> object:
        """Ask a mirror of our own kind, known by the form of its links; None of any other host.

        Raises UpstreamError.
        """
        link = self._link(blob)
        if not link.url.endswith(f"/{blob.path}"):
            return None
        url = f"{link.url.removesuffix(blob.path)}{blob.path.replace('blobs/sha256', 'blobs/segments', 1)}"
        return self._ranges.document(replace(link, url=url))

    def _link(self, blob: Blob, instead_of: Link | None = None) -> Link:
        """A link that was not refused yet; other threads' answers are shared."""
        found = self._links.get(blob, instead_of)
        if found is None:
            raise SourceMissing(f"{self.name}: the batch answer says nothing about {blob}")
        if isinstance(found, Link):
            return found
        raise found

    def _batch(self, blobs: Sequence[Blob]) -> dict[str, Link | UpstreamError]:
        server = self._server_instead_of(None)
        try:
            return self._ask(server, blobs)
        except AccessDenied:
            renewed = self._server_instead_of(server)
            if renewed == server:
                raise
            return self._ask(renewed, blobs)

    def _server_instead_of(self, refused: LfsServer | None) -> LfsServer:
        """The server, found anew when it is not known, has expired, or is the one that refused."""
        with self._choosing:
            if self._server is None or self._server is refused or has_expired(self._server.expires_at):
                self._server = self._find_server()
            return self._server

    def _ask(self, server: LfsServer, blobs: Sequence[Blob]) -> dict[str, Link | UpstreamError]:
        question = {
            "operation": "download",
            "transfers": ["basic"],
            "hash_algo": "sha256",
            "objects": [{"oid": blob.digest, "size": blob.size} for blob in blobs],
        }
        headers = {"Accept": _MEDIA_TYPE, "Content-Type": _MEDIA_TYPE, **server.headers}
        request = Request(
            f"{server.url}/objects/batch", "POST", headers, json.dumps(question).encode(), server.credential
        )
        host = urlsplit(server.url).netloc.rpartition("@")[2]
        with self._client.budget.asking(host, 1), self._client.open(request) as body:
            return read_batch(server, blobs, body.read_all())


def read_batch(server: LfsServer, blobs: Sequence[Blob], answer: bytes) -> dict[str, Link | UpstreamError]:
    """Read a batch answer: a link or an error for each blob that was asked for; others are passed over.

    Raises SourceUnavailable when it is not a batch answer at all.
    """
    asked = {blob.digest for blob in blobs}
    try:
        objects = json.loads(answer)["objects"]
        return {o["oid"]: _read_object(server, o) for o in objects if o.get("oid") in asked}
    except (*_MALFORMED, RecursionError) as error:
        raise SourceUnavailable(f"{shown(server.url)}: not a batch answer: {_brief(error)}") from error


def _read_object(server: LfsServer, document: Mapping[str, Any]) -> Link | UpstreamError:
    name = f"{shown(server.url)}: {document['oid']}"
    try:
        if error := document.get("error"):
            text = f"{name}: {error.get('code')} {str(error.get('message'))[:500]}"
            return error_for_status(int(error.get("code", 500)), text, None)
        action = document["actions"]["download"]
        headers = {str(key): str(value) for key, value in (action.get("header") or {}).items()}
        return Link(str(action["href"]), headers, expiry(action), server.credential)
    except _MALFORMED as error:
        return SourceUnavailable(f"{name}: a malformed batch answer: {_brief(error)}")


def _brief(error: Exception) -> str:
    return repr(error)[:200]


def expiry(document: Mapping[str, Any]) -> float:
    """Until when an answer is good, in Unix seconds: `expires_in` before `expires_at`.

    What cannot be read counts as never: a link that is refused is asked for again anyway. So does a time before
    1970: servers write their zero time when they mean none.
    """
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        if document.get("expires_in"):
            return time.time() + float(document["expires_in"])
        if document.get("expires_at"):
            moment = datetime.fromisoformat(str(document["expires_at"]))
            seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
            return seconds if seconds > 0 else float("inf")
    return float("inf")
