"""The receiver that an edge keeps, so that it travels once and not with each call.

It is one file below the root, named by its SHA-256. Whoever calls says which one is to answer, and the file is hashed
each time before it is run (`transports/archive.py`): so a damaged one, or one that somebody else put there, is one that
is lacking. Only the standard library is used here, because the receiver runs this module on edges.
"""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path
from typing import Final

from mirrortools.files import make_folder, write_file

FOLDER: Final = "state/receiver"


def name_of(receiver: bytes) -> str:
    """What a receiver is called where it is kept."""
    return hashlib.sha256(receiver).hexdigest()


def keep(root: Path, receiver: bytes) -> None:
    """Keep a receiver below `root` for the next call, and no other one; where that cannot be, it comes again."""
    path = root / FOLDER / name_of(receiver)
    with contextlib.suppress(OSError):
        make_folder(path.parent)
        write_file(path, receiver, 0o600)
        for other in path.parent.iterdir():
            if other != path:
                other.unlink()
