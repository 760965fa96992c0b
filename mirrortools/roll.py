"""Many repositories, and what the origin says of each, in little: their names, and a digest for each 64 of them.

An edge compares it with what it has noted, and answers which of these parts differ; only of those it is asked more. So
what is said of repositories that did not change is neither sent nor answered one by one. Only the standard library is
used here, because the receiver runs this module on edges.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

TOGETHER: Final = 64
_MOST_PATHS: Final = 1_000_000
_MOST_BYTES: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class Roll:
    """Repositories by their paths, and a digest over each part: over 64 paths and the digests of their statements.

    Raises ValueError when there are not as many parts as there must be.
    """

    paths: Sequence[str]
    digests: Sequence[str]

    def __post_init__(self) -> None:
        if len(self.digests) != -(-len(self.paths) // TOGETHER):
            raise ValueError(f"{len(self.digests)} digests for {len(self.paths)} names")

    @classmethod
    def of(cls, said: Mapping[str, str]) -> Self:
        """That of the statements that are said of repositories: their digests by paths."""
        paths = sorted(said)
        return cls(paths, [_digest(part, said) for part in _parts(paths)])

    def differing(self, shown: Mapping[str, str]) -> list[int]:
        """The numbers of the parts of which not just the same is `shown`."""
        both = zip(_parts(self.paths), self.digests, strict=True)
        return [number for number, (part, digest) in enumerate(both) if _digest(part, shown) != digest]

    def part(self, number: int) -> Sequence[str]:
        """The paths in one part. Raises ValueError."""
        if not 0 <= number < len(self.digests):
            raise ValueError(f"there is no part {number}")
        return self.paths[number * TOGETHER : (number + 1) * TOGETHER]

    def in_parts(self, numbers: Iterable[int]) -> Iterator[str]:
        """The paths in some parts. Raises ValueError."""
        for number in numbers:
            yield from self.part(number)

    def to_json(self) -> dict[str, Any]:
        """The form in which it travels."""
        names = zlib.compress("\n".join(self.paths).encode(), 1)
        return {"names": base64.b64encode(names).decode(), "digests": list(self.digests)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote. Raises ValueError, KeyError, TypeError."""
        names = _expanded(base64.b64decode(document["names"], validate=True)).decode()
        if names.count("\n") >= _MOST_PATHS:
            raise ValueError(f"more than {_MOST_PATHS} names")
        return cls(names.split("\n") if names else [], [str(digest) for digest in document["digests"]])


def _parts(paths: Sequence[str]) -> Iterator[Sequence[str]]:
    return (paths[start : start + TOGETHER] for start in range(0, len(paths), TOGETHER))


def _digest(paths: Sequence[str], statements: Mapping[str, str]) -> str:
    """One over what is said of each; half of a SHA-256, which nobody can bend to be another's."""
    text = "".join([f"{path} {statements.get(path)}\n" for path in paths])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _expanded(data: bytes) -> bytes:
    """Decompress a little of anything, and nothing that becomes very much."""
    expanding = zlib.decompressobj()
    try:
        expanded = expanding.decompress(data, _MOST_BYTES)
    except zlib.error as error:
        raise ValueError(f"not compressed: {error}") from error
    if not expanding.eof:
        raise ValueError(f"cut off, or more than {_MOST_BYTES} bytes")
    return expanded
