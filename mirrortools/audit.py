"""Whether what lies here is what its name says: hashing blobs again, comparing links, proving samples.

Only the standard library is used here, because the receiver runs this module on edges.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mirrortools.errors import ConfigError
from mirrortools.files import make_folder
from mirrortools.model import Blob, Manifest, Realm
from mirrortools.store import CHUNK_BYTES, Store, hash_file, write_error
from mirrortools.tree import Tree

SAMPLE_BYTES: Final = 64 << 10
_SUBSET: Final = re.compile(r"([0-9]{1,6})/([0-9]{1,6})\Z")


@dataclass(frozen=True, slots=True)
class Subset:
    """The `number`th of `count` equal parts of all blobs, by their digests; the same part on every host."""

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Subset:
        """Read `n/t`. Raises ConfigError."""
        match = _SUBSET.match(text)
        number, count = (int(match[1]), int(match[2])) if match else (0, 0)
        if not 1 <= number <= count:
            raise ConfigError(f"expected a part such as 1/7, the first of seven, got {text!r}")
        return cls(number, count)

    def has(self, blob: Blob) -> bool:
        """Whether a blob belongs to this part."""
        return int(blob.digest[:12], 16) % self.count == self.number - 1


@dataclass(frozen=True, slots=True)
class Sample:
    """A range of a blob, `length` bytes from `offset`, that a host is to prove it has. Raises ValueError."""

    blob: Blob
    offset: int
    length: int

    def __post_init__(self) -> None:
        if not 0 <= self.offset <= self.offset + self.length <= self.blob.size:
            raise ValueError(f"{self.length} bytes from {self.offset} are not a part of {self.blob}")

    @property
    def is_a_block(self) -> bool:
        """Whether it begins at a multiple of SAMPLE_BYTES and is as long, or ends with the blob."""
        aligned = self.offset % SAMPLE_BYTES == 0
        return aligned and self.length == min(SAMPLE_BYTES, self.blob.size - self.offset)


class Audit:
    """Reads a realm of a root again.

    It takes no lock: blobs and revisions are named by their content, and replaced by rename.
    """

    def __init__(self, root: Path, realm: Realm = Realm.PUBLIC) -> None:
        self._store = Store(root, realm)
        self._tree = Tree(root, realm)
        self._quarantine = root / "state" / "quarantine"
        self._is_over = False

    def bad_blobs(self, blobs: Iterable[Blob]) -> dict[Blob, str]:
        """What is wrong with those that are missing or do not hash to their names, on a thread per processor."""
        wanted = list(blobs)
        with ThreadPoolExecutor(os.cpu_count() or 1, "audit") as threads:
            try:
                problems = list(threads.map(self._problem, wanted))
            except BaseException:
                self._is_over = True  # a large blob takes minutes, and nobody wants to know any more
                raise
        return {blob: problem for blob, problem in zip(wanted, problems, strict=True) if problem}

    def _problem(self, blob: Blob) -> str | None:
        try:
            got = hash_file(self._store.path(blob), blob.algorithm, self._refuse_when_over)
        except FileNotFoundError:
            return "is not there"
        except OSError as error:
            return f"cannot be read: {error.strerror}"
        return None if got == blob.digest else f"expected {blob.algorithm} {blob.digest}, got {got}"

    def _refuse_when_over(self) -> None:
        if self._is_over:
            raise CancelledError

    def set_aside(self, blob: Blob) -> None:
        """Take a bad blob out of the store, so that the next sync or delivery brings it again. Raises StoreError."""
        path = self._store.path(blob)
        try:
            make_folder(self._quarantine)
            with suppress(FileNotFoundError):
                path.replace(self._quarantine / blob.digest)
        except OSError as error:
            raise write_error(path, error) from error

    def wrong_links(self, manifest: Manifest) -> list[str]:
        """The files of a revision that are not served as its manifest has them."""
        return self._tree.wrong_links(manifest)

    def forget(self, manifest: Manifest) -> None:
        """Take a revision's record away, so that the next sync or delivery makes its links again. Raises StoreError."""
        self._tree.forget(manifest.revision)

    def prove(self, samples: Sequence[Sample], nonce: str) -> list[str | None]:
        """The SHA-256 of the nonce and each sample's bytes; None for one that cannot be read.

        The nonce is made for the call, so that an answer cannot be known without the bytes.
        """
        return [self._proof(sample, nonce.encode()) for sample in samples]

    def _proof(self, sample: Sample, nonce: bytes) -> str | None:
        digest = hashlib.sha256(nonce)
        try:
            with self._store.path(sample.blob).open("rb", buffering=0) as file:
                offset, stop = sample.offset, sample.offset + sample.length
                while offset < stop:
                    data = os.pread(file.fileno(), min(CHUNK_BYTES, stop - offset), offset)
                    if not data:
                        return None
                    digest.update(data)
                    offset += len(data)
        except OSError:
            return None
        return digest.hexdigest()
