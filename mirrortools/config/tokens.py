"""Whether the file that a token stands in is fit for it."""

from __future__ import annotations

import stat
from pathlib import Path


def unfitness(path: Path) -> str | None:
    """What is wrong with a token file, and what to do: it is a folder, or every account can read it."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return None  # `config check` speaks of files that are missing
    if stat.S_ISDIR(mode):
        return f"{path} is a folder; name the file that has the token in it"
    if mode & stat.S_IROTH:
        return f"every account of this host can read {path}; run: chmod o= {path}"
    return None
