"""HTTPS beside HTTP, and git's smart protocol, against a hand-made tree that plain nginx serves."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mirrortools.config import Tls
from mirrortools.model import RepoId
from mirrortools.serve import Site, Standalone, abilities, find_nginx, find_njs_module, write_standalone
from tests.clients import ClientError, Expected, curl, hub_environment, hub_program, read_folder, run_client, run_git
from tests.e2e.tree_fixture import FIRST, SECOND, HandMade
from tests.servers import Nginx, free_port
from tests.servers.process import Process, program

DAY_S = 86400


@dataclass(frozen=True, slots=True)
class Mirror:
    """Where a tree is served, and the authority of its certificate."""

    plain: str
    secure: str
    authority: Path
    acme: Path
    model: Expected

    def url(self, base: str) -> str:
        return f"{base}/{self.model.repo.url_path}"


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mirror]:
    """One nginx with HTTP, HTTPS and fcgiwrap."""
    folder = tmp_path_factory.mktemp("mirror")
    root, port, tls_port = folder / "root", free_port(), free_port()
    history = {"refs/tags/v1": FIRST, "refs/heads/main": SECOND}
    model = HandMade(root, folder / "model", RepoId("models", "org/name")).publish(history)
    certificate, key = make_certificate(folder)
    (folder / "acme" / ".well-known" / "acme-challenge").mkdir(parents=True)
    tls = Tls(certificate, key, f"127.0.0.1:{tls_port}", DAY_S, folder / "acme")
    place = Standalone(folder / "nginx", find_njs_module(), "root" if os.geteuid() == 0 else "")
    able = abilities(find_nginx())
    socket = folder / "fcgiwrap.socket"
    write_standalone(Site(root, (f"127.0.0.1:{port}",), place=place, tls=tls, git_socket=socket, abilities=able))
    wrapper = Process([program("fcgiwrap"), "-s", f"unix:{socket}"], folder / "fcgiwrap.log")
    wrapper.start(socket.exists)
    try:
        with Nginx(folder / "nginx" / "nginx.conf", folder / "nginx", [port, tls_port]):
            urls = (f"http://127.0.0.1:{port}", f"https://127.0.0.1:{tls_port}")
            yield Mirror(*urls, certificate, folder / "acme", model)
    finally:
        wrapper.stop()


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that is its own authority, and its key."""
    certificate, key = folder / "server.pem", folder / "server.key"
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    words += ["-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*words, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    return certificate, key


def test_the_same_over_both(mirror: Mirror) -> None:
    """A file, its headers, a tree page and an error are the same over HTTP and HTTPS, but for what HTTPS adds."""
    for path in ("/org/name/resolve/main/config.json", "/api/models/org/name/tree/main", "/org/name/resolve/main/none"):
        plain = curl(f"{mirror.plain}{path}")
        secure = curl(f"{mirror.secure}{path}", "--cacert", str(mirror.authority), "--http1.1")
        told = secure.headers["strict-transport-security"]

        assert (plain.status, plain.body) == (secure.status, secure.body)
        assert "strict-transport-security" not in plain.headers
        assert told == f"max-age={DAY_S}"
        assert {**plain.headers, "date": ""} == {
            name: "" if name == "date" else value
            for name, value in secure.headers.items()
            if name != "strict-transport-security"
        }


@pytest.mark.parametrize(
    ("words", "works"),
    [
        (["--http2"], True),
        (["--tlsv1.3"], True),
        (["--tlsv1.2", "--tls-max", "1.2"], True),
        (["--tlsv1.0", "--tls-max", "1.1", "--ciphers", "DEFAULT@SECLEVEL=0"], False),
        (["--tls-max", "1.2", "--ciphers", "AES128-SHA"], False),
    ],
)
def test_modern_settings(mirror: Mirror, words: list[str], works: bool) -> None:
    """HTTP/2, TLS 1.3 and 1.2 with forward secrecy are spoken, older ones are not."""
    command = ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_version}", "--cacert", mirror.authority, *words]
    try:
        said = run_client([*command, f"{mirror.secure}/org/name/resolve/main/config.json"], os.environ)
    except ClientError:
        said = ""

    assert bool(said) is works
    assert said == "2" or "--http2" not in words


def test_acme(mirror: Mirror) -> None:
    """What an ACME client puts down is served over plain HTTP; nothing else of its folder is."""
    (mirror.acme / ".well-known" / "acme-challenge" / "token").write_text("answer")
    (mirror.acme / "secret").write_text("secret")

    assert curl(f"{mirror.plain}/.well-known/acme-challenge/token").body == b"answer"
    assert curl(f"{mirror.plain}/.well-known/acme-challenge/../../secret").status == 404


@pytest.mark.parametrize("version", ["2.4.0", "0.20.3"])
def test_the_hub_over_https(mirror: Mirror, version: str, tmp_path: Path) -> None:
    """The Hub's client downloads over HTTPS."""
    trust = {"SSL_CERT_FILE": str(mirror.authority), "REQUESTS_CA_BUNDLE": str(mirror.authority)}
    words = [
        hub_program(version, "python"),
        "-c",
        "import huggingface_hub as h; print(h.snapshot_download('org/name'))",
    ]
    said = run_client(
        words, {**hub_environment(mirror.secure, tmp_path), **trust, "CURL_CA_BUNDLE": trust["SSL_CERT_FILE"]}
    )

    assert read_folder(Path(said.strip())) == mirror.model.files["main"]


def test_git_and_lfs_over_https(mirror: Mirror, tmp_path: Path) -> None:
    """Plain git clones and git-lfs fetches over HTTPS, to which the batch's links lead too."""
    trust = ("-c", f"http.sslCAInfo={mirror.authority}")
    run_git("lfs", "install", "--skip-repo", "--skip-smudge", home=tmp_path)
    run_git(*trust, "clone", "-q", mirror.url(mirror.secure), tmp_path / "clone", home=tmp_path)
    run_git("-C", tmp_path / "clone", *trust, "lfs", "pull", home=tmp_path)

    assert read_folder(tmp_path / "clone") == mirror.model.files["main"]


def test_shallow_clone(mirror: Mirror, tmp_path: Path) -> None:
    """With fcgiwrap git speaks its smart protocol: one commit of a history comes alone."""
    run_git("lfs", "install", "--skip-repo", "--skip-smudge", home=tmp_path)
    run_git("clone", "-q", "--depth=1", mirror.url(mirror.plain), tmp_path / "clone", home=tmp_path)
    count = run_git("-C", tmp_path / "clone", "rev-list", "--count", "HEAD", home=tmp_path)

    assert count.strip() == "1"
    assert run_git("-C", tmp_path / "clone", "rev-parse", "HEAD", home=tmp_path).strip() == mirror.model.commits["main"]


def test_lfs_fetch_all(mirror: Mirror, tmp_path: Path) -> None:
    """`git lfs fetch --all` brings the objects of every commit."""
    run_git("lfs", "install", "--skip-repo", "--skip-smudge", home=tmp_path)
    clone = tmp_path / "clone"
    run_git("clone", "-q", mirror.url(mirror.plain), clone, home=tmp_path)
    run_git("-C", clone, "lfs", "fetch", "--all", home=tmp_path)
    run_git("-C", clone, "lfs", "fsck", home=tmp_path)
    objects = {path.name for path in (clone / ".git" / "lfs" / "objects").rglob("*") if path.is_file()}
    contents = {
        content for files in mirror.model.files.values() for path, content in files.items() if path in mirror.model.lfs
    }

    assert len(objects) == len(contents)


def test_push_is_refused(mirror: Mirror, tmp_path: Path) -> None:
    """A push ends at once and shows why; so does git-lfs, before a byte is sent."""
    run_git("lfs", "install", "--skip-repo", "--skip-smudge", home=tmp_path)
    clone = tmp_path / "clone"
    run_git("clone", "-q", mirror.url(mirror.plain), clone, home=tmp_path)
    run_git("-C", clone, "config", "user.email", "a@b", home=tmp_path)
    run_git("-C", clone, "config", "user.name", "a", home=tmp_path)
    (clone / "new.safetensors").write_bytes(b"new")
    run_git("-C", clone, "add", "--all", home=tmp_path)
    run_git("-C", clone, "commit", "-qm", "new", home=tmp_path)

    with pytest.raises(ClientError, match="read-only; push to the source"):
        run_git("-C", clone, "push", "--no-verify", "origin", "main", home=tmp_path)
    with pytest.raises(ClientError, match="read-only; push to the source"):
        run_git("-C", clone, "lfs", "push", "origin", "main", home=tmp_path)
    receive = curl(f"{mirror.url(mirror.plain)}.git/git-receive-pack", "--data", "x")
    assert receive.status == 403
    assert b"read-only" in receive.body
