"""The main job, shown: a real model goes from a git-LFS host over an origin to six edges and to a client."""

from __future__ import annotations

import argparse
import contextlib
import filecmp
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mirrortools.text import size, span
from tests.servers import GitLfsUpstream, Sshd, free_port
from tests.servers.ports import http_answers
from tests.servers.process import Process

PROJECT = Path(__file__).parents[1]
FOLDER = PROJECT / ".cache" / "demo"
MODEL = PROJECT / ".cache" / "model"
REPO = "sentence-transformers/all-MiniLM-L6-v2"
EDGES = ("beijing", "shanghai", "guangzhou", "chengdu", "wuhan", "harbin")
HF = PROJECT / ".venvs" / "hub-2.4.0" / "bin" / "hf"
PROGRAM = Path(sys.executable).with_name("mirrortool")


@dataclass(frozen=True, slots=True)
class Demo:
    """Everything that runs: the upstream, an sshd for each edge, and where each nginx listens."""

    upstream: GitLfsUpstream
    sshds: Mapping[str, Sshd]
    ports: Mapping[str, int]

    @property
    def config(self) -> Path:
        return FOLDER / "etc" / "mirrortool.yaml"

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.ports[name]}"


def main() -> int:
    """Run the demo; 0 when everything that it shows is as it should be."""
    options = _options()
    if options.fresh:
        shutil.rmtree(FOLDER, ignore_errors=True)
    with contextlib.ExitStack() as running:
        demo = _start(running)
        first_time = _fill(demo.upstream)
        _configure(demo)
        _say("mirrortool sync: pull, verify, publish, deliver to six edges, each of which passes on what it gets")
        _mirrortool("sync", "--all")
        _serve(demo, running)
        _download(demo, EDGES[0])
        _say("mirrortool sync once more: nothing changed, so nothing moves")
        _mirrortool("sync", "--all")
        if first_time:
            _change(demo)
        _show(demo)
        if options.stay or (sys.stdout.isatty() and sys.stdin.isatty()):
            with contextlib.suppress(EOFError):  # nobody can press anything
                input("\nThe servers run until you press Enter. ")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__)
    parser.add_argument("--fresh", action="store_true", help="forget what an earlier run left")
    parser.add_argument("--stay", action="store_true", help="keep the servers running until Enter is pressed")
    return parser.parse_args()


def _start(running: contextlib.ExitStack) -> Demo:
    _say("starting a git-LFS host (git-http-backend, giftless, nginx) and an sshd for each of six edges, on loopback")
    upstream = running.enter_context(GitLfsUpstream(FOLDER / "upstream"))
    sshds = {name: running.enter_context(Sshd(FOLDER / f"sshd-{name}")) for name in EDGES}
    return Demo(upstream, sshds, {name: free_port() for name in ("origin", *EDGES)})


def _fill(upstream: GitLfsUpstream) -> bool:
    """Put the model on the upstream; False when an earlier run did."""
    if upstream.repository(REPO).is_dir():
        print(f"    {upstream.url}/{REPO} holds the model from an earlier run")
        return False
    files = {path.relative_to(MODEL).as_posix(): path for path in sorted(MODEL.rglob("*")) if path.is_file()}
    upstream.commit(REPO, files, message="Add the model")
    upstream.forget()
    print(f"    {upstream.url}/{REPO}: {len(files)} files, {size(sum(f.stat().st_size for f in files.values()))}")
    return True


def _configure(demo: Demo) -> None:
    (FOLDER / "etc" / "conf.d").mkdir(parents=True, exist_ok=True)
    (FOLDER / "edges").mkdir(exist_ok=True)
    edges = {
        name: {
            "url": sshd.url(FOLDER / "edges" / name),
            "http": demo.url(name),
            "listen": f"127.0.0.1:{demo.ports[name]}",
            "identity_file": str(sshd.identity_file),
            "known_hosts": str(sshd.known_hosts),
        }
        for name, sshd in demo.sshds.items()
    }
    listen = f"127.0.0.1:{demo.ports['origin']}"
    _write(demo.config, {"root": str(FOLDER / "root"), "source": demo.upstream.url, "listen": listen, "edges": edges})
    _write(demo.config.parent / "conf.d" / "demo.yaml", {"repositories": [{"repo": REPO, "revisions": ["main"]}]})


def _write(path: Path, document: Mapping[str, Any]) -> None:
    path.write_text(yaml.safe_dump(dict(document), sort_keys=False))


def _mirrortool(*arguments: str) -> None:
    started_s = time.monotonic()
    _run([PROGRAM, "--config", FOLDER / "etc" / "mirrortool.yaml", *arguments])
    print(f"    (the command took {span(time.monotonic() - started_s)})")


def _serve(demo: Demo, running: contextlib.ExitStack) -> None:
    _say("serving the origin and the edges with nginx, configured by `mirrortool nginx print` and `mirrortool serve`")
    logs = FOLDER / "logs"
    logs.mkdir(exist_ok=True)
    running.enter_context(_running([PROGRAM, "--config", demo.config, "serve"], logs / "origin", demo.ports["origin"]))
    for name in EDGES:
        folder = FOLDER / "nginx" / name
        folder.mkdir(parents=True, exist_ok=True)
        arguments = ["nginx", "print", "--edge", name, "--standalone", folder]
        done = _output([PROGRAM, "--config", demo.config, *arguments])
        running.enter_context(_running(done.split(), logs / name, demo.ports[name]))
    for name in ("origin", *EDGES):
        print(f"    {name}: {demo.url(name)}")


@contextlib.contextmanager
def _running(command: Sequence[str | Path], log: Path, port: int) -> Iterator[None]:
    process = Process(command, log)
    try:
        process.start(lambda: http_answers(port))
        yield
    finally:
        process.stop()


def _download(demo: Demo, edge: str) -> None:
    _say(f"hf download from the edge {edge}: the unmodified client, HF_ENDPOINT={demo.url(edge)}")
    target = FOLDER / "downloaded"
    shutil.rmtree(target, ignore_errors=True)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    env |= {"HF_ENDPOINT": demo.url(edge), "HF_HOME": str(FOLDER / "hf"), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    started_s = time.monotonic()
    _output([HF, "download", REPO, "--local-dir", target], env)
    took_s = time.monotonic() - started_s
    source = FOLDER / "upstream" / "authors" / REPO
    files = [path.relative_to(target) for path in target.rglob("*") if path.is_file()]
    names = [str(path) for path in files if path.parts[0] != ".cache"]
    _, different, unreadable = filecmp.cmpfiles(source, target, names, shallow=False)
    if different or unreadable or not names:
        raise SystemExit(f"demo: these files are not what upstream has: {different + unreadable}")
    print(f"    {len(names)} files in {span(took_s)}, byte for byte what upstream has")


def _change(demo: Demo) -> None:
    _say("upstream changes one small file; mirrortool sync moves that and nothing else")
    readme = (MODEL / "README.md").read_text() + "\nA line that was added upstream.\n"
    demo.upstream.commit(REPO, {"README.md": readme.encode()}, message="Add a line to the model card")
    _mirrortool("sync", "--all")


def _show(demo: Demo) -> None:
    _say("mirrortool status")
    _mirrortool("status")
    edge = demo.url(EDGES[0])
    _say("try these while the servers run (scripts/demo --stay):")
    for line in (
        f"HF_ENDPOINT={edge} hf download {REPO}",
        f"git clone {edge}/{REPO}",
        f"curl -OL {edge}/{REPO}/resolve/main/model.safetensors",
        f"aria2c -x4 {edge}/{REPO}/resolve/main/model.safetensors",
        f"aria2c --follow-metalink=mem {edge}/{REPO}/meta/main/revision.meta4    # from all edges at once",
        f"xdg-open {edge}/{REPO}    # the page for people",
        f"mirrortool --config {demo.config.relative_to(PROJECT)} status --json",
    ):
        print(f"    {line}")


def _say(text: str) -> None:
    print(f"\n==> {text}", flush=True)


def _run(command: Sequence[str | Path]) -> None:
    done = subprocess.run([str(word) for word in command], check=False, stdout=subprocess.PIPE, text=True)
    for line in done.stdout.splitlines():
        print(f"    {line}")
    if done.returncode:
        raise SystemExit(f"demo: {command[0]} ended with {done.returncode}; see {FOLDER}")


def _output(command: Sequence[str | Path], env: Mapping[str, str] | None = None) -> str:
    done = subprocess.run([str(word) for word in command], check=False, capture_output=True, text=True, env=env)
    if done.returncode:
        raise SystemExit(f"demo: {command[0]} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
