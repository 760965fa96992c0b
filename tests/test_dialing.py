"""A host that has several addresses: one that swallows all that is sent to it costs little, and nobody waits for it."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrortools.errors import SourceUnavailable
from mirrortools.upstreams.connections import Connections, Way
from mirrortools.upstreams.dialing import Address, Dialer, in_turn
from mirrortools.upstreams.http import HttpClient, Request
from tests.servers import free_port
from tests.strategies import trials

LONG_S = 120.0
V6, V4 = socket.AF_INET6, socket.AF_INET


def swallow(host: str, port: int, making: ExitStack) -> None:
    """Have an address to which connections are begun, and never made: no room is left for those that wait."""
    family = V6 if ":" in host else V4
    making.enter_context(socket.create_server((host, port), family=family, backlog=0))
    for _ in range(4):
        waiting = making.enter_context(socket.socket(family))
        waiting.setblocking(False)
        waiting.connect_ex((host, port))


@pytest.fixture
def port() -> Iterator[int]:
    """A port where ::1 swallows what is sent to it, and 127.0.0.1 takes connections."""
    number = free_port()
    with ExitStack() as making:
        making.enter_context(socket.create_server(("127.0.0.1", number)))
        swallow("::1", number, making)
        yield number


def resolving(*hosts: str) -> tuple[Callable[..., Any], list[str]]:
    """What tells these addresses of any name, and the names that it was asked for."""
    asked = list[str]()

    def resolve(name: str, port: int, *_: object) -> list[Any]:
        asked.append(name)
        return [(V6 if ":" in host else V4, socket.SOCK_STREAM, 6, "", (host, port)) for host in hosts]

    return resolve, asked


@given(st.lists(st.tuples(st.sampled_from([V4, V6]), st.integers(0, 5))), st.sampled_from([None, V4, V6]))
@trials(100)
def test_families_take_turns(found: list[tuple[int, int]], first: int | None) -> None:
    """None is lost or tried twice; the known family begins; within a family the system's order stays."""
    addresses = [Address(family, (number,)) for family, number in found]
    ordered = in_turn(addresses, first)

    assert sorted(ordered) == sorted(set(addresses))
    rarest = len(ordered)
    for family in (V4, V6):
        of_it = [address for address in ordered if address.family == family]
        rarest = min(rarest, len(of_it))
        assert of_it == [address for address in dict.fromkeys(addresses) if address.family == family]
    turns = [address.family for address in ordered[: 2 * rarest]]
    assert turns == turns[:2] * rarest
    if first in {address.family for address in addresses}:
        assert ordered[0].family == first


def test_an_address_that_swallows_all_is_not_waited_for(port: int) -> None:
    """The next one is tried soon after, is taken, and begins the next time."""
    resolve, _ = resolving("::1", "127.0.0.1")
    dialer = Dialer(LONG_S, resolve)
    with closing(dialer.dial("a.example", port)) as first:
        assert first.getpeername() == ("127.0.0.1", port)
        assert first.gettimeout() == LONG_S
    known = in_turn([Address(V6, ("::1", port)), Address(V4, ("127.0.0.1", port))], dialer.family("a.example"))

    assert known[0].family == V4


def test_an_address_that_refuses_is_passed_over_at_once() -> None:
    """Though the one after it swallows all, a third is reached."""
    refusing, resolve = free_port(), resolving("127.0.0.3", "127.0.0.2", "127.0.0.1")[0]
    with ExitStack() as making:
        swallow("127.0.0.2", refusing, making)
        making.enter_context(socket.create_server(("127.0.0.1", refusing)))
        with closing(Dialer(LONG_S, resolve).dial("a.example", refusing)) as reached:
            assert reached.getpeername()[0] == "127.0.0.1"


def test_all_that_was_tried_is_told(port: int) -> None:
    """And why each failed; of a single one the plain reason."""
    resolve, _ = resolving("::1", "127.0.0.2")
    with pytest.raises(OSError, match=r"127\.0\.0\.2: Connection refused; ::1: timed out"):
        Dialer(0.5, resolve).dial("a.example", port)
    with pytest.raises(ConnectionRefusedError):
        Dialer(LONG_S).dial("127.0.0.2", port)
    with pytest.raises(TimeoutError):
        Dialer(0.1).dial("::1", port)
    client = HttpClient(timeout_s=0.1)
    with pytest.raises(SourceUnavailable, match="timed out"), client.open(Request(f"http://[::1]:{port}/")):
        pass


def broken_off(connections: Connections, origin: tuple[str, str, int], begun: Callable[[], object]) -> BaseException:
    """What comes of a connection that is broken off when it has `begun`."""
    failures = list[BaseException]()

    def take() -> None:
        try:
            connections.take(origin)
        except OSError as error:
            failures.append(error)

    taking = threading.Thread(target=take, daemon=True)
    taking.start()
    begun()
    connections.break_off()
    taking.join(timeout=60)
    [failure] = failures
    return failure


def test_who_connects_can_be_broken_off(port: int) -> None:
    """A run that is told to stop does not wait for an address that swallows all."""
    resolving_began = threading.Event()
    resolve, _ = resolving("::1")

    def tell(*words: Any) -> Any:
        resolving_began.set()
        return resolve(*words)

    connections = Connections(Way(ssl.create_default_context, Dialer(LONG_S, tell)))
    failure = broken_off(connections, ("http", "a.example", port), resolving_began.wait)

    assert str(failure) == "[Errno 125] interrupted"


@pytest.mark.parametrize("through_proxy", [False, True])
def test_who_waits_for_a_handshake_can_be_broken_off(through_proxy: bool) -> None:
    """With a server that takes the connection and says nothing, or a proxy that does."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        number, taken = mute.getsockname()[1], list[socket.socket]()
        proxies = {"https": f"http://127.0.0.1:{number}"} if through_proxy else {}
        connections = Connections(Way(ssl.create_default_context, Dialer(LONG_S), proxies))

        def begun() -> None:
            taken.append(mute.accept()[0])
            taken[0].recv(1)

        broken_off(connections, ("https", "127.0.0.1", number), begun)
        taken[0].close()


def test_nothing_is_connected_afterwards() -> None:
    """Nor looked up."""
    resolve, asked = resolving("127.0.0.1")
    connections = Connections(Way(ssl.create_default_context, Dialer(LONG_S, resolve)))
    connections.break_off()
    with pytest.raises(OSError, match="interrupted"):
        connections.take(("http", "a.example", 1))

    assert asked == []
