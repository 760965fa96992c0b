"""What is on a host, asked in one round trip by a script that needs a POSIX shell and coreutils alone."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from mirrortools.errors import EdgeRefused

_SCRIPT: Final = r"""
encoded() { base64 | tr -d '\n'; }
getent passwd "$1" | { IFS=: read -r name _ _ _ _ home _ && echo "account $(printf %s "$home" | encoded)"; }
shift
command -v apt-get >/dev/null && echo apt
if [ -d /run/systemd/system ]; then
    echo systemd
    for service in nginx rsync; do systemctl is-active --quiet $service && echo "active $service"; done
elif [ -s /run/nginx.pid ]; then
    echo "active nginx"
fi
python3 -c 'import sys; print("python", sys.version_info[0] * 100 + sys.version_info[1])' 2>/dev/null
for path do
    name=$(printf %s "$path" | encoded)
    if [ -L "$path" ]; then echo "entry $name link - - $(readlink -n "$path" | encoded)"
    elif [ -d "$path" ]; then echo "entry $name folder $(stat -c '%U:%G %a' "$path") "
    elif [ -f "$path" ]; then echo "entry $name file $(stat -c '%U:%G %a' "$path") $(encoded <"$path")"
    elif [ -e "$path" ]; then echo "entry $name other - - "
    fi
done
echo end
"""


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a command."""

    status: int
    out: str
    said: str


class Runner(Protocol):
    """Runs commands on a host as its administrator."""

    def run(self, words: Sequence[str], data: bytes = b"") -> Done:
        """Run a command as root, with `data` as its input. Raises EdgeUnreachable."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What lies at a path: `kind` is file, folder, link or other; `content` is a link's target too."""

    kind: str
    owner: str = "-"
    mode: int = 0
    content: bytes = b""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is on a host: entries by path, the account's home, running services. `python` is 311 for 3.11."""

    entries: Mapping[str, Entry] = field(default_factory=dict)
    home: str | None = None
    active: frozenset[str] = frozenset()
    systemd: bool = False
    apt: bool = False
    python: int | None = None

    def content(self, path: str) -> bytes | None:
        """What a file holds; None when it is not there."""
        entry = self.entries.get(path)
        return entry.content if entry and entry.kind == "file" else None


def look(runner: Runner, account: str, paths: Iterable[str]) -> Facts:
    """Ask a host. Raises EdgeUnreachable, EdgeRefused."""
    done = runner.run(["sh", "-c", _SCRIPT, "sh", account, *paths])
    lines = done.out.splitlines()
    if done.status or not lines or lines[-1] != "end":
        raise EdgeRefused(f"the host could not be looked at: status {done.status}; it said: {done.said or done.out}")
    return parse(lines)


def parse(lines: Iterable[str]) -> Facts:
    """Read the script's answer."""
    entries, active, home, python, words = {}, set(), None, None, set()
    for line in lines:
        word, *rest = line.split(" ")
        if word == "entry":
            name, kind, owner, mode, content = rest
            bits = 0 if mode == "-" else int(mode, 8)
            entries[_decoded(name).decode()] = Entry(kind, owner, bits, _decoded(content))
        elif word == "active":
            active.add(rest[0])
        elif word == "account":
            home = _decoded(rest[0]).decode()
        elif word == "python":
            python = int(rest[0])
        else:
            words.add(word)
    return Facts(entries, home, frozenset(active), "systemd" in words, "apt" in words, python)


def _decoded(text: str) -> bytes:
    return base64.b64decode(text)
