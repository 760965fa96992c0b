"""The one server that all pull from: a tree that mirrortool published, and nginx as mirrortool sets it up."""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import yaml

from bench.answers import LOG_FORMAT, Answer, children, open_sockets, read_answers
from bench.case import PROJECT, Case, DidNotRun
from bench.content import Content
from bench.measure import cpu_s
from mirrortools.model import Manifest, RepoId
from mirrortools.serve import find_njs_module
from tests.servers import Nginx, free_port
from tests.servers.nginx import user_directive
from tests.servers.ports import port_answers
from tests.servers.process import Process

MIRRORTOOL = Path(sys.executable).with_name("mirrortool")
LIMITED_BYTES_PER_S = 20_000_000
FAR_S = 0.025
_LOG_DELAY_S = 0.05
_SETTLE_S = 20


@dataclass(frozen=True, slots=True)
class Spent:
    """What the server had done at a moment, or between two."""

    cpu_s: float
    requests: int

    def __sub__(self, earlier: Spent) -> Spent:
        return Spent(self.cpu_s - earlier.cpu_s, self.requests - earlier.requests)


class Site:
    """An origin below `folder`, published by `mirrortool sync`, and served while the `with` block lasts.

    Roads lead to it: `plain`, `tls`, `limited` (20 MB/s for each connection) and `far` (50 ms there and back).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.public = folder / "origin" / "public"
        self._nginx = folder / "nginx"
        self._log = self._nginx / "access.log"
        self._ports = {road: free_port() for road in ("plain", "tls", "limited", "far")}
        self._running = ExitStack()

    # What it holds

    def publish(self, content: Content) -> None:
        """Make `content` and publish it, unless an earlier run did."""
        if self._ref(content.repo).exists():
            return
        source = self.folder / "source" / content.repo
        shutil.rmtree(source, ignore_errors=True)
        content.write(source)
        self._configure([content.repo])
        self._mirrortool("sync", "--all", "--json")
        shutil.rmtree(source)

    def publish_copies(self, content: Content, count: int) -> list[str]:
        """Serve the git repository of `content` under `count` names, which are given."""
        self.publish(content)
        original = self.public / "models" / f"{content.repo}.git"
        names = [f"bench/copy-{number:05}" for number in range(count)]
        for name in names:
            copy = self.public / "models" / f"{name}.git"
            if not copy.exists():
                shutil.copytree(original, copy, symlinks=True)
        return names

    def case(self, road: str, content: Content) -> Case:
        """The repository of `content`, reached by `road`."""
        commit = self._ref(content.repo).resolve().name
        meta = self.public / "models" / content.repo / "meta" / commit / "manifest.json"
        manifest = Manifest.from_json(json.loads(meta.read_text()))
        files = {path: (e.blob.digest, e.blob.size) for path, e in manifest.files.items() if e.is_lfs}
        return Case(self.url(road), [content.repo], self.public, files, self._ca_file(road))

    def many(self, road: str, repos: Sequence[str]) -> Case:
        """Several repositories, whose files nobody will fetch."""
        return Case(self.url(road), repos, self.public, ca_file=self._ca_file(road))

    def url(self, road: str) -> str:
        return f"{'https' if road == 'tls' else 'http'}://127.0.0.1:{self._ports[road]}"

    def warm(self, case: Case) -> None:
        """Read what the server is going to send, so that it comes from memory."""
        for path in case.files:
            with case.served(path).open("rb", buffering=0) as file:
                while file.read(1 << 20):
                    pass

    # What it did

    def spent(self) -> Spent:
        """The server's processor time and requests until now."""
        time.sleep(_LOG_DELAY_S)  # a request is logged when it is over, which may be after the client's end
        return Spent(cpu_s(self._server.pid), self._log.read_bytes().count(b"\n"))

    def log_position(self) -> int:
        """Where the log ends now."""
        return self._log.stat().st_size

    def answers_since(self, position: int) -> list[Answer]:
        """What was answered since the log ended there; `settle` before."""
        with self._log.open(encoding="utf-8", errors="replace") as log:
            log.seek(position)
            return read_answers(log)

    def settle(self) -> None:
        """Wait until the server has let go of every connection, which it logs before. Raises DidNotRun."""
        deadline_s = time.monotonic() + _SETTLE_S
        while open_sockets(children(self._server.pid)) > self._idle_sockets:
            if time.monotonic() > deadline_s:
                raise DidNotRun(f"the server still has connections {_SETTLE_S} s after its client has ended")
            time.sleep(_LOG_DELAY_S / 10)

    # Life

    def __enter__(self) -> Self:
        self._nginx.mkdir(parents=True, exist_ok=True)
        with ExitStack() as starting:
            starting.enter_context(self._alone())
            self._prepare()
            self._start(starting)
            self._running = starting.pop_all()
        return self

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other runs out of the folder. Raises SystemExit when one is in it."""
        with (self.folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                text = f"bench: another run works in {self.folder}; let it end, or name another place with --folder"
                raise SystemExit(text) from None
            yield

    def _prepare(self) -> None:
        self._log.unlink(missing_ok=True)
        self._make_certificates()
        self._configure([])
        (self._nginx / "nginx.conf").write_text(self._main_configuration())
        (self._nginx / "mirrortools" / "server.d").mkdir(parents=True, exist_ok=True)
        (self._nginx / "mirrortools" / "server.d" / "tls.conf").write_text(self._tls_configuration())
        self.public.mkdir(parents=True, exist_ok=True)
        self._mirrortool("nginx", "install", "--prefix", str(self._nginx))

    def _start(self, stack: ExitStack) -> None:
        ports = [self._ports["plain"], self._ports["tls"]]
        self._server = stack.enter_context(Nginx(self._nginx / "nginx.conf", self._nginx, ports))
        time.sleep(_LOG_DELAY_S)  # somebody has just asked whether the ports answer
        self._idle_sockets = open_sockets(children(self._server.pid))
        self._relay(stack, "limited", "--rate", str(LIMITED_BYTES_PER_S))
        self._relay(stack, "far", "--delay", str(FAR_S))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.close()

    def _relay(self, stack: ExitStack, road: str, *options: str) -> None:
        port, target = self._ports[road], self._ports["plain"]
        command: list[str | Path] = [sys.executable, PROJECT / "bench" / "relay.py", str(port), str(target), *options]
        process = Process(command, self.folder / f"relay-{road}.log")
        stack.callback(process.stop)
        process.start(lambda: port_answers(port))

    def _ref(self, repo: str) -> Path:
        return self.public / RepoId.parse(repo).path / "refs" / quote("main", safe="")

    def _ca_file(self, road: str) -> Path | None:
        return self.folder / "certificates" / "ca.pem" if road == "tls" else None

    def _configure(self, repos: Sequence[str]) -> None:
        document = {
            "root": str(self.public.parent),
            "source": f"dir://{self.folder / 'source'}",
            "listen": f"127.0.0.1:{self._ports['plain']}",
            "min_free": 0,
            **({"repositories": list(repos)} if repos else {}),
        }
        (self.folder / "origin.yaml").write_text(yaml.safe_dump(document))

    def _mirrortool(self, *words: str) -> None:
        command = [str(MIRRORTOOL), "--config", str(self.folder / "origin.yaml"), *words]
        _run(command)

    def _make_certificates(self) -> None:
        """An authority of our own and the server's certificate for 127.0.0.1."""
        folder = self.folder / "certificates"
        if (folder / "server.pem").exists():
            return
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        new += ["-days", "3650"]
        authority = ["-keyout", str(folder / "ca.key"), "-out", str(folder / "ca.pem"), "-subj", "/CN=Benchmark CA"]
        _run([*new, *authority, "-addext", "keyUsage=critical,keyCertSign"])
        server = ["-keyout", str(folder / "server.key"), "-out", str(folder / "server.new"), "-subj", "/CN=127.0.0.1"]
        names = ["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"]
        signed = ["-CA", str(folder / "ca.pem"), "-CAkey", str(folder / "ca.key")]
        _run([*new, *server, *names, *signed])
        (folder / "server.new").rename(folder / "server.pem")

    def _main_configuration(self) -> str:
        return _NGINX.format(module=find_njs_module(), user=user_directive(), folder=self._nginx, log_format=LOG_FORMAT)

    def _tls_configuration(self) -> str:
        folder = self.folder / "certificates"
        lines = (
            f"listen 127.0.0.1:{self._ports['tls']} ssl default_server;",
            f"ssl_certificate {folder / 'server.pem'};",
            f"ssl_certificate_key {folder / 'server.key'};",
            "ssl_protocols TLSv1.2 TLSv1.3;",
        )
        return "\n".join(lines)


def _run(command: Sequence[str], env: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    if done.returncode:
        raise SystemExit(f"bench: {' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")


_NGINX = """\
# Written by bench/pull; the site in conf.d is what `mirrortool nginx install` makes.
load_module {module};
{user}
pid {folder}/nginx.pid;
worker_processes auto;
worker_rlimit_nofile 16384;
events {{ worker_connections 4096; }}
http {{
    client_body_temp_path {folder}/body_temp;
    proxy_temp_path {folder}/proxy_temp;
    fastcgi_temp_path {folder}/fastcgi_temp;
    uwsgi_temp_path {folder}/uwsgi_temp;
    scgi_temp_path {folder}/scgi_temp;
    {log_format}
    access_log {folder}/access.log bench;
    map_hash_bucket_size 256;
    include {folder}/conf.d/*.conf;
}}
"""
