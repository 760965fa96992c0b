"""Connections to hosts that have several addresses, of which some may not answer (RFC 8305, in its simple form).

An address is tried a quarter of a second after the one before, or as soon as that has failed; who answers first is
taken. So an address that swallows all that is sent to it costs that quarter, and not its time-out.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain, zip_longest
from typing import Any, Final, NamedTuple

STAGGER_S: Final = 0.25
# How often it is looked whether anybody wants the connection any more.
_LOOK_S: Final = 0.25


class Address(NamedTuple):
    """Where a host may be reached: the family, and what connect(2) takes in it."""

    family: int
    place: tuple[Any, ...]

    def __str__(self) -> str:
        return str(self.place[0])


def in_turn(found: Iterable[Address], first: int | None) -> list[Address]:
    """Addresses of each family in turn, in their order; those of the family `first` before the others."""
    families: dict[int, list[Address]] = {first: []} if first is not None else {}
    for address in dict.fromkeys(found):
        families.setdefault(address.family, []).append(address)
    return [address for address in chain(*zip_longest(*families.values())) if address]


class _Attempt(NamedTuple):
    """A socket that is about to be connected, until `ends_s`."""

    connecting: socket.socket
    address: Address
    ends_s: float


class Race:
    """The attempts to reach one of some addresses, each for `timeout_s`; `run` it once."""

    def __init__(self, addresses: Sequence[Address], timeout_s: float, is_over: Callable[[], bool]) -> None:
        self._waiting = deque(addresses)
        self._timeout_s = timeout_s
        self._is_over = is_over
        self._poll = select.poll()
        self._attempts: dict[int, _Attempt] = {}
        self._failures: list[tuple[Address, OSError]] = []
        self._next_s = time.monotonic()

    def run(self) -> tuple[socket.socket, Address]:
        """The first that is connected; the others are closed. Raises OSError when none is, or `is_over`."""
        try:
            while self._waiting or self._attempts:
                if self._is_over():
                    raise OSError(errno.ECANCELED, "interrupted")
                if self._waiting and time.monotonic() >= self._next_s:
                    self._begin(self._waiting.popleft())
                if winner := self._connected():
                    return winner
            raise self._trouble()
        finally:
            for attempt in self._attempts.values():
                attempt.connecting.close()

    def _begin(self, address: Address) -> None:
        now_s = time.monotonic()
        self._next_s = now_s + STAGGER_S
        try:
            connecting = socket.socket(address.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError as error:  # a family that this host does not have
            self._fail(address, error)
            return
        self._attempts[connecting.fileno()] = _Attempt(connecting, address, now_s + self._timeout_s)
        self._poll.register(connecting, select.POLLOUT)
        code = connecting.connect_ex(address.place)
        if code not in (0, errno.EINPROGRESS):
            self._give_up(connecting.fileno(), OSError(code, os.strerror(code)))

    def _connected(self) -> tuple[socket.socket, Address] | None:
        """Wait for a little, and see what came of the attempts."""
        for number, _ in self._poll.poll(1000 * self._patience_s()) if self._attempts else ():
            connecting, address, _ = self._attempts[number]
            code = connecting.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if not code:
                del self._attempts[number]
                connecting.settimeout(self._timeout_s)
                return connecting, address
            self._give_up(number, OSError(code, os.strerror(code)))
        now_s = time.monotonic()
        for number in [number for number, attempt in self._attempts.items() if attempt.ends_s <= now_s]:
            self._give_up(number, TimeoutError("timed out"))
        return None

    def _patience_s(self) -> float:
        until_s = min(attempt.ends_s for attempt in self._attempts.values())
        if self._waiting:
            until_s = min(until_s, self._next_s)
        return max(0.0, min(_LOOK_S, until_s - time.monotonic()))

    def _give_up(self, number: int, error: OSError) -> None:
        attempt = self._attempts.pop(number)
        self._poll.unregister(number)
        attempt.connecting.close()
        self._fail(attempt.address, error)

    def _fail(self, address: Address, error: OSError) -> None:
        self._failures.append((address, error))
        self._next_s = time.monotonic()

    def _trouble(self) -> OSError:
        """Why none of them was reached; that of a single one as it is."""
        if len(self._failures) == 1:
            return self._failures[0][1]
        told = "; ".join(f"{address}: {error.strerror or error}" for address, error in self._failures)
        return OSError(errno.EHOSTUNREACH, told or "it has no address")


class Dialer:
    """Connects to hosts, and remembers for each which family of addresses answered. Thread-safe.

    What is being made can be broken off. `resolve` gives what getaddrinfo(3) does.
    """

    def __init__(self, timeout_s: float, resolve: Callable[..., Iterable[Any]] = socket.getaddrinfo) -> None:
        self._timeout_s = timeout_s
        self._resolve = resolve
        self._families: dict[str, int] = {}
        self._making: set[socket.socket] = set()
        self._is_over = False
        self._lock = threading.Lock()

    def dial(self, host: str, port: int) -> socket.socket:
        """A connection to a host, with the time-out of this dialer. Raises OSError."""
        self._refuse_when_over()
        found = self._resolve(host, port, 0, socket.SOCK_STREAM)
        addresses = in_turn((Address(each[0], each[4]) for each in found), self.family(host))
        connected, address = Race(addresses, self._timeout_s, lambda: self._is_over).run()
        self._families[host] = address.family
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connected

    def family(self, host: str) -> int | None:
        """The family of addresses in which a host answered last; None of one that was not reached yet."""
        return self._families.get(host)

    @contextmanager
    def in_the_making(self, connected: socket.socket) -> Iterator[None]:
        """While the block says what has to be said first, it can be broken off; if it fails the socket is closed.

        Raises OSError.
        """
        with self._lock:
            self._making.add(connected)
        try:
            self._refuse_when_over()
            yield
            self._refuse_when_over()
        except BaseException:
            connected.close()
            raise
        finally:
            with self._lock:
                self._making.discard(connected)

    def _refuse_when_over(self) -> None:
        if self._is_over:
            raise OSError(errno.ECANCELED, "interrupted")

    def break_off(self) -> None:
        """Wake the threads that connect, with an error; nothing is connected afterwards."""
        with self._lock:
            self._is_over = True
            for connected in self._making:
                with suppress(OSError):
                    # Not the TLS socket's own: another thread is using it, and would go on in the clear.
                    socket.socket.shutdown(connected, socket.SHUT_RDWR)
