"""Numbers and times as people read them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrortools.text import count, moment, size, span
from tests.strategies import trials


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (100_000, "97.7 KiB"),
        ((1 << 20) - 1, "1.0 MiB"),
        (1 << 20, "1.0 MiB"),
        (10 << 30, "10.0 GiB"),
        (3 << 60, "3072.0 PiB"),
    ],
)
def test_sizes(number: int, text: str) -> None:
    """Binary units with one decimal."""
    assert size(number) == text


@given(st.integers(0, 1 << 62))
@trials(200)
def test_a_size_never_needs_more_than_four_digits_before_the_point(number: int) -> None:
    """1023.96 KiB is 1.0 MiB, not 1024.0 KiB; only the largest unit may grow."""
    shown = size(number)

    assert re.fullmatch(r"\d{1,4} B|\d{1,4}\.\d [KMGTP]iB", shown)
    assert not re.fullmatch(r"1024\.0 [KMGT]iB", shown)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.0 s"),
        (0.44, "0.4 s"),
        (9.99, "10 s"),
        (12.2, "12 s"),
        (59.7, "1 min"),
        (61, "1 min 1 s"),
        (3600, "1 h"),
        (11100, "3 h 5 min"),
        (3605, "1 h"),
        (90000, "1 d 1 h"),
        (-3.0, "0.0 s"),
    ],
)
def test_spans(seconds: float, text: str) -> None:
    """The two largest units; a clock that went back shows no negative time."""
    assert span(seconds) == text


def test_moments() -> None:
    """UTC to the second."""
    assert moment(None) == "never"
    assert moment(0) == "1970-01-01 00:00:00Z"


def test_counts() -> None:
    """One, many, and plurals of their own."""
    assert [count(number, "blob") for number in (0, 1, 2, 12345)] == ["0 blobs", "1 blob", "2 blobs", "12,345 blobs"]
    assert count(2, "repository/repositories") == "2 repositories"
    assert count(1, "repository/repositories") == "1 repository"
