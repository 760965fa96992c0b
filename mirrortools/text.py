"""Numbers and times as people read them."""

from __future__ import annotations

import time

_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB")


def size(count: int) -> str:
    """Bytes with a binary unit: `87.1 MiB`."""
    if count < 1024:
        return f"{count} B"
    value = float(count)
    for unit in _UNITS:
        value /= 1024
        if value < 1023.95 or unit == _UNITS[-1]:
            break
    return f"{value:.1f} {unit}"


def span(seconds: float) -> str:
    """A span of time by its two largest units: `3 h 5 min`, `12 s`, `0.4 s`."""
    if seconds < 9.95:
        return f"{max(seconds, 0.0):.1f} s"
    days, rest = divmod(round(seconds), 86400)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    largest = next(place for place, (count, _) in enumerate(parts) if count)
    return " ".join(f"{count} {unit}" for count, unit in parts[largest : largest + 2] if count)


def moment(at: float | None) -> str:
    """A time in UTC to the second; `never` for None."""
    return "never" if at is None else time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(at))


def count(number: int, noun: str) -> str:
    """`1 blob`, `2 blobs`; a noun may bring its plural: `repository/repositories`."""
    one, _, many = noun.partition("/")
    return f"{number:,} {one if number == 1 else many or one + 's'}"
