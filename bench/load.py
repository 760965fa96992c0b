"""What a server gives under load: requests by wrk and ab, bytes by real downloads."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.case import DidNotRun, environment, one_line
from bench.content import MIB
from bench.measure import cpu_s

CONNECTIONS = 16
_SCRIPT = Path(__file__).with_name("load.lua")
_MOST_REQUESTS = 10**6  # ab keeps 32 bytes of each
# The server has the first processor; who asks has the last.
_PINNED = ("taskset", "--cpu-list", str((os.cpu_count() or 1) - 1))


@dataclass(frozen=True, slots=True)
class Rate:
    """What one run gave: requests or MiB a second, and the server's processor time for each, in microseconds."""

    per_s: float
    server_us: float


@dataclass(frozen=True, slots=True)
class _Done:
    count: float
    took_s: float


def get(url: str, pid: int, seconds: float, paths: Path | None = None) -> Rate:
    """GET by wrk: `url`, or the paths that the file `paths` lists, in random order. Raises DidNotRun."""
    words = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{max(1, round(seconds))}s", "-s", _SCRIPT, url]
    return _rate(pid, lambda: _wrk_said(_run([*words, *(["--", paths] if paths else [])])))


def head(url: str, pid: int, seconds: float) -> Rate:
    """HEAD by ab: wrk would wait for the body. Raises DidNotRun."""
    words = [
        "ab",
        "-q",
        "-i",
        "-k",
        "-c",
        str(CONNECTIONS),
        "-t",
        str(max(1, round(seconds))),
        "-n",
        str(_MOST_REQUESTS),
        url,
    ]
    return _rate(pid, lambda: _ab_said(_run(words)))


def curl(url: str, pid: int, size_bytes: int) -> Rate:
    """One whole file by curl, thrown away, in MiB, without curl's start. Raises DidNotRun."""
    words = ["curl", "--silent", "--fail", "--output", "/dev/null", "--write-out", "%{size_download} %{time_total}"]

    def run() -> _Done:
        got, took_s = _run([*words, url]).split()
        return _arrived("curl", int(got), size_bytes, float(took_s))

    return _rate(pid, run)


def hub(python: Path, url: str, repo: str, pid: int, folder: Path, size_bytes: int) -> Rate:
    """A whole repository by the Hub's client, in MiB, its start included; `folder` is empty. Raises DidNotRun."""
    script = "import sys, huggingface_hub as h; h.snapshot_download(sys.argv[1], local_dir=sys.argv[2])"
    env = environment(folder, HF_ENDPOINT=url, HF_HOME=str(folder), HF_HUB_DISABLE_PROGRESS_BARS="1")

    def run() -> _Done:
        began_s = time.monotonic()
        _run([python, "-c", script, repo, folder / "files"], env)
        took_s = time.monotonic() - began_s
        return _arrived("huggingface_hub", _size(folder / "files"), size_bytes, took_s)

    return _rate(pid, run)


def fetch(url: str) -> None:
    """Have a server answer once, so that a cache has it. Raises DidNotRun."""
    _run(["curl", "--silent", "--fail", "--output", "/dev/null", url])


def _rate(pid: int, run: Callable[[], _Done]) -> Rate:
    before_s = cpu_s(pid)
    done = run()
    return Rate(done.count / done.took_s, (cpu_s(pid) - before_s) * 1e6 / done.count)


def _arrived(who: str, got_bytes: int, expected_bytes: int, took_s: float) -> _Done:
    if got_bytes < expected_bytes:
        raise DidNotRun(f"{who}: got {got_bytes} bytes, expected {expected_bytes}")
    return _Done(expected_bytes / MIB, took_s)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _wrk_said(text: str) -> _Done:
    """What load.lua printed at the end."""
    numbers = json.loads(text.rstrip().rpartition("\n")[2])
    if numbers["bad"] or not numbers["requests"]:
        raise DidNotRun(f"wrk: {numbers['bad']} of {numbers['requests']} requests were not answered well")
    return _Done(numbers["requests"], numbers["duration_us"] / 1e6)


def _ab_said(text: str) -> _Done:
    bad = re.search(r"(?:Non-2xx responses|Failed requests):\s+([1-9]\d*)", text)
    requests = re.search(r"Complete requests:\s+(\d+)", text)
    took_s = re.search(r"Time taken for tests:\s+([\d.]+)", text)
    if bad or not requests or not took_s:
        raise DidNotRun(f"ab: {bad.group() if bad else one_line(text)}")
    return _Done(int(requests.group(1)), float(took_s.group(1)))


def _run(words: Sequence[str | Path], env: dict[str, str] | None = None) -> str:
    command = [*_PINNED, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    if done.returncode:
        raise DidNotRun(f"{words[0]} ended with {done.returncode}: {one_line(done.stderr or done.stdout)}")
    return done.stdout
