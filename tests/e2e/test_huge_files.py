"""A file of more than 50 GB, which is sparse here: what each client does with it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mirrortools.hubapi import HUGE_BYTES
from mirrortools.model import Blob, Entry, Manifest, RepoId, Revision
from mirrortools.serve import Site, Standalone, find_njs_module, write_standalone
from mirrortools.tree import Tree
from tests.clients import ClientError, curl, hub_environment, hub_program, run_client, run_hub
from tests.servers import Nginx, free_port

OID = "ab" * 32
SIZE = HUGE_BYTES + 1_000_000
SOME_BYTES = 100_000_000
REPO, PATH, COMMIT = RepoId("models", "org/huge"), "model.safetensors", "c" * 40
DEADLINE_S = 60


@dataclass(frozen=True, slots=True)
class Mirror:
    """A served tree with one huge file, whose last byte is a 7."""

    url: str
    link: str


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mirror]:
    folder = tmp_path_factory.mktemp("huge")
    root, port = folder / "root", free_port()
    blob = Blob("sha256", OID, SIZE)
    place = root / "public" / blob.path
    place.parent.mkdir(parents=True)
    with place.open("wb") as file:
        file.truncate(SIZE - 1)
        file.seek(SIZE - 1)
        file.write(b"\7")
    tree = Tree(root)
    tree.publish_revision(Manifest(Revision(REPO, COMMIT), {PATH: Entry(blob, "d" * 40, 137)}, 0))
    tree.publish_refs(REPO, {"refs/heads/main": COMMIT})
    write_standalone(
        Site(
            root,
            (f"127.0.0.1:{port}",),
            place=Standalone(folder / "nginx", find_njs_module(), "root" if os.geteuid() == 0 else ""),
        )
    )
    with Nginx(folder / "nginx" / "nginx.conf", folder / "nginx", [port]):
        url = f"http://127.0.0.1:{port}"
        yield Mirror(url, f"{url}/{REPO}/resolve/main/{PATH}")


def test_clients_that_want_a_size_get_it(mirror: Mirror) -> None:
    """curl, aria2, older clients of the Hub: nothing is different about a huge file; its end can be asked for."""
    for agent in ("curl/8", "unknown/None; hf_hub/0.20.3; python/3.11", "unknown/None; hf_hub/1.16.4; python/3.11"):
        response = curl(mirror.link, "--head", "-A", agent)

        assert response.status == 200
        assert int(response.headers["x-linked-size"]) == int(response.headers["content-length"]) == SIZE
    assert curl(mirror.link, "-r", f"{SIZE - 2}-").body == b"\0\7"


def test_newer_clients_are_not_told_the_size(mirror: Mirror) -> None:
    """huggingface_hub from 2.0 on gets commit and digest without a size, and finds that when it downloads."""
    agent = ("-A", "unknown/None; hf_hub/2.4.0; python/3.11")
    head, last = curl(mirror.link, "--head", *agent), curl(mirror.link, "-r", "-1", *agent)

    assert head.status == 200
    assert head.headers["etag"] == head.headers["x-linked-etag"] == f'"{OID}"'
    assert head.headers["x-repo-commit"] == COMMIT
    assert not {"x-linked-size", "content-length"} & head.headers.keys()
    assert last.headers["content-range"] == f"bytes {SIZE - 1}-{SIZE - 1}/{SIZE}"


def test_hub_2_4_0_begins_to_download(mirror: Mirror, tmp_path: Path) -> None:
    """The newest client fetches the file (its first 100 MB here); told the size it would have refused."""
    words = [hub_program("2.4.0", "hf"), "download", str(REPO), "--local-dir", tmp_path / "files"]
    environment = hub_environment(mirror.url, tmp_path / "cache")
    with (tmp_path / "said").open("wb") as said:
        child = subprocess.Popen([str(word) for word in words], env=environment, stdout=said, stderr=said)
        try:
            deadline = time.monotonic() + DEADLINE_S
            while child.poll() is None and arrived(tmp_path) < SOME_BYTES and time.monotonic() < deadline:
                time.sleep(0.01)
            got = arrived(tmp_path)
        finally:
            child.kill()
            child.wait()

    assert got >= SOME_BYTES, (tmp_path / "said").read_text()


@pytest.mark.parametrize("version", ["0.36.2", "1.16.4"])
def test_versions_between_refuse_and_say_what_to_do(mirror: Mirror, version: str, tmp_path: Path) -> None:
    """They need a size and refuse this one: docs/operations.md names the ways that are left."""
    (outcome,) = run_hub(version, mirror.url, tmp_path, [("hf_hub_download", {"repo_id": str(REPO), "filename": PATH})])

    assert outcome["error"] == "ValueError"
    assert "too large" in outcome["text"]


def test_aria2_takes_it(mirror: Mirror, tmp_path: Path) -> None:
    """The way that is left for those: aria2c writes sparsely, and stops here after a while."""
    words = [
        "aria2c",
        "-q",
        "--file-allocation=none",
        "-x4",
        "-s4",
        "--stop=1",
        "-d",
        tmp_path,
        "-o",
        "got",
        mirror.link,
    ]
    with pytest.raises(ClientError, match="ended with 7"):
        run_client(words, dict(os.environ))

    assert (tmp_path / "got.aria2").exists()


def arrived(folder: Path) -> int:
    """Bytes that the client has written so far."""
    return sum(path.stat().st_size for path in folder.rglob("*.incomplete"))
