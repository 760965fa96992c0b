"""Bytes of blobs that lie in files of this host: a company's own folder, or the LFS folder of a git repository."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mirrortools.errors import AccessDenied, HostileTree, SourceMissing, SourceUnavailable, UpstreamError
from mirrortools.model import Blob
from mirrortools.upstreams.base import Reader


@dataclass(slots=True)
class FileReader:
    """A byte range of an open file."""

    name: str
    file: int
    start: int
    stop: int
    version: str = ""

    def readinto(self, buffer: memoryview) -> int:
        """Fill the beginning of `buffer`; 0 at the end of the range. Raises SourceUnavailable."""
        try:
            count = os.preadv(self.file, [buffer[: self.stop - self.start]], self.start)
        except OSError as error:
            raise SourceUnavailable(f"{self.name}: cannot be read: {error.strerror}") from error
        self.start += count
        return count

    def cancel(self) -> None:
        """Files do not keep anybody waiting."""


class FileBytes:
    """Reads blobs from the files that `find` opens. Raises SourceMissing where it finds none."""

    def __init__(self, name: str, find: Callable[[Blob], int | None]) -> None:
        self.name = name
        self._find = find

    def prepare(self, blobs: Sequence[Blob]) -> None:
        """Files need no links."""

    def break_off(self) -> None:
        """Files do not keep anybody waiting."""

    def read_many(self, blobs: Sequence[Blob]) -> Iterator[tuple[Blob, bytes]]:
        """Read whole small files. Raises UpstreamError at the first trouble."""
        for blob in blobs:
            buffer = memoryview(bytearray(blob.size))
            with self.open(blob, 0, blob.size) as reader:
                yield blob, bytes(buffer[: reader.readinto(buffer)])

    def segment_hashes(self, _blob: Blob) -> object:
        """Files are read whole."""
        return None

    @contextlib.contextmanager
    def open(self, blob: Blob, start: int, stop: int) -> Iterator[Reader]:
        """Read the bytes [start, stop). Raises UpstreamError."""
        file = self._find(blob)
        if file is None:
            raise SourceMissing(f"{self.name}: has no file for {blob}")
        try:
            yield FileReader(f"{self.name}: {blob}", file, start, stop)
        finally:
            os.close(file)


def open_regular(path: Path) -> int:
    """Open a file for reading; the caller closes it. Raises UpstreamError, also for what is not a regular file."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe would wait for a writer
    except OSError as error:
        raise read_error(path, error) from error
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise HostileTree(f"{path}: is not a regular file; take it away")
    return file


def open_inside(folder: Path, path: Path) -> int:
    """Open a regular file that lies below `folder` when all links are followed. Raises UpstreamError."""
    file = open_regular(path)
    real = Path(f"/proc/self/fd/{file}").readlink()
    if not real.is_relative_to(folder.resolve()):
        os.close(file)
        raise HostileTree(f"{path}: leads to {real}, out of {folder}; put the file itself there, or take the link away")
    return file


def read_error(path: Path, error: OSError) -> UpstreamError:
    """What it means that a file or folder of somebody else's cannot be read."""
    if isinstance(error, FileNotFoundError):
        return SourceMissing(f"{path}: {error.strerror}; check that it is mounted, and the `source`")
    if isinstance(error, PermissionError):
        return AccessDenied(f"{path}: {error.strerror}; let the user who runs mirrortool read it")
    return SourceUnavailable(f"{path}: {error.strerror}")
