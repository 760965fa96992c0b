"""Sizes, rates and durations as people write them: `10GiB`, `100Mbit`, `1h30m`."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

_BINARY: Final = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
_DECIMAL: Final = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "p": 10**15}
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([kmgtp])(i?b)?|b)?\Z", re.IGNORECASE | re.ASCII)
_RATE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt])?(bit|bps|ib|b)(?:/s)?\Z", re.IGNORECASE | re.ASCII)
_DURATION: Final = re.compile(r"(\d+)\s*([smhdw])\s*", re.IGNORECASE | re.ASCII)


def _shown(value: object) -> str:
    return repr(value) if isinstance(value, str | int | float) else "a list or a mapping"


def parse_size(value: object) -> int:
    """Bytes of `10GiB` (binary), `10GB` (decimal), `10G` (binary, as nginx reads it) or `4096`.

    Raises ValueError.
    """
    match = _SIZE.match(str(value).strip())
    if match is None:
        raise ValueError(f"expected a size such as 10GiB, 500MB or a number of bytes, got {_shown(value)}")
    number, prefix, unit = match.groups()
    factors = _DECIMAL if (unit or "").lower() == "b" else _BINARY
    return int(Decimal(number) * (factors[prefix.lower()] if prefix else 1))


def format_size(size_bytes: int) -> str:
    """The shortest exact text that `parse_size` reads back."""
    for prefix in reversed(_BINARY):
        if size_bytes and size_bytes % _BINARY[prefix] == 0:
            return f"{size_bytes // _BINARY[prefix]}{prefix.upper()}iB"
    return f"{size_bytes}B"


def parse_rate(value: object) -> int:
    """Bytes per second of `100Mbit`, `100Mbps` (bits, decimal), `10MB/s` (decimal) or `10MiB/s` (binary).

    Raises ValueError.
    """
    match = _RATE.match(str(value).strip())
    if match is None:
        raise ValueError(f"expected a rate with its unit, such as 100Mbit or 10MiB/s, got {_shown(value)}")
    number, prefix, unit = match.group(1), (match.group(2) or "").lower(), match.group(3).lower()
    factor = (_BINARY if unit == "ib" else _DECIMAL)[prefix] if prefix else 1
    rate = Decimal(number) * factor / (8 if unit in ("bit", "bps") else 1)
    if rate < 1:
        raise ValueError(f"expected a rate of at least 8bit, got {_shown(value)}")
    return int(rate)


def format_rate(bytes_per_s: int) -> str:
    """The shortest exact text that `parse_rate` reads back."""
    for prefix in ("g", "m", "k"):
        if bytes_per_s * 8 % _DECIMAL[prefix] == 0:
            return f"{bytes_per_s * 8 // _DECIMAL[prefix]}{prefix.upper()}bit"
    return f"{bytes_per_s}B/s"


def parse_duration(value: object) -> int:
    """Seconds of `3600`, `90s`, `30m`, `1h`, `1h30m`, `1d` or `1w`. Raises ValueError."""
    stripped = str(value).strip()
    if stripped.isascii() and stripped.isdigit():
        seconds = int(stripped)
    else:
        parts = _DURATION.findall(stripped)
        seconds = sum(int(number) * _SECONDS[unit.lower()] for number, unit in parts)
        if _DURATION.sub("", stripped):
            seconds = 0
    if seconds <= 0:
        raise ValueError(f"expected a duration such as 3600 (seconds), 30m, 1h or 1d, got {_shown(value)}")
    return seconds


def format_duration(seconds: int) -> str:
    """The shortest exact text that `parse_duration` reads back."""
    for unit in reversed(_SECONDS):
        if seconds % _SECONDS[unit] == 0:
            return f"{seconds // _SECONDS[unit]}{unit}"
    raise AssertionError("every whole number of seconds is divisible by one")
