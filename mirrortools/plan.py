"""Decisions of a sync, as pure functions: which refs, which files, what to fetch, and whether there is room."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final, NamedTuple

from mirrortools.errors import NoSpace, SourceMissing
from mirrortools.model import COMMIT, Blob, Manifest, RepoId, short_ref
from mirrortools.text import size

_CUT_COMMIT: Final = re.compile(r"[0-9a-f]{7,39}\Z")


class Selection(NamedTuple):
    """What of an upstream is wanted: refs (full name → object id) and pinned commits.

    `missing` are names that upstream does not have, `idle` patterns that match nothing there.
    """

    refs: Mapping[str, str]
    commits: frozenset[str]
    missing: tuple[str, ...] = ()
    idle: tuple[str, ...] = ()


def select_revisions(repo: RepoId, oids: Mapping[str, str], patterns: Collection[str]) -> Selection:
    """Choose refs by fnmatch patterns of their short or full names; 40 hexadecimal digits are a commit.

    Branches and tags match by their short names, other refs (`refs/pr/1`) only when a pattern begins with
    `refs/`. Raises SourceMissing when nothing is left.
    """
    commits = frozenset(pattern for pattern in patterns if COMMIT.match(pattern))
    chosen: dict[str, str] = {}
    missing: list[str] = []
    idle: list[str] = []
    for pattern in patterns:
        if pattern in commits:
            continue
        found = {name: oid for name, oid in oids.items() if _ref_matches(name, pattern)}
        if not found:
            (idle if any(c in pattern for c in "*?[") else missing).append(pattern)
        chosen |= found
    if missing and not chosen and not commits:
        raise missing_revisions(repo, missing, oids)
    if not chosen and not commits:
        raise SourceMissing(f"{repo}: no revision matches {', '.join(patterns)}; there is {_some_names(oids)}")
    return Selection(chosen, commits, tuple(missing), tuple(idle))


def missing_revisions(repo: RepoId, names: Collection[str], oids: Mapping[str, str]) -> SourceMissing:
    """The error for revisions that are configured by name and are not there."""
    named = ", ".join(repr(name) for name in names)
    hint = "; a commit is named by all of its 40 digits" if any(map(_CUT_COMMIT.match, names)) else ""
    return SourceMissing(f"{repo}: upstream has no revision {named}; it has {_some_names(oids)}{hint}")


def _ref_matches(name: str, pattern: str) -> bool:
    if pattern.startswith("refs/"):
        return fnmatchcase(name, pattern)
    short = short_ref(name)
    return short != name and fnmatchcase(short, pattern)


def _some_names(oids: Mapping[str, str]) -> str:
    names = sorted(short_ref(name) for name in oids)
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "") or "none"


def wants_path(path: str, include: Collection[str], exclude: Collection[str]) -> bool:
    """Whether a file is mirrored: it matches one of `include` (when given) and none of `exclude`.

    Patterns are the Hub client's: fnmatch on the whole path, `*` crosses slashes, a final `/` means the folder.
    """
    included = not include or any(fnmatchcase(path, _whole(pattern)) for pattern in include)
    return included and not any(fnmatchcase(path, _whole(pattern)) for pattern in exclude)


def _whole(pattern: str) -> str:
    return f"{pattern}*" if pattern.endswith("/") else pattern


class Plan(NamedTuple):
    """The metadata delta between what is held and what is wanted; each blob once, in a stable order."""

    fetch: tuple[Blob, ...]
    reuse: tuple[Blob, ...]
    drop: tuple[Blob, ...]

    @property
    def fetch_bytes(self) -> int:
        """How many bytes must come from a source."""
        return sum(blob.size for blob in self.fetch)

    @property
    def plain_bytes(self) -> int:
        """How many of those bytes git brings along."""
        return sum(blob.size for blob in self.fetch if blob.algorithm == "git")

    @property
    def reuse_bytes(self) -> int:
        """How many bytes are here already and need not come."""
        return sum(blob.size for blob in self.reuse)

    @property
    def drop_bytes(self) -> int:
        """How many bytes the old revisions had and the new ones do not."""
        return sum(blob.size for blob in self.drop)


def make_plan(previous: Iterable[Manifest], wanted: Iterable[Manifest], has: Callable[[Blob], bool]) -> Plan:
    """Compare revisions by their metadata. Small blobs are fetched first, so that many files are done early."""
    new = {blob for manifest in wanted for blob in manifest.iter_blobs()}
    drop = sorted({blob for manifest in previous for blob in manifest.iter_blobs() if blob not in new})
    held = {blob for blob in new if has(blob)}
    new -= held
    return Plan(tuple(sorted(new, key=lambda blob: (blob.size, blob.digest))), tuple(sorted(held)), tuple(drop))


class Space(NamedTuple):
    """Room on a disk, in bytes: what is free, and what must stay free."""

    free: int
    reserve: int


def check_space(needed_bytes: int, space: Space, folder: Path) -> None:
    """Refuse before the first byte what would not fit. Raises NoSpace."""
    lacking = needed_bytes - (space.free - space.reserve)
    if needed_bytes and lacking > 0:
        raise NoSpace(
            f"{folder}: {size(needed_bytes)} are to come, but only {size(space.free)} are free, of which "
            f"{size(space.reserve)} must stay free (min_free): {size(lacking)} too little; "
            "make room or mirror less (`include`, `exclude`), then sync again"
        )
