"""Programs that run for a pull, from any thread, and the way to end them all at once."""

from __future__ import annotations

import contextlib
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

    Raises OSError, subprocess.TimeoutExpired.
    """
    import subprocess  # a source on http that has no news needs no programs

    source = subprocess.DEVNULL if stdin is None else subprocess.PIPE
    said = subprocess.PIPE if stdout is None else stdout
    with subprocess.Popen(command, stdin=source, stdout=said, stderr=subprocess.PIPE, env=env, cwd=cwd) as program:
        with _lock:
            _running.add(program)
        try:
            out, err = program.communicate(stdin, timeout_s)
        except BaseException:
            program.kill()
            raise
        finally:
            with _lock:
                _running.discard(program)
    return subprocess.CompletedProcess(list(command), program.returncode, out or b"", err)


def end_programs() -> None:
    """Ask every program that runs now to end; whoever waits for one sees it fail."""
    with _lock:
        for program in _running:
            with contextlib.suppress(OSError):
                program.terminate()
