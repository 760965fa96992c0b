"""A host of a `Network` that others can fetch from: a mirror of folders, served as `mirrortool serve` does."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import yaml

from bench.case import environment
from tests.servers.network import Host
from tests.servers.process import Process

_PORT: Final = 8080
_PROGRAM: Final = Path(sys.executable).with_name("mirrortool")


class Mirrored:
    """What is served lies below `folder`, while the `with` block lasts."""

    def __init__(self, host: Host, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "root"
        self.root.mkdir(parents=True, exist_ok=True)
        self.url = f"http://{host.address}:{_PORT}"
        self._host = host
        self._source = folder / "source"
        self._serving = Process([*host.command(self._words([], "serve"))], folder / "serve.log")

    def publish(self, repo: str, write: Callable[[Path], object]) -> None:
        """Serve a repository of the files that `write` makes in a folder."""
        write(self._source / repo)
        subprocess.run(
            self._words([repo], "sync", "--all", "--quiet"),
            check=True,
            env=environment(self.folder),
            capture_output=True,
        )
        shutil.rmtree(self._source / repo)

    @staticmethod
    def replace(blob: Path, content: bytes) -> None:
        """Serve other bytes, of the same number, under the name of a blob."""
        with blob.open("r+b") as file:
            file.write(content)

    def _words(self, repos: Sequence[str], *words: str) -> list[str]:
        self._source.mkdir(parents=True, exist_ok=True)
        document = {
            "root": str(self.root),
            "source": f"dir://{self._source}",
            "min_free": 0,
            "listen": f"{self._host.address}:{_PORT}",
            **({"repositories": list(repos)} if repos else {}),
        }
        config = self.folder / f"{'-'.join(repos).replace('/', '-') or 'serve'}.yaml"
        config.write_text(yaml.safe_dump(document))
        return [str(_PROGRAM), "--config", str(config), *words]

    def _answers(self) -> bool:
        look = self._host.command(["bash", "-c", f"exec 3<>/dev/tcp/{self._host.address}/{_PORT}"])
        return subprocess.run(look, capture_output=True).returncode == 0

    def __enter__(self) -> Self:
        self._serving.start(self._answers)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._serving.stop()
