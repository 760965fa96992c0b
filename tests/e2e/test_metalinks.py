"""aria2 with the metalinks of a mirror: an origin and two edges, each behind plain nginx."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from mirrortools.store import Store
from tests.clients import curl, read_folder
from tests.delivery import noise, sha256_blob
from tests.mirror import Mirror
from tests.servers import Nginx, free_port

MIB = 1 << 20
REPO, MODEL = "acme/tiny", "model.safetensors"
FILES = {
    MODEL: noise(24 * MIB, 1),
    "sub/折 #%41.safetensors": noise(6 * MIB, 2),
    "README.md": b"# Tiny\n",
    "empty.json": b"",
}


@dataclass(frozen=True, slots=True)
class Mirrors:
    """An origin that has delivered to two edges, and the folder of each one's nginx."""

    origin: Mirror
    urls: dict[str, str]
    folders: dict[str, Path]

    def root(self, edge: str) -> Path:
        return self.origin.folder.parent / edge

    def requests(self, edge: str, path: str = MODEL) -> list[tuple[int, int]]:
        """Status and bytes of each answer that was given about a file."""
        log = (self.folders[edge] / "access.log").read_text()
        found = re.findall(rf'"GET [^"]*{re.escape(path)} HTTP/1\.1" (\d+) (\d+)', log)
        return [(int(status), int(size)) for status, size in found]

    def forget(self) -> None:
        for folder in self.folders.values():
            (folder / "access.log").write_bytes(b"")


@pytest.fixture
def mirrors(tmp_path: Path) -> Iterator[Mirrors]:
    """An origin with its own URL and two edges, all synced and described."""
    source = tmp_path / "models" / REPO
    for name, content in FILES.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(content)
    mirror = Mirror(tmp_path / "origin", f"dir://{tmp_path}/models")
    ports = {name: free_port() for name in ("origin", "e1", "e2")}
    # To aria2 a server is an address, whatever the port, and it opens one connection to each.
    urls = {name: f"http://127.0.0.{number}:{ports[name]}" for number, name in enumerate(ports, start=1)}
    mirror.settings |= {"http": urls["origin"], "listen": f"0.0.0.0:{ports['origin']}"}
    mirror.settings["edges"] = {
        name: {"url": f"file://{tmp_path}/{name}", "http": urls[name], "listen": f"0.0.0.0:{ports[name]}"}
        for name in ("e1", "e2")
    }
    mirror.add(REPO)
    mirror.sync()
    described = mirror.run("describe", "--all")
    assert described.status == 0, described.stderr
    folders = {name: tmp_path / f"nginx-{name}" for name in ports}
    with ExitStack() as running:
        for name, folder in folders.items():
            words = () if name == "origin" else ("--edge", name)
            printed = mirror.run("nginx", "print", *words, "--standalone", str(folder))
            assert printed.status == 0, printed.stderr
            running.enter_context(Nginx(folder / "nginx.conf", folder, [ports[name]]))
        yield Mirrors(mirror, urls, folders)


def aria2(*words: str | Path) -> str:
    command = ["aria2c", "--no-conf", "--console-log-level=warn", "--summary-interval=0", "--allow-overwrite=true"]
    done = subprocess.run([*command, *words], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def flip(path: Path, offset: int) -> None:
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 255]))


@pytest.mark.parametrize("host", ["origin", "e1"])
def test_a_whole_revision_by_its_metalink(mirrors: Mirrors, host: str, tmp_path: Path) -> None:
    """Origin and edges have the same metalink, by which aria2 gets every file, and sha256sum is content."""
    meta = f"{mirrors.urls[host]}/{REPO}/meta/main"
    answer = curl(f"{meta}/revision.meta4")
    (tmp_path / "all.meta4").write_bytes(answer.body)
    aria2("--dir", tmp_path / "got", tmp_path / "all.meta4")
    (tmp_path / "got" / "SHA256SUMS").write_bytes(curl(f"{meta}/SHA256SUMS").body)
    done = subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=tmp_path / "got")

    assert answer.headers["content-type"] == "application/metalink4+xml"
    assert answer.body == curl(f"{mirrors.urls['e2']}/{REPO}/meta/main/revision.meta4").body
    assert FILES.items() <= read_folder(tmp_path / "got").items()
    assert done.returncode == 0


def test_an_answer_about_a_file_points_to_the_metalink(mirrors: Mirrors) -> None:
    """By a Link header (RFC 6249), on every host, at the commit."""
    for url in mirrors.urls.values():
        link = curl(f"{url}/{REPO}/resolve/main/{MODEL}", "--head").headers["link"]
        found = re.fullmatch(r"<(.+)>; rel=describedby; type=\"application/metalink4\+xml\"", link)

        assert found is not None
        assert f'<file name="{MODEL}">'.encode() in curl(f"{url}{found[1]}").body


def test_one_file_comes_from_several_edges_at_once(mirrors: Mirrors, tmp_path: Path) -> None:
    """aria2 is given the URL of a metalink alone, and takes parts of the file from both edges."""
    mirrors.forget()
    url = f"{mirrors.urls['e1']}/{REPO}/meta/main/files/{MODEL}.meta4"
    aria2("--dir", tmp_path / "got", "--min-split-size=1M", url)

    assert (tmp_path / "got" / MODEL).read_bytes() == FILES[MODEL]
    assert all(status == 206 for edge in ("e1", "e2") for status, _ in mirrors.requests(edge))
    assert mirrors.requests("e1")
    assert mirrors.requests("e2")


def test_an_edge_with_wrong_bytes_is_survived(mirrors: Mirrors, tmp_path: Path) -> None:
    """Each piece that the first edge sends wrong is fetched again, from another."""
    blob = Store(mirrors.root("e1")).path(sha256_blob(FILES[MODEL]))
    for piece in range(6):
        flip(blob, piece * 4 * MIB + 12345)
    mirrors.forget()
    url = f"{mirrors.urls['e2']}/{REPO}/meta/main/files/{MODEL}.meta4"
    aria2("--dir", tmp_path / "got", "--min-split-size=1M", url)

    assert (tmp_path / "got" / MODEL).read_bytes() == FILES[MODEL]
    assert mirrors.requests("e1")


def test_a_damaged_piece_is_repaired_alone(mirrors: Mirrors, tmp_path: Path) -> None:
    """Of a file in which a byte rotted, the piece that holds it is fetched, and nothing else."""
    url = f"{mirrors.urls['e1']}/{REPO}/meta/main/files/{MODEL}.meta4"
    aria2("--dir", tmp_path / "got", url)
    flip(tmp_path / "got" / MODEL, 9 * MIB)
    mirrors.forget()
    aria2("--dir", tmp_path / "got", "--check-integrity=true", "--split=1", url)
    sent = sum(size for host in mirrors.urls for _, size in mirrors.requests(host))

    assert (tmp_path / "got" / MODEL).read_bytes() == FILES[MODEL]
    assert 4 * MIB <= sent < 8 * MIB


def test_describe_once(mirrors: Mirrors) -> None:
    """What was hashed is not hashed again; a blob that rotted is told, and gets no pieces."""
    again = mirrors.origin.run("describe", "--all", "--json")
    flip(Store(mirrors.root("e1")).path(sha256_blob(FILES[MODEL])), 5)
    for pieces in (mirrors.root("e1") / "public/blobs/pieces").rglob("*"):
        if pieces.is_file():
            pieces.unlink()
    bad = mirrors.origin.run("describe", "--all", "--edge", "e1")

    assert [(done["edge"], done["blobs"]) for done in again.json] == [(None, 0), ("e1", 0), ("e2", 0)]
    assert bad.status == 20
    assert "expected sha256" in bad.stdout
    assert (
        "<pieces"
        in curl(f"{mirrors.urls['e1']}/{REPO}/meta/main/files/sub/%E6%8A%98%20%23%2541.safetensors.meta4").body.decode()
    )
    assert b"<pieces" not in curl(f"{mirrors.urls['e1']}/{REPO}/meta/main/files/{MODEL}.meta4").body


def test_another_edge_is_in_the_metalinks_after_the_next_sync(mirrors: Mirrors) -> None:
    """A configuration with other URLs is news, for the edges too."""
    mirrors.origin.settings["edges"]["e2"]["http"] = "https://e2.example"
    mirrors.origin.sync()
    link = curl(f"{mirrors.urls['e1']}/{REPO}/meta/main/revision.meta4").body.decode()

    assert f">https://e2.example/{REPO}/resolve/" in link
    assert mirrors.urls["e2"] not in link
    assert "<pieces" in link
    assert mirrors.origin.run("sync", "--all", "--json").json[0]["changed"] is False
