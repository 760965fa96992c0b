"""A mirror of a mirror: what changed inside a large file is all that moves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.delivery import noise
from tests.mirror import Mirror
from tests.servers import GitLfsUpstream, free_port
from tests.servers.ports import http_answers
from tests.servers.process import Process

SEGMENT = 4 << 20


@pytest.fixture
def chain(tmp_path: Path, upstream: GitLfsUpstream, repo: str) -> Iterator[tuple[Mirror, Mirror]]:
    """A mirror of `upstream`, served by nginx, and a mirror of that mirror."""
    port = free_port()
    first = Mirror(tmp_path / "first", upstream.url, listen=f"127.0.0.1:{port}")
    second = Mirror(tmp_path / "second", f"http://127.0.0.1:{port}")
    for mirror in (first, second):
        mirror.add(repo)
    upstream.commit(repo, {"model.safetensors": noise(40 << 20), "config.json": b"{}"})
    first.sync()
    serving = Process(first.command("serve"), tmp_path / "first.log")
    try:
        serving.start(lambda: http_answers(port))
        second.sync()
        yield first, second
    finally:
        serving.stop()


def test_only_changed_segments_are_fetched(chain: tuple[Mirror, Mirror], upstream: GitLfsUpstream, repo: str) -> None:
    """The rest is taken from the revision before, and the whole is verified as ever."""
    first, second = chain
    changed = bytearray(noise(40 << 20))
    changed[2 * SEGMENT + 17] ^= 1
    changed[-1] ^= 1
    upstream.commit(repo, {"model.safetensors": bytes(changed)})
    first.sync()

    outcome = second.sync()

    assert second.served(repo)["model.safetensors"] == changed
    assert outcome["fetched_bytes"] == 2 * SEGMENT
    assert outcome["reused_bytes"] == (40 << 20) - 2 * SEGMENT


def test_hashes_that_lie_cost_time_and_nothing_else(
    chain: tuple[Mirror, Mirror], upstream: GitLfsUpstream, repo: str
) -> None:
    """A mirror whose segment hashes are of another content is found out by the SHA-256 of the whole."""
    first, second = chain
    changed = noise(40 << 20, 5)
    upstream.commit(repo, {"model.safetensors": changed})
    hashes = first.root / "public" / "blobs" / "segments"
    (old,) = (path for path in hashes.rglob("*") if path.is_file())
    first.sync()
    (new,) = (path for path in hashes.rglob("*") if path.is_file() and path != old)
    new.write_bytes(old.read_bytes())

    outcome = second.sync()

    assert second.served(repo)["model.safetensors"] == changed
    assert outcome["fetched_bytes"] == len(changed)
