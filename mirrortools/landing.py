"""Where pieces of blobs land that come to an edge: in memory, and from there in the files of incoming.

They are hashed and passed on from memory, and written in large blocks past the page cache, in a thread: moving bytes
into new pages of the cache costs more than receiving them. What lies in incoming is what rsync would have left there: a
file's size says how far it is. Only the standard library is used here, because the receiver runs this module on edges.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mirrortools.errors import NoSpace
from mirrortools.feeding import Want
from mirrortools.files import start_writing
from mirrortools.making import Order
from mirrortools.model import Blob
from mirrortools.outlet import Outlet, write_all
from mirrortools.stock import BLOCK_BYTES, BLOCKS, Recent, Stock

# What may come before it is asked once more whether there is room.
_UNASKED_BYTES: Final = 4 << 20
# So many blocks may wait for the disk; one more is being filled, and one may still be read by whoever hashes.
_WAITING: Final = BLOCKS - 2
_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC

Held = Callable[[str], Path | None]
"""Where a blob with this digest lies that the edge has and the delivery may pass on; None when it has none."""


@dataclass(frozen=True, slots=True)
class Goods:
    """What an edge takes part in: blobs to come, how much of each is in `folder`, and what it can pass on besides.

    `objection` says why so many bytes may not come; it is asked again and again, as other deliveries come meanwhile.
    `orders` are blobs that are made of what comes.
    """

    folder: Path
    lacking: Mapping[Blob, int]
    held: Held
    objection: Callable[[int], str | None] = lambda _: None
    orders: Sequence[Order] = ()


class Landing:
    """Takes pieces in, each behind what is there of its blob. For one thread at a time.

    `settle` when no more come for now: what is still in memory is written then.
    """

    def __init__(self, goods: Goods, stock: Stock) -> None:
        self.lacking_bytes = 0
        self._goods = goods
        self._stock = stock
        self._blobs = {bytes.fromhex(blob.digest).ljust(32, b"\0"): blob for blob in goods.lacking}
        self._allowed_bytes = 0
        self._spoiled: set[str] = set()
        self._pen: _Pen | None = None
        self._threads = ThreadPoolExecutor(1, "landing")
        for blob, have in goods.lacking.items():
            place, held = goods.folder / blob.digest, goods.held(blob.digest)
            if not blob.size:
                place.touch(0o600)
            stock.put(blob.digest, have, place, *([held] if held else []))
            self.lacking_bytes += blob.size - have

    @property
    def lacking(self) -> bool:
        """Whether anything is still to come, or to be written."""
        return self.lacking_bytes > 0

    def wants(self) -> list[Want]:
        """What is still to come, in the order in which it should."""
        found = (Want(blob.digest, blob.size, self._stock.have(blob.digest)) for blob in self._blobs.values())
        return [want for want in found if want.have < want.size]

    def is_spoiled(self, blob: Blob) -> bool:
        """Whether the disk did not take all that came of a blob, so that what was hashed may not be what lies there."""
        return blob.digest in self._spoiled

    def expect(self, key: bytes, offset: int, count: int) -> None:
        """A piece follows. Raises ValueError when it was not asked for, OSError when it cannot be written."""
        blob = self._blobs.get(key)
        if blob is None or offset != self._stock.have(blob.digest) or offset + count > blob.size:
            raise ValueError(f"{key.hex()}: nobody asked for {count} bytes at {offset}")
        if self._pen is None or self._pen.blob != blob:
            self.settle()
            self._pen = _Pen(self._goods.folder / blob.digest, blob, offset, self._recent)
            self._recent.begin(blob.digest, offset)

    def room(self, most_bytes: int) -> memoryview:
        """Where the next bytes of the piece go, which follow. Raises NoSpace when they may not come."""
        room = self._recent.room(most_bytes)
        self._allow(len(room))
        return room

    def came(self, count: int) -> None:
        """The room, which has so many bytes, is filled. Raises OSError."""
        pen = self._pen
        assert pen is not None  # noqa: S101  (a piece was expected)
        self._recent.add(count)
        pen.at += count
        self._stock.grow(pen.blob.digest, pen.at)
        if pen.at == pen.blob.size:
            self.settle()
        elif pen.at % BLOCK_BYTES == 0:
            pen.write_in(self._threads)
            with self._spoiling(pen):
                pen.keep_waiting(_WAITING)
        self.lacking_bytes -= count

    def settle(self) -> None:
        """Write what is in memory, and let go of the file. Raises OSError."""
        pen, self._pen = self._pen, None
        if pen:
            with closing(pen), self._spoiling(pen):
                pen.keep_waiting(0)
                pen.write()

    def close(self) -> None:
        """Let go of the memory: nothing more comes."""
        self._threads.shutdown(wait=False)
        self._stock.recent = None

    @property
    def _recent(self) -> Recent:
        """The memory, had when the first bytes come."""
        self._stock.recent = self._stock.recent or Recent()
        return self._stock.recent

    @contextmanager
    def _spoiling(self, pen: _Pen) -> Iterator[None]:
        """Know, when the block fails, that what came is not all on the disk."""
        try:
            yield
        except OSError:
            self._spoil(pen)
            raise

    def _spoil(self, pen: _Pen) -> None:
        self._spoiled.add(pen.blob.digest)
        pen.at = pen.handed = pen.size_bytes
        self._stock.grow(pen.blob.digest, pen.at)
        self.lacking_bytes = sum(want.size - want.have for want in self.wants())

    def _allow(self, count: int) -> None:
        if count > self._allowed_bytes:
            asked_bytes = max(count, min(self.lacking_bytes, _UNASKED_BYTES))
            unwritten_bytes = self._pen.at - self._pen.size_bytes if self._pen else 0
            if why := self._goods.objection(asked_bytes + unwritten_bytes):
                raise NoSpace(why)
            self._allowed_bytes = asked_bytes
        self._allowed_bytes -= count


class _Pen:
    """An open file that is written from memory. `at` is how much of the blob came, `handed` what of that is written.

    Or soon will be: blocks are written in their order, and none behind one that failed.
    """

    def __init__(self, path: Path, blob: Blob, offset: int, recent: Recent) -> None:
        self.blob = blob
        self.at = self.handed = offset
        self._recent = recent
        self._file = os.open(path, _FLAGS, 0o600)
        self._outlet = Outlet(self._file) if blob.size >= BLOCK_BYTES else None
        self._waiting: deque[Future[None]] = deque()
        self._failed = False

    @property
    def size_bytes(self) -> int:
        """How much of the blob is in the file."""
        return os.fstat(self._file).st_size

    def write_in(self, threads: ThreadPoolExecutor) -> None:
        """Have what came written there."""
        self._waiting.append(threads.submit(self._write, self.handed, self.at))
        self.handed = self.at

    def keep_waiting(self, most: int) -> None:
        """Wait until at most so many blocks wait for the disk. Raises OSError."""
        while len(self._waiting) > most:
            self._waiting.popleft().result()

    def write(self) -> None:
        """Write what came and was not handed over. Raises OSError."""
        if self.handed < self.at:
            self._write(self.handed, self.at)
            self.handed = self.at

    def close(self) -> None:
        """Let go of the file, when nobody writes any more."""
        wait(self._waiting)
        if self._outlet:
            self._outlet.close()
        os.close(self._file)

    def _write(self, start: int, stop: int) -> None:
        if self._failed:
            return
        try:
            data = self._recent.part(start, stop)
            if self._outlet:
                self._outlet.write(start, data)
            else:
                write_all(self._file, start, data)
            start_writing(self._file, start, stop)
        except OSError:
            self._failed = True
            raise
