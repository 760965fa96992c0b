"""What is pulled: repositories of random files, whose name says how many files of which size they hold."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
_PIECE_BYTES = 8 * MIB
_FILES_IN_FOLDER = 1000


@dataclass(frozen=True, slots=True)
class Content:
    """`files` files of `size_bytes` each; the same content for the same numbers, on every machine."""

    files: int
    size_bytes: int

    @property
    def repo(self) -> str:
        """The repository's name, such as `bench/200x8MiB`."""
        return f"bench/{self.files}x{brief_size(self.size_bytes)}"

    @property
    def total_bytes(self) -> int:
        return self.files * self.size_bytes

    def path(self, number: int) -> str:
        """The path of a file in the repository."""
        return f"part-{number // _FILES_IN_FOLDER:03}/file-{number:06}.bin"

    def write(self, folder: Path) -> None:
        """Write the files below `folder`."""
        source = random.Random(self.repo)
        for number in range(self.files):
            path = folder / self.path(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                for start in range(0, self.size_bytes, _PIECE_BYTES):
                    file.write(source.randbytes(min(_PIECE_BYTES, self.size_bytes - start)))


def brief_size(size_bytes: int) -> str:
    """A size in the largest unit that divides it: `2GiB`, `8MiB`, `1500B`."""
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size_bytes and size_bytes % unit == 0:
            return f"{size_bytes // unit}{name}"
    return f"{size_bytes}B"
