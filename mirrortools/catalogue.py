"""What is to be said of all repositories of a tree, kept so that of those that did not change nothing is read.

What changes a publication replaces a file in the folder with its records, and so gives that another stamp
(`Tree.stamp`). What is kept of a repository counts as long as the stamp is the same. Nothing counts that changed a
moment before it was looked at, since two changes may bear the same time, and after a day all is looked at anew. The
file is no truth: one that is lost or damaged, or of another release, costs a look. Only the standard library is used
here, because the receiver runs this module on edges.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Final, NamedTuple

import mirrortools
from mirrortools.files import alone_in
from mirrortools.notes import BELIEVED_S

_MADE_BY: Final = f"1-{mirrortools.__version__}"
# Who made the file, when all was looked at (Unix seconds), and the SHA-256 of all that follows.
_HEAD: Final = re.compile(rb"(\S{1,80}) ([0-9]{1,12}) ([0-9a-f]{64})")
_MOMENT_NS: Final = 2 * 10**9


class Listed(NamedTuple):
    """What is said of the repository at `path`: its refs (JSON: full name → commit; empty when the record is damaged),
    and of its default revision the number of files, their bytes and its time (Unix seconds); none when not known.
    """

    path: str
    refs: str
    figures: tuple[int, ...] = ()


Look = Callable[[str], Listed | None]
"""Reads what is to be said of the repository at a path; None when none is published there."""


class _Kept(NamedTuple):
    """What was found at a place that bore this stamp; with none it is looked at each time."""

    stamp: str
    listed: Listed


class Catalogue:
    """What is kept in the file at `path`. Several processes may use it, one after the other. Raises OSError."""

    def __init__(self, path: Path, look: Look) -> None:
        self._path = path
        self._look = look

    def alone(self) -> AbstractContextManager[None]:
        """Hold others, so that what they write after this has all that this has."""
        return alone_in(self._path.parent)

    def listed(self, places: Iterable[tuple[str, str]], now_s: float) -> list[Listed]:
        """What is to be said of all that is published at `places`, paths with their stamps of now, in their order."""
        before, looked_s = self._read(now_s)
        known = {kept.listed.path: kept for kept in before}
        found = []
        for path, stamp in places:
            kept = known.get(path)
            if kept and kept.stamp == stamp:
                found.append(kept)
            elif listed := self._look(path):
                found.append(_Kept(stamp if _is_settled(stamp, now_s) else "", listed))
        if found != before:
            with suppress(OSError):  # what cannot be kept is looked at again
                self._write(found, looked_s)
        return [kept.listed for kept in found]

    def _read(self, now_s: float) -> tuple[list[_Kept], int]:
        """What is kept and counts, and when (Unix seconds) all was looked at."""
        nothing: tuple[list[_Kept], int] = [], int(now_s)
        try:
            head, _, body = self._path.read_bytes().partition(b"\n")
        except OSError:
            return nothing
        match = _HEAD.fullmatch(head)
        if not match or match[1] != _MADE_BY.encode() or match[3] != hashlib.sha256(body).hexdigest().encode():
            return nothing
        looked_s = int(match[2])
        if not 0 <= now_s - looked_s < BELIEVED_S:
            return nothing
        return [_parsed(line) for line in body.decode().split("\n")[:-1]], looked_s

    def _write(self, found: Sequence[_Kept], looked_s: int) -> None:
        """Keep what was found. It may be lost in a power cut, and its digest tells."""
        body = "".join(map(_line, found)).encode()
        beside = self._path.with_name(f".{self._path.name}.{os.getpid()}.new")
        try:
            beside.write_bytes(f"{_MADE_BY} {looked_s} {hashlib.sha256(body).hexdigest()}\n".encode() + body)
            beside.replace(self._path)
        except OSError:
            beside.unlink(missing_ok=True)
            raise


def _line(kept: _Kept) -> str:
    """JSON has neither tabs nor ends of lines."""
    path, refs, figures = kept.listed
    return f"{path}\t{kept.stamp}\t{refs}\t{' '.join(map(str, figures))}\n"


def _parsed(line: str) -> _Kept:
    path, stamp, refs, figures = line.split("\t")
    return _Kept(stamp, Listed(path, refs, tuple(map(int, figures.split()))))


def _is_settled(stamp: str, now_s: float) -> bool:
    """Whether whatever changes from now on bears another time than the change that made this stamp."""
    changed_ns = int(stamp.rpartition(".")[2])
    return changed_ns < now_s * 10**9 - _MOMENT_NS
