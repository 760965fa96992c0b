"""A blob while it grows: one file that segments are written into, and the journal beside it.

The journal holds the hash of each segment that was written, and whoever opens a partial blob reads those
segments again. So no segment needs an fsync of its own: after a power cut, what the disk lost is found and
fetched again, and only that.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import xxhash

from mirrortools.files import start_writing
from mirrortools.model import Blob
from mirrortools.outlet import Outlet, write_all
from mirrortools.ring import RING, Ring
from mirrortools.segments import (
    SEGMENT_BYTES,
    Segments,
    Span,
    journal_header,
    journal_line,
    read_journal,
    spans,
)

_CHUNK_BYTES = 256 << 10
_HASHED_AT_ONCE_BYTES = 512 << 10  # what the second hash reads is in the processor's own cache then
_MOST_AHEAD = 3
_LONGEST_WAIT_S = 1.0


class Reader(Protocol):
    """What bytes come from, as an upstream's reader gives them."""

    def readinto(self, buffer: memoryview) -> int:
        """Fill the beginning of `buffer`; 0 at the end."""
        ...


class _Buffer(threading.local):
    """Each thread's own place to read to, so that none is made for every segment."""

    def __init__(self) -> None:
        self.view = memoryview(bytearray(_CHUNK_BYTES))


_BUFFER = _Buffer()


@dataclass(slots=True)
class _Held:
    """A segment that is whole in memory. Its buffer is given back when it is on disk and hashed."""

    buffer: memoryview
    content: memoryview
    digest: str = ""
    begun: bool = False
    stored: bool = False


class Partial:
    """The growing file of one blob, opened when it is made; `close` it. Thread-safe.

    It belongs to one process at a time. Raises BlockingIOError while another has it: two would write into the file
    that one of them has verified. A blob of one segment has no journal: there is nothing to go on from.

    Several workers write different segments at the same time, each after a `claim`: a segment that is done may have
    been hashed, and must not be written again. `advance` hashes what is contiguous from the start, in a thread of its
    own, so that the hash that names the blob is nearly ready when the last segment lands. A segment whose turn is near
    gets both of its hashes there, from one reading; `keep_pace` holds the writers while some wait for that.

    Such a segment is received into memory (`room`, `hold`), and hashed and written (`store`) from there, where the
    ring has a place for it.

    What an earlier run left is read when it is made; `before_each` segment of that is called, and may raise.
    """

    def __init__(
        self,
        folder: Path,
        blob: Blob,
        segment_bytes: int = SEGMENT_BYTES,
        ring: Ring = RING,
        before_each: Callable[[], None] = lambda: None,
    ) -> None:
        self.blob = blob
        self.segments = Segments(blob.size, segment_bytes)
        self.path = part_of(folder, blob)
        self.journal = folder / f"{blob.digest}.journal"
        self.done: dict[int, str] = {}
        self.resumed_bytes = 0
        self.hashing_s = 0.0  # of what this run brought
        self._claimed: set[int] = set()
        self._whole = self.blob.new_hash()
        self._hashed = 0
        self._contiguous = 0
        self._ready = 0
        self._written: set[int] = set()
        self._ring = ring
        self._before_each = before_each
        self._held: dict[int, _Held] = {}
        self._trouble: OSError | None = None
        self._lock = threading.Lock()
        self._hash_lock = threading.Lock()
        self._hashed_more = threading.Condition(self._lock)
        self._ending = False
        self._file = -1
        self._journal = -1
        self._open()

    def _open(self) -> None:
        self._file = _open_alone(self.path)
        self._outlet = Outlet(self._file)
        self._ending = False
        try:
            self._start_or_resume()
        except BaseException:
            self.close()
            raise

    def stop_hashing(self) -> None:
        """Let whoever hashes end soon: nobody will ask for the digest."""
        with self._hashed_more:
            self._ending = True
            self._hashed_more.notify_all()  # what is held may never be stored now

    def close(self) -> None:
        """Let go of the files; what is written whole stays for the next run. Closing twice is fine."""
        self.stop_hashing()
        with self._hash_lock:
            self._store_the_rest()
            self._journal_the_rest()
            self._let_go()

    def _store_the_rest(self) -> None:
        for index in sorted(self._held):
            self.store(index)
        with self._hashed_more:
            self._hashed_more.wait_for(lambda: all(held.stored for held in self._held.values()))
            for held in self._held.values():
                self._ring.give_back(held.buffer)
            self._held.clear()

    def _journal_the_rest(self) -> None:
        """Hash what waits for it. What cannot be read now is fetched again in the next run."""
        if self._journal >= 0:
            with contextlib.suppress(OSError):
                for index in sorted(self._written - self.done.keys()):
                    self._record(index, self._segment_digest(*self.segments.bounds(index)))

    def _let_go(self) -> None:
        self._outlet.close()
        opened = [descriptor for descriptor in (self._journal, self._file) if descriptor >= 0]
        self._file = self._journal = -1
        for descriptor in opened:
            os.close(descriptor)

    def remove(self) -> None:
        """Leave nothing for the next run."""
        self.journal.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)
        self.close()

    def _start_or_resume(self) -> None:
        if self.journal.exists():
            self._resume()
        if self.blob.size:
            os.posix_fallocate(self._file, 0, self.blob.size)
        os.ftruncate(self._file, self.blob.size)
        if self.segments.count > 1:
            self._rewrite_journal()

    def _resume(self) -> None:
        on_disk = os.fstat(self._file).st_size
        for index, digest in read_journal(self.journal.read_text(errors="replace"), self.segments).items():
            self._before_each()
            start, stop = self.segments.bounds(index)
            if stop <= on_disk and self._segment_digest(start, stop) == digest:
                self._record(index, digest)
                self.resumed_bytes += stop - start

    def _rewrite_journal(self) -> None:
        if self.done:
            lines = [journal_line(index, digest) for index, digest in self.done.items()]
            beside = self.journal.with_suffix(".journal.new")
            beside.write_text(journal_header(self.segments) + "".join(lines))
            beside.replace(self.journal)
        self._journal = os.open(self.journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        if not self.done:
            _empty(self._journal)
            os.write(self._journal, journal_header(self.segments).encode())

    def _segment_digest(self, start: int, stop: int) -> str:
        digest = xxhash.xxh3_128()
        for chunk in self._read(start, stop):
            digest.update(chunk)
        return digest.hexdigest()

    def _read(self, start: int, stop: int) -> Iterator[memoryview]:
        buffer = _BUFFER.view
        while start < stop:
            count = os.preadv(self._file, [buffer[: stop - start]], start)
            if count == 0:
                return
            yield buffer[:count]
            start += count

    def missing(self, longest: int | None = None) -> list[Span]:
        """The runs of segments that are still to be fetched."""
        with self._lock:
            count = self.segments.count
            return list(spans(count, self._written, longest or max(count, 1)))

    def lacks(self, span: Span) -> list[int]:
        """The segments of a span that are still to be fetched."""
        return [index for index in range(span.first, span.stop) if index not in self._written]

    def claim(self, index: int) -> bool:
        """Take a segment to write it, until `finish_segment` or `release`; False when it is done or taken."""
        with self._lock:
            free = index not in self._written and index not in self._claimed
            if free:
                self._claimed.add(index)
            return free

    def release(self, index: int) -> None:
        """Let others take a segment that was claimed and perhaps not finished."""
        with self._lock:
            self._claimed.discard(index)

    def room(self, index: int) -> memoryview | None:
        """Memory for a claimed segment whose turn to be hashed is near: fill it, then `hold` it or give it up.

        None when the segment is to be written as it comes, in order to be read back later.
        """
        start, stop = self.segments.bounds(index)
        if stop - start > self._ring.size_bytes or not self._is_near(index):
            return None
        buffer = self._ring.take()
        return buffer and buffer[: stop - start]

    def give_up(self, content: memoryview) -> None:
        """Let others have the memory of a segment that did not come whole."""
        self._ring.filled()
        self._ring.give_back(_whole_buffer(content))

    def hold(self, index: int, content: memoryview) -> None:
        """Say that a claimed segment is whole in its room. It counts when `advance` and `store` are through with it.

        Raises the OSError of an earlier `store`.
        """
        self._ring.filled()
        with self._lock:
            self._held[index] = _Held(_whole_buffer(content), content)
            self._count_written(index)
        if self._trouble:
            raise self._trouble

    def store(self, index: int) -> None:
        """Write a segment that is held. An error is kept for the next one that is held, and for `digest`."""
        with self._lock:
            held = self._held.get(index)
            if held is None or held.begun:
                return
            held.begun = True
        try:
            self._outlet.write(self.segments.bounds(index)[0], held.content)
        except OSError as error:
            self._trouble = error
        with self._lock:
            held.stored = True
        self._settle(index, held)

    def _settle(self, index: int, held: _Held) -> None:
        """Let go of a held segment when it is on disk and hashed; remember it, unless the disk had trouble."""
        with self._hashed_more:
            settled = bool(held.stored and held.digest) and self._held.pop(index, None) is held
            if self._trouble:
                self._written.discard(index)
            elif settled:
                self._remember(index, held.digest)
            self._hashed_more.notify_all()
        if settled:
            self._ring.give_back(held.buffer)

    def write(self, offset: int, data: memoryview) -> None:
        """Put bytes of a claimed segment in their place; they count only after `finish_segment`."""
        write_all(self._file, offset, data)

    def receive(self, reader: Reader, offset: int, count: int) -> int:
        """Put up to `count` bytes of a claimed segment in their place; how many came, 0 at the reader's end."""
        piece = _BUFFER.view[:count]
        moved = reader.readinto(piece)
        self.write(offset, piece[:moved])
        return moved

    def finish_segment(self, index: int) -> None:
        """Say that a claimed segment is written whole. It is hashed here (xxh3_128) when its turn is not near."""
        start, stop = self.segments.bounds(index)
        start_writing(self._file, start, stop)
        if self._is_near(index):
            with self._lock:
                self._count_written(index)
        else:
            self._record(index, self._segment_digest(start, stop))

    def _is_near(self, index: int) -> bool:
        """Whether it will be hashed soon, in its turn."""
        return index == self._contiguous <= self._hashed + _MOST_AHEAD

    def _count_written(self, index: int) -> None:
        self._written.add(index)
        while self._contiguous in self._written:
            self._contiguous += 1

    def _record(self, index: int, digest: str) -> None:
        """Remember a segment's hash for this run and the next one."""
        with self._hashed_more:
            self._count_written(index)
            self._remember(index, digest)
            self._hashed_more.notify_all()

    def _remember(self, index: int, digest: str) -> None:
        self.done[index] = digest
        if self._journal >= 0:
            os.write(self._journal, journal_line(index, digest).encode())

    @property
    def ready_bytes(self) -> int:
        """How much is on disk from the start on, each segment hashed; the SHA-256 of the whole may still be wrong."""
        with self._lock:
            while self._ready in self.done:
                self._ready += 1
            return self.segments.bounds(self._ready - 1)[1] if self._ready else 0

    @property
    def complete(self) -> bool:
        """Whether every segment is there."""
        return len(self.done) == self.segments.count

    def advance(self) -> None:
        """Hash the contiguous segments that were not hashed yet; returns at once if another thread does."""
        while (
            self._hashed < self._contiguous and not self._ending
        ):  # one may have come since the last look, before the lock was let go
            if not self._hash_lock.acquire(blocking=False):
                return
            try:
                self._hash_contiguous()
            finally:
                self._hash_lock.release()

    def keep_pace(self) -> None:
        """Wait while many segments wait for their hash, for a second at most.

        Writers that run ahead on a fast link take the processor from hashing. What an earlier run left, or came out of
        turn, is hashed already and holds nobody.
        """
        with self._hashed_more:
            self._hashed_more.wait_for(lambda: len(self._written) - len(self.done) < _MOST_AHEAD, _LONGEST_WAIT_S)

    def _hash_contiguous(self) -> None:
        while self._hashed < self._contiguous and not self._ending:
            if held := self._held.get(self._hashed):
                self._hash_held(self._hashed, held)
            elif self._hashed in self.done:
                for chunk in self._read(*self.segments.bounds(self._hashed)):
                    self._whole.update(chunk)
            else:
                self._hash_both(self._hashed)
            self._hashed += 1

    def _hash_held(self, index: int, held: _Held) -> None:
        began_s, digest = time.monotonic(), xxhash.xxh3_128()
        for start in range(0, len(held.content), _HASHED_AT_ONCE_BYTES):
            piece = held.content[start : start + _HASHED_AT_ONCE_BYTES]
            self._whole.update(piece)
            digest.update(piece)
        self.hashing_s += time.monotonic() - began_s
        with self._lock:
            held.digest = digest.hexdigest()
        self._settle(index, held)

    def _hash_both(self, index: int) -> None:
        """Read a segment once for both of its hashes."""
        began_s, digest = time.monotonic(), xxhash.xxh3_128()
        for chunk in self._read(*self.segments.bounds(index)):
            self._whole.update(chunk)
            digest.update(chunk)
        self.hashing_s += time.monotonic() - began_s
        self._record(index, digest.hexdigest())

    def digest(self) -> str:
        """The hash of the whole by which the blob is named, once complete; after `stop_hashing` it means nothing.

        Raises the OSError of a `store`.
        """
        with self._hash_lock:
            self._hash_contiguous()
        with self._hashed_more:
            self._hashed_more.wait_for(lambda: not self._held or self._trouble or self._ending)
        if self._trouble:
            raise self._trouble
        return self._whole.hexdigest()

    def forget_damage(self) -> int:
        """Drop the segments that no longer hash to what was written, and hash from the start again.

        Returns how many were dropped: none means that the bytes came wrong and were stored right.
        """
        with self._hash_lock, self._lock:
            damaged = [i for i, d in self.done.items() if self._segment_digest(*self.segments.bounds(i)) != d]
            self._drop(damaged)
        return len(damaged)

    def forget(self, indices: Collection[int]) -> None:
        """Drop segments that are to be fetched again, for the next run too, and hash from the start again."""
        with self._hash_lock, self._lock:
            self._drop(indices)
            if self._journal >= 0:
                os.close(self._journal)
                self._rewrite_journal()

    def _drop(self, indices: Collection[int]) -> None:
        for index in indices:
            self.done.pop(index, None)
        self._start_hashing()
        for index in self.done:
            self._count_written(index)

    def move_away(self, target: Path) -> None:
        """Give the wrong content to `target`; `begin_again` or `close` afterwards."""
        self.journal.unlink(missing_ok=True)
        self.path.replace(target)
        self.close()

    def begin_again(self) -> None:
        """Begin with an empty file."""
        self.done = {}
        self._start_hashing()
        self._open()

    def _start_hashing(self) -> None:
        self._whole, self._hashed, self._contiguous, self._ready = self.blob.new_hash(), 0, 0, 0
        self._written.clear()

    def sync(self) -> None:
        """Make the content durable."""
        os.fsync(self._file)


def part_of(folder: Path, blob: Blob) -> Path:
    """The file in which a blob grows."""
    return folder / f"{blob.digest}.part"


def _whole_buffer(content: memoryview) -> memoryview:
    """The buffer of the ring that a segment lies in the beginning of."""
    return memoryview(content.obj)


def _empty(file: int) -> None:
    """Make an open file empty if it is not.

    ext4 flushes a file that was truncated to nothing when it is closed, new or not, and waits for the disk when it is
    deleted: 3 ms for each blob.
    """
    if os.fstat(file).st_size:
        os.ftruncate(file, 0)


def _open_alone(path: Path) -> int:
    """Open a file for this process alone, making it when it is not there. Raises BlockingIOError."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(file), path.stat()):
                return file
        except FileNotFoundError:
            pass  # whoever had it moved it away in between
        except BaseException:
            os.close(file)
            raise
        os.close(file)
