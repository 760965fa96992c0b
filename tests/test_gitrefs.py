"""The refs of git hosts on http(s): what answers mean, what is asked, and no trust in the other side."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrortools.errors import AccessDenied, RateLimited, SourceMissing, SourceUnavailable, UpstreamError
from mirrortools.upstreams.base import RemoteRefs
from mirrortools.upstreams.budget import Budget
from mirrortools.upstreams.git import GitMirror, Remote
from mirrortools.upstreams.gitrefs import ask_refs, read_advertisement, read_info_refs
from mirrortools.upstreams.http import Credential, HttpClient, Request
from tests.fakes import Heard, ScriptedServer, answer
from tests.servers import GitLfsUpstream
from tests.servers.author import run_git
from tests.servers.dumb import DumbHost
from tests.strategies import digests, trials

URL = "https://h.example/acme/tiny"
ONE, TWO, THREE = "1" * 40, "2" * 40, "3" * 40
CAPABILITIES = b"multi_ack symref=HEAD:refs/heads/main object-format=sha1 agent=git/2.39.5"
FLUSH = b"0000"
SERVICE = b"001e# service=git-upload-pack\n0000"
MAIN = RemoteRefs({"refs/heads/main": ONE}, {}, "refs/heads/main")


def packet(content: bytes) -> bytes:
    """A pkt-line."""
    return b"%04x%s" % (len(content) + 4, content)


def advertisement(refs: Mapping[str, str], capabilities: bytes = CAPABILITIES) -> bytes:
    """What git-http-backend answers: the first line has the capabilities."""
    pairs = list(refs.items()) or [("capabilities^{}", "0" * 40)]
    first, *lines = [f"{oid} {name}".encode() for name, oid in pairs]
    return b"".join([SERVICE, *(packet(line + b"\n") for line in (first + b"\0" + capabilities, *lines)), FLUSH])


@pytest.fixture
def client() -> Iterator[HttpClient]:
    """A client without a budget."""
    with closing(HttpClient()) as made:
        yield made


# What answers mean


def test_refs_tags_and_the_default_branch_are_read() -> None:
    """Names that cannot be served are passed over, and so is HEAD."""
    names = {"HEAD": ONE, "refs/heads/main": ONE, "refs/heads/a\tb": TWO, "refs/tags/v1": TWO, "refs/tags/v1^{}": THREE}
    found = read_advertisement(URL, advertisement(names))

    assert found == RemoteRefs(
        {"refs/heads/main": ONE, "refs/tags/v1": TWO}, {"refs/tags/v1": THREE}, "refs/heads/main"
    )


@given(st.dictionaries(st.from_regex(r"refs/heads/[a-z]{1,6}", fullmatch=True), digests(40), max_size=20))
@trials(60)
def test_what_is_advertised_is_read(refs: Mapping[str, str]) -> None:
    """In both forms."""
    lines = "".join(f"{oid}\t{name}\n" for name, oid in refs.items()).encode()

    assert read_advertisement(URL, advertisement(refs)).oids == refs
    assert read_info_refs(URL, lines).oids == refs


@pytest.mark.parametrize(
    "text", [advertisement({}), SERVICE + FLUSH, FLUSH, advertisement({}, b"").replace(b" \0", b" ")]
)
def test_an_empty_repository_has_no_refs(text: bytes) -> None:
    """As new and as old hosts say it."""
    assert read_advertisement(URL, text) == RemoteRefs({}, {}, read_advertisement(URL, text).head)
    assert read_info_refs(URL, b"") == RemoteRefs({}, {}, "")


def test_a_head_that_is_no_branch_is_none() -> None:
    """A detached one has no symref; shallow hosts tell their borders, which are no refs."""
    text = advertisement({"HEAD": ONE, "refs/heads/main": ONE}, b"multi_ack")
    text = text.removesuffix(FLUSH) + packet(b"shallow " + TWO.encode()) + FLUSH

    assert read_advertisement(URL, text) == RemoteRefs({"refs/heads/main": ONE}, {}, "")


@pytest.mark.parametrize(
    ("said", "kind", "word"),
    [
        (b"ERR Repository not found.", SourceMissing, "check the name of the repository"),
        (b"ERR access denied or repository not exported", SourceUnavailable, "access denied"),
        (b"ERR \xff\n\0", SourceUnavailable, URL),
    ],
)
def test_a_host_that_says_what_is_wrong_is_understood(said: bytes, kind: type[UpstreamError], word: str) -> None:
    """At the beginning, behind the service's name and between refs; without the end that refs have."""
    for text in (packet(said), SERVICE + packet(said), advertisement({"refs/heads/main": ONE})[:-4] + packet(said)):
        with pytest.raises(UpstreamError, match=word) as caught:
            read_advertisement(URL, text)
        assert type(caught.value) is kind


@pytest.mark.parametrize(
    "text",
    [
        b"",
        SERVICE,
        SERVICE[:-4],
        advertisement({"refs/heads/main": ONE})[:-4],
        advertisement({"refs/heads/main": ONE}) + FLUSH,
        advertisement({"refs/heads/main": ONE}) + b"more",
        SERVICE + b"0003" + FLUSH,
        SERVICE + b"0001" + FLUSH,
        SERVICE + b"ffff" + FLUSH,
        SERVICE + b"-001" + FLUSH,
        SERVICE + packet(b"x" * 40 + b" refs/heads/main") + FLUSH,
        SERVICE + packet(ONE.encode()) + FLUSH,
        SERVICE + packet(ONE.encode() + b" ") + FLUSH,
        packet(b"version 2\n") + packet(b"ls-refs\n") + FLUSH,
        advertisement({"refs/heads/main": ONE}, b"object-format=sha256"),
        advertisement({"refs/heads/main": ONE + "1" * 24}, b"object-format=sha256"),
    ],
)
def test_an_advertisement_that_is_none_is_refused(text: bytes) -> None:
    """What is cut off, too: a ref that is missing from it would count as gone."""
    with pytest.raises(SourceUnavailable, match=URL):
        read_advertisement(URL, text)


@pytest.mark.parametrize("text", [b"<html>", b"<html>\n", ONE.encode() + b"\trefs/heads/main", b"\n", b"\0\xff\n"])
def test_a_page_is_not_taken_for_refs(text: bytes) -> None:
    """Nor is a list whose last line is cut off."""
    with pytest.raises(SourceUnavailable, match="not what a git host says"):
        read_info_refs(URL, text)


def outcome(read: Callable[[str, bytes], RemoteRefs], text: bytes) -> RemoteRefs | UpstreamError:
    """What a reader gives or raises."""
    try:
        return read(URL, text)
    except UpstreamError as error:
        return error


_PARTS = st.sampled_from(
    [SERVICE, FLUSH, b"0001", b"0004", b"001", b"\t", b"\n", b"\0", b"ERR ", ONE.encode(), b" refs/heads/main", b"^{}"]
)
_PACKETS = st.lists(_PARTS | st.binary(max_size=6), max_size=5).map(b"".join).map(packet)


@given(st.binary(max_size=80) | st.lists(_PARTS | _PACKETS | st.binary(max_size=6), max_size=9).map(b"".join))
@trials(600)
def test_any_bytes_are_refs_or_an_error_of_the_source(text: bytes) -> None:
    """Never another exception, whichever form they are taken for."""
    for found in (outcome(read_advertisement, text), outcome(read_info_refs, text)):
        if isinstance(found, RemoteRefs):
            assert all(name.startswith("refs/") and len(oid) == 40 for name, oid in found.oids.items())
        else:
            assert str(found).startswith(URL)


@given(st.integers(0, 400), st.integers(0, 255))
@trials(300)
def test_a_flipped_byte_is_no_crash(place: int, value: int) -> None:
    """An advertisement with one byte that is not as it was."""
    text = bytearray(advertisement({"HEAD": ONE, "refs/heads/main": ONE, "refs/tags/v1": TWO}))
    text[place % len(text)] = value
    found = outcome(read_advertisement, bytes(text))

    assert isinstance(found, RemoteRefs) or str(found).startswith(URL)


# What is asked


def test_one_request_tells_all_and_its_connection_is_kept(client: HttpClient) -> None:
    """Without a protocol version, under the name that hosts know git by."""
    with ScriptedServer(lambda _asked: answer(advertisement({"refs/heads/main": ONE}))) as server:
        found = ask_refs(client, f"{server.origin}/acme/tiny", None)
        branch = found.default_branch()
        with client.open(Request(f"{server.origin}/next")) as body:
            body.read_all()

    assert (found, branch) == (MAIN, "refs/heads/main")
    assert [heard.target for heard in server.heard] == ["/acme/tiny/info/refs?service=git-upload-pack", "/next"]
    assert server.heard[0].headers["user-agent"].startswith("git/")
    assert "git-protocol" not in server.heard[0].headers
    assert {heard.connection for heard in server.heard} == {0}


@pytest.mark.parametrize(("said", "branch"), [(b"ref: refs/heads/dev\n", "refs/heads/dev"), (ONE.encode(), "")])
def test_a_host_that_serves_files_is_asked_for_its_head_when_it_matters(
    client: HttpClient, said: bytes, branch: str
) -> None:
    """Not before; one without that file has none."""
    files = {"/x/info/refs": f"{ONE}\trefs/heads/dev\n".encode(), "/x/HEAD": said}

    def serve(asked: Heard) -> bytes:
        path = asked.target.partition("?")[0]
        return answer(files[path]) if path in files else answer(status=404)

    with ScriptedServer(serve) as server:
        found = ask_refs(client, f"{server.origin}/x", None)
        first = [heard.target for heard in server.heard]
        told = found.default_branch()
        del files["/x/HEAD"]
        untold = found.default_branch()

    assert found.oids == {"refs/heads/dev": ONE}
    assert first == ["/x/info/refs?service=git-upload-pack"]
    assert (told, untold) == (branch, "")


def test_each_request_is_one_question_of_the_budget(tmp_path: Path) -> None:
    """One for a host that speaks git's protocol, one more for the HEAD of another."""

    def script(heard: Heard) -> bytes:
        return answer(b"ref: refs/heads/x\n" if heard.target == "/x/HEAD" else b"")

    with closing(HttpClient(budget=Budget(tmp_path, 100))) as client, ScriptedServer(script) as server:
        found = ask_refs(client, f"{server.origin}/x", None)
        asked = [questions(tmp_path)]
        found.default_branch()
        asked.append(questions(tmp_path))

    assert asked == [1, 2]


def questions(folder: Path) -> int:
    """How many questions a budget has counted for the only host."""
    [file] = folder.iterdir()
    return sum(json.loads(file.read_text())["slots"].values())


@pytest.mark.parametrize(
    ("said", "kind", "word"),
    [
        (answer(status=401), AccessDenied, "token_file"),
        (answer(status=403), AccessDenied, "token_file"),
        (answer(status=407), AccessDenied, "https_proxy"),
        (answer(status=404), SourceMissing, "check the name of the repository"),
        (answer(status=429, Retry_After="7"), RateLimited, "7 s"),
        (answer(status=503), SourceUnavailable, "503"),
        (answer(b"<html>sign in</html>\n"), SourceUnavailable, "check the `source`"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", SourceUnavailable, "does not speak HTTP"),
    ],
)
def test_refusals_are_told_with_what_to_do(
    client: HttpClient, said: bytes, kind: type[UpstreamError], word: str
) -> None:
    """By their meaning, with the repository's address."""
    answers = iter([said])
    with (
        ScriptedServer(lambda _asked: next(answers, None)) as server,
        pytest.raises(UpstreamError, match=word) as caught,
    ):
        ask_refs(client, f"{server.origin}/acme/tiny", None)

    assert type(caught.value) is kind
    assert str(caught.value).startswith(f"{server.origin}/acme/tiny")


def test_a_redirect_is_followed_without_a_credential_only(client: HttpClient) -> None:
    """As git does, who fetches from there afterwards: the token is never seen elsewhere."""
    target = "/there/info/refs?service=git-upload-pack"
    refs = ScriptedServer(lambda _asked: answer(advertisement({"refs/heads/main": ONE})))
    with refs as other, ScriptedServer(lambda _asked: answer(status=301, Location=other.origin + target)) as server:
        found = ask_refs(client, f"{server.origin}/here", None)
        secret = Credential(("http", "127.0.0.1", server.port), "Basic c2VjcmV0")
        with pytest.raises(SourceUnavailable, match="configure that address instead"):
            ask_refs(client, f"{server.origin}/here", secret)

    assert found == MAIN
    assert server.heard[1].headers["authorization"] == "Basic c2VjcmV0"
    assert len(other.heard) == 1
    assert "authorization" not in other.heard[0].headers


# Real hosts


def test_a_real_host_tells_what_git_is_told(upstream: GitLfsUpstream, repo: str, tmp_path: Path) -> None:
    """Branches, both kinds of tags, the default branch; an empty repository; one that is not there."""
    upstream.commit(repo, {"a.txt": b"a"}, tag="v1")
    upstream.branch(repo, "feature/x", "HEAD")
    upstream.tag(repo, "light", "HEAD", annotated=False)
    upstream.author(f"{repo}-empty")
    mirror = GitMirror(tmp_path / "m.git")
    with closing(HttpClient()) as client:
        for name in (repo, f"{repo}-empty"):
            url = f"{upstream.url}/{name}"

            assert ask_refs(client, url, None) == mirror.remote_refs(Remote(url, {}))
        with pytest.raises(SourceMissing, match="check the name"):
            ask_refs(client, f"{upstream.url}/{repo}-none", None)


def test_a_dumb_host_tells_what_git_is_told(client: HttpClient, tmp_path: Path) -> None:
    """The default branch among it."""
    work = tmp_path / "work"
    run_git("init", "--quiet", "--initial-branch=trunk", str(work))
    run_git("-C", str(work), "commit", "--quiet", "--allow-empty", "--message", "One")
    run_git("-C", str(work), "tag", "--annotate", "--message", "v1", "v1")
    mirror = GitMirror(tmp_path / "m.git")
    with DumbHost(tmp_path / "host") as host:
        host.show("tiny", work)
        url = f"{host.url}/tiny"
        found, told = ask_refs(client, url, None), mirror.remote_refs(Remote(url, {}))

        assert (found.oids, found.peeled) == (told.oids, told.peeled)
        assert found.default_branch() == told.head == "refs/heads/trunk"
        with pytest.raises(SourceMissing, match="check the name"):
            ask_refs(client, f"{host.url}/none", None)
