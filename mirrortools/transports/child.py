"""A program that runs for a session, in a process group of its own, so that it ends with all that it started."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO, Final

from mirrortools.errors import EdgeError

END_TIMEOUT_S: Final = 5
_LAST_LINES: Final = 4
_LAST_BYTES: Final = 4000
_PASSED: Final = ("PATH", "HOME", "USER", "LOGNAME", "TMPDIR")


def environment(*names: str) -> dict[str, str]:
    """What children see: a few plain variables and `names`; nothing that changes what ssh and rsync do."""
    return {**{n: os.environ[n] for n in (*_PASSED, *names) if n in os.environ}, "LC_ALL": "C"}


class Child:
    """A running program. Its standard output is a pipe; what it says on standard error is kept for messages."""

    def __init__(self, words: Sequence[str], env: Mapping[str, str], stdin: IO[bytes] | int) -> None:
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the program)
        try:
            self._process = subprocess.Popen(
                words,
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=self._said,
                env=env,
                bufsize=0,
                start_new_session=True,
            )
        except FileNotFoundError as error:
            self._said.close()
            raise EdgeError(f"{words[0]} is not installed on this host; install it and run again") from error

    @property
    def stdout(self) -> int:
        """The descriptor that the program's output is read from."""
        assert self._process.stdout is not None  # noqa: S101  (a pipe was asked for)
        return self._process.stdout.fileno()

    @property
    def stdin(self) -> int:
        """The descriptor that the program reads from, for a child with a pipe there."""
        assert self._process.stdin is not None  # noqa: S101  (a pipe was asked for)
        return self._process.stdin.fileno()

    @property
    def ended(self) -> bool:
        """Whether it runs no more."""
        return self._process.poll() is not None

    def write(self, data: bytes) -> None:
        """Write all of `data` to the program's standard input. Raises BrokenPipeError when it has ended."""
        assert self._process.stdin is not None  # noqa: S101  (a pipe was asked for)
        view = memoryview(data)
        while view:
            view = view[self._process.stdin.write(view) or 0 :]

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Signal the whole group, from any thread; fine when it has ended."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def wait(self) -> tuple[int, str]:
        """Close its standard input and give its exit status and last words; force the end if it does not come."""
        if self._process.stdin:
            with suppress(BrokenPipeError):
                self._process.stdin.close()
        try:
            self._process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.end(signal.SIGKILL)
            self._process.wait()
        return self._process.returncode, self.said()

    def close(self) -> None:
        """Wait for the end and let go of the pipes."""
        self.wait()
        if self._process.stdout:
            self._process.stdout.close()
        self._said.close()

    def said(self) -> str:
        """The last lines of its standard error, in one."""
        if self._said.closed:
            return ""
        size_bytes = self._said.seek(0, os.SEEK_END)
        start = max(0, size_bytes - _LAST_BYTES)
        lines = os.pread(self._said.fileno(), _LAST_BYTES, start).decode(errors="replace").splitlines()
        return " | ".join([line.strip() for line in lines if line.strip()][-_LAST_LINES:])
