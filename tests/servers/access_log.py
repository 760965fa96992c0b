"""What an upstream was asked for, read from nginx's access log."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

LOG_FORMAT = (
    "log_format requests escape=json "
    '\'{"method":"$request_method","path":"$request_uri","status":$status,"body_bytes":$body_bytes_sent,'
    '"range":"$http_range","route":"$route","port":$server_port,"authorization":"$http_authorization"}\';'
)


@dataclass(frozen=True, slots=True)
class Request:
    """One request that was answered.

    `path` has the query and is quoted as the client sent it; `body_bytes` were sent; `range` is empty when the
    client asked for none; `route` is `git`, `batch`, `bytes` (LFS content) or empty; `port` is where it came in.
    """

    method: str
    path: str
    status: int
    body_bytes: int
    range: str
    route: str
    port: int
    authorization: str


class AccessLog:
    """The requests since the last `forget`.

    nginx writes a line when a request is over, which may be after the client saw the last byte: `settle` makes a
    request of its own, and when that is answered the lines of earlier ones have been written.
    """

    def __init__(self, path: Path, settle: Callable[[], None]) -> None:
        self._path = path
        self._settle = settle
        self._start = 0

    def requests(self) -> list[Request]:
        """All requests since the last `forget`, oldest first."""
        self._settle()
        with self._path.open("rb") as file:
            file.seek(self._start)
            return [Request(**json.loads(line.decode(errors="replace"))) for line in file]

    def forget(self) -> None:
        """Begin to count anew."""
        self._settle()
        self._start = self._path.stat().st_size
