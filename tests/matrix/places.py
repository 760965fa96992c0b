"""The places where clients look: an origin, an edge that was delivered to, and that edge behind redirects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from mirrortools.rsyncd import Modules, install
from tests.clients import Expected
from tests.matrix.content import fill
from tests.mirror import Mirror
from tests.servers import GitLfsUpstream, Nginx, Sshd, free_port
from tests.servers.nginx import user_directive
from tests.servers.ports import http_answers, port_answers
from tests.servers.process import Process, program

# Ways to send clients on: what is answered, and whether a HEAD is passed on instead.
WAYS = {f"{kind} {status}": (kind, status) for kind in ("redirect", "bare") for status in (302, 307, 308)}
# To aria2 a server is an address, whatever the port.
ADDRESSES = {"origin": "127.0.0.1", "edge": "127.0.0.2", "edge 2": "127.0.0.3"}
_EDGES = {"edge": "e1", "edge 2": "e2"}

# A HEAD is passed on, because the Hub's clients do not follow its redirects: they want what the edge says of the file.
_FRONT = """
    server {{
        listen 0.0.0.0:{port};
        location / {{
            if ($request_method ~ "{redirected}") {{ return {status} {edge}$request_uri; }}
            proxy_pass {edge};
        }}
    }}
"""
_REDIRECTED = {"redirect": "^(?!HEAD)", "bare": "."}
_FRONTS = """
{user}
daemon off;
pid {folder}/nginx.pid;
events {{ }}
http {{
    access_log off;
    {temporary}
    {servers}
}}
"""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a client looks. `rsync` is the URL of its rsyncd, where there is one."""

    name: str
    url: str
    rsync: str | None = None


@dataclass(frozen=True, slots=True)
class World:
    """The places by name, the roots of origin and edges, and the repositories that all of them must serve."""

    places: Mapping[str, Place]
    roots: Mapping[str, Path]
    repos: Mapping[str, Expected]


@contextmanager
def world(folder: Path, upstream: GitLfsUpstream, sshd: Sshd, *, whole: bool) -> Iterator[World]:
    """Fill an origin and, by delivery, two edges, and serve them as an operator would; fronts redirect to the first.

    With `whole` one repository has several pages of files.
    """
    repos = fill(upstream, whole=whole)
    ports = {name: free_port() for name in ADDRESSES}
    urls = {name: f"http://{address}:{ports[name]}" for name, address in ADDRESSES.items()}
    mirror = _mirror(folder, upstream.url, sshd, urls)
    for name, expected in repos.items():
        mirror.add(name, revisions=sorted(expected.commits))
    for words in (("sync", "--all"), ("describe", "--all")):
        ended = mirror.run(*words)
        if ended.status:
            raise AssertionError(f"mirrortool {words[0]} ended with {ended.status}: {ended.stderr}{ended.stdout}")
    roots = {"origin": mirror.root, **{name: folder / edge for name, edge in _EDGES.items()}}
    with ExitStack() as running:
        _serve_git(folder, running)
        for name, port in ports.items():
            _serve(mirror, _EDGES.get(name), port, folder / f"nginx-{port}", running)
        rsyncs = {name: _serve_rsync(roots[name], folder / f"rsyncd-{name}", running) for name in ("origin", "edge")}
        places = {name: Place(name, urls[name], rsyncs[name]) for name in rsyncs}
        yield World({**places, **_redirect(urls["edge"], folder / "fronts", running)}, roots, repos)


def _mirror(folder: Path, source: str, sshd: Sshd, urls: Mapping[str, str]) -> Mirror:
    mirror = Mirror(folder / "origin", source)
    git_socket = str(folder / "fcgiwrap.socket")
    served = {name: {"http": url, "listen": _everywhere(url), "git_socket": git_socket} for name, url in urls.items()}
    mirror.settings |= served["origin"]
    keys = {"identity_file": str(sshd.identity_file), "known_hosts": str(sshd.known_hosts)}
    mirror.settings["edges"] = {
        edge: {"url": sshd.url(folder / edge), **keys, **served[name]} for name, edge in _EDGES.items()
    }
    return mirror


def _everywhere(url: str) -> str:
    return f"0.0.0.0:{url.rpartition(':')[2]}"


def _serve(mirror: Mirror, edge: str | None, port: int, folder: Path, running: ExitStack) -> None:
    """An origin is served by `mirrortool serve`, an edge by the nginx that has its generated configuration."""
    if edge is None:
        process = Process(mirror.command("serve"), mirror.folder / "serve.log")
        running.callback(process.stop)
        process.start(lambda: http_answers(port))
        return
    printed = mirror.run("nginx", "print", "--edge", edge, "--standalone", str(folder))
    if printed.status:
        raise AssertionError(printed.stderr)
    running.enter_context(Nginx(folder / "nginx.conf", folder, [port]))


def _serve_git(folder: Path, running: ExitStack) -> None:
    socket = folder / "fcgiwrap.socket"
    wrapper = Process([program("fcgiwrap"), "-c", "2", "-s", f"unix:{socket}"], folder / "fcgiwrap.log")
    running.callback(wrapper.stop)
    wrapper.start(socket.exists)


def _serve_rsync(root: Path, folder: Path, running: ExitStack) -> str:
    port = free_port()
    install(Modules(root), folder)
    command = [program("rsync"), "--daemon", "--no-detach", "--address=127.0.0.1", f"--port={port}"]
    words = [f"--config={folder}/rsyncd.conf", f"--log-file={folder}/log"]
    server = Process([*command, *words], folder / "out")
    running.callback(server.stop)
    server.start(lambda: port_answers(port))
    return f"rsync://127.0.0.1:{port}"


def _redirect(edge: str, folder: Path, running: ExitStack) -> dict[str, Place]:
    """A plain nginx with a front for each status, that asks the edge for what a HEAD wants to know or does not."""
    ports = {name: free_port() for name in WAYS}
    servers = [
        _FRONT.format(port=ports[name], status=status, edge=edge, redirected=_REDIRECTED[kind])
        for name, (kind, status) in WAYS.items()
    ]
    kinds_of_temporary = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds_of_temporary)
    values = {"user": user_directive(), "folder": folder, "temporary": temporary, "servers": "".join(servers)}
    running.enter_context(Nginx(_FRONTS.format(**values), folder, list(ports.values())))
    return {name: Place(name, f"http://127.0.0.1:{port}") for name, port in ports.items()}
