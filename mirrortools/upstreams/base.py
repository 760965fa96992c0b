"""What every upstream gives: refs, the metadata of revisions, and the bytes of blobs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from mirrortools.model import Blob


@dataclass(frozen=True, slots=True)
class RemoteRefs:
    """An upstream's refs: full name → object id; annotated tag → the commit it names; default branch.

    `ask_head` asks for the default branch where that is a question of its own, which only news are worth.
    """

    oids: Mapping[str, str]
    peeled: Mapping[str, str]
    head: str
    ask_head: Callable[[], str] | None = field(default=None, compare=False, repr=False)

    def default_branch(self) -> str:
        """The full name of the default branch, empty when upstream does not tell. Raises UpstreamError."""
        return self.ask_head() if self.ask_head else self.head

    def commit(self, ref: str) -> str:
        """The commit that a ref leads to."""
        return self.peeled.get(ref, self.oids[ref])


class Reader(Protocol):
    """A stream of bytes that begins at `start`, which is 0 where the source cannot seek.

    `version` is the same for two readers when they read the same file; empty when that is not known.
    """

    start: int

    @property
    def version(self) -> str:
        """The version of the file."""
        ...

    def readinto(self, buffer: memoryview) -> int:
        """Fill the beginning of `buffer`; returns how many bytes came, 0 at the end. Raises UpstreamError."""
        ...

    def cancel(self) -> None:
        """Make whoever reads, in another thread, fail at once."""
        ...


class ByteSource(Protocol):
    """A place that the bytes of blobs can be read from. Thread-safe."""

    name: str

    def prepare(self, blobs: Sequence[Blob]) -> None:
        """Say which blobs will be asked for, in which order, so that links can be had in batches."""
        ...

    def read_many(self, blobs: Sequence[Blob]) -> Iterator[tuple[Blob, bytes]]:
        """Read whole small blobs, in this order. Raises UpstreamError at the first trouble."""
        ...

    def segment_hashes(self, blob: Blob) -> object:
        """What the source says of a blob's segments, as it came; None when it says nothing. Raises UpstreamError."""
        ...

    def open(self, blob: Blob, start: int, stop: int) -> AbstractContextManager[Reader]:
        """Read the bytes [start, stop) of a blob. Raises UpstreamError."""
        ...

    def break_off(self) -> None:
        """End what other threads read, soon; nothing can be read afterwards."""
        ...


class Upstream(Protocol):
    """One repository on one source: its refs, its git objects, and where the bytes of its LFS blobs are."""

    name: str

    @property
    def bytes(self) -> ByteSource:
        """Where the bytes of blobs are read from."""
        ...

    def refs(self) -> RemoteRefs:
        """The refs as they are now; one request. Raises UpstreamError."""
        ...

    def bring(self, refs: Mapping[str, str], commits: Collection[str]) -> None:
        """Bring git's objects for `refs` (full name → object id) and `commits` into the local mirror."""
        ...
