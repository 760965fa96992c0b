"""The programs that people use today, each as fast as its own options make it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.case import PROJECT, Case, DidNotRun, Step, check_files, environment
from bench.competitors import curl
from tests.servers import ServerError, free_port
from tests.servers.ports import port_answers
from tests.servers.process import Process

HUB = PROJECT / ".venvs" / "hub-2.4.0" / "bin" / "python"
OLAH = PROJECT / ".venvs" / "olah" / "bin" / "olah-cli"
_SNAPSHOT = "import sys, huggingface_hub; print(huggingface_hub.snapshot_download(sys.argv[1], cache_dir=sys.argv[2]))"


@dataclass(frozen=True, slots=True)
class _Peer:
    """What peers have in common: they fsync nothing and tell no duration."""

    name: str
    about: str
    role: str = "peer"
    durable: bool = False
    keeps: bool = False

    def engine_s(self, _stdout: str) -> float | None:
        return None


@dataclass(frozen=True, slots=True)
class GitLfs(_Peer):
    """git-lfs in a clone whose making is not measured; `verb` is fetch (objects) or pull (objects and files)."""

    verb: str = "fetch"

    @contextmanager
    def ready(self, case: Case, folder: Path) -> Iterator[Step]:
        more = {"GIT_SSL_CAINFO": str(case.ca_file)} if case.ca_file else {}
        env = environment(folder, GIT_LFS_SKIP_SMUDGE="1", **more)
        _prepare(["git", "lfs", "install", "--skip-repo"], env)
        no_files = ["--no-checkout"] if self.verb == "fetch" else []
        _prepare(["git", "clone", "--quiet", *no_files, f"{case.url}/{case.repo}", str(folder / "clone")], env)
        del env["GIT_LFS_SKIP_SMUDGE"]
        yield Step(["git", "lfs", self.verb], env, folder / "clone")

    def check(self, case: Case, folder: Path, _stdout: str) -> None:
        clone = folder / "clone"
        objects = clone / ".git" / "lfs" / "objects"
        check_files(case, {path: objects / d[:2] / d[2:4] / d for path, (d, _) in case.files.items()})
        if self.verb == "pull":
            check_files(case, {path: clone / path for path in case.files})


@dataclass(frozen=True, slots=True)
class Hub(_Peer):
    """huggingface_hub's snapshot_download into a fresh cache; it checks sizes and no hashes."""

    @contextmanager
    def ready(self, case: Case, folder: Path) -> Iterator[Step]:
        yield self.step(case, folder, case.url)

    def step(self, case: Case, folder: Path, endpoint: str) -> Step:
        more = {"SSL_CERT_FILE": str(case.ca_file)} if case.ca_file else {}
        settings = {
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(folder / "home"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }
        command: list[str | Path] = [HUB, "-c", _SNAPSHOT, case.repo, folder / "cache"]
        return Step(command, environment(folder, **settings, **more))

    def check(self, case: Case, _folder: Path, stdout: str) -> None:
        snapshot = Path(stdout.strip().rpartition("\n")[2])
        check_files(case, {path: snapshot / path for path in case.files})


def olah(url: str, port: int, folder: Path) -> Process:
    """olah, not yet started, as a caching proxy on `port` of the mirror at `url`; `folder` takes all that it writes."""
    scheme, _, place = url.partition("://")
    words = ["--host", "127.0.0.1", "--port", str(port), "--repos-path", str(folder / "olah")]
    words += ["--hf-scheme", scheme, "--hf-netloc", place, "--hf-lfs-netloc", place]
    words += ["--mirror-scheme", "http", "--mirror-netloc", f"127.0.0.1:{port}"]
    words += ["--mirror-lfs-netloc", f"127.0.0.1:{port}"]
    words += ["--log-path", str(folder / "olah-log")]
    return Process([OLAH, *words], folder / "olah.log", {"HOME": str(folder)})


@dataclass(frozen=True, slots=True)
class Olah(Hub):
    """The same client, through olah as a caching proxy that has nothing yet."""

    @contextmanager
    def ready(self, case: Case, folder: Path) -> Iterator[Step]:
        port = free_port()
        process = olah(case.url, port, folder)
        try:
            process.start(lambda: port_answers(port))
            yield self.step(case, folder, f"http://127.0.0.1:{port}")
        except ServerError as error:
            raise DidNotRun(str(error)) from error
        finally:
            process.stop()


@dataclass(frozen=True, slots=True)
class Aria2(_Peer):
    """aria2c with so many connections for each file, space allocated at once, and the SHA-256 checked."""

    connections: int = 8

    @contextmanager
    def ready(self, case: Case, folder: Path) -> Iterator[Step]:
        listed = folder / "list"
        listed.write_text("".join(_aria2_entry(case, path) for path in case.files))
        each = str(self.connections)
        words = ["aria2c", "--quiet", "--no-conf", f"--max-connection-per-server={each}", f"--split={each}"]
        words += ["--min-split-size=1M", "--max-concurrent-downloads=8", "--file-allocation=falloc"]
        words += ["--async-dns=false", f"--dir={folder / 'files'}", f"--input-file={listed}"]
        words += [f"--ca-certificate={case.ca_file}"] if case.ca_file else []
        yield Step(words, environment(folder))

    def check(self, case: Case, folder: Path, _stdout: str) -> None:
        check_files(case, {path: folder / "files" / path for path in case.files})


@dataclass(frozen=True, slots=True)
class Curl(_Peer):
    """curl to files over one connection; it checks nothing."""

    @contextmanager
    def ready(self, case: Case, folder: Path) -> Iterator[Step]:
        targets = self._targets(case, folder)
        for parent in {target.parent for target in targets.values()}:
            parent.mkdir(parents=True, exist_ok=True)
        yield curl(case, folder, targets)

    def check(self, case: Case, folder: Path, _stdout: str) -> None:
        check_files(case, self._targets(case, folder))

    def _targets(self, case: Case, folder: Path) -> dict[str, Path]:
        return {path: folder / "files" / path for path in case.files}


def _aria2_entry(case: Case, path: str) -> str:
    digest, _ = case.files[path]
    return f"{case.link(path)}\n  out={path}\n  checksum=sha-256={digest}\n"


def _prepare(command: Sequence[str], env: Mapping[str, str]) -> None:
    done = subprocess.run(command, env=dict(env), capture_output=True, text=True, check=False)
    if done.returncode:
        raise DidNotRun(f"{' '.join(command)} ended with {done.returncode}: {done.stderr}")
