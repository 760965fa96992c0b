"""The servers that are asked: nginx as mirrortool configures it, the same nginx without the Hub's protocol, olah."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.content import KIB, MIB
from bench.peers import olah
from mirrortools.model import Realm, RepoId, Revision
from mirrortools.readers import Access, Bearer, Readership, write_access
from mirrortools.serve import Site, Standalone, find_njs_module, write_standalone
from mirrortools.signposts import Signposts
from mirrortools.tree import Tree
from tests.e2e.tree_fixture import HandMade
from tests.servers import Nginx, free_port
from tests.servers.nginx import user_directive
from tests.servers.ports import port_answers

REPO = "bench/model"
SMALL, LARGE = "config.json", "model.safetensors"
_SMALL_BYTES, _PIECE_BYTES = 700, 8 * MIB


@dataclass(frozen=True, slots=True)
class Host:
    """A server that runs: where it is, its process, and the paths on it of the same files and listing."""

    url: str
    pid: int
    by_ref: str
    by_commit: str
    large: str
    tree: str = ""

    def at(self, path: str) -> str:
        return f"{self.url}{path}"


def publish(root: Path, large_bytes: int) -> str:
    """One repository with a small and a large file in an empty root; its commit."""
    source = random.Random(large_bytes)
    large = b"".join(source.randbytes(min(_PIECE_BYTES, large_bytes - n)) for n in range(0, large_bytes, _PIECE_BYTES))
    files = {SMALL: b"{}".ljust(_SMALL_BYTES), LARGE: large}
    made = HandMade(root, root.with_name(f"{root.name}-git"), RepoId.parse(REPO)).publish({"refs/heads/main": files})
    shutil.rmtree(root.with_name(f"{root.name}-git"))
    return made.commits["main"]


def publish_many(root: Path, count: int) -> list[str]:
    """`count` repositories of a small file each; their names."""
    publish(root, KIB)
    models = root / "public" / "models"
    names = [REPO, *(f"many/copy-{number:05}" for number in range(1, count))]
    for name in names[1:]:
        shutil.copytree(models / REPO, models / name, symlinks=True)
        _put_up_signposts(root, RepoId.parse(name))
    return names


def hide(root: Path, count: int) -> None:
    """Have `count` private repositories with a reader and a token each beside what is public."""
    names = [f"hidden-{number:05}" for number in range(count)]
    readerships = {RepoId.parse(f"private/{name}"): Readership((name,)) for name in names}
    bearers = {sha256(name.encode()).hexdigest(): Bearer(name) for name in names}
    Tree(root, Realm.PRIVATE).make()
    write_access(root, Access(bearers, readerships))


def _put_up_signposts(root: Path, repo: RepoId) -> None:
    """What a publication would do besides, for a copied repository."""
    tree, signposts = Tree(root), Signposts(root)
    commit = tree.refs(repo)["refs/heads/main"]
    original = tree.manifest(Revision(RepoId.parse(REPO), commit))
    if original is None:
        raise AssertionError(f"{REPO} is not published in {root}")
    with TemporaryDirectory(dir=root / "state") as stage:
        signposts.put_up(replace(original, revision=Revision(repo, commit)), Path(stage))
    signposts.follow(repo, {"main": commit}, {})


@contextmanager
def ours(root: Path, commit: str, folder: Path, *, private: bool = False) -> Iterator[Host]:
    """What `mirrortool serve` runs, with one worker on the first processor; with `private` there is what is private."""
    port = free_port()
    place = Standalone(folder, find_njs_module(), _user())
    write_standalone(Site(root, (f"127.0.0.1:{port}",), place=place, private=private))
    config = folder / "nginx.conf"
    config.write_text(config.read_text().replace("worker_processes auto;", _WORKER))
    resolve = f"/{REPO}/resolve"
    paths = (f"{resolve}/main/{SMALL}", f"{resolve}/{commit}/{SMALL}", f"{resolve}/main/{LARGE}")
    with Nginx(config, folder, [port]) as nginx:
        yield Host(f"http://127.0.0.1:{port}", nginx.pid, *paths, f"/api/models/{REPO}/tree/main?recursive=true")


@contextmanager
def plain(root: Path, commit: str, folder: Path, *, keeps_open: bool = False) -> Iterator[Host]:
    """The same nginx and the same files, as a static tree; `keeps_open` gives it the file cache that ours has."""
    port = free_port()
    cache = "open_file_cache max=4096 inactive=60s; open_file_cache_valid 5s;" if keeps_open else ""
    values = {"worker": _WORKER, "user": user_directive(), "folder": folder, "port": port, "public": root / "public"}
    base = f"/models/{REPO}/commits/{commit}"
    paths = (f"{base}/{SMALL}", f"{base}/{SMALL}", f"{base}/{LARGE}")
    listing = f"/models/{REPO}/meta/{commit}/recursive/.git"
    with Nginx(_PLAIN.format(**values, cache=cache), folder, [port]) as nginx:
        yield Host(f"http://127.0.0.1:{port}", nginx.pid, *paths, listing)


@contextmanager
def proxy(source: Host, folder: Path) -> Iterator[Host]:
    """A caching proxy, olah, in front of one of ours. What it is asked for twice comes from its cache."""
    port = free_port()
    folder.mkdir(parents=True)
    with ExitStack() as running:
        process = olah(source.url, port, folder)
        running.callback(process.stop)
        process.start(lambda: port_answers(port))
        paths = (
            source.by_ref,
            source.by_commit,
            source.large,
            source.tree.replace("?", "/?"),
        )  # it redirects otherwise
        yield Host(f"http://127.0.0.1:{port}", process.pid, *paths)


def _user() -> str:
    return user_directive().removeprefix("user ").removesuffix(";")


_WORKER = "worker_processes 1; worker_cpu_affinity 01;"
_PLAIN = """\
{user}
{worker}
pid {folder}/nginx.pid;
worker_rlimit_nofile 16384;
pcre_jit on;
events {{ worker_connections 4096; }}
http {{
    client_body_temp_path {folder}/body_temp;
    proxy_temp_path {folder}/proxy_temp;
    fastcgi_temp_path {folder}/fastcgi_temp;
    uwsgi_temp_path {folder}/uwsgi_temp;
    scgi_temp_path {folder}/scgi_temp;
    access_log {folder}/access.log;
    default_type application/octet-stream;
    server_tokens off;
    sendfile on;
    tcp_nopush on;
    {cache}
    server {{
        listen 127.0.0.1:{port};
        root {public};
    }}
}}
"""
