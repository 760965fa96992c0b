"""Sources whose faults a test chooses, and a clock that runs only when somebody waits."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from mirrortools.errors import SourceMissing, SourceUnavailable, UpstreamError
from mirrortools.model import Blob
from tests.delivery import sha256_blob


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
    from a byte that was not asked for, `refusals` are raised one after the other before anything is answered.
    """

    wrong: bool = False
    cut_after: int | None = None
    at_most: int = 1 << 30
    missing: bool = False
    rangeless: bool = False
    misplaced: bool = False
    refusals: tuple[UpstreamError, ...] = ()

    @property
    def honest(self) -> bool:
        """Whether a blob comes from it in the end, with none but right bytes."""
        return not (self.wrong or self.missing or self.misplaced or self.cut_after is not None)


@dataclass(slots=True)
class FakeReader:
    """The bytes of one answer."""

    source: FakeSource
    content: memoryview
    start: int

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
    wait_before_bytes: threading.Event | None = None
    broken_off: threading.Event = field(default_factory=threading.Event)
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

    @contextmanager
    def open(self, blob: Blob, start: int, stop: int) -> Iterator[FakeReader]:
        """Read a range, as far as the faults let one."""
        with self.lock:
            self.asked.append((blob.digest, start, stop))
            refusal = self._refusals.pop(0) if self._refusals else None
            self.open_readers += 1
        try:
            if refusal:
                raise refusal
            yield self._answer(blob, start, stop)
        finally:
            with self.lock:
                self.open_readers -= 1

    def _answer(self, blob: Blob, start: int, stop: int) -> FakeReader:
        by_digest: Mapping[str, bytes] = {sha256_blob(content).digest: content for content in self.contents}
        if self.faults.missing or blob.digest not in by_digest:
            raise SourceMissing(f"{self.name}: has no {blob}")
        content = bytearray(by_digest[blob.digest])
        if self.faults.wrong and content:
            content[len(content) // 2] ^= 0xFF
        if self.faults.misplaced:
            start += 1
        begin = 0 if self.faults.rangeless else start
        sent = memoryview(content)[begin : None if self.faults.rangeless else stop]
        return FakeReader(self, sent[: self.faults.cut_after], begin)
