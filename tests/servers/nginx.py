"""nginx in the foreground with a configuration of the caller's."""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Sequence
from pathlib import Path

from tests.servers.ports import port_answers
from tests.servers.process import Process, Startable, program


class Nginx(Startable):
    """nginx that runs `config` (its text, or the path of a file) until the `with` block ends.

    `folder` takes the configuration, the error log and nginx's own messages. It is up when all of `ports`
    answer on 127.0.0.1. Raises ServerError with nginx's message.
    """

    def __init__(self, config: str | Path, folder: Path, ports: Sequence[int]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.ports = ports
        self.error_log = folder / "error.log"
        self._path = config if isinstance(config, Path) else self._written(config)
        self._process = Process(self._command(), folder / "nginx.out")

    @property
    def pid(self) -> int:
        """The master's process id."""
        return self._process.pid

    def start(self) -> None:
        """Start nginx and wait until every port answers."""
        self._process.start(lambda: all(port_answers(port) for port in self.ports))

    def stop(self) -> None:
        """End nginx; connections that are open are closed."""
        self._process.stop()

    def _written(self, text: str) -> Path:
        path = self.folder / "nginx.conf"
        path.write_text(text)
        return path

    def _command(self) -> list[str | Path]:
        text = self._path.read_text()
        # A configuration with a working directory names its files from there.
        prefix = "./" if re.search(r"^\s*working_directory\s", text, re.MULTILINE) else self.folder
        command: list[str | Path] = [program("nginx"), "-p", prefix, "-c", self._path.resolve()]
        command += ["-e", self.error_log]
        says_daemon = re.search(r"^\s*daemon\s", text, re.MULTILINE)
        return command if says_daemon else [*command, "-g", "daemon off;"]


def user_directive() -> str:
    """The line that keeps nginx's workers our own user, who alone can read a test's folders."""
    return f"user {pwd.getpwuid(0).pw_name};" if os.geteuid() == 0 else ""
