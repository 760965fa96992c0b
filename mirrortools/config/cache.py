"""The configuration as it was read last: reading YAML takes longer than a source takes to answer.

It is kept for each user and main file, in the folder that systemd or the user's environment has for such things. Where
everything else lies (`root`) is not known before the configuration is, and the folder of the configuration belongs to
somebody else. One digest over what was read, the program that read it and the result tells whether it still holds, and
whether it is whole. In it stand names of files with secrets, as in the configuration, and no secrets.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from sys import intern
from types import MappingProxyType
from typing import Any, Final

from mirrortools import __version__
from mirrortools.config.places import job_paths
from mirrortools.config.resolved import Config, EdgeConfig, Job, RepositoryConfig, Source, Tls
from mirrortools.config.tokens import unfitness
from mirrortools.files import make_folder, write_file
from mirrortools.model import RepoId

# Main files that are remembered for one user.
_MOST: Final = 32
_KINDS: Final[Mapping[str, Callable[..., Any]]] = {
    kind.__name__: kind for kind in (Config, EdgeConfig, Job, RepositoryConfig, Source, Tls, RepoId)
}
_PROGRAM: Final = Path(__file__).parent


class Cache:
    """What a main file and its jobs said last. Whatever is wrong with it, it is as if nothing was remembered."""

    def __init__(self, main_path: Path, environ: Mapping[str, str]) -> None:
        self._main_path = main_path
        folder = _folder(environ)
        self._path = folder / f"config-{_digest(os.fsencode(main_path))[:32]}.json" if folder else None
        self._read = _fingerprint(main_path) if folder else None

    @property
    def can_keep(self) -> bool:
        """Whether there is a place for it, and files that can be read."""
        return self._path is not None and self._read is not None

    def get(self) -> Config | None:
        """The configuration, if reading the files would give the same; None when they have to be read."""
        if self._path is None or self._read is None:
            return None
        digest, _, body = _own_content(self._path).partition(b"\n")
        if digest.decode(errors="replace") != _digest(self._read, body):
            return None
        token_files, config = decoded(body)
        # What else was looked at is looked at again; the full reading tells where it is named.
        return None if any(unfitness(path) for path in token_files) else config

    def put(self, config: Config, token_files: Sequence[Path]) -> None:
        """Remember what was read, unless the files have changed meanwhile."""
        if self._path is None or self._read is None or self._read != _fingerprint(self._main_path):
            return
        body = encoded((tuple(token_files), config))
        with contextlib.suppress(OSError):
            make_folder(self._path.parent)
            self._path.parent.chmod(0o700)
            write_file(self._path, f"{_digest(self._read, body)}\n".encode() + body, 0o600)
            _forget_the_oldest(self._path.parent)


def _folder(environ: Mapping[str, str]) -> Path | None:
    """The folder for caches (systemd.exec(5), the XDG base directories), in a place of this user's own."""
    for name, below in (("CACHE_DIRECTORY", ""), ("XDG_CACHE_HOME", "mirrortools"), ("HOME", ".cache/mirrortools")):
        place = Path(environ.get(name, "").partition(":")[0])
        if place.is_absolute():
            return place / below if _is_own(place) else None
    return None


def _is_own(place: Path) -> bool:
    """Whether nobody else can put files, or links, there: as root one may have somebody else's HOME."""
    try:
        seen = place.stat()
    except OSError:
        return False
    return seen.st_uid == os.geteuid() and not seen.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"\n".join(parts)).hexdigest()


def _fingerprint(main_path: Path) -> bytes | None:
    """What stands for the content of every file, and for the program; None when the files cannot pass for right."""
    try:
        jobs, wrong = job_paths(main_path.parent)
        contents = [(path.name, path.read_bytes()) for path in (main_path, *jobs)]
        program = [
            (path.name, path.stat()) for path in (*sorted(_PROGRAM.glob("*.py")), _PROGRAM.with_name("model.py"))
        ]
    except OSError:
        return None
    listed = [(name, _digest(content)) for name, content in contents]
    versions = [(name, seen.st_size, seen.st_mtime_ns) for name, seen in program]
    return None if wrong else json.dumps([__version__, versions, listed]).encode()


def _own_content(path: Path) -> bytes:
    """What is in a file that only this user can have written; empty when there is none."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    with contextlib.suppress(OSError), os.fdopen(os.open(path, flags), "rb") as file:
        seen = os.fstat(file.fileno())
        if seen.st_uid == os.geteuid() and stat.S_ISREG(seen.st_mode) and not stat.S_IMODE(seen.st_mode) & 0o077:
            return file.read()
    return b""


def _forget_the_oldest(folder: Path) -> None:
    for path in sorted(folder.glob("config-*.json"), key=lambda path: path.stat().st_mtime_ns)[:-_MOST]:
        path.unlink(missing_ok=True)


def encoded(value: Any) -> bytes:
    """A frozen value as JSON: rows [form, part…]. A part is plain, or in a list the number of an earlier row.

    Equal values are one row, so that of thousands of repositories little more is kept than their names.
    """
    rows: dict[str, int] = {}

    def part(value: Any) -> Any:
        if value is None or isinstance(value, str | int):
            return value
        form, parts = _taken_apart(value)
        return [rows.setdefault(json.dumps([form, *map(part, parts)], separators=(",", ":")), len(rows))]

    part(value)
    return f"[{','.join(rows)}]".encode()


def _taken_apart(value: Any) -> tuple[str, Sequence[Any]]:
    if isinstance(value, Path):
        return "path", [str(value)]
    if isinstance(value, tuple):
        return "tuple", value
    if isinstance(value, Mapping):
        return "mapping", [*value.keys(), *value.values()]
    return type(value).__name__, [getattr(value, field.name) for field in fields(value)]


def decoded(data: bytes) -> Any:
    """The value that `encoded` made the JSON of."""
    made: list[Any] = []
    for form, *parts in json.loads(data):
        values = [
            made[part[0]] if type(part) is list else intern(part) if type(part) is str else part for part in parts
        ]
        made.append(_MAKERS[form](values) if form in _MAKERS else _KINDS[form](*values))
    return made[-1]


def _mapping(values: Sequence[Any]) -> Mapping[Any, Any]:
    half = len(values) // 2
    return MappingProxyType(dict(zip(values[:half], values[half:], strict=True)))


_MAKERS: Final[Mapping[str, Callable[[Sequence[Any]], Any]]] = {
    "path": lambda values: Path(*values),
    "tuple": tuple,
    "mapping": _mapping,
}
