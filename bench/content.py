"""What is pulled: repositories of random files, whose name says how many files of which size they hold."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
_PIECE_BYTES = 8 * MIB
_RUN_BYTES = 4 * MIB
_FILES_IN_FOLDER = 1000


@dataclass(frozen=True, slots=True)
class Content:
    """`files` files of `size_bytes` each; the same content for the same numbers, on every machine.

    Of a `topic` there are several: one in which the first `new_files` have other content, one in which each has `runs`
    of 4 MiB with other bytes, anywhere, one in which all is shifted by so many bytes that are put in front.
    """

    files: int
    size_bytes: int
    topic: str = ""
    new_files: int = 0
    runs: int = 0
    shift_bytes: int = 0

    @property
    def repo(self) -> str:
        """The repository's name, such as `bench/200x8MiB`."""
        return f"bench/{self.files}x{brief_size(self.size_bytes)}{self.topic}"

    @property
    def total_bytes(self) -> int:
        return self.files * self.size_bytes

    def path(self, number: int) -> str:
        """The path of a file in the repository."""
        return f"part-{number // _FILES_IN_FOLDER:03}/file-{number:06}.bin"

    def write(self, folder: Path) -> None:
        """Write the files below `folder`."""
        source, other = random.Random(self.repo), random.Random(f"{self.repo} changed")
        for number in range(self.files):
            path = folder / self.path(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                file.write(other.randbytes(self.shift_bytes))
                for start in range(0, self.size_bytes, _PIECE_BYTES):
                    file.write(source.randbytes(min(_PIECE_BYTES, self.size_bytes - start)))
                for start in self._new_places(number, other):
                    file.seek(start)
                    file.write(other.randbytes(min(_RUN_BYTES, self.size_bytes)))

    def _new_places(self, number: int, source: random.Random) -> list[int]:
        """Where a file has other bytes than without the change."""
        if number < self.new_files:
            return [0]
        last = max(0, self.size_bytes - _RUN_BYTES)
        return [self.shift_bytes + source.randint(0, last) for _ in range(self.runs)]


def brief_size(size_bytes: int) -> str:
    """A size in the largest unit that divides it: `2GiB`, `8MiB`, `1500B`."""
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size_bytes and size_bytes % unit == 0:
            return f"{size_bytes // unit}{name}"
    return f"{size_bytes}B"
