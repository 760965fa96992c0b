"""What every kind of upstream owes: refs, git's objects, the bytes of ranges, and errors that tell."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from mirrortools.config import Source
from mirrortools.errors import AccessDenied, SourceMissing, SourceUnavailable, UpstreamError
from mirrortools.model import RepoId
from mirrortools.upstreams import KINDS, Clients, GitMirror, Upstream, open_upstream
from tests.delivery import noise, sha256_blob
from tests.mirror import Mirror
from tests.servers import GitLfsUpstream, Nginx, Sshd, free_port
from tests.servers.process import program
from tests.servers.tunnel import Tunnel

SSH = program("ssh")
REPO = "acme/contract"
MODEL = noise((9 << 20) + 5, 1)
FILES = {"model.safetensors": MODEL, "small.safetensors": noise(700, 2), "config.json": b"{}\n", "權/a b.txt": b"x"}


@dataclass(frozen=True, slots=True)
class Case:
    """A source that holds REPO with FILES, and the same kind of source where nobody is."""

    source: Source
    deserted: Source
    settings: Mapping[str, Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the servers of this module keep."""
    return tmp_path_factory.mktemp("contract")


@pytest.fixture(scope="module")
def host(shared_upstream: GitLfsUpstream) -> GitLfsUpstream:
    """A git-LFS host that has the repository."""
    shared_upstream.heal()
    shared_upstream.commit(REPO, FILES)
    return shared_upstream


@pytest.fixture(scope="module")
def tls(host: GitLfsUpstream, folder: Path) -> Iterator[tuple[int, Path]]:
    """The same host behind TLS, with an authority of its own: the port, and the authority's certificate."""
    port = free_port()
    place = folder / "tls"
    place.mkdir()
    _make_certificates(place)
    config = _TLS_CONFIG.format(port=port, host_port=host.port, folder=place)
    with Nginx(config, place, [port]):
        yield port, place / "ca.pem"


@pytest.fixture(scope="module")
def login(host: GitLfsUpstream, folder: Path) -> Iterator[Sshd]:
    """An ssh host whose account has git and git-lfs-authenticate."""
    place = folder / "account"
    place.mkdir()
    _script(place / "git-lfs-authenticate", _AUTHENTICATE.format(git=host.folder / "git", url=host.url))
    _script(place / "login", f'PATH={place}:$PATH; export PATH\nexec sh -c "$SSH_ORIGINAL_COMMAND"\n')
    with Sshd(folder / "sshd") as sshd:
        sshd.authorize(f'command="{place}/login"')
        yield sshd


@pytest.fixture(scope="module")
def ssh(login: Sshd, folder: Path) -> Path:
    """A folder with an `ssh` that has the key and knows the host."""
    place = folder / "bin"
    place.mkdir()
    _script(place / "ssh", f'exec {shlex.join([SSH, *login.options[:-2]])} "$@"\n')
    return place


def _http(request: pytest.FixtureRequest) -> Case:
    host = request.getfixturevalue("host")
    return Case(Source(host.url), Source(f"http://127.0.0.1:{free_port()}"), {})


def _https(request: pytest.FixtureRequest) -> Case:
    port, authority = request.getfixturevalue("tls")
    url = f"https://localhost:{port}"
    return Case(
        Source(url, ca_file=authority),
        Source(f"https://127.0.0.1:{free_port()}", ca_file=authority),
        {"source": {"url": url, "ca_file": str(authority)}},
    )


def _ssh(request: pytest.FixtureRequest) -> Case:
    login, place, host = (request.getfixturevalue(name) for name in ("login", "ssh", "host"))
    request.getfixturevalue("monkeypatch").setenv("PATH", f"{place}:{os.environ['PATH']}")
    return Case(Source(login.url(host.folder / "git")), Source(f"ssh://127.0.0.1:{free_port()}/x"), {})


def _file(request: pytest.FixtureRequest) -> Case:
    host, folder = request.getfixturevalue("host"), request.getfixturevalue("folder")
    top = folder / "with space"
    if not top.exists():
        shutil.copytree(host.repository(REPO), top / f"{REPO}.git")
        for content in (content for path, content in FILES.items() if path.endswith(".safetensors")):
            digest = hashlib.sha256(content).hexdigest()
            stored = top / f"{REPO}.git" / "lfs" / "objects" / digest[:2] / digest[2:4] / digest
            stored.parent.mkdir(parents=True)
            stored.write_bytes(content)
    return Case(Source(f"file://{str(top).replace(' ', '%20')}"), Source(f"file://{folder}/none"), {})


def _dir(request: pytest.FixtureRequest) -> Case:
    folder = request.getfixturevalue("folder")
    for path, content in FILES.items():
        file = folder / "own" / REPO / path
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
    return Case(Source(f"dir://{folder}/own"), Source(f"dir://{folder}/none"), {})


CASES: dict[str, Callable[[pytest.FixtureRequest], Case]] = {
    "http": _http,
    "https": _https,
    "ssh": _ssh,
    "file": _file,
    "dir": _dir,
}


@pytest.fixture(params=sorted(KINDS))
def case(request: pytest.FixtureRequest) -> Case:
    """Each kind in turn; a new one needs a line in CASES."""
    return CASES[request.param](request)


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[[Source, str], Upstream]]:
    """Opens a repository on a source."""
    with ExitStack() as running:
        clients = Clients()
        running.callback(clients.close)
        yield lambda source, repo: open_upstream(source, RepoId.parse(repo), mirror_in(tmp_path), clients)


Open = Callable[[Source, str], Upstream]


def mirror_in(folder: Path) -> GitMirror:
    """The local git mirror."""
    return GitMirror(folder / "mirror.git")


def read(upstream: Upstream, content: bytes, start: int, stop: int) -> bytes:
    """The bytes [start, stop) of a blob."""
    got = bytearray()
    buffer = memoryview(bytearray(1 << 20))
    with upstream.bytes.open(sha256_blob(content), start, stop) as reader:
        assert reader.start == start
        while count := reader.readinto(buffer[: stop - start - len(got)]):
            got += buffer[:count]
    return bytes(got)


def test_refs_are_told_and_stay_the_same(case: Case, opened: Open) -> None:
    """One branch, which is the default one; nothing moves when nothing changed."""
    upstream = opened(case.source, REPO)
    remote = upstream.refs()

    assert set(remote.oids) == {"refs/heads/main"}
    assert remote.head == "refs/heads/main"
    assert len(remote.commit("refs/heads/main")) == 40
    assert upstream.refs() == remote


def test_git_objects_are_brought_into_the_mirror(case: Case, opened: Open, tmp_path: Path) -> None:
    """The tree has every file: large ones as LFS blobs, small texts as git's own."""
    upstream, mirror = opened(case.source, REPO), mirror_in(tmp_path)
    remote = upstream.refs()
    upstream.bring(remote.oids, [])
    entries = mirror.entries(mirror.tree(remote.commit("refs/heads/main")))
    small = [path for path in FILES if not path.endswith(".safetensors")]
    contents = dict(mirror.contents([entries[path].git_oid for path in small]))

    assert set(entries) == {*FILES, ".gitattributes"}
    assert entries["model.safetensors"].blob == sha256_blob(MODEL)
    assert {path: contents[entries[path].git_oid] for path in small} == {path: FILES[path] for path in small}


def test_a_pinned_commit_is_brought(case: Case, opened: Open, tmp_path: Path) -> None:
    """By its id alone, and twice does no harm."""
    upstream = opened(case.source, REPO)
    commit = upstream.refs().commit("refs/heads/main")
    for _ in range(2):
        upstream.bring({}, [commit])

    assert mirror_in(tmp_path).commits([commit]) == {commit: commit}


def test_ranges_come_from_several_threads_at_once(case: Case, opened: Open) -> None:
    """Beginning, middle, end, all of it, another blob."""
    upstream = opened(case.source, REPO)
    upstream.refs()
    small = FILES["small.safetensors"]
    upstream.bytes.prepare([sha256_blob(MODEL), sha256_blob(small)])
    size = len(MODEL)
    spans = [(0, 1), (0, size), (4 << 20, 8 << 20), (size - 1, size), (17, 4000)]
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda span: read(upstream, MODEL, *span), spans * 2))

    assert got == [MODEL[start:stop] for start, stop in spans * 2]
    assert read(upstream, small, 0, len(small)) == small


def test_many_small_blobs_are_read(case: Case, opened: Open) -> None:
    """Whole, in the order in which they were asked for."""
    upstream = opened(case.source, REPO)
    upstream.refs()
    small = FILES["small.safetensors"]
    upstream.bytes.prepare([sha256_blob(small)])

    assert [content for _, content in upstream.bytes.read_many([sha256_blob(small)] * 3)] == [small] * 3


def test_a_blob_that_is_not_there_is_missing(case: Case, opened: Open) -> None:
    """Which is another answer than being down: the next source is asked, this one stays good."""
    upstream = opened(case.source, REPO)
    upstream.refs()
    unknown = b"nobody has this"
    upstream.bytes.prepare([sha256_blob(unknown)])
    with pytest.raises(SourceMissing, match=REPO):
        read(upstream, unknown, 0, 4)
    upstream.bytes.prepare([sha256_blob(MODEL)])
    assert read(upstream, MODEL, 5, 9) == MODEL[5:9]


def test_a_repository_that_is_not_there_is_missing(case: Case, opened: Open) -> None:
    """With its name in the message."""
    with pytest.raises(SourceMissing, match="acme/nothing"):
        opened(case.source, "acme/nothing").refs()


def test_a_place_where_nobody_is_is_told_with_its_address(case: Case, opened: Open) -> None:
    """As unavailable, or missing where it is a folder; announcing blobs does not ask anybody."""
    upstream = opened(case.deserted, REPO)
    upstream.bytes.prepare([sha256_blob(MODEL)])
    place = case.deserted.url.partition("://")[2].replace("%20", " ")
    for ask in (upstream.refs, lambda: read(upstream, MODEL, 0, 5)):
        with pytest.raises(UpstreamError, match=place) as caught:
            ask()
        assert isinstance(caught.value, SourceUnavailable | SourceMissing)


def test_breaking_off_is_no_error(case: Case, opened: Open) -> None:
    """Whoever ends a run may do it at any moment, twice too."""
    upstream = opened(case.source, REPO)
    upstream.bytes.break_off()
    upstream.bytes.break_off()


def test_a_whole_sync_is_served_byte_for_byte(case: Case, tmp_path: Path) -> None:
    """From every kind, by the command line; a second run changes nothing."""
    mirror = Mirror(tmp_path / "origin", case.source.url)
    mirror.settings |= case.settings
    mirror.add(REPO)
    outcome = mirror.sync()
    served = mirror.served(REPO)
    served.pop(".gitattributes")

    assert outcome["changed"]
    assert served == FILES
    assert not mirror.sync()["changed"]


def test_a_certificate_of_an_unknown_authority_is_refused(
    request: pytest.FixtureRequest, opened: Open, tmp_path: Path
) -> None:
    """By git and by us, with the setting that helps."""
    source = replace(_https(request).source, ca_file=None)
    upstream = opened(source, REPO)
    upstream.bytes.prepare([sha256_blob(MODEL)])
    for ask in (upstream.refs, lambda: read(upstream, MODEL, 0, 5)):
        with pytest.raises(SourceUnavailable, match="ca_file"):
            ask()


def test_a_host_key_that_is_not_known_is_told(
    request: pytest.FixtureRequest, opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not as a host that is down: waiting would not help."""
    case = _ssh(request)
    _script(tmp_path / "ssh", f'exec {SSH} -oUserKnownHostsFile=/dev/null -oStrictHostKeyChecking=yes "$@"\n')
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    upstream = opened(case.source, REPO)
    for ask in (upstream.refs, lambda: read(upstream, MODEL, 0, 5)):
        with pytest.raises(AccessDenied, match=r"Host key verification failed.*log in there once"):
            ask()


def test_an_ssh_host_without_lfs_says_so(request: pytest.FixtureRequest, opened: Open, folder: Path) -> None:
    """The command that is missing is named."""
    case, login = _ssh(request), request.getfixturevalue("login")
    login.authorize()
    try:
        with pytest.raises(SourceMissing, match="no git-lfs-authenticate"):
            read(opened(case.source, REPO), MODEL, 0, 5)
    finally:
        login.authorize(f'command="{folder}/account/login"')


def _script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}")
    path.chmod(0o755)


def _make_certificates(folder: Path) -> None:
    """An authority, and a certificate of it for localhost and 127.0.0.1."""
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    new = "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
    for words in (
        f"{new} -x509 -subj /CN=Test-Authority -keyout ca.key -out ca.pem",
        f"{new} -subj /CN=localhost -keyout host.key -out host.csr",
        "x509 -req -in host.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out host.pem",
    ):
        subprocess.run([program("openssl"), *words.split()], cwd=folder, check=True, capture_output=True)


_AUTHENTICATE = """\
case "$1" in
    {git}/*) printf '{{"href": "%s.git/info/lfs", "header": {{}}, "expires_in": 600}}' "{url}/${{1#{git}/}}" ;;
    *) echo "no such repository: $1" >&2; exit 1 ;;
esac
"""

_TLS_CONFIG = """\
user root;
pid {folder}/nginx.pid;
error_log {folder}/error.log error;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {folder}/host.pem;
        ssl_certificate_key {folder}/host.key;
        location / {{
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header Accept-Encoding identity;
            proxy_pass http://127.0.0.1:{host_port};
            sub_filter_types application/vnd.git-lfs+json;
            sub_filter_once off;
            sub_filter "http://localhost:{port}/" "https://localhost:{port}/";
        }}
    }}
}}
"""


def test_an_https_source_is_pulled_through_a_proxy(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """By git and by our own client, as `https_proxy` says; its password is for it alone; `no_proxy` goes straight."""
    port, authority = request.getfixturevalue("tls")
    made = Mirror(tmp_path / "origin", "")
    made.settings["source"] = {"url": f"https://localhost:{port}", "ca_file": str(authority)}
    made.add(REPO)
    with Tunnel() as proxy:
        through = {"https_proxy": f"http://u%40x:p@127.0.0.1:{proxy.port}", "no_proxy": ""}
        ended = made.run("sync", "--all", env=through)
        heads, proxy.heads = proxy.heads, []
        again = made.run("sync", "--all", env={**through, "no_proxy": "localhost"})

        assert (ended.status, again.status) == (0, 0), ended.stderr + again.stderr
        assert made.served(REPO)["model.safetensors"] == MODEL
        assert {head[0].rpartition(" ")[0] for head in heads} == {f"CONNECT localhost:{port}"}
        assert any("Proxy-Authorization: Basic dUB4OnA=" in head for head in heads)
        assert proxy.heads == []
