"""A blob as pieces of an older one and the bytes that are new: what travels to an edge that has the older one.

Both lie here, so both are compared byte for byte, and nothing has to be guessed: pieces at the same place, and pieces
that moved because something was put in or taken out before them. What the segments' hashes say to be equal is not read.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, Final

from mirrortools.errors import StoreError
from mirrortools.files import make_folder
from mirrortools.model import Blob, Realm
from mirrortools.segmented import read_hashes, segments_path
from mirrortools.segments import Segments
from mirrortools.steps import Pair, Step, find_steps, merged
from mirrortools.store import Store, hash_file, write_error

LEAST_BYTES: Final = 1 << 20
PAYS: Final = 0.75
_MOST_STEPS: Final = 100_000


@dataclass(frozen=True, slots=True)
class Delta:
    """How to make `blob` out of `base` and `fresh`, a file of its new bytes that lies below `folder` as a blob does."""

    blob: Blob
    base: Blob
    fresh: Blob
    folder: Path
    steps: tuple[Step, ...]

    @property
    def saved_bytes(self) -> int:
        """What need not travel."""
        return self.blob.size - self.fresh.size

    def to_json(self) -> dict[str, Any]:
        """How an edge is told it."""
        names = {"blob": self.blob, "base": self.base, "fresh": self.fresh}
        items = {name: [blob.algorithm, blob.digest, blob.size] for name, blob in names.items()}
        return {**items, "steps": [[int(step.is_new), step.offset, step.length] for step in self.steps]}


@dataclass(frozen=True, slots=True)
class Comparison:
    """What `blob_bytes` are made of: so many new bytes, and pieces of an older blob, at other places when `shifted`."""

    blob_bytes: int
    new_bytes: int
    shifted: bool
    steps: tuple[Step, ...]

    @property
    def pays(self) -> bool:
        """Whether sending the new bytes alone is worth the trouble."""
        return self.new_bytes <= PAYS * self.blob_bytes and len(self.steps) <= _MOST_STEPS

    @property
    def reason(self) -> str:
        """Why it travels as it does, for people."""
        share = f"{100 * self.new_bytes / self.blob_bytes:.1f} %"
        if not self.pays:
            return f"{share} is new, so that a delta does not pay: whole"
        return f"shifted data, {share} is new" if self.shifted else f"{share} changed"


class Deltas:
    """The deltas of one run, each made once for all edges, in a folder that `close` removes. Thread-safe."""

    def __init__(self, root: Path, realm: Realm = Realm.PUBLIC) -> None:
        self._store = Store(root, realm)
        self._stage = root / "state" / "stage"
        self._folder: Path | None = None
        self._compared: dict[tuple[Blob, Blob], Comparison] = {}
        self._made: dict[tuple[Blob, Blob], Delta | None] = {}
        self._lock = threading.Lock()

    def between(self, base: Blob, blob: Blob) -> Delta | None:
        """The delta from `base` to `blob`; None when the whole may as well travel. Raises StoreError, NoSpace."""
        if not self._may_have(base, blob):
            return None
        with self._lock, self._guarded():
            if (base, blob) not in self._made:
                compared = self._compare(base, blob)
                self._made[base, blob] = self._written(base, blob, compared.steps) if compared.pays else None
            return self._made[base, blob]

    def compared(self, base: Blob, blob: Blob) -> Comparison | None:
        """What of `blob` is new against `base`; None when they are not compared. Raises StoreError, NoSpace."""
        if not self._may_have(base, blob):
            return None
        with self._lock, self._guarded():
            return self._compare(base, blob)

    def _may_have(self, base: Blob, blob: Blob) -> bool:
        return min(base.size, blob.size) >= LEAST_BYTES and self._store.has(base)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise write_error(self._stage, error) from error

    def most_alike(self, blob: Blob, others: Iterable[Blob]) -> Blob | None:
        """The one of `others` that has most segments in common with `blob`; None when none has a quarter of them."""
        wanted = set(self._hashes(blob))
        shares = [(len(wanted & set(self._hashes(other))), other) for other in others] if wanted else []
        share, other = max(shares, default=(0, None))
        return other if share >= len(wanted) / 4 else None

    def close(self) -> None:
        """Remove what was made."""
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _compare(self, base: Blob, blob: Blob) -> Comparison:
        if (base, blob) not in self._compared:
            equal = equal_segments(self._hashes(base), self._hashes(blob))
            with self._opened(base) as older, self._opened(blob) as newer:
                steps = find_steps(Pair(older.fileno(), newer.fileno(), base.size, blob.size), equal)
                self._compared[base, blob] = _comparison(blob.size, tuple(merged(steps)))
        return self._compared[base, blob]

    def _opened(self, blob: Blob) -> FileIO:
        return self._store.path(blob).open("rb", buffering=0)

    def _hashes(self, blob: Blob) -> list[str]:
        with suppress(OSError, ValueError):
            document = json.loads((self._store.served / segments_path(blob)).read_bytes())
            return read_hashes(document, Segments(blob.size)) or []
        return []

    def _written(self, base: Blob, blob: Blob, steps: Iterable[Step]) -> Delta:
        """Write the new bytes of `blob` one after the other, and say where each is then."""
        if self._folder is None:
            make_folder(self._stage)
            self._folder = Path(tempfile.mkdtemp(prefix="deltas.", dir=self._stage))
        path = self._folder / f"{blob.digest}.fresh"
        placed, at = [], 0
        with path.open("wb", buffering=0) as file, self._opened(blob) as newer:
            for step in steps:
                if step.is_new:
                    _copy(newer.fileno(), file.fileno(), step.offset, step.length)
                    placed.append(Step(True, at, step.length))
                    at += step.length
                else:
                    placed.append(step)
        fresh = Blob("sha256", hash_file(path, "sha256"), at)
        target = self._folder / fresh.path
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
        return Delta(blob, base, fresh, self._folder, tuple(placed))


def _comparison(blob_bytes: int, steps: tuple[Step, ...]) -> Comparison:
    at, new_bytes, shifted = 0, 0, False
    for step in steps:
        new_bytes += step.length if step.is_new else 0
        shifted = shifted or (not step.is_new and step.offset != at)
        at += step.length
    return Comparison(blob_bytes, new_bytes, shifted, steps)


def equal_segments(older: list[str], newer: list[str]) -> frozenset[int]:
    """The segments whose hashes are the same in both; a last one may be shorter, and does not count."""
    return frozenset(i for i, (old, new) in enumerate(zip(older[:-1], newer[:-1], strict=False)) if old == new)


def _copy(source: int, target: int, offset: int, count: int) -> None:
    while count:
        moved = os.sendfile(target, source, offset, count)
        if not moved:
            raise StoreError(f"a blob ends after {offset} bytes; `mirrortool check` finds which")
        offset, count = offset + moved, count - moved
