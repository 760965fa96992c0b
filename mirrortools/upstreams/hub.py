"""One repository of a model hub, or of a mirror, asked for by the Hub's protocol alone: static files and Range.

What is asked is what `hf download` asks: the commit of a revision, its listing, and files by their paths. A mirror of
our own kind tells more: which other hosts have the repository, and the hashes of a blob's segments.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final
from urllib.parse import quote, urlsplit

from mirrortools.errors import AccessDenied, HostileTree, SourceMissing, SourceUnavailable, UpstreamError
from mirrortools.model import COMMIT, Blob, Entry, Manifest, RepoId, Revision, quote_ref
from mirrortools.upstreams.answers import origin_of, shown
from mirrortools.upstreams.base import Reader
from mirrortools.upstreams.http import Credential, HttpClient, Request
from mirrortools.upstreams.links import Link
from mirrortools.upstreams.ranges import Ranges

_NEXT: Final = re.compile(r'<([^<>]*)>\s*;\s*rel="?next"?')
_MOST_PAGES: Final = 10_000
_MALFORMED: Final = (ValueError, KeyError, TypeError, AttributeError)


class Hub:
    """A repository at `base`, the URL that HF_ENDPOINT would have. Thread-safe.

    `token` is sent to that host and to no other.
    """

    def __init__(self, base: str, repo: RepoId, client: HttpClient, token: str = "") -> None:
        self.base = base.rstrip("/")
        self.name = f"{self.base}/{repo.url_path}"
        self._repo = repo
        self._client = client
        self._ranges = Ranges(client)
        self._credential = Credential(origin_of(base), f"Bearer {token}") if token else None

    def commit(self, revision: str) -> str:
        """The commit that a branch, tag or commit leads to; a commit is its own and not asked for.

        Raises UpstreamError.
        """
        if COMMIT.match(revision):
            return revision
        url = f"{self.base}/api/{self._repo.path}/revision/{quote_ref(revision)}"
        document = self._document(url)
        commit = document.get("sha") if isinstance(document, dict) else None
        if not isinstance(commit, str) or not COMMIT.match(commit):
            raise SourceUnavailable(f"{shown(url)}: tells no commit; is {self.base} a mirror, or a hub?")
        return commit

    def manifest(self, commit: str) -> Manifest:
        """What a commit holds, page by page. Raises UpstreamError, HostileTree for names that are refused."""
        files: dict[str, Entry] = {}
        url = f"{self.base}/api/{self._repo.path}/tree/{commit}?recursive=true"
        for _ in range(_MOST_PAGES):
            with self._client.open(Request(url, credential=self._credential)) as page:
                following = _NEXT.search(page.header("link"))
                files |= read_listing(page.json(), shown(url))
            if not following:
                return Manifest(Revision(self._repo, commit), files, 0)
            further = urlsplit(following[1])  # of a proxy's making, perhaps: the host is the one that is asked
            url = urlsplit(url)._replace(path=further.path, query=further.query).geturl()
        raise SourceUnavailable(f"{shown(url)}: a listing of more than {_MOST_PAGES} pages")

    def mirrors(self) -> list[str]:
        """The other hosts that have the repository, the best first; none when the host tells of none.

        Raises UpstreamError when it cannot be asked.
        """
        try:
            return read_mirrors(self._document(f"{self.base}/{self._repo.path}/meta/mirrors.json"))
        except (SourceMissing, AccessDenied):
            return []

    def probe(self, commit: str, path: str) -> None:
        """Read the first byte of a file that is not empty. Raises UpstreamError when it does not come."""
        headers = {"Range": "bytes=0-0"}
        url = f"{self.name}/resolve/{commit}/{quote(path)}"
        with self._client.open(Request(url, headers=headers, credential=self._credential)) as body:
            if not body.readinto(memoryview(bytearray(1))):
                raise SourceUnavailable(f"{shown(url)}: sends nothing")

    def bytes(self, commit: str, paths: Mapping[Blob, str]) -> HubBytes:
        """Where the content of a commit's files is read; `paths` has one path for each blob."""

        def link(blob: Blob) -> Link:
            if blob not in paths:
                raise SourceMissing(f"{self.name}: has no file for {blob}")
            return Link(f"{self.name}/resolve/{commit}/{quote(paths[blob])}", credential=self._credential)

        return HubBytes(self.base, link, self._segments_of, self._ranges, self._client.break_off)

    def _segments_of(self, blob: Blob) -> object:
        if blob.algorithm != "sha256":
            return None
        url = f"{self.base}/{blob.path.replace('blobs/sha256', 'blobs/segments', 1)}"
        return self._document(url)

    def _document(self, url: str) -> object:
        return self._ranges.document(Link(url, credential=self._credential))


class HubBytes:
    """Reads blobs by the paths of files that have them."""

    def __init__(
        self,
        name: str,
        link: Callable[[Blob], Link],
        segments_of: Callable[[Blob], object],
        ranges: Ranges,
        break_off: Callable[[], None],
    ) -> None:
        self.name = name
        self._link = link
        self._segments_of = segments_of
        self._ranges = ranges
        self._break_off = break_off

    def prepare(self, blobs: Sequence[Blob]) -> None:
        """Nothing has to be asked before."""

    def break_off(self) -> None:
        """End what other threads read."""
        self._break_off()

    def read_many(self, blobs: Sequence[Blob]) -> Iterator[tuple[Blob, bytes]]:
        """Read whole small blobs, several requests under way at once. Raises UpstreamError at the first trouble."""
        return self._ranges.read_many([(blob, self._link(blob)) for blob in blobs])

    def segment_hashes(self, blob: Blob) -> object:
        """What a mirror of our own kind says of a blob's segments. Raises UpstreamError."""
        return self._segments_of(blob)

    def open(self, blob: Blob, start: int, stop: int) -> AbstractContextManager[Reader]:
        """Read the bytes [start, stop). Raises UpstreamError."""
        return self._ranges.read(self._link(blob), blob, start, stop)


def read_listing(document: Any, url: str) -> dict[str, Entry]:
    """The files of one page of a tree answer, by path. Raises SourceUnavailable when it is none, HostileTree."""
    try:
        return {str(item["path"]): _entry(item) for item in document if item["type"] != "directory"}
    except HostileTree as error:
        raise HostileTree(f"{url}: {error}") from error
    except _MALFORMED as error:
        raise SourceUnavailable(f"{url}: not a listing of files: {repr(error)[:200]}") from error


def _entry(item: Mapping[str, Any]) -> Entry:
    if lfs := item.get("lfs"):
        return Entry(
            Blob("sha256", str(lfs["oid"]), int(lfs["size"])), str(item["oid"]), int(lfs.get("pointerSize") or 0)
        )
    return Entry(Blob("git", str(item["oid"]), int(item["size"])), str(item["oid"]))


def read_mirrors(document: Any) -> list[str]:
    """The base URLs of mirrors.json that can be asked; anything else counts for nothing."""
    listed = document.get("mirrors") if isinstance(document, dict) else None
    found = []
    for url in listed if isinstance(listed, list) else []:
        with contextlib.suppress(UpstreamError):
            origin_of(str(url))
            found.append(str(url).rstrip("/"))
    return found
