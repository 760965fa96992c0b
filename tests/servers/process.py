"""A server program as a child process: started, waited for until it answers, ended with all its children."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

START_TIMEOUT_S = 30
STOP_TIMEOUT_S = 5


class ServerError(Exception):
    """A server could not be started; the text ends with what the program itself said."""


class Startable(ABC):
    """What runs from `start` to `stop`, and as a context manager for as long as the block."""

    @abstractmethod
    def start(self) -> None:
        """Start it, and return when it answers. Raises ServerError, and then nothing runs."""

    @abstractmethod
    def stop(self) -> None:
        """End it."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class Process:
    """A program in its own process group, with its output in the file `log`.

    `env` is added to our environment; `stdin` is a descriptor that the program inherits as its standard input.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        log: Path,
        env: Mapping[str, str] | None = None,
        stdin: int = subprocess.DEVNULL,
    ) -> None:
        self.command = [str(word) for word in command]
        self.log = log
        self._env = {**os.environ, **(env or {})}
        self._stdin = stdin
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The program's process id. Raises ServerError when it does not run."""
        if self._child is None:
            raise ServerError(f"{self.command[0]} does not run")
        return self._child.pid

    def start(self, ready: Callable[[], bool]) -> None:
        """Start the program and return once `ready()` says so. Raises ServerError, and then nothing runs."""
        self.launch()
        self.wait_until(ready)

    def launch(self) -> None:
        """Start the program without waiting for it."""
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                self.command,
                stdin=self._stdin,
                stdout=log,
                stderr=log,
                env=self._env,
                start_new_session=True,
            )

    def wait_until(self, ready: Callable[[], bool]) -> None:
        """Return once `ready()` says so. Raises ServerError, and then the program has been ended."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while not ready():
            status = self._child.poll() if self._child else None
            if status is not None or time.monotonic() > deadline:
                self.stop()
                what = f"ended with status {status}" if status is not None else f"silent for {START_TIMEOUT_S} s"
                raise ServerError(f"{' '.join(self.command)}: {what}; it said:\n{self._last_words()}")
            time.sleep(0.01)

    def stop(self) -> None:
        """End the program and what it started; fine when it does not run."""
        if self._child is None:
            return
        self._signal(signal.SIGTERM)
        try:
            self._child.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self._child.wait()
        self._child = None

    def _signal(self, number: signal.Signals) -> None:
        """Send a signal to the program's group, which exists until the program has been waited for."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def _last_words(self) -> str:
        return self.log.read_text(errors="replace")[-4000:]


def program(name: str) -> str:
    """Where the program `name` is, also in the sbin folders that users lack. Raises ServerError."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin")
    if found is None:
        raise ServerError(f"the program {name} is not installed; run scripts/setup")
    return found
