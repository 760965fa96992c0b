"""Sources whose faults a test chooses, and a clock that runs only when somebody waits."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from types import TracebackType
from typing import Self

from mirrortools.errors import SourceMissing, SourceUnavailable, UpstreamError
from mirrortools.model import Blob
from tests.delivery import git_blob, sha256_blob


class Clock:
    """Time that passes while somebody waits, and at no other moment."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.waited: list[float] = []
        self._lock = threading.Lock()

    def __call__(self) -> float:
        return self.now

    def wait(self, _event: threading.Event, seconds: float) -> None:
        """Let `seconds` pass at once."""
        with self._lock:
            self.now += seconds
            self.waited.append(seconds)


@dataclass(frozen=True, slots=True)
class Faults:
    """What is wrong with a source.

    `wrong` flips one byte of each blob, `cut_after` ends each answer after so many bytes, `at_most` gives no more
    at once, `missing` answers that there is no such blob, `rangeless` begins every answer at 0, `misplaced` sends
    from a byte that was not asked for, `changes_after` so many answers a wrong file is replaced by the right one,
    `refusals` are raised one after the other before anything is answered.
    """

    wrong: bool = False
    cut_after: int | None = None
    at_most: int = 1 << 30
    missing: bool = False
    rangeless: bool = False
    misplaced: bool = False
    changes_after: int = 0
    refusals: tuple[UpstreamError, ...] = ()

    @property
    def honest(self) -> bool:
        """Whether a blob comes from it in the end, with none but right bytes."""
        return not (self.wrong or self.missing or self.misplaced or self.changes_after or self.cut_after is not None)


@dataclass(slots=True)
class FakeReader:
    """The bytes of one answer."""

    source: FakeSource
    content: memoryview
    start: int
    version: str = ""

    def readinto(self, buffer: memoryview) -> int:
        """Fill the beginning of `buffer`."""
        count = min(len(buffer), len(self.content), self.source.faults.at_most)
        if self.source.wait_before_bytes is not None:
            self.source.wait_before_bytes.wait(10)
            if self.source.broken_off.is_set():
                raise SourceUnavailable(f"{self.source.name}: interrupted")
        buffer[:count] = self.content[:count]
        self.content = self.content[count:]
        with self.source.lock:
            self.source.sent_bytes += count
        return count

    def cancel(self) -> None:
        """Wake whoever reads; `cancelled` counts."""
        self.source.cancelled.set()


@dataclass(slots=True)
class FakeSource:
    """A ByteSource that holds `contents` and behaves as `faults` say."""

    name: str
    contents: Sequence[bytes]
    faults: Faults = Faults()
    asked: list[tuple[str, int, int]] = field(default_factory=list)
    open_readers: int = 0
    sent_bytes: int = 0
    prepared: list[Blob] = field(default_factory=list)
    hashes: dict[str, object] = field(default_factory=dict)
    wait_before_bytes: threading.Event | None = None
    broken_off: threading.Event = field(default_factory=threading.Event)
    cancelled: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    _refusals: list[UpstreamError] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._refusals = list(self.faults.refusals)

    def prepare(self, blobs: Sequence[Blob]) -> None:
        """Remember what was announced."""
        self.prepared = list(blobs)

    def break_off(self) -> None:
        """Wake whoever waits."""
        self.broken_off.set()
        if self.wait_before_bytes is not None:
            self.wait_before_bytes.set()

    def segment_hashes(self, blob: Blob) -> object:
        """What a test said that it tells of segments."""
        return self.hashes.get(blob.digest)

    def read_many(self, blobs: Sequence[Blob]) -> Iterator[tuple[Blob, bytes]]:
        """Read whole blobs as `open` gives them, until the first trouble."""
        for blob in blobs:
            content, buffer = bytearray(), memoryview(bytearray(blob.size))
            with self.open(blob, 0, blob.size) as reader:
                while len(content) < blob.size and (count := reader.readinto(buffer[len(content) :])):
                    content += buffer[len(content) : len(content) + count]
            yield blob, bytes(content)

    @contextmanager
    def open(self, blob: Blob, start: int, stop: int) -> Iterator[FakeReader]:
        """Read a range, as far as the faults let one."""
        with self.lock:
            self.asked.append((blob.digest, start, stop))
            refusal = self._refusals.pop(0) if self._refusals else None
            self.open_readers += 1
            is_old = len(self.asked) <= self.faults.changes_after
        try:
            if refusal:
                raise refusal
            yield self._answer(blob, start, stop, is_old)
        finally:
            with self.lock:
                self.open_readers -= 1

    def _answer(self, blob: Blob, start: int, stop: int, is_old: bool) -> FakeReader:
        by_digest: Mapping[str, bytes] = {
            named(content).digest: content for content in self.contents for named in (sha256_blob, git_blob)
        }
        if self.faults.missing or blob.digest not in by_digest:
            raise SourceMissing(f"{self.name}: has no {blob}")
        content = bytearray(by_digest[blob.digest])
        if self.faults.wrong and content:
            content[len(content) // 2] ^= 0xFF
        if is_old and content:
            content[0] ^= 0xFF
        if self.faults.misplaced:
            start += 1
        begin = 0 if self.faults.rangeless else start
        sent = memoryview(content)[begin : None if self.faults.rangeless else stop]
        return FakeReader(self, sent[: self.faults.cut_after], begin, "old" if is_old else "new")


@dataclass(frozen=True, slots=True)
class Heard:
    """A request as a server heard it. Header names are in lower case; `connection` counts connections from 0."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    connection: int


class ScriptedServer:
    """A server on loopback that answers each request with the very bytes that `script` gives; None hangs up.

    A context manager. `heard` has every request.
    """

    def __init__(self, script: Callable[[Heard], bytes | None], host: str = "127.0.0.1") -> None:
        self.script = script
        self.heard: list[Heard] = []
        self._listener = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        self.port: int = self._listener.getsockname()[1]
        self.origin = f"http://{f'[{host}]' if ':' in host else host}:{self.port}"
        self._threads: list[threading.Thread] = []
        self._connections: list[socket.socket] = []

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for open_socket in (self._listener, *self._connections):
            with suppress(OSError):
                open_socket.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for open_socket in (self._listener, *self._connections):
            open_socket.close()

    def _start(self, act: Callable[[], None]) -> None:
        thread = threading.Thread(target=act, name="scripted")
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            for number in count():
                connection, _ = self._listener.accept()
                self._connections.append(connection)
                self._start(partial(self._serve, connection, number))

    def _serve(self, connection: socket.socket, number: int) -> None:
        with suppress(OSError), connection.makefile("rb") as file:
            while line := file.readline():
                method, target, _ = line.decode("latin-1").split(" ")
                headers = dict(self._header(header) for header in iter(file.readline, b"\r\n"))
                body = file.read(int(headers.get("content-length", 0)))
                self.heard.append(Heard(method, target, headers, body, number))
                answer = self.script(self.heard[-1])
                if answer is None:
                    break
                connection.sendall(answer)
            connection.shutdown(socket.SHUT_RDWR)

    @staticmethod
    def _header(line: bytes) -> tuple[str, str]:
        name, _, value = line.decode("latin-1").partition(":")
        return name.lower(), value.strip()


def answer(body: bytes = b"", status: int = 200, **headers: str) -> bytes:
    """An HTTP answer; `_` in header names stands for `-`. The length is told unless `Content_Length` is."""
    named = {"Content-Length": str(len(body)), **{name.replace("_", "-"): value for name, value in headers.items()}}
    lines = "".join(f"{name}: {value}\r\n" for name, value in named.items() if value)
    return f"HTTP/1.1 {status} Whatever\r\n{lines}\r\n".encode("latin-1") + body
