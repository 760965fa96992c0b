"""Who may read private repositories, laid out so that nginx looks it up anew at each request.

    private/.access/tokens/<SHA-256 of a token>        {"user": …, "expires_at": Unix seconds or null}
    private/.access/users/<user>.json                  {"repositories": [repository…]}, what lists tell that user
    private/.access/repositories/<quoted repository>   {"readers": [user…], "gated": …}

A file for each: to add one is a rename, to revoke one an unlink, and both count at once. A token has 202 random bits,
so that one round of SHA-256 keeps it (what is slow on purpose is for passwords that can be guessed), and looking up the
name of a file compares nothing that a clock could tell. Only the standard library is used here, because the receiver
runs this module on edges.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from mirrortools.errors import ConfigError, HostileTree
from mirrortools.files import make_folder, sync_folder, write_json
from mirrortools.model import Realm, RepoId, quote_ref

FOLDER: Final = ".access"
_SHA256: Final = re.compile(r"[0-9a-f]{64}\Z")
_USER: Final = re.compile(r"[A-Za-z0-9_.-]{1,100}\Z")


@dataclass(frozen=True, slots=True)
class Bearer:
    """Whom a token names, until then (Unix seconds; None: always). Raises HostileTree."""

    user: str
    expires_at: int | None = None

    def __post_init__(self) -> None:
        if not _USER.match(self.user):
            raise HostileTree(f"not the name of a user: {self.user[:100]!r}")

    def to_json(self) -> dict[str, Any]:
        """What nginx reads."""
        return {"user": self.user, "expires_at": self.expires_at}


@dataclass(frozen=True, slots=True)
class Readership:
    """The users who may read a repository. When it is gated, others whom a token names learn that it is there."""

    readers: tuple[str, ...]
    gated: bool = False

    def to_json(self) -> dict[str, Any]:
        """What nginx reads."""
        return {"readers": list(self.readers), "gated": self.gated}


@dataclass(frozen=True, slots=True)
class Access:
    """All tokens that count on a host, by the SHA-256 of each, and who may read each of its private repositories."""

    bearers: Mapping[str, Bearer] = field(default_factory=dict)
    readerships: Mapping[RepoId, Readership] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if wrong := [digest for digest in self.bearers if not _SHA256.match(digest)]:
            raise HostileTree(f"not a SHA-256: {wrong[0][:100]!r}")

    def to_json(self) -> dict[str, Any]:
        """The form in which it travels."""
        return {
            "tokens": {digest: bearer.to_json() for digest, bearer in sorted(self.bearers.items())},
            "repositories": {repo.path: known.to_json() for repo, known in sorted(self.readerships.items())},
        }

    def lists(self) -> dict[str, list[str]]:
        """The repositories that each user with a token may read, by their paths in order."""
        found: dict[str, list[str]] = {bearer.user: [] for bearer in self.bearers.values()}
        for path, readers in sorted((repo.path, known.readers) for repo, known in self.readerships.items()):
            for user in found.keys() & set(readers):
                found[user].append(path)
        return found

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Access:
        """Read what `to_json` wrote. Raises HostileTree on anything malformed."""
        try:
            bearers = {
                str(digest): Bearer(str(item["user"]), None if item["expires_at"] is None else int(item["expires_at"]))
                for digest, item in document["tokens"].items()
            }
            readerships = {
                RepoId.parse(path): Readership(tuple(map(str, item["readers"])), bool(item["gated"]))
                for path, item in document["repositories"].items()
            }
        except (KeyError, TypeError, ValueError, AttributeError, ConfigError) as error:
            raise HostileTree(f"not a list of who may read: {error!r}") from error
        return cls(bearers, readerships)


def write_access(root: Path, access: Access) -> bool:
    """Let nginx go by `access` and nothing else; what is taken away goes first. Whether anything changed.

    Raises OSError.
    """
    folder = root / Realm.PRIVATE.value / FOLDER
    changed = [_write(folder / name, wanted) for name, wanted in _files(access)]
    return any(changed)


def _files(access: Access) -> Iterator[tuple[str, dict[str, dict[str, Any]]]]:
    yield "tokens", {digest: bearer.to_json() for digest, bearer in access.bearers.items()}
    yield "users", {f"{user}.json": {"repositories": paths} for user, paths in access.lists().items()}
    yield "repositories", {quote_ref(repo.path): known.to_json() for repo, known in access.readerships.items()}


def _write(folder: Path, wanted: Mapping[str, Mapping[str, Any]]) -> bool:
    """Make the files of a folder exactly `wanted`."""
    make_folder(folder)
    dropped = [path for path in folder.iterdir() if path.name not in wanted]
    for path in dropped:
        path.unlink()
    if dropped:
        sync_folder(folder)
    changed = [name for name, document in wanted.items() if _read(folder / name) != document]
    for name in changed:
        write_json(folder / name, wanted[name])
    return bool(dropped or changed)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
