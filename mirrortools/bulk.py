"""Small blobs by the hundred: pipelined requests, hashed in memory, made durable together.

The quick way and nothing else: what it does not get, for whatever reason, is left to `fetch`, which knows about
retries, failover and quarantine.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from mirrortools.errors import NoSpace, SourceMissing, StoreError, UpstreamError
from mirrortools.model import Blob
from mirrortools.store import READ_ONLY, Store
from mirrortools.upstreams import ByteSource

SMALL_BYTES: Final = 256 << 10
FEW: Final = 8
# As many as one question of the batch API is about.
_GROUP_COUNT: Final = 100
_GROUP_BYTES: Final = 4 << 20
_LOT_COUNT: Final = 4000
_PREFIX: Final = "bulk."

Written = tuple[str | Path, Blob]
"""A blob's content, checked, in a file that the store can adopt."""


@dataclass(frozen=True, slots=True)
class Bulk:
    """Where small blobs come from and go to. `folder` is on the store's file system.

    `adopted` is told what is in the store; `received` is told the bytes that came from the source, by its name, a
    group at a time; `stopped` ends it from outside. A group is read in a `seat`, which gives False when all is ended.
    """

    source: ByteSource
    store: Store
    folder: Path
    workers: int
    received: Callable[[str, int], None]
    stopped: threading.Event = field(default_factory=threading.Event)
    seat: Callable[[], AbstractContextManager[bool]] = lambda: contextlib.nullcontext(True)
    adopted: Callable[[Blob, int], None] = lambda _blob, _size: None
    _stopped: threading.Event = field(default_factory=threading.Event)
    _troubles: list[UpstreamError] = field(default_factory=list)

    def fetch(self, blobs: Sequence[Blob]) -> UpstreamError | None:
        """Bring into the store what comes easily; give the trouble that ended it, if it was about more than a blob.

        Raises StoreError, NoSpace, OSError.
        """
        with _own_folder(self.folder) as stage, self._threads() as (readers, adopter):
            adopting: Future[None] | None = None
            try:
                for lot in self._lots(_groups(blobs), readers, stage):
                    if adopting:
                        adopting.result()
                    adopting = adopter.submit(self._adopt, lot)
                if adopting:
                    adopting.result()
            except BaseException as error:
                self._end(error)
                raise
        return self._troubles[0] if self._troubles else None

    @contextlib.contextmanager
    def _threads(self) -> Iterator[tuple[ThreadPoolExecutor, ThreadPoolExecutor]]:
        """Threads that read, and one that adopts what was read while the next is read: it waits for the disk."""
        with ThreadPoolExecutor(self.workers, "bulk") as readers, ThreadPoolExecutor(1, "adopt") as adopter:
            yield readers, adopter

    def _lots(self, groups: Iterable[list[Blob]], readers: ThreadPoolExecutor, stage: Path) -> Iterator[list[Written]]:
        """What was read and written, as much at once as is adopted together."""
        running: set[Future[list[Written]]] = set()
        lot: list[Written] = []
        for group in groups:
            while len(running) >= self.workers:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    lot += future.result()
            if self._stopped.is_set() or self.stopped.is_set():
                break
            if len(lot) >= _LOT_COUNT:
                yield lot
                lot = []
            running.add(readers.submit(self._read_seated, group, stage))
        for future in running:
            lot += future.result()
        if lot:
            yield lot

    def _adopt(self, lot: Sequence[Written]) -> None:
        self.store.adopt_all(lot)
        for _, blob in lot:
            self.adopted(blob, blob.size)

    def _end(self, error: BaseException) -> None:
        self._stopped.set()
        if not isinstance(error, OSError | StoreError | NoSpace):
            self.source.break_off()

    def _read_seated(self, group: Sequence[Blob], stage: Path) -> list[Written]:
        with self.seat() as seated:
            return self._read(group, stage) if seated and not self._stopped.is_set() else []

    def _read(self, group: Sequence[Blob], stage: Path) -> list[Written]:
        """Write the blobs of a group that come and hash right."""
        written: list[Written] = []
        came_bytes = 0
        try:
            for blob, content in self.source.read_many(group):
                came_bytes += len(content)
                if len(content) == blob.size and _digest(content, blob) == blob.digest:
                    path = f"{stage}/{blob.digest}"
                    _write(path, content)
                    written.append((path, blob))
                if self._stopped.is_set() or self.stopped.is_set():
                    break
        except SourceMissing:
            """One blob's trouble: `fetch` meets it again and tells."""
        except UpstreamError as error:
            self._troubles.append(error)
            self._stopped.set()
        finally:
            self.received(self.source.name, came_bytes)
        return written


def _digest(content: bytes, blob: Blob) -> str:
    digest = blob.new_hash()
    digest.update(content)
    return digest.hexdigest()


def _write(path: str, content: bytes) -> None:
    """Make a small file; plain system calls, because there are very many of them."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, READ_ONLY)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(file, rest) :]
    finally:
        os.close(file)


def _groups(blobs: Sequence[Blob]) -> Iterator[list[Blob]]:
    """Blobs in groups of bounded number and size, in their order."""
    group: list[Blob] = []
    size = 0
    for blob in blobs:
        if group and (len(group) == _GROUP_COUNT or size + blob.size > _GROUP_BYTES):
            yield group
            group, size = [], 0
        group.append(blob)
        size += blob.size
    if group:
        yield group


@contextlib.contextmanager
def _own_folder(parent: Path) -> Iterator[Path]:
    """A folder for this call alone. One that a killed run left behind is removed: nobody holds its lock."""
    for left in parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError), _locked(left):
            shutil.rmtree(left)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    try:
        with _locked(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
