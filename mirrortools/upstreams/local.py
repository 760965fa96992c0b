"""Bytes of blobs that lie in files of this host: a company's own folder, or the LFS folder of a git repository."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mirrortools.errors import SourceMissing, SourceUnavailable
from mirrortools.model import Blob
from mirrortools.upstreams.base import Reader


@dataclass(slots=True)
class FileReader:
    """A byte range of an open file."""

    file: int
    start: int
    stop: int

    def readinto(self, buffer: memoryview) -> int:
        """Fill the beginning of `buffer`; 0 at the end of the range."""
        count = os.preadv(self.file, [buffer[: self.stop - self.start]], self.start)
        self.start += count
        return count


class FileBytes:
    """Reads blobs from where `locate` finds them."""

    def __init__(self, name: str, locate: Callable[[Blob], Path | None]) -> None:
        self.name = name
        self._locate = locate

    def prepare(self, blobs: Sequence[Blob]) -> None:
        """Files need no links."""

    @contextlib.contextmanager
    def open(self, blob: Blob, start: int, stop: int) -> Iterator[Reader]:
        """Read the bytes [start, stop). Raises SourceMissing, SourceUnavailable."""
        path = self._locate(blob)
        if path is None:
            raise SourceMissing(f"{self.name}: has no file for {blob}")
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise SourceMissing(f"{path}: {error.strerror}") from error
        except OSError as error:
            raise SourceUnavailable(f"{path}: {error.strerror}") from error
        try:
            yield FileReader(file, start, stop)
        finally:
            os.close(file)
