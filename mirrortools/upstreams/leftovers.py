"""What a git that was killed leaves in a bare repository: some of it is in the way for ever, the rest takes room.

A lock is never taken again. A pack that came whole over dumb HTTP but was not indexed yet (`pack-….pack.temp`) is
resumed behind its end, which servers refuse (416). An index that came before its pack was never fsynced.

Among the objects it is told what belongs, not what is left over: temporary names change with git's version.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path

_TEMPORARY = (".lock", ".new")
_PACK_FILE = re.compile(r"(pack-[0-9a-f]{40,64})\.(?:pack|idx|rev|bitmap|mtimes|promisor)")
_PACK_INDEXES = r"multi-pack-index(?:-[0-9a-f]{40,64}\.(?:bitmap|rev))?"
_LOOSE = r"(?:[0-9a-f]{38}|[0-9a-f]{62})"
_FAN_OUT = re.compile(r"[0-9a-f]{2}")


def leftovers(folder: Path) -> Iterator[Path]:
    """The files below a bare repository that no git works on any more and that are no part of it.

    Only whoever holds the repository's lock may believe that.
    """
    yield from _temporary(folder, _names(folder))
    for top, _, names in os.walk(folder / "refs"):
        yield from _temporary(Path(top), names)
    objects = folder / "objects"
    for name in _names(objects):
        if _FAN_OUT.fullmatch(name):
            yield from (objects / name / left for left in _names(objects / name) if not re.fullmatch(_LOOSE, left))
        elif name == "pack":
            yield from (objects / name / left for left in left_of_packs(_names(objects / name)))
        elif name != "info":
            yield objects / name


def _names(folder: Path) -> list[str]:
    """What is in a folder; one that cannot be listed is git's to complain of."""
    try:
        with os.scandir(folder) as found:
            return [entry.name for entry in found]
    except OSError:
        return []


def _temporary(folder: Path, names: Collection[str]) -> Iterator[Path]:
    return (folder / name for name in names if name.endswith(_TEMPORARY))


def left_of_packs(names: Collection[str]) -> list[str]:
    """The names of `objects/pack` that are no part of a whole pack: one that has its objects and its index."""
    there = set(names)
    parts = {name: match[1] for name in there if (match := _PACK_FILE.fullmatch(name))}
    whole = {pack for pack in parts.values() if {f"{pack}.pack", f"{pack}.idx"} <= there}
    return sorted(name for name in there if parts.get(name) not in whole and not re.fullmatch(_PACK_INDEXES, name))
