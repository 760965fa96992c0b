"""Reading what links lead to: ranges of one version of a file, many small files at once, small documents."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from mirrortools.model import Blob
from mirrortools.upstreams.base import Reader
from mirrortools.upstreams.http import HttpClient, Request
from mirrortools.upstreams.links import Link
from mirrortools.upstreams.versions import Versions


class Ranges:
    """Reads over one client, and remembers which version of each blob's file it has read. Thread-safe."""

    def __init__(self, client: HttpClient) -> None:
        self._client = client
        self._versions = Versions()

    @contextlib.contextmanager
    def read(self, link: Link, blob: Blob, start: int, stop: int) -> Iterator[Reader]:
        """Read a range of the version that was read before; when the file is another one now, of that one.

        A server that says so sends all of it (RFC 9110, 13.1.5). So does one that does not know If-Range, or ranges.
        Raises UpstreamError.
        """
        expected = "" if (start, stop) == (0, blob.size) else self._versions.expected(blob)
        with contextlib.ExitStack() as stack:
            body = stack.enter_context(self._client.open(_request(link, blob, start, stop, expected)))
            if expected and body.start != start:
                self._versions.doubt(blob)
                stack.close()
                body = stack.enter_context(self._client.open(_request(link, blob, start, stop)))
            self._versions.note(blob, body.version)
            yield body

    def read_many(self, wanted: Sequence[tuple[Blob, Link]]) -> Iterator[tuple[Blob, bytes]]:
        """Read whole small blobs, several requests under way at once. Raises UpstreamError at the first trouble."""
        requests = [Request(link.url, headers=link.headers, credential=link.credential) for _, link in wanted]
        limit = max(blob.size for blob, _ in wanted)
        for content, (blob, _) in zip(self._client.read_many(requests, limit), wanted, strict=True):
            yield blob, content

    def document(self, link: Link) -> object:
        """Read JSON; None when it is something else. Raises UpstreamError."""
        with self._client.open(Request(link.url, headers=link.headers, credential=link.credential)) as body:
            return body.json()


def _request(link: Link, blob: Blob, start: int, stop: int, version: str = "") -> Request:
    headers = {name: value for name, value in link.headers.items() if name.lower() not in ("range", "if-range")}
    if (start, stop) != (0, blob.size):
        headers |= {"Range": f"bytes={start}-{stop - 1}"} | ({"If-Range": version} if version else {})
    return Request(link.url, headers=headers, credential=link.credential)
