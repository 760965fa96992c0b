"""What comparing blobs found, kept beside the store, so that no later run compares them again, for whatever edge.

It is small, as it names places and holds no bytes, and it is a help that may get lost: nothing waits for the disk, and
what cannot be believed when it is read is found anew. Nor does it prove anything: whoever makes a blob by it hashes it.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from mirrortools.files import make_folder
from mirrortools.model import Blob
from mirrortools.steps import Step

_PAYS: Final = 0.75
_MOST_STEPS: Final = 100_000
# What is kept of another format has another name, is never read, and goes in its turn.
_FORMAT: Final = 1
_MOST_FILES: Final = 2000
_MOST_BYTES: Final = 64 << 20
_MOST_BYTES_EACH: Final = 8 << 20
_UNREADABLE: Final = (OSError, ValueError, KeyError, TypeError, RecursionError)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What `blob_bytes` are made of: so many new bytes, and pieces of an older blob, at other places when `shifted`.

    There are no `steps` when sending the new bytes alone is not worth the trouble.
    """

    blob_bytes: int
    new_bytes: int
    shifted: bool
    steps: tuple[Step, ...]

    @classmethod
    def of(cls, blob_bytes: int, steps: Sequence[Step]) -> Self:
        """What some steps come to; new bytes are named by their place in the blob."""
        at, new_bytes, shifted = 0, 0, False
        for step in steps:
            new_bytes += step.length if step.is_new else 0
            shifted = shifted or (not step.is_new and step.offset != at)
            at += step.length
        pays = new_bytes <= _PAYS * blob_bytes and len(steps) <= _MOST_STEPS
        return cls(blob_bytes, new_bytes, shifted, tuple(steps) if pays else ())

    @property
    def pays(self) -> bool:
        """Whether sending the new bytes alone is worth the trouble."""
        return bool(self.steps)

    @property
    def reason(self) -> str:
        """Why it travels as it does, for people."""
        share = f"{100 * self.new_bytes / self.blob_bytes:.1f} %"
        if not self.pays:
            return f"{share} is new, so that a delta does not pay: whole"
        return f"shifted data, {share} is new" if self.shifted else f"{share} changed"


class Findings:
    """The comparisons that are kept in `folder`, those that were not asked for longest go first. Thread-safe."""

    def __init__(self, folder: Path, most_files: int = _MOST_FILES, most_bytes: int = _MOST_BYTES) -> None:
        self._folder = folder
        self._most_files, self._most_bytes = most_files, most_bytes
        self._lock = threading.Lock()

    def known(self, older: Blob, newer: Blob) -> Comparison | None:
        """What was found between two blobs; None when that is not known, or cannot be believed."""
        path = self._path(older, newer)
        with suppress(*_UNREADABLE):
            if path.stat().st_size <= _MOST_BYTES_EACH:
                found = _read(path.read_bytes(), older, newer)
                os.utime(path)
                return found
        return None

    def keep(self, older: Blob, newer: Blob, found: Comparison) -> None:
        """Know it from now on; where it cannot be written it will be found again."""
        path = self._path(older, newer)
        with self._lock, suppress(OSError):
            make_folder(self._folder)
            beside = self._folder / f".{path.name}.{os.getpid()}.{threading.get_ident()}"
            beside.write_bytes(_written(older, newer, found))
            beside.replace(path)
            self._make_room()

    def forget(self, older: Blob, newer: Blob) -> None:
        """Have it found anew: somebody made another blob by it."""
        with suppress(OSError):
            self._path(older, newer).unlink()

    def _path(self, older: Blob, newer: Blob) -> Path:
        return self._folder / f"{older.digest}-{newer.digest}.{_FORMAT}"

    def _make_room(self) -> None:
        """Remove what was not asked for longest, and what a killed run left behind."""
        there = [(entry.stat(), entry.path) for entry in os.scandir(self._folder)]
        size_bytes, count = sum(status.st_size for status, _ in there), len(there)
        for status, path in sorted(there, key=lambda item: item[0].st_mtime_ns):
            if count <= self._most_files and size_bytes <= self._most_bytes:
                return
            Path(path).unlink(missing_ok=True)
            size_bytes, count = size_bytes - status.st_size, count - 1


def _written(older: Blob, newer: Blob, found: Comparison) -> bytes:
    steps = [[int(step.is_new), step.offset, step.length] for step in found.steps]
    document = {**_names(older, newer), "new_bytes": found.new_bytes, "shifted": found.shifted, "steps": steps}
    text = json.dumps(document, separators=(",", ":")).encode()
    return b"%s\n%s" % (hashlib.sha256(text).hexdigest().encode(), text)


def _read(data: bytes, older: Blob, newer: Blob) -> Comparison:
    """Raises ValueError, KeyError, TypeError when it is not what was written of these two blobs."""
    digest, _, text = data.partition(b"\n")
    if hashlib.sha256(text).hexdigest().encode() != digest:
        raise ValueError("damaged")
    document: Mapping[str, Any] = json.loads(text)
    if {name: document[name] for name in ("older", "newer")} != _names(older, newer):
        raise ValueError("of other blobs")
    steps = [Step(bool(is_new), int(offset), int(length)) for is_new, offset, length in document["steps"]]
    if not steps:
        return Comparison(newer.size, int(document["new_bytes"]), bool(document["shifted"]), ())
    _check(steps, older, newer)
    return Comparison.of(newer.size, steps)


def _check(steps: Sequence[Step], older: Blob, newer: Blob) -> None:
    """Refuse steps that do not make up the newer blob. Raises ValueError."""
    at = 0
    for step in steps:
        is_there = step.offset == at if step.is_new else 0 <= step.offset <= older.size - step.length
        if step.length <= 0 or not is_there:
            raise ValueError(f"{step.length} bytes from {step.offset}")
        at += step.length
    if at != newer.size:
        raise ValueError(f"{at} bytes for a blob of {newer.size}")


def _names(older: Blob, newer: Blob) -> dict[str, list[Any]]:
    return {name: [b.algorithm, b.digest, b.size] for name, b in (("older", older), ("newer", newer))}
