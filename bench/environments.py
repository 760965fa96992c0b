"""Virtual environments that scripts/setup does not bring, made once: those of peers, and of more kinds of clients."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bench.case import PROJECT

VENVS = PROJECT / ".venvs"


def make(
    name: str,
    requirements: Path | None = None,
    venvs: Path = VENVS,
    *,
    alone: bool = False,
    python: Path | None = None,
    system: bool = False,
) -> Path:
    """The folder `venvs`/`name`, in which `requirements` is installed (else bench/requirements/<name>.txt).

    With `alone` that file names all that is to be there; with `system` the Python's own packages count too.
    `python` is another one than ours. Raises SystemExit.
    """
    requirements = requirements or PROJECT / "bench" / "requirements" / f"{name}.txt"
    folder = venvs / name
    stamp, now = folder / ".setup", f"{folder.resolve()}\n{requirements.read_text()}"
    if stamp.exists() and stamp.read_text() == now:
        return folder
    print(f"installing {folder}", file=sys.stderr)
    words = ["--system-site-packages"] if system else []
    _run([str(python or sys.executable), "-m", "venv", "--clear", *words, str(folder)])
    words = ["--quiet", "--disable-pip-version-check", *(["--no-deps"] if alone else [])]
    _run([str(folder / "bin" / "pip"), "install", *words, "-r", str(requirements)])
    stamp.write_text(now)
    return folder


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
