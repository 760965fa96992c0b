"""A hub asked by its own protocol: what is believed of its answers, and who sees the token."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrortools import hubapi
from mirrortools.errors import AccessDenied, HostileTree, SourceMissing, SourceUnavailable, UpstreamError
from mirrortools.model import Blob, Entry, Manifest, RepoId, Revision
from mirrortools.upstreams.http import HttpClient
from mirrortools.upstreams.hub import Hub, read_listing, read_mirrors
from tests.delivery import git_blob, noise, sha256_blob
from tests.fakes import Heard, ScriptedServer, answer

COMMIT = "1" * 40
REPO = RepoId.parse("org/name")
LARGE, SMALL = noise(5000, 1), b"{}"
FILES = {
    "a b/model.safetensors": Entry(sha256_blob(LARGE), "2" * 40, 130),
    "config.json": Entry(git_blob(SMALL), git_blob(SMALL).digest),
}
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["path", "type", "oid", "size", "lfs", "mirrors", "x"]), inner, max_size=5)
    ),
)


@pytest.fixture
def hub() -> Iterator[Callable[..., tuple[Hub, ScriptedServer]]]:
    """Makes a hub on loopback that answers as a script says."""
    with ExitStack() as running:
        client = HttpClient(timeout_s=5)
        running.callback(client.close)

        def make(script: Callable[[Heard], bytes], token: str = "") -> tuple[Hub, ScriptedServer]:
            server = running.enter_context(ScriptedServer(script))
            return Hub(server.origin, REPO, client, token), server

        yield make


Maker = Callable[..., tuple[Hub, ScriptedServer]]


def test_what_the_api_tells_is_read_again() -> None:
    """Our own listing leads to the same entries, folders left out."""
    listing = next(each for each in hubapi.listings(Manifest(Revision(REPO, COMMIT), FILES, 0)) if not each.folder)

    assert read_listing(list(listing.recursive or ()), "u") == FILES


@given(json_values)
def test_any_other_answer_is_refused_as_one(document: Any) -> None:
    """A stranger may answer whatever it likes: it is a listing, or an error that is expected."""
    try:
        found = read_listing(document, "u")
    except UpstreamError:
        return
    assert all(isinstance(entry, Entry) for entry in found.values())
    assert isinstance(read_mirrors(document), list)


def test_mirrors_that_cannot_be_asked_count_for_nothing() -> None:
    """Only URLs of http and https are taken, each once without its slash at the end."""
    told = {"mirrors": ["https://a.example/", "ftp://b.example", 7, "http://[::1", "http://c.example"]}

    assert read_mirrors(told) == ["https://a.example", "http://c.example"]


def test_a_listing_of_several_pages(hub: Maker) -> None:
    """Each page names the next one; whatever host it names, the one that is asked stays the same."""
    listing = [
        {"type": "file", "oid": "2" * 40, "size": 5000, "path": "a", "lfs": {"oid": "3" * 64, "size": 5000}},
        {"type": "directory", "oid": "2" * 40, "size": 0, "path": "d"},
    ]

    def script(heard: Heard) -> bytes:
        if "cursor" in heard.target:
            return answer(json.dumps([{"type": "file", "oid": "4" * 40, "size": 2, "path": "b"}]).encode())
        further = '<https://other.example/api/models/org/name/tree/x?cursor=2>; rel="next"'
        return answer(json.dumps(listing).encode(), Link=further)

    asked, server = hub(script)
    manifest = asked.manifest(COMMIT)

    assert manifest.files == {
        "a": Entry(Blob("sha256", "3" * 64, 5000), "2" * 40, 0),
        "b": Entry(Blob("git", "4" * 40, 2), "4" * 40),
    }
    assert server.heard[1].target == "/api/models/org/name/tree/x?cursor=2"


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", ".git/config", "a\\b", "a\u202eb"])
def test_names_that_could_hurt_are_refused(hub: Maker, path: str) -> None:
    """Nothing can be written outside of the folder."""
    listing = json.dumps([{"type": "file", "oid": "4" * 40, "size": 2, "path": path}]).encode()
    asked, _ = hub(lambda _heard: answer(listing))

    with pytest.raises(HostileTree):
        asked.manifest(COMMIT)


def test_a_commit_is_not_asked_for_and_a_ref_is(hub: Maker) -> None:
    """A slash of a branch is quoted; what is no commit is not taken for one."""
    asked, server = hub(
        lambda heard: answer(json.dumps({"sha": COMMIT if "feature" in heard.target else "main"}).encode())
    )

    assert asked.commit(COMMIT) == COMMIT
    assert asked.commit("feature/x") == COMMIT
    assert [heard.target for heard in server.heard] == ["/api/models/org/name/revision/feature%2Fx"]
    with pytest.raises(SourceUnavailable, match="a mirror, or a hub"):
        asked.commit("main")


def test_files_are_read_by_their_paths_with_the_token(hub: Maker) -> None:
    """Ranges, and many at once; a blob without a path is not there."""

    def script(heard: Heard) -> bytes:
        if heard.headers.get("authorization") != "Bearer secret":
            return answer(status=401)
        if "range" in heard.headers:
            first, last = map(int, heard.headers["range"].removeprefix("bytes=").split("-"))
            return answer(LARGE[first : last + 1], 206, Content_Range=f"bytes {first}-{last}/{len(LARGE)}")
        return answer(SMALL)

    asked, server = hub(script, token="secret")
    source = asked.bytes(COMMIT, {entry.blob: path for path, entry in FILES.items()})
    buffer = bytearray(100)
    with source.open(sha256_blob(LARGE), 1000, 1100) as reader:
        assert (reader.start, reader.readinto(memoryview(buffer))) == (1000, 100)

    assert bytes(buffer) == LARGE[1000:1100]
    assert list(source.read_many([git_blob(SMALL)])) == [(git_blob(SMALL), SMALL)]
    assert server.heard[0].target == f"/org/name/resolve/{COMMIT}/a%20b/model.safetensors"
    with pytest.raises(SourceMissing), source.open(sha256_blob(b"other"), 0, 5):
        pass


def test_hosts_that_know_no_mirrors_name_none(hub: Maker) -> None:
    """A hub of another kind answers 404, or wants a token for what it does not have."""
    for status in (404, 401):
        assert hub(lambda _heard, status=status: answer(status=status))[0].mirrors() == []


def test_a_host_is_probed_for_a_commit(hub: Maker) -> None:
    """One byte tells that it has the commit and gives content."""
    hub(lambda _heard: answer(b"x", 206, Content_Range="bytes 0-0/9"))[0].probe(COMMIT, "x")
    for status, kind in ((404, SourceMissing), (403, AccessDenied), (500, SourceUnavailable)):
        with pytest.raises(kind):
            hub(lambda _heard, status=status: answer(status=status))[0].probe(COMMIT, "x")
