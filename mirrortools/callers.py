"""Whoever calls a receiver: requests come from standard input, answers go to standard output.

Only the standard library is used here, because the receiver runs this module on edges.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from mirrortools.errors import EdgeRefused
from mirrortools.frames import Read, frame, read_frame
from mirrortools.keeping import keep
from mirrortools.receiver import HEARTBEAT_S, Answer, Receiver, refusal

IDLE_TIMEOUT_S: Final = 900


def serve(receiver: Receiver, read: Read, write: Callable[[bytes], object]) -> None:
    """Answer requests until the caller ends, with a sign of life every few seconds while one takes long."""
    try:
        while (request := read_frame(read)) is not None:
            with _heartbeat(write):
                answer = receiver.answer(request)
            write(_reply(answer))
            receiver.prepare()
    except EdgeRefused as error:
        # Where the next frame would begin is unknown now, so this is the last word.
        write(frame(refusal(error)))
    finally:
        receiver.end()


@contextlib.contextmanager
def _heartbeat(write: Callable[[bytes], object]) -> Iterator[None]:
    """Give signs of life while the block runs, and none after it. A caller who has gone is met by the answer."""
    is_over = threading.Event()

    def beat() -> None:
        with contextlib.suppress(OSError):
            while not is_over.wait(HEARTBEAT_S):
                write(frame({"working": True}))

    heart = threading.Thread(target=beat)
    heart.start()
    try:
        yield
    finally:
        is_over.set()
        heart.join()


def _reply(answer: Answer) -> bytes:
    try:
        return frame(answer)
    except EdgeRefused as error:
        return frame(refusal(error))


def main(root: str, sent: bytes) -> None:
    """Be the receiver for one call; one that was `sent` for it, and served, is kept for the next."""
    os.umask(0o022)
    receiver = Receiver(Path(root))
    serve_caller(receiver)
    if sent and receiver.is_greeted:
        keep(receiver.root, sent)


def serve_caller(receiver: Receiver) -> None:
    """Serve the caller at standard input and output."""
    with contextlib.suppress(BrokenPipeError):
        serve(receiver, _read_standard_input, _write_standard_output)


def _read_standard_input(size_bytes: int) -> bytes:
    poll = select.poll()
    poll.register(0, select.POLLIN)
    if not poll.poll(IDLE_TIMEOUT_S * 1000):
        raise EdgeRefused(f"nothing was asked for {IDLE_TIMEOUT_S} s")
    return os.read(0, size_bytes)


def _write_standard_output(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]
