"""A door that few may pass at once, the smallest first."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from mirrortools.gate import Gate


def test_the_smallest_of_those_that_wait_is_next() -> None:
    """Whoever came first is inside; then it goes by size."""
    gate, order, inside = Gate(1), list[int](), threading.Event()
    waiting = threading.Barrier(5)

    def first() -> None:
        with gate.passing(100):
            inside.set()
            waiting.wait(10)
            while len(gate._waiting) < 4:
                pass

    def other(size: int) -> None:
        waiting.wait(10)
        with gate.passing(size):
            order.append(size)

    with ThreadPoolExecutor(5) as threads:
        begun = threads.submit(first)
        inside.wait(10)
        work = [threads.submit(other, size) for size in (30, 10, 40, 20)]
        for done in (begun, *work):
            done.result(10)

    assert order == [10, 20, 30, 40]


def test_never_more_than_allowed_are_inside() -> None:
    """Failures give their place back too."""
    gate, lock, inside, most = Gate(3), threading.Lock(), 0, 0

    def work(size: int) -> None:
        nonlocal inside, most
        try:
            with gate.passing(size):
                with lock:
                    inside += 1
                    most = max(most, inside)
                with lock:
                    inside -= 1
                raise ValueError
        except ValueError:
            return

    with ThreadPoolExecutor(20) as threads:
        for done in [threads.submit(work, size % 7) for size in range(200)]:
            done.result(10)

    assert 1 <= most <= 3
