"""The receiver as an archive: made by several threads at once."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from mirrortools.transports import receiver_archive


class Busy:
    """Something that is found by the collector, and has other threads run when it goes."""

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        sum(range(50))


@pytest.fixture
def eager_collector() -> Iterator[None]:
    """A collector that comes by all the time, also in the middle of parsing, and threads that take turns often."""
    before = gc.get_threshold(), sys.getswitchinterval()
    gc.set_threshold(5, 2, 2)
    sys.setswitchinterval(1e-6)
    yield
    gc.set_threshold(*before[0])
    sys.setswitchinterval(before[1])


@pytest.mark.usefixtures("eager_collector")
def test_edges_are_reached_side_by_side() -> None:
    """Python 3.11 loses count when two threads parse at once, and says that it is broken."""
    made: list[bytes] = []

    def make() -> None:
        for _ in range(4):
            busy = Busy()
            receiver_archive.cache_clear()
            made.append(receiver_archive())
            del busy

    with ThreadPoolExecutor(4) as threads:
        for work in [threads.submit(make) for _ in range(4)]:
            work.result()

    assert len(made) == 16
    assert len(set(made)) == 1
