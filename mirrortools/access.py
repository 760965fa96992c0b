"""What an account may do with a path, as owner, group and mode have it; and the reason why the system refused."""

from __future__ import annotations

import errno
import os
import pwd
from dataclasses import dataclass
from pathlib import Path
from typing import Final

READ: Final = 4
SEARCH: Final = 1


@dataclass(frozen=True, slots=True)
class Account:
    """An account by name; `uid` is None when this host has no such account, which may then do what others may."""

    name: str
    uid: int | None = None
    gids: frozenset[int] = frozenset()

    @classmethod
    def named(cls, name: str) -> Account:
        """The account as this host knows it."""
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            return cls(name)
        return cls(name, entry.pw_uid, frozenset(os.getgrouplist(name, entry.pw_gid)))

    def obstacle(self, path: Path) -> Path | None:
        """What keeps the account from reading `path`: one of its folders, or itself. None for a missing path."""
        folders = [folder for folder in reversed(path.parents) if not self._may(folder, SEARCH)]
        if folders:
            return folders[0]
        return None if self._may(path, READ) else path

    def _may(self, path: Path, bits: int) -> bool:
        try:
            status = path.stat()
        except OSError:
            return True  # whoever needs it will say that it is missing
        if self.uid == 0:
            return True
        shift = 6 if status.st_uid == self.uid else 3 if status.st_gid in self.gids else 0
        return bool(status.st_mode >> shift & bits)


def reason(error: OSError) -> str:
    """The system's words; for a refusal also who was refused, and the command that shows where."""
    text = error.strerror or str(error)
    if error.errno == errno.EROFS and error.filename is not None:
        place = os.fsdecode(error.filename)
        return f"{text}; `findmnt -T {place}` shows which, and the kernel's log perhaps why; mount it read-write again"
    if not isinstance(error, PermissionError) or error.filename is None:
        return text
    return f"{text} for the account {_own_name()}; `namei -l {os.fsdecode(error.filename)}` shows where"


def _own_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
