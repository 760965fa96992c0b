"""The bytes of LFS blobs: links from the batch API, renewed when they expire (git-lfs/docs/api/batch.md)."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from mirrortools.errors import AccessDenied, SourceMissing, SourceUnavailable, UpstreamError
from mirrortools.model import Blob
from mirrortools.upstreams.base import Reader
from mirrortools.upstreams.http import Credential, HttpClient, Request, error_for_status

BATCH_OBJECTS = 100
_MEDIA_TYPE = "application/vnd.git-lfs+json"
_EXPIRY_MARGIN_S = 10.0


@dataclass(frozen=True, slots=True)
class Link:
    """Where a blob's bytes can be read until `expires_at` (Unix seconds), with the headers that it takes."""

    url: str
    headers: Mapping[str, str] = field(repr=False, default_factory=dict)
    expires_at: float = float("inf")


@dataclass(frozen=True, slots=True)
class LfsServer:
    """An LFS server's address (`…/info/lfs`) and what it wants to be sent."""

    url: str
    credential: Credential | None = None
    headers: Mapping[str, str] = field(repr=False, default_factory=dict)


class LfsBytes:
    """Reads blobs from an LFS server. Asks for links 100 at a time, in the order that `prepare` was told."""

    def __init__(self, server: LfsServer, client: HttpClient) -> None:
        self.name = server.url
        self._server = server
        self._client = client
        self._order: list[Blob] = []
        self._places: dict[str, int] = {}
        self._links: dict[str, Link | UpstreamError] = {}
        self._lock = threading.Lock()

    def prepare(self, blobs: Sequence[Blob]) -> None:
        """Remember the order in which blobs will be wanted."""
        with self._lock:
            self._order = list(blobs)
            self._places = {blob.digest: place for place, blob in enumerate(self._order)}

    @contextlib.contextmanager
    def open(self, blob: Blob, start: int, stop: int) -> Iterator[Reader]:
        """Read the bytes [start, stop). A link that is refused is asked for once more. Raises UpstreamError."""
        link = self._link(blob)
        with contextlib.ExitStack() as stack:
            try:
                reader = stack.enter_context(self._get(link, blob, start, stop))
            except AccessDenied:
                with self._lock:
                    self._links.pop(blob.digest, None)
                reader = stack.enter_context(self._get(self._link(blob), blob, start, stop))
            yield reader

    @contextlib.contextmanager
    def _get(self, link: Link, blob: Blob, start: int, stop: int) -> Iterator[Reader]:
        headers = dict(link.headers)
        if (start, stop) != (0, blob.size):
            headers["Range"] = f"bytes={start}-{stop - 1}"
        with self._client.open(Request(link.url, headers=headers), self._server.credential) as body:
            yield body

    def _link(self, blob: Blob) -> Link:
        with self._lock:
            known = self._links.get(blob.digest)
            if not isinstance(known, Link) or known.expires_at - _EXPIRY_MARGIN_S < time.time():
                self._links |= self._batch(self._batch_around(blob))
                known = self._links.get(blob.digest)
        if known is None:
            raise SourceMissing(f"{self.name}: says nothing about {blob}")
        if isinstance(known, Link):
            return known
        raise known

    def _batch_around(self, blob: Blob) -> list[Blob]:
        place = self._places.get(blob.digest)
        return [blob] if place is None else self._order[place : place + BATCH_OBJECTS]

    def _batch(self, blobs: Sequence[Blob]) -> dict[str, Link | UpstreamError]:
        question = {
            "operation": "download",
            "transfers": ["basic"],
            "hash_algo": "sha256",
            "objects": [{"oid": blob.digest, "size": blob.size} for blob in blobs],
        }
        request = Request(
            f"{self._server.url}/objects/batch",
            "POST",
            {"Accept": _MEDIA_TYPE, "Content-Type": _MEDIA_TYPE, **self._server.headers},
            json.dumps(question).encode(),
        )
        with self._client.open(request, self._server.credential) as body:
            return read_batch(self._server, blobs, body.read_all())


def read_batch(server: LfsServer, blobs: Sequence[Blob], answer: bytes) -> dict[str, Link | UpstreamError]:
    """Read a batch answer: a link or an error for each blob that was asked for; others are passed over.

    Raises SourceUnavailable when it is not a batch answer at all.
    """
    asked = {blob.digest for blob in blobs}
    try:
        objects = json.loads(answer)["objects"]
        return {o["oid"]: _read_object(server, o) for o in objects if o.get("oid") in asked}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SourceUnavailable(f"{server.url}: not a batch answer: {error!r}") from error


def _read_object(server: LfsServer, document: Mapping[str, Any]) -> Link | UpstreamError:
    if "error" in document:
        error = document["error"]
        text = f"{server.url}: {document['oid']}: {error.get('code')} {error.get('message')}"
        return error_for_status(int(error.get("code", 500)), text, None)
    action = document["actions"]["download"]
    link = Link(str(action["href"]), {str(k): str(v) for k, v in (action.get("header") or {}).items()})
    return replace(link, expires_at=_expires_at(action))


def _expires_at(action: Mapping[str, Any]) -> float:
    if action.get("expires_in"):
        return time.time() + float(action["expires_in"])
    if action.get("expires_at"):
        return datetime.fromisoformat(str(action["expires_at"])).timestamp()
    return float("inf")
