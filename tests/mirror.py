"""An origin in a folder of its own, worked by the command line as an operator works it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended: its exit status and what it wrote."""

    status: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """Its output, which is JSON."""
        return json.loads(self.stdout)


class Mirror:
    """A configuration, a root, and the command `mirrortool` on them."""

    def __init__(self, folder: Path, source: str, **settings: Any) -> None:
        self.folder = folder
        self.root = folder / "root"
        self.settings: dict[str, Any] = {"root": str(self.root), "source": source, "min_free": 0, **settings}
        self.job: dict[str, Any] = {"repositories": []}
        (folder / "etc" / "conf.d").mkdir(parents=True)

    @property
    def config(self) -> Path:
        """The main configuration file."""
        return self.folder / "etc" / "mirrortool.yaml"

    def add(self, repo: str, **settings: Any) -> None:
        """Mirror one more repository."""
        self.job["repositories"].append({"repo": repo, **settings})

    def change(self, **settings: Any) -> None:
        """Change what is configured for the last repository that was added."""
        self.job["repositories"][-1].update(settings)

    def write(self) -> None:
        """Write the configuration down."""
        self.config.write_text(yaml.safe_dump(self.settings))
        (self.config.parent / "conf.d" / "job.yaml").write_text(yaml.safe_dump(self.job))

    def command(self, *arguments: str) -> list[str]:
        """The command line of `mirrortool` on this configuration."""
        self.write()
        return [sys.executable, "-m", "mirrortools", "--config", str(self.config), *arguments]

    def run(self, *arguments: str, env: Mapping[str, str] | None = None) -> Ended:
        """Run `mirrortool` to its end."""
        done = subprocess.run(
            self.command(*arguments), capture_output=True, text=True, timeout=100, env={**os.environ, **(env or {})}
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start `mirrortool`; the caller ends it."""
        environ = {**os.environ, "PYTHONFAULTHANDLER": "1"}  # so that `said` can tell where it hangs
        pipe = subprocess.PIPE
        return subprocess.Popen(self.command(*arguments), stdout=pipe, stderr=pipe, text=True, env=environ)

    @staticmethod
    def said(running: subprocess.Popen[str], timeout_s: float) -> str:
        """What `mirrortool` said on stderr, once it has ended. Raises AssertionError with its stacks when it hangs."""
        try:
            return running.communicate(timeout=timeout_s)[1]
        except subprocess.TimeoutExpired:
            running.send_signal(signal.SIGABRT)
            raise AssertionError(f"it hangs: {running.communicate()[1]}") from None

    def sync(self, *arguments: str) -> dict[str, Any]:
        """Sync everything, successfully; the outcome of the only repository."""
        ended = self.run("sync", "--all", "--json", *arguments)
        if ended.status:
            raise AssertionError(f"mirrortool sync ended with {ended.status}: {ended.stderr}\n{ended.stdout}")
        (outcome,) = ended.json
        return dict(outcome)

    def fails(self, *arguments: str) -> Ended:
        """Run `mirrortool`, which must fail, and not as a bug."""
        ended = self.run(*arguments)
        if ended.status == 0 or "this is a bug" in ended.stderr or "Traceback" in ended.stderr:
            raise AssertionError(f"mirrortool ended with {ended.status}: {ended.stderr}\n{ended.stdout}")
        return ended

    def served(self, repo: str, ref: str = "main") -> dict[str, bytes]:
        """The files of a ref as they lie in the tree, empty when nothing is published."""
        return served(self.root, repo, ref)


def served(root: Path, repo: str, ref: str = "main") -> dict[str, bytes]:
    """The files of a ref as they lie in the tree below `root`: path → content."""
    kind_and_name = repo if repo.startswith("datasets/") else f"models/{repo}"
    top = root / "public" / kind_and_name / "refs" / ref
    files = [Path(folder) / name for folder, _, names in os.walk(top) for name in names]
    return {str(file.relative_to(top)): file.read_bytes() for file in files}
