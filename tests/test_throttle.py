"""A limit on bytes a second."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mirrortools.throttle import Throttle


class Hours:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@given(st.integers(1000, 10**9), st.lists(st.integers(1, 1 << 20), min_size=2, max_size=30))
def test_no_more_than_the_limit_goes_out(limit_bytes_s: int, counts: list[int]) -> None:
    """When the last bytes may go, those before them have taken their time, and no longer than that."""
    hours = Hours()
    throttle = Throttle(limit_bytes_s, hours, hours.sleep)
    for count in counts:
        throttle.take(count)

    assert abs(hours.now_s - sum(counts[:-1]) / limit_bytes_s) < 1e-6


def test_without_a_limit_nobody_waits() -> None:
    """None lets all go at once."""
    hours = Hours()
    throttle = Throttle(None, hours, hours.sleep)
    throttle.take(1 << 40)

    assert hours.now_s == 0
    assert throttle.share(1 << 20) == 1 << 20


@given(st.integers(1, 10**9))
def test_a_slow_limit_makes_small_turns(limit_bytes_s: int) -> None:
    """What goes out at once takes a fraction of a second, or is hardly anything."""
    share = Throttle(limit_bytes_s).share(1 << 20)

    assert 0 < share <= max(4096, limit_bytes_s / 4)
