"""The small files of the tree that say something: read, or told to be damaged, and replaced as wholes.

Only the standard library is used here, because the receiver runs this module on edges.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from mirrortools.errors import HostileTree, NoSpace, StoreError
from mirrortools.files import make_folder, write_file

T = TypeVar("T")


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """Say StoreError or NoSpace where the system says OSError."""
    try:
        yield
    except OSError as error:
        text = f"{error.filename2 or error.filename or place}: {error.strerror}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace(f"{text}; free some space, then run it again") from error
        raise StoreError(text) from error


def to_json(document: Any) -> bytes:
    """The content of a record."""
    return json.dumps(document, separators=(",", ":")).encode()


def content(path: Path) -> bytes | None:
    """What is in a file; None when there is no such file."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def replace_record(path: Path, wanted: bytes) -> bool:
    """Write a file unless it already has this content; return whether it was written."""
    if content(path) == wanted:
        return False
    make_folder(path.parent)
    write_file(path, wanted)
    return True


def load(path: Path, parse: Callable[[Any], T]) -> T | None:
    """What `parse` makes of a JSON file; None when there is no such file. Raises StoreError."""
    try:
        return parse(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, HostileTree) as error:
        raise StoreError(f"{path}: damaged ({error}); sync this repository again") from error


def is_damaged(path: Path, parse: Callable[[Any], object]) -> bool:
    """Whether there is such a file and `parse` makes nothing of it."""
    try:
        load(path, parse)
    except StoreError:
        return True
    return False
