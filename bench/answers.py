"""What the server says in its log about the requests that it answered."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

LOG_FORMAT = 'log_format bench \'$status $body_bytes_sent "$http_range" "$request"\';'
_LINE = re.compile(r'(\d{3}) (\d+) "([^"]*)" "(?:[A-Z]+ )?([^ "]*)[^"]*"\n')
_RANGE = re.compile(r"bytes=(\d+)-(\d+)\Z")


@dataclass(frozen=True, slots=True)
class Answer:
    """One request: `sent_bytes` of the body were given to the kernel, of [start, stop), which the Range asked for.

    `stop` is None when no Range was asked for.
    """

    path: str
    status: int
    sent_bytes: int
    start: int = 0
    stop: int | None = None


def read_answers(lines: Iterable[str]) -> list[Answer]:
    """The answers that lines of the log tell, in the order of their ends. Raises ValueError."""
    return [_read(line) for line in lines]


def _read(line: str) -> Answer:
    match = _LINE.fullmatch(line)
    if not match:
        raise ValueError(f"not a line of the server's log: {line[:200]!r}")
    wanted = _RANGE.match(match[3])
    status, sent_bytes = int(match[1]), int(match[2])
    if status != 206 or not wanted:
        return Answer(match[4], status, sent_bytes)
    return Answer(match[4], status, sent_bytes, int(wanted[1]), int(wanted[2]) + 1)


def open_sockets(pids: Iterable[int]) -> int:
    """How many sockets processes hold.

    The kernel forgets a connection as soon as the client resets it (/proc/net/tcp has it no more), which is before the
    server has noticed, logged its request and closed it.
    """
    descriptors = (path for pid in pids for path in Path(f"/proc/{pid}/fd").iterdir())
    return sum(_is_socket(path) for path in descriptors)


def _is_socket(descriptor: Path) -> bool:
    with suppress(FileNotFoundError):  # closed meanwhile
        return str(descriptor.readlink()).startswith("socket:")
    return False


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def most_buffered_bytes() -> int:
    """The most that the kernel holds between two ends of a connection: what one may send and the other receive."""
    folder = Path("/proc/sys/net/ipv4")
    return sum(int((folder / name).read_text().split()[2]) for name in ("tcp_wmem", "tcp_rmem"))
