"""Which version of a program this machine has."""

from __future__ import annotations

import re
import subprocess

from tests.servers.process import program

_NUMBER = re.compile(r"\d+(?:\.\d+)+")


def version_of(name: str, word: str = "--version") -> str:
    """The program's name and the version that it says."""
    done = subprocess.run([program(name), word], capture_output=True, text=True, check=False)
    found = _NUMBER.search(done.stdout + done.stderr)
    return f"{name} {found[0] if found else 'of unknown version'}"
