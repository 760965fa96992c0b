"""What has to get to an edge so that it has all blobs of a publication: whole ones, and the new bytes of deltas."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Self

from mirrortools.deltas import Delta
from mirrortools.model import Blob


@dataclass(frozen=True)
class Cargo:
    """`lacking` are the blobs that an edge lacks, of which it makes those of `deltas` itself, out of older ones.

    `there` says how much an edge has of each file that may have to travel; those that are `brought` need not. Blobs lie
    below `served`, the files of new bytes below their delta's folder.
    """

    lacking: frozenset[Blob]
    there: Mapping[Blob, int]
    served: Path
    deltas: tuple[Delta, ...] = ()
    brought: frozenset[Blob] = frozenset()

    @classmethod
    def of(cls, there: Mapping[Blob, int], blobs: Collection[Blob], served: Path, deltas: Iterable[Delta]) -> Self:
        """What is to be done about `blobs` when an edge has so much of what it lacks of them and of the new bytes.

        A blob of which anything has arrived goes on as it began.
        """
        lacking = frozenset(blob for blob in there if blob in blobs)
        fitting = tuple(delta for delta in deltas if delta.blob in lacking and not there[delta.blob])
        return cls(lacking, there, served, fitting)

    def whole(self, blobs: Collection[Blob]) -> Self:
        """Of these blobs nothing is there that could be used."""
        return replace(self, lacking=frozenset(blobs), there={}, deltas=(), brought=frozenset())

    def without(self, blobs: frozenset[Blob]) -> Self:
        """These were brought by another way."""
        return replace(self, brought=blobs)

    @cached_property
    def travelling(self) -> Mapping[Blob, int]:
        """The files of which bytes have to be sent, in their order, with how much of each is there."""
        made = {delta.blob for delta in self.deltas}
        files = {*(self.lacking - made - self.brought), *(delta.fresh for delta in self.deltas if delta.fresh.size)}
        return {file: have for file in sorted(files) if (have := self.there.get(file, 0)) < file.size or not file.size}

    @property
    def planned_bytes(self) -> int:
        """How much has to be sent."""
        return sum(file.size - have for file, have in self.travelling.items())

    @property
    def passing_bytes(self) -> int:
        """What the files of new bytes take on the edge for a while."""
        return sum(delta.fresh.size for delta in self.deltas)

    @property
    def saved_bytes(self) -> int:
        """What need not travel, as the edge takes it from older blobs."""
        return sum(delta.saved_bytes for delta in self.deltas)

    @property
    def sources(self) -> tuple[Path, ...]:
        """The folders below one of which each file is at `Blob.path`."""
        return (self.served, *dict.fromkeys(delta.folder for delta in self.deltas))

    @cached_property
    def _folders(self) -> Mapping[Blob, Path]:
        return {delta.fresh: delta.folder for delta in self.deltas}

    def source(self, file: Blob) -> Path:
        """The folder below which a file is at `Blob.path`."""
        return self._folders.get(file, self.served)
