"""Run one step and measure it: time, processor time, memory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from bench.case import DidNotRun, Step

TIMEOUT_S = 1800
_TIMED = Path(__file__).with_name("timed.py")
_LOOK_S = 0.05
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Usage:
    """What a command took; `peak_bytes` is its largest process, `tree_bytes` all of them at one moment (sampled)."""

    wall_s: float
    user_s: float
    system_s: float
    peak_bytes: int
    tree_bytes: int
    stdout: str

    @property
    def cpu_s(self) -> float:
        return self.user_s + self.system_s


@contextmanager
def running(step: Step, out: Path, err: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start a step in a process group of its own; at the end all that is left of it is killed."""
    with out.open("wb") as stdout, err.open("wb") as stderr:
        child = subprocess.Popen(
            [str(word) for word in step.command],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env=dict(step.env),
            cwd=step.cwd,
            start_new_session=True,
        )
        try:
            yield child
        finally:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def measure(step: Step, folder: Path) -> Usage:
    """Run `step` to its end; its output is kept in `folder`. Raises DidNotRun when it fails."""
    report, out, err = folder / "report.json", folder / "stdout", folder / "stderr"
    command = [sys.executable, "-I", "-S", _TIMED, report, *step.command]
    with running(replace(step, command=command), out, err) as child:
        tree_bytes = _watch(child)
    if child.returncode:
        said = (err.read_text(errors="replace") or out.read_text(errors="replace"))[-2000:]
        raise DidNotRun(f"{step.command[0]} ended with {child.returncode}: {said}")
    return Usage(**json.loads(report.read_text()), tree_bytes=tree_bytes, stdout=out.read_text(errors="replace"))


def _watch(child: subprocess.Popen[bytes]) -> int:
    """Wait for the child; the most memory that its descendants had together whenever we looked."""
    most, deadline = 0, time.monotonic() + TIMEOUT_S
    while True:
        with suppress(subprocess.TimeoutExpired):
            child.wait(_LOOK_S)
            return most
        most = max(most, sum(_resident(pid) for pid in descendants(child.pid)))
        if time.monotonic() > deadline:
            raise DidNotRun(f"it took more than {TIMEOUT_S} s")


def descendants(pid: int) -> list[int]:
    """The processes below `pid`."""
    found = []
    for task in _entries(Path(f"/proc/{pid}/task")):
        with suppress(OSError):
            found += [int(word) for word in (task / "children").read_text().split()]
    return [*found, *(below for child in found for below in descendants(child))]


def _entries(folder: Path) -> list[Path]:
    with suppress(OSError):
        return list(folder.iterdir())
    return []


def _resident(pid: int) -> int:
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    return 0


def machine_cpu_s() -> float:
    """The processor time that everything on this machine has taken (proc_pid_stat(5), proc_stat(5))."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, _first_line("/proc/stat").split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _first_line(path: str) -> str:
    return Path(path).read_text().partition("\n")[0]


def cpu_s(pid: int) -> float:
    """The processor time that a running process and its running children have taken."""
    total = 0
    for each in [pid, *descendants(pid)]:
        with suppress(OSError):
            words = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            total += int(words[11]) + int(words[12])
    return total / os.sysconf("SC_CLK_TCK")
