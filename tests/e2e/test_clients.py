"""Unmodified clients against an origin and an edge that `mirrortool sync` filled from a real git-LFS host."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from mirrortools.model import RepoId
from tests import clients
from tests.clients import HUB_VERSIONS, Expected, Files, run_client
from tests.delivery import noise
from tests.mirror import Mirror
from tests.servers import GitLfsUpstream, Nginx, Sshd, free_port
from tests.servers.ports import http_answers
from tests.servers.process import Process

ATTRIBUTES = ".gitattributes"
FIRST: Files = {
    "README.md": b"# A model\n",
    "config.json": b'{"a": 1}\n',
    "model.safetensors": noise(3_000_000, 1),
    "name with spaces.txt": b"spaces\n",
    "a+b.txt": b"plus\n",
    "c#d.txt": b"hash\n",
    "e%41f.txt": b"percent\n",
    "what?.txt": b"question\n",
    "权重/模型 %41+#.safetensors": noise(70_000, 2),
    "权重/说明.md": "你好\n".encode(),
    "empty.txt": b"",
    "deep/er/and/deeper/vocab.json": b"[]",
}
SECOND: Files = {
    **FIRST,
    "config.json": b'{"a": 2}\n',
    **{f"shards/model-{number:05}.safetensors": noise(500 + number, 100 + number) for number in range(140)},
}
ROWS: Files = {"data/train.csv": b"a,b\n1,2\n", "data/train-00.safetensors": noise(9000, 7), "README.md": b"# Rows\n"}


@dataclass(frozen=True, slots=True)
class Served:
    """The URLs of an origin and an edge, their trees, and what they must serve."""

    urls: Mapping[str, str]
    roots: Mapping[str, Path]
    model: Expected
    dataset: Expected


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, shared_upstream: GitLfsUpstream, shared_sshd: Sshd
) -> Iterator[Served]:
    """A model with two commits, a tag and a branch with a slash, and a dataset, on an origin and on an edge."""
    folder = tmp_path_factory.mktemp("served")
    mirror = Mirror(folder / "origin", shared_upstream.url)
    ports = {"origin": free_port(), "edge": free_port()}
    mirror.settings["listen"] = f"127.0.0.1:{ports['origin']}"
    mirror.settings["edges"] = {
        "e1": {
            "url": shared_sshd.url(folder / "edge"),
            "listen": f"127.0.0.1:{ports['edge']}",
            "identity_file": str(shared_sshd.identity_file),
            "known_hosts": str(shared_sshd.known_hosts),
        }
    }
    model, dataset = _fill(shared_upstream)
    mirror.add(model.repo.url_path, revisions=["main", "v*", "feature/*"])
    mirror.add(dataset.repo.url_path)
    ended = mirror.run("sync", "--all")
    assert ended.status == 0, ended.stderr
    with ExitStack() as running:
        _serve(mirror, folder, ports, running)
        urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
        yield Served(urls, {"origin": mirror.root, "edge": folder / "edge"}, model, dataset)


def _fill(upstream: GitLfsUpstream) -> tuple[Expected, Expected]:
    name = "org/clients.v1"
    first = upstream.commit(name, FIRST, tag="v1.0")
    upstream.branch(name, "feature/x", first)
    second = upstream.commit(name, {path: content for path, content in SECOND.items() if FIRST.get(path) != content})
    rows = upstream.commit(f"datasets/{name}", ROWS)
    attributes = {ATTRIBUTES: (upstream.folder / "authors" / name / ATTRIBUTES).read_bytes()}
    lfs = frozenset(path for path in SECOND if path.endswith(".safetensors"))
    files = {"main": {**SECOND, **attributes}, "v1.0": {**FIRST, **attributes}, "feature/x": {**FIRST, **attributes}}
    commits = {"main": second, "v1.0": first, "feature/x": first}
    model = Expected(RepoId("models", name), commits, files, lfs)
    of_rows = {"main": {**ROWS, **attributes}}
    return model, Expected(RepoId("datasets", name), {"main": rows}, of_rows, frozenset({"data/train-00.safetensors"}))


def _serve(mirror: Mirror, folder: Path, ports: Mapping[str, int], running: ExitStack) -> None:
    origin = Process(mirror.command("serve"), folder / "origin.log")
    running.callback(origin.stop)
    origin.start(lambda: http_answers(ports["origin"]))
    place = folder / "nginx-of-the-edge"
    printed = mirror.run("nginx", "print", "--edge", "e1", "--standalone", str(place))
    assert printed.status == 0, printed.stderr
    running.enter_context(Nginx(place / "nginx.conf", place, [ports["edge"]]))


@pytest.mark.parametrize("version", HUB_VERSIONS)
@pytest.mark.parametrize("host", ["origin", "edge"])
@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_hub_client(served: Served, version: str, host: str, kind: str, tmp_path: Path) -> None:
    """huggingface_hub downloads every revision byte for byte and gets every answer that it needs."""
    clients.check_all(version, served.urls[host], getattr(served, kind), tmp_path)


@pytest.mark.parametrize("host", ["origin", "edge"])
@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_git_clone_and_lfs_pull(served: Served, host: str, kind: str, tmp_path: Path) -> None:
    """Unmodified git and git-lfs get the files of every branch and tag."""
    clients.check_git(served.urls[host], getattr(served, kind), tmp_path)


@pytest.mark.parametrize("host", ["origin", "edge"])
@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_headers(served: Served, host: str, kind: str) -> None:
    """Commit, ETag, size and ranges are exact over HTTP."""
    clients.check_http(served.urls[host], getattr(served, kind))


@pytest.mark.parametrize("host", ["origin", "edge"])
def test_aria2_in_parallel(served: Served, host: str, tmp_path: Path) -> None:
    """aria2 takes one file over several connections."""
    url = f"{served.urls[host]}/{served.model.repo}/resolve/main/model.safetensors"
    run_client(["aria2c", "-q", "-x4", "-s4", "-k1M", "-d", tmp_path, "-o", "got", url], {})

    assert (tmp_path / "got").read_bytes() == SECOND["model.safetensors"]


@pytest.mark.parametrize("host", ["origin", "edge"])
def test_rsync_of_one_model(served: Served, host: str, tmp_path: Path) -> None:
    """`rsync -aL` of a ref gives plain files; `rsync -a` of the whole tree is an exact copy of it."""
    public = served.roots[host] / "public"
    model = public / served.model.repo.path / "refs" / "main"
    for options, source, target in (("-aL", model, "model"), ("-a", public, "tree")):
        subprocess.run(["rsync", options, f"{source}/", f"{tmp_path / target}/"], check=True)

    assert clients.read_folder(tmp_path / "model") == served.model.files["main"]
    assert (tmp_path / "tree" / served.model.repo.path / "refs" / "main").is_symlink()
    assert (
        clients.read_folder(tmp_path / "tree" / served.model.repo.path / "refs" / "main")
        == (served.model.files["main"])
    )
