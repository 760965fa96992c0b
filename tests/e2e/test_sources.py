"""Real servers whose files change under us."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mirrortools.config import Source
from mirrortools.desk import Desk, Progress
from mirrortools.fetch import fetch
from mirrortools.model import Blob, RepoId
from mirrortools.store import Store
from mirrortools.upstreams import ByteSource, Clients, GitMirror, Reader, open_upstream
from mirrortools.upstreams.lfs import LfsBytes
from tests.delivery import noise, sha256_blob
from tests.servers import GitLfsUpstream

CONTENT = noise(12 << 20, 5)
BLOB = sha256_blob(CONTENT)
SEGMENT = 1 << 20


@pytest.fixture
def clients() -> Iterator[Clients]:
    """What upstreams share."""
    made = Clients()
    yield made
    made.close()


def bytes_of(source: Source, repo: str, folder: Path, clients: Clients) -> ByteSource:
    """Where the bytes of a repository's blobs come from."""
    return open_upstream(source, RepoId.parse(repo), GitMirror(folder / "mirror.git"), clients).bytes


def desk_for(root: Path, *sources: ByteSource, workers: int | None = 1) -> Desk:
    """A desk with segments of 1 MiB."""
    return Desk(Store(root), root / "partial", root / "quarantine", sources, workers, SEGMENT)


def replace_file(upstream: GitLfsUpstream, content: bytes, written_s: int) -> None:
    """Put another file in the place of the blob's; nginx makes an ETag of its size and the second of writing."""
    for path in upstream.objects(BLOB.digest):
        beside = path.with_name("beside")
        beside.write_bytes(content)
        os.utime(beside, (written_s, written_s))
        beside.replace(path)


@dataclass
class Changing:
    """A source whose server's file is replaced by the right one when `after` ranges have been asked for."""

    inner: LfsBytes
    upstream: GitLfsUpstream
    after: int
    asked: list[tuple[int, int]] = field(default_factory=list)

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    @contextmanager
    def open(self, blob: Blob, start: int, stop: int) -> Iterator[Reader]:
        """Read a range."""
        if len(self.asked) == self.after:
            replace_file(self.upstream, CONTENT, written_s=2_000)
        self.asked.append((start, stop))
        with self.inner.open(blob, start, stop) as reader:
            yield reader


def test_a_file_that_changes_between_two_ranges_is_noticed_and_made_good(
    upstream: GitLfsUpstream, repo: str, tmp_path: Path, clients: Clients, caplog: pytest.LogCaptureFixture
) -> None:
    """The server answers If-Range with all of the new file; that is left, and what came of the old one comes again."""
    upstream.commit(repo, {"model.safetensors": CONTENT})
    wrong = CONTENT[:100] + bytes([CONTENT[100] ^ 0xFF]) + CONTENT[101:]
    replace_file(upstream, wrong, written_s=1_000)
    upstream.forget()
    inner = bytes_of(Source(upstream.url), repo, tmp_path, clients)
    assert isinstance(inner, LfsBytes)
    source = Changing(inner, upstream, after=1)
    desk = desk_for(tmp_path / "root", source, workers=1)  # type: ignore[arg-type]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mirrortools.fetch.SPAN_SEGMENTS", 4)
        fetch({BLOB: "model.safetensors"}, desk, Progress())

    assert desk.store.path(BLOB).read_bytes() == CONTENT
    assert source.asked == [(0, 4 << 20), (4 << 20, 8 << 20), (8 << 20, 12 << 20), (0, 4 << 20)]
    assert [request.status for request in upstream.requests() if request.route == "bytes"] == [206, 200, 206, 206, 206]
    assert "model.safetensors changed while it was fetched" in caplog.text
