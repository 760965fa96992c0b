"""Real servers whose files change under us."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from mirrortools.config import Source
from mirrortools.desk import Desk, Progress
from mirrortools.fetch import fetch
from mirrortools.model import Blob, RepoId
from mirrortools.places import Terms
from mirrortools.store import Store
from mirrortools.upstreams import ByteSource, Clients, GitMirror, Reader, open_upstream
from mirrortools.upstreams.lfs import LfsBytes, LfsServer
from tests.delivery import noise, sha256_blob
from tests.servers import GitLfsUpstream, Nginx, free_port
from tests.servers.nginx import user_directive

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


def test_nothing_of_what_a_stalled_connection_brought_comes_again(
    upstream: GitLfsUpstream, repo: str, tmp_path: Path, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stops in the middle of a segment; what nginx sends in all is as long as the file."""
    monkeypatch.setattr("mirrortools.flow._STALLED_S", 0.3)
    upstream.commit(repo, {"model.safetensors": CONTENT})
    upstream.forget()
    upstream.stall_after((3 << 20) + 500_000, times=1)
    source, progress = bytes_of(Source(upstream.url), repo, tmp_path, clients), Progress()
    desk = desk_for(tmp_path / "root", source, workers=2)
    fetch({BLOB: "model.safetensors"}, desk, progress)

    assert desk.store.path(BLOB).read_bytes() == CONTENT
    assert progress.fetched_bytes == len(CONTENT)
    clients.close()
    assert sum(request.body_bytes for request in upstream.requests() if request.route == "bytes") == len(CONTENT)


def test_nothing_of_what_a_broken_connection_brought_comes_again(
    upstream: GitLfsUpstream, repo: str, tmp_path: Path, clients: Clients
) -> None:
    """Neither when every connection is cut in the middle of its first segment: the next one goes on behind that."""
    upstream.commit(repo, {"model.safetensors": CONTENT})
    upstream.forget()
    upstream.cut_after(700_000)
    source, progress = bytes_of(Source(upstream.url), repo, tmp_path, clients), Progress()
    desk = replace(desk_for(tmp_path / "root", source), wait=lambda _event, _seconds: None)
    fetch({BLOB: "model.safetensors"}, desk, progress)

    assert desk.store.path(BLOB).read_bytes() == CONTENT
    assert progress.fetched_bytes == len(CONTENT)
    assert sum(request.body_bytes for request in upstream.requests() if request.route == "bytes") == len(CONTENT)


@dataclass(frozen=True)
class Uneven:
    """A server of blobs whose every second connection is slow; `sent` says what was sent of each range."""

    url: str
    log: Path

    def source(self, name: str, clients: Clients) -> LfsBytes:
        """Its bytes, under a name."""
        return LfsBytes(name, lambda: LfsServer(self.url), clients.trusting(None))

    def sent(self) -> list[tuple[int, int]]:
        """For each range how many bytes were asked for and sent."""
        lines = [re.fullmatch(r"bytes=(\d+)-(\d+) (\d+)", line) for line in self.log.read_text().splitlines()]
        return [(int(line[2]) - int(line[1]) + 1, int(line[3])) for line in lines if line]


@pytest.fixture
def uneven(tmp_path: Path) -> Iterator[Uneven]:
    """Nginx with one blob, and a batch answer that leads to it."""
    folder, port = tmp_path / "uneven", free_port()
    folder.mkdir(mode=0o755)
    tmp_path.chmod(0o755)
    (folder / BLOB.digest).write_bytes(CONTENT)
    href = f"http://127.0.0.1:{port}/{BLOB.digest}"
    batch = json.dumps({"objects": [{"oid": BLOB.digest, "actions": {"download": {"href": href}}}]})
    text = _UNEVEN.format(user=user_directive(), folder=folder, port=port, batch=batch)
    with Nginx(text, folder, [port]):
        yield Uneven(f"http://127.0.0.1:{port}/lfs", folder / "access.log")


_UNEVEN = """\
{user}
pid {folder}/nginx.pid;
events {{}}
http {{
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    log_format ranges '$http_range $body_bytes_sent';
    access_log {folder}/access.log ranges;
    map $connection $rate {{ ~[02468]$ 32k; default 8m; }}
    server {{
        listen 127.0.0.1:{port};
        root {folder};
        location = /lfs/objects/batch {{ default_type application/json; return 200 '{batch}'; }}
        location / {{ limit_rate $rate; }}
    }}
}}
"""


def test_slow_connections_are_helped_by_those_that_are_done(uneven: Uneven, tmp_path: Path, clients: Clients) -> None:
    """Over real connections: what is taken from a slow one is not sent by it, and all that came is counted."""
    desk, progress = desk_for(tmp_path / "root", uneven.source("uneven", clients), workers=4), Progress()
    fetch({BLOB: "model.safetensors"}, desk, progress)

    assert desk.store.path(BLOB).read_bytes() == CONTENT
    assert len(CONTENT) <= progress.fetched_bytes <= len(CONTENT) + 4 * SEGMENT
    clients.close()
    assert any(sent < asked for asked, sent in uneven.sent())


def test_two_real_sources_bring_one_blob_together(uneven: Uneven, tmp_path: Path, clients: Clients) -> None:
    """The second one is asked for a part beside the first one."""
    sources = uneven.source("first", clients), uneven.source("second", clients)
    terms = {"second": Terms("second", together=True)}
    desk, progress = replace(desk_for(tmp_path / "root", *sources, workers=4), terms=terms), Progress()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mirrortools.pace._BESIDE_WINDOW_S", 0.05)
        fetch({BLOB: "model.safetensors"}, desk, progress)

    assert desk.store.path(BLOB).read_bytes() == CONTENT
    assert set(progress.from_source) == {"first", "second"}
