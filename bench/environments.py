"""Virtual environments for the peers that scripts/setup does not bring, made once from bench/requirements."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bench.case import PROJECT


def make(name: str) -> Path:
    """The folder .venvs/<name>, in which bench/requirements/<name>.txt is installed. Raises SystemExit."""
    requirements = PROJECT / "bench" / "requirements" / f"{name}.txt"
    folder = PROJECT / ".venvs" / name
    stamp, now = folder / ".setup", f"{folder.resolve()}\n{requirements.read_text()}"
    if stamp.exists() and stamp.read_text() == now:
        return folder
    print(f"bench: installing {folder.relative_to(PROJECT)}", file=sys.stderr)
    _run([sys.executable, "-m", "venv", "--clear", str(folder)])
    _run([str(folder / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", "-r", str(requirements)])
    stamp.write_text(now)
    return folder


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"bench: {' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
