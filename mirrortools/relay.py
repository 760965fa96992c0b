"""An edge's part in a delivery to many: takes pieces from one host, and passes them on to whoever draws them.

What arrives is written (`landing`) to the same files, by the same rule, as rsync writes: a file's size says how far it
is, so that either goes on from the other. It is hashed as it comes; nothing shows before its hash is right. The origin
says from whom to draw; whoever draws from here needs this delivery's passport. Only the standard library is used here,
because the receiver runs this module on edges.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from mirrortools.errors import EdgeRefused, NoSpace
from mirrortools.feeding import PipeLink, SocketLink, Want, feed, read_some, take, tls
from mirrortools.frames import frame, read_frame
from mirrortools.landing import Goods, Landing
from mirrortools.making import Made, Making
from mirrortools.model import Blob
from mirrortools.passport import accepting, calling
from mirrortools.stock import Reading, Stock
from mirrortools.throttle import Throttle

# Smaller ones are hashed when they are adopted.
HASHED_BYTES: Final = 1 << 20
CONNECT_S: Final = 3.0
# A relay that nobody needs for so long lets go of its port.
IDLE_S: Final = 120.0
_CHUNK_BYTES: Final = 1 << 20
_LOOK_S: Final = 0.2
_BACKLOG: Final = 64
_CREDENTIALS: Final = struct.Struct("3i")
_BROKEN: Final = (OSError, ValueError, KeyError, TypeError, EdgeRefused)


@dataclass(frozen=True, slots=True)
class Source:
    """From whom to draw: any of these addresses. `number` tells this order from earlier ones; `limit` is in bytes/s."""

    number: int
    addresses: Sequence[tuple[str, int]]
    limit_bytes_s: int | None


@dataclass(frozen=True, slots=True)
class Standing:
    """How the link stands that an edge takes from: its number; `waiting`, `running`, `refused` (never came about),
    `broken` or `done`; and why.
    """

    number: int = 0
    state: str = "waiting"
    text: str = ""


class Relay:
    """One delivery's exchange on an edge; listens when it is made, until `close`.

    `ports` bounds where it listens, both included; None: anywhere. Raises OSError when there is no free port,
    ssl.SSLError when that is no passport.
    """

    def __init__(self, goods: Goods, passport: str, ports: tuple[int, int] | None, limit_bytes_s: int | None) -> None:
        self._calling = calling(passport)
        self._accepting = accepting(passport)
        self._stock = Stock()
        self._goods = goods
        self._landing = Landing(goods, self._stock)
        self._making = Making(self._stock, goods.folder, goods.orders, goods.objection)
        fresh = {order.recipe.fresh for order in goods.orders}  # whose bytes are hashed in what is made of them
        self._hasher = Hasher(self._stock, [b for b in goods.lacking if _is_hashed_behind(b) and b not in fresh])
        self._throttle = Throttle(limit_bytes_s)
        self._lock = threading.Condition()
        self._standing = Standing()
        self._rests = False
        self._full: NoSpace | None = None
        self._taking: SocketLink | PipeLink | None = None
        self._links: set[SocketLink | PipeLink] = set()
        self._turn = threading.Lock()
        self.name = f"mirrortools-{secrets.token_hex(16)}"
        self._hashing = threading.Thread(target=self._hasher.run, name="relay", daemon=True)
        self._doors = [_listen(ports), _listen_here(self.name)]
        self.port: int = self._doors[0].getsockname()[1]
        self._hashing.start()
        for door in self._doors:
            _start(partial(self._welcome, door))

    def draw(self, source: Source) -> None:
        """Take from another host from now on."""
        self._expect(source.number)
        _start(lambda: self._draw(source))

    def await_feed(self, number: int) -> None:
        """Let whoever comes with that number feed from now on; from others nothing more is taken after this."""
        self._expect(number)
        with self._turn:
            """Whoever took before has ended."""

    def rest(self) -> None:
        """Take nothing more, and return when all that came is written or given up."""
        with self._lock:
            self._rests = True
            self._expect(self._standing.number)
        with self._turn:
            """Whoever took has ended."""

    def flow(self, wait_s: float) -> tuple[int, Standing]:
        """Bytes that lack, and how the link stands; waits until that changes, and for so long at most.

        Raises NoSpace when nothing more may come.
        """
        with self._lock:
            known = self._standing
            if self._landing.lacking:
                self._lock.wait_for(lambda: self._standing != known or self._stock.ended, wait_s)
            if self._full:
                raise self._full
            return self._landing.lacking_bytes, self._standing

    def digest(self, blob: Blob) -> str | None:
        """The SHA-256 of a blob that arrived whole, as soon as it is known; None when it was not hashed here, and from
        the second time on.
        """
        return None if self._landing.is_spoiled(blob) else self._hasher.digest(blob)

    def made(self, blob: Blob) -> Made | None:
        """A blob that was made of what came; None when it was not, or the disk did not take all that came."""
        fresh = [order.recipe.fresh for order in self._goods.orders if order.recipe.blob == blob]
        return None if any(map(self._landing.is_spoiled, fresh)) else self._making.made(blob)

    def keep(self) -> None:
        """Be able to pass on what came here and is about to be removed, as it is not adopted."""
        self._stock.keep(blob.digest for blob in self._goods.lacking if (self._goods.folder / blob.digest).exists())

    def close(self) -> None:
        """End all links and let go of the port."""
        self._stock.end()
        self._hasher.end()
        self._making.end()
        for door in self._doors:
            with suppress(OSError):
                door.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._lock.notify_all()
            for link in self._links:
                link.close()
        _start(self._let_go)

    def _expect(self, number: int) -> None:
        with self._lock:
            self._standing = Standing(number)
            self._lock.notify_all()
            if self._taking:
                self._taking.close()

    def _stand(self, number: int, state: str, text: str = "") -> None:
        """Note how the link with that number stands, unless another one has its place by now."""
        with self._lock:
            if self._standing.number == number:
                self._standing = Standing(number, state, text)
                self._lock.notify_all()

    def _draw(self, source: Source) -> None:
        try:
            link = call(source.addresses, self._calling)
        except OSError as error:
            self._stand(source.number, "refused", str(error))
            return
        with self._in_use(link):
            self._take(link, source.number, {"draw": True, "limit_bytes_s": source.limit_bytes_s})

    def _take(self, link: SocketLink | PipeLink, number: int, words: Mapping[str, Any]) -> None:
        """Take what lacks, after whoever took before has ended."""
        with self._turn:
            with self._lock:
                if self._standing.number != number or self._rests or self._stock.ended:
                    return
                self._taking = link
            self._stand(number, "running")
            try:
                wants = [[want.digest, want.size, want.have] for want in self._landing.wants()]
                link.write(memoryview(frame({**words, "wants": wants})))
                self._take_all(link)
                self._stand(number, "done")
                _start(self._let_go)
            except NoSpace as error:
                self._full = error
                self._stand(number, "broken", str(error))
            except _BROKEN as error:
                self._stand(number, "broken", f"{error or type(error).__name__}")
            finally:
                self._taking = None

    def _take_all(self, link: SocketLink | PipeLink) -> None:
        try:
            take(link, self._landing)
        finally:
            self._landing.settle()

    def _let_go(self) -> None:
        """Keep nothing in memory any more, when what came is hashed and nobody takes."""
        self._hashing.join()
        with self._turn:
            self._landing.close()

    def _welcome(self, door: socket.socket) -> None:
        """Let in whoever may come, each in a thread of its own, until the relay is closed or idle for long."""
        door.settimeout(IDLE_S)
        with closing(door):
            while not self._stock.ended:
                try:
                    connection, _ = door.accept()
                except TimeoutError:
                    if not self._links and not self._landing.lacking:
                        return
                    continue
                except OSError:
                    return
                _start(partial(self._receive, connection))

    def _receive(self, connection: socket.socket) -> None:
        with suppress(OSError):
            is_here = connection.family == socket.AF_UNIX
            link = _handed_over(connection) if is_here else tls(connection, self._accepting, server=True)
            with self._in_use(link), suppress(*_BROKEN):
                self._answer(link)
            if is_here:
                connection.close()  # whoever handed the link over waits for this

    def _answer(self, link: SocketLink | PipeLink) -> None:
        words = read_frame(lambda count: read_some(link, count))
        if words and "feed" in words:
            self._take(link, int(words["feed"]), {})
        elif words and "draw" in words:
            self._give(link, words)

    def _give(self, link: SocketLink | PipeLink, words: Mapping[str, Any]) -> None:
        wants = wants_of(words)
        for want in wants:
            place = None if self._stock.knows(want.digest) else self._goods.held(want.digest)
            if place:
                self._stock.put(want.digest, want.size, place)
        limit = words.get("limit_bytes_s")
        for _ in feed(link, self._stock, wants, (self._throttle, Throttle(int(limit) if limit else None))):
            pass

    @contextmanager
    def _in_use(self, link: SocketLink | PipeLink) -> Iterator[None]:
        with self._lock:
            self._links.add(link)
        try:
            yield
        finally:
            with self._lock:
                self._links.discard(link)
            link.release()


class Hasher:
    """Hashes blobs behind whoever writes them, one after the other."""

    def __init__(self, stock: Stock, blobs: Sequence[Blob]) -> None:
        self._stock = stock
        self._rest = iter(blobs)
        self._digests: dict[Blob, str | None] = {}
        self._current = next(self._rest, None)
        self._known = threading.Condition()
        self._ended = False

    def run(self) -> None:
        """Hash them all, until `end`."""
        while blob := self._current:
            digest = None if self._ended else self._hash(blob)
            with self._known:
                self._digests[blob] = digest
                self._current = next(self._rest, None)
                self._known.notify_all()

    def digest(self, blob: Blob) -> str | None:
        """The digest of a blob, once it is known; None when nobody comes to hash it, as one before it is not whole.

        It is given once: what is wrong comes again by another way, and has to be hashed anew.
        """
        with self._known:
            self._known.wait_for(lambda: blob in self._digests or not self._goes_on())
            return self._digests.pop(blob, None)

    def end(self) -> None:
        """Hash no further."""
        self._ended = True

    def _goes_on(self) -> bool:
        """Whether the blob whose turn it is is whole."""
        return self._current is not None and self._stock.have(self._current.digest) == self._current.size

    def _hash(self, blob: Blob) -> str | None:
        running, at = hashlib.sha256(), 0
        buffer = memoryview(bytearray(_CHUNK_BYTES))
        with suppress(OSError), closing(Reading(self._stock, blob.digest)) as reading:
            while at < blob.size and not self._ended:
                version = self._stock.version
                ready = min(self._stock.have(blob.digest) - at, len(buffer))
                if not ready:
                    self._stock.wait(version, _LOOK_S)
                    continue
                count = reading.read_into(buffer[:ready], at)
                if not count:
                    return None
                running.update(buffer[:count])
                at += count
        return None if at < blob.size else running.hexdigest()


def call(addresses: Sequence[tuple[str, int]], context: ssl.SSLContext, timeout_s: float = CONNECT_S) -> SocketLink:
    """A link to the first of these addresses that answers. Raises OSError with what the last one said."""
    trouble = OSError("no address is known")
    for host, port in addresses:
        try:
            return tls(socket.create_connection((host, port), timeout_s), context, server=False)
        except OSError as error:
            trouble = OSError(f"{host} port {port}: {error}")
    raise trouble


def wants_of(words: Mapping[str, Any]) -> list[Want]:
    """What the other side says that it lacks. Raises ValueError, KeyError, TypeError."""
    return [Want(str(digest), int(size), int(have)) for digest, size, have in words["wants"]]


def _handed_over(connection: socket.socket) -> PipeLink:
    """The two descriptors that a process of this user hands over. Raises OSError."""
    connection.settimeout(CONNECT_S)
    _, user, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    _, descriptors, _, _ = socket.recv_fds(connection, 1, 2)
    link = PipeLink(*descriptors) if len(descriptors) == 2 else None
    if link is None or user != os.geteuid():
        for descriptor in descriptors:
            os.close(descriptor)
        raise OSError(f"user {user} may not hand over a link")
    return link


def _listen(ports: tuple[int, int] | None) -> socket.socket:
    """A socket on all addresses of this host, of both families where there are both."""
    trouble: OSError | None = None
    for port in range(ports[0], ports[1] + 1) if ports else (0,):
        try:
            dual = socket.has_dualstack_ipv6()
            family, place = (socket.AF_INET6, "::") if dual else (socket.AF_INET, "")
            return socket.create_server((place, port), family=family, backlog=_BACKLOG, dualstack_ipv6=dual)
        except OSError as error:
            trouble = error
    raise trouble or OSError("no port was named")


def _listen_here(name: str) -> socket.socket:
    """A socket that only processes of this host find; it has no file (unix(7), abstract)."""
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    door.bind(f"\0{name}")
    door.listen(_BACKLOG)
    return door


def _is_hashed_behind(blob: Blob) -> bool:
    return blob.algorithm == "sha256" and blob.size >= HASHED_BYTES


def _start(act: Callable[[], object]) -> None:
    threading.Thread(target=act, name="relay", daemon=True).start()
