"""Sizes, rates and durations are read as people mean them, and nonsense is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrortools.config.quantities import (
    format_duration,
    format_rate,
    format_size,
    parse_duration,
    parse_rate,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("10GiB", 10 << 30),
        ("10GB", 10**10),
        ("10G", 10 << 30),
        ("1.5 MiB", 3 << 19),
        ("7b", 7),
    ],
)
def test_sizes(text: str, size: int) -> None:
    """GiB is binary, GB decimal, a bare letter binary as in nginx."""
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "rate"),
    [("100Mbit", 12_500_000), ("1Gbps", 125_000_000), ("10MB/s", 10**7), ("10MiB/s", 10 << 20), ("8bit", 1)],
)
def test_rates(text: str, rate: int) -> None:
    """Bits and bytes per second are told apart."""
    assert parse_rate(text) == rate


@pytest.mark.parametrize(
    ("text", "seconds"), [("3600", 3600), ("90s", 90), ("1h30m", 5400), ("1 d", 86400), ("1w", 604800)]
)
def test_durations(text: str, seconds: int) -> None:
    """A bare number is seconds; units add up."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("parse", [parse_size, parse_rate, parse_duration])
@pytest.mark.parametrize("text", ["", "-1", "ten", "1.2.3", "1 parsec", "1h 2x", "٣", "0x10", None, ["1"]])
def test_quantities_refuse_nonsense(parse: object, text: object) -> None:
    """What is no quantity is an error with the expected form, never a guess."""
    assert callable(parse)
    with pytest.raises(ValueError, match=r"expected a (size|rate|duration)"):
        parse(text)


@given(st.integers(1, 1 << 60))
def test_quantities_survive_being_written(number: int) -> None:
    """What `config show` prints is read back as exactly the same number."""
    assert parse_size(format_size(number)) == number
    assert parse_rate(format_rate(number)) == number
    assert parse_duration(format_duration(number)) == number
