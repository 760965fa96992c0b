"""Few buffers for all: slow connections never hold them up for others, and memory stays what it is."""

from __future__ import annotations

import threading

from mirrortools.ring import Ring

SIZE = 1 << 16


def taken(ring: Ring) -> memoryview:
    """A buffer that has to be there."""
    buffer = ring.take(0)
    assert buffer is not None
    return buffer


def test_a_buffer_is_handed_out_again_after_it_was_given_back() -> None:
    """No more are made than there may be."""
    ring = Ring(count=1, size_bytes=SIZE)
    first = taken(ring)
    first[:3] = b"abc"
    ring.filled()
    ring.give_back(first)

    assert bytes(taken(ring)[:3]) == b"abc"
    assert len(first) == SIZE


def test_who_finds_others_filling_does_without_at_once() -> None:
    """They may be at slow connections: nobody waits for those."""
    ring = Ring(count=4, size_bytes=SIZE, filled_at_once=2)
    first, second = taken(ring), taken(ring)
    refused = ring.take(60)
    ring.filled()

    assert refused is None
    assert first.obj is not second.obj
    assert ring.take(0) is not None


def test_what_is_being_hashed_or_written_is_waited_for() -> None:
    """That keeps a fast connection from running ahead of the disk."""
    ring = Ring(count=1, size_bytes=SIZE)
    first = taken(ring)
    ring.filled()
    later = threading.Timer(0.05, ring.give_back, [first])
    later.start()
    again = ring.take(60)
    later.join()

    assert again is not None
    assert again.obj is first.obj


def test_a_wait_that_was_in_vain_holds_no_place() -> None:
    """Whoever gave up does not count as one who fills."""
    ring = Ring(count=1, size_bytes=SIZE, filled_at_once=1)
    first = taken(ring)
    ring.filled()
    refused = ring.take(0)
    ring.give_back(first)

    assert refused is None
    assert ring.take(0) is not None
