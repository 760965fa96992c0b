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
from mirrortools.findings import Comparison, Findings
from mirrortools.model import Blob, Realm
from mirrortools.segmented import read_hashes, segments_path
from mirrortools.segments import Segments
from mirrortools.steps import Pair, Step, find_steps, merged
from mirrortools.store import Store, hash_file, write_error

LEAST_BYTES: Final = 1 << 20


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


class Deltas:
    """The deltas of one run, each made once for all edges, in a folder that `close` removes. Thread-safe.

    What comparing found is kept for later runs.
    """

    def __init__(self, root: Path, realm: Realm = Realm.PUBLIC) -> None:
        self._store = Store(root, realm)
        self._stage = root / "state" / "stage"
        self._findings = Findings(root / "state" / "findings")
        self._folder: Path | None = None
        self._is_over = False
        self._compared: dict[tuple[Blob, Blob], Comparison] = {}
        self._made: dict[tuple[Blob, Blob], Delta | None] = {}
        self._lock = threading.Lock()

    def between(self, base: Blob, blob: Blob) -> Delta | None:
        """The delta from `base` to `blob`; None when the whole may as well travel. Raises StoreError, NoSpace."""
        with self._lock, self._guarded():
            if (base, blob) not in self._made:
                found = self._compare(base, blob)
                self._made[base, blob] = self._written(base, blob, found.steps) if found and found.pays else None
            return self._made[base, blob]

    def compared(self, base: Blob, blob: Blob) -> Comparison | None:
        """What of `blob` is new against `base`; None when they are not compared. Raises StoreError, NoSpace."""
        with self._lock, self._guarded():
            return self._compare(base, blob)

    def doubt(self, delta: Delta) -> None:
        """Compare those two anew the next time: what an edge made by this delta was another blob."""
        self._findings.forget(delta.base, delta.blob)
        with self._lock:
            self._compared.pop((delta.base, delta.blob), None)
            self._made.pop((delta.base, delta.blob), None)

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

    def stop(self) -> None:
        """Let whoever compares end soon, from any thread: of large blobs that takes minutes."""
        self._is_over = True

    def close(self) -> None:
        """Remove what was made."""
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _compare(self, base: Blob, blob: Blob) -> Comparison | None:
        """None of what is small, and when the older one is gone and nobody has compared it before."""
        pair = base, blob
        if pair not in self._compared and min(base.size, blob.size) >= LEAST_BYTES:
            found = self._findings.known(base, blob)
            if found is None and self._store.has(base):
                found = self._find(base, blob)
            if found:
                self._compared[pair] = found
        return self._compared.get(pair)

    def _find(self, base: Blob, blob: Blob) -> Comparison:
        equal = equal_segments(self._hashes(base), self._hashes(blob))
        with self._opened(base) as older, self._opened(blob) as newer:
            steps = self._while_wanted(find_steps(Pair(older.fileno(), newer.fileno(), base.size, blob.size), equal))
            found = Comparison.of(blob.size, tuple(merged(steps)))
        self._findings.keep(base, blob, found)
        return found

    def _while_wanted(self, steps: Iterable[Step]) -> Iterator[Step]:
        for step in steps:
            if self._is_over:
                raise StoreError("the run was ended while blobs were compared")
            yield step

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


def equal_segments(older: list[str], newer: list[str]) -> frozenset[int]:
    """The segments whose hashes are the same in both; a last one may be shorter, and does not count."""
    return frozenset(i for i, (old, new) in enumerate(zip(older[:-1], newer[:-1], strict=False)) if old == new)


def _copy(source: int, target: int, offset: int, count: int) -> None:
    while count:
        moved = os.sendfile(target, source, offset, count)
        if not moved:
            raise StoreError(f"a blob ends after {offset} bytes; `mirrortool check` finds which")
        offset, count = offset + moved, count - moved
