"""What the server says in its log about the requests that it answered."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

LOG_FORMAT = 'log_format bench \'$status $body_bytes_sent "$http_range" "$request"\';'
_LINE = re.compile(r'(\d{3}) (\d+) "([^"]*)" "(?:[A-Z]+ )?([^ "]*)[^"]*"\n')
_RANGE = re.compile(r"bytes=(\d+)-(\d+)\Z")
_LISTEN, _TIME_WAIT = "0A", "06"


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


def open_connections(port: int) -> int:
    """How many connections the server's side of 127.0.0.1:`port` still has (proc_net_tcp in the kernel's documents)."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    ends = [line.split()[1:4:2] for line in lines]
    return sum(local.endswith(f":{port:04X}") and state not in (_LISTEN, _TIME_WAIT) for local, state in ends)


def most_buffered_bytes() -> int:
    """The most that the kernel holds between two ends of a connection: what one may send and the other receive."""
    folder = Path("/proc/sys/net/ipv4")
    return sum(int((folder / name).read_text().split()[2]) for name in ("tcp_wmem", "tcp_rmem"))
