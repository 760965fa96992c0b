"""A port that passes connections on to another one, each at no more than a rate, or as if from far away.

    python -m bench.relay PORT TARGET --rate 20000000
    python -m bench.relay PORT TARGET --delay 0.05

The kernel itself paces each connection (SO_MAX_PACING_RATE, socket(7)), so that neither bursts nor small requests
get more, and bytes are spliced, never copied here.
"""

from __future__ import annotations

import argparse
import os
import socket
import threading
import time
from collections import deque
from contextlib import suppress

_SO_MAX_PACING_RATE = 47
_PIPE_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("target", type=int)
    parser.add_argument("--rate", type=int, default=0, help="bytes per second for each connection")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds that each way takes")
    options = parser.parse_args()
    with socket.create_server(("127.0.0.1", options.port), backlog=512) as server:
        while True:
            client, _ = server.accept()
            threading.Thread(target=_serve, args=(client, options), daemon=True).start()


def _serve(client: socket.socket, options: argparse.Namespace) -> None:
    """One connection, both ways, until either side is done."""
    if options.delay:
        time.sleep(2 * options.delay)  # connecting takes one round trip
    with client, suppress(OSError), socket.create_connection(("127.0.0.1", options.target)) as inside:
        for end in (client, inside):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if options.rate:
            client.setsockopt(socket.SOL_SOCKET, _SO_MAX_PACING_RATE, options.rate)
        there = threading.Thread(target=_pump, args=(client, inside, options.delay))
        there.start()
        _pump(inside, client, options.delay)
        there.join()


def _pump(source: socket.socket, target: socket.socket, delay_s: float) -> None:
    with suppress(OSError):
        if delay_s:
            _pass_later(source, target, delay_s)
        else:
            _splice(source, target)
    for end, how in ((target, socket.SHUT_WR), (source, socket.SHUT_RD)):
        with suppress(OSError):
            end.shutdown(how)


def _splice(source: socket.socket, target: socket.socket) -> None:
    out, into = os.pipe()
    try:
        while count := os.splice(source.fileno(), into, _PIPE_BYTES):
            while count:
                count -= os.splice(out, target.fileno(), count)
    finally:
        os.close(out)
        os.close(into)


def _pass_later(source: socket.socket, target: socket.socket, delay_s: float) -> None:
    """Pass everything on `delay_s` after it came; any amount may be on its way."""
    on_its_way: deque[tuple[float, bytes]] = deque()
    came = threading.Condition()

    def send() -> None:
        with suppress(OSError):
            while True:
                with came:
                    came.wait_for(lambda: on_its_way)
                    due_s, data = on_its_way.popleft()
                time.sleep(max(0.0, due_s - time.monotonic()))
                if not data:
                    return
                target.sendall(data)

    sender = threading.Thread(target=send)
    sender.start()
    data = b"."
    while data:
        data = _received(source)
        with came:
            on_its_way.append((time.monotonic() + delay_s, data))
            came.notify()
    sender.join()


def _received(source: socket.socket) -> bytes:
    with suppress(OSError):
        return source.recv(_CHUNK_BYTES)
    return b""


if __name__ == "__main__":
    main()
