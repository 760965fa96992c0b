"""What a measurement was made on and with."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from bench.case import PROJECT
from bench.content import GIB

_VERSIONS = {
    "git": ["git", "--version"],
    "git-lfs": ["git", "lfs", "version"],
    "curl": ["curl", "--version"],
    "aria2": ["aria2c", "--version"],
    "OpenSSL": ["openssl", "version"],
    "wrk": ["wrk", "-v"],
    "nginx": ["/usr/sbin/nginx", "-v"],
    "huggingface_hub": [str(PROJECT / ".venvs/hub-2.4.0/bin/pip"), "list"],
    "olah": [str(PROJECT / ".venvs/olah/bin/pip"), "list"],
}


def machine(folder: Path) -> dict[str, str]:
    """The hardware, the file system of `folder`, and the system."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB
    return {
        "Processor": f"{_processor()}, {os.cpu_count()} cores{_extensions()}",
        "Memory": f"{memory:.0f} GiB",
        "File system": _file_system(folder),
        "System": f"{_system()}, Linux {platform.release()}",
    }


def versions() -> dict[str, str]:
    """The programs that took part."""
    found = {"mirrortools": commit(), "Python": platform.python_version()}
    return found | {name: _version(name, command) for name, command in _VERSIONS.items()}


def _version(name: str, command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return "missing"
    lines = (done.stdout + done.stderr).splitlines()
    line = next((line for line in lines if line.startswith(name)), lines[0] if lines else "")
    match = re.search(r"\d+(?:\.\d+)+", line)
    return match.group() if match else "unknown"


def commit() -> str:
    """Which commit of ours this is."""
    words = ["git", "-C", str(PROJECT)]
    commit = subprocess.run([*words, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False)
    status = [*words, "status", "--porcelain", "--", "mirrortools"]
    changed = subprocess.run(status, capture_output=True, text=True, check=False).stdout.strip()
    return f"commit {commit.stdout.strip() or 'unknown'}{' with changes that are not committed' if changed else ''}"


def _processor() -> str:
    return next(_facts("model name"), platform.machine())


def _extensions() -> str:
    flags = next(_facts("flags"), "").split()
    names = [
        name for flag, name in (("sha_ni", "SHA-NI"), ("vaes", "VAES"), ("hypervisor", "virtual")) if flag in flags
    ]
    return f" ({', '.join(names)})" if names else ""


def _facts(key: str) -> Iterator[str]:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            yield value.strip()


def _file_system(folder: Path) -> str:
    words = ["findmnt", "--noheadings", "--output", "FSTYPE,OPTIONS", "--target", str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return " ".join(done.stdout.split()) or "unknown"


def _system() -> str:
    release = platform.freedesktop_os_release() if sys.platform == "linux" else {}
    return release.get("PRETTY_NAME", platform.system())
