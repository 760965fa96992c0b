"""Programs that run for a pull, from any thread, and the way to end them all at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess

_running: set[subprocess.Popen[bytes]] = set()
_lock = threading.Lock()


def run_program(
    command: Sequence[str],
    *,
    stdin: bytes | None = None,
    stdout: IO[bytes] | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout_s: float | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run a program to its end; what it says is given, or goes to `stdout`.

    It has a process group of its own, so that it is ended with all that it started: a helper of git that waits for a
    server would hold its pipes open for ever.

    Raises OSError, subprocess.TimeoutExpired.
    """
    import subprocess  # a source on http that has no news needs no programs

    source = subprocess.DEVNULL if stdin is None else subprocess.PIPE
    said, pipe = subprocess.PIPE if stdout is None else stdout, subprocess.PIPE
    with subprocess.Popen(
        command, stdin=source, stdout=said, stderr=pipe, env=env, cwd=cwd, start_new_session=True
    ) as program:
        with _lock:
            _running.add(program)
        try:
            out, err = program.communicate(stdin, timeout_s)
        except BaseException:
            _end(program, signal.SIGKILL)
            raise
        finally:
            with _lock:
                _running.discard(program)
    return subprocess.CompletedProcess(list(command), program.returncode, out or b"", err)


def end_programs() -> None:
    """Ask every program that runs now to end; whoever waits for one sees it fail."""
    with _lock:
        for program in _running:
            _end(program, signal.SIGTERM)


def _end(program: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Signal a program that was not waited for yet, and all that it started."""
    if program.returncode is None:
        with contextlib.suppress(OSError):
            os.killpg(program.pid, number)
