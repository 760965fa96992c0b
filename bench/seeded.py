"""A root in which very many repositories are in sync: one is synced, the others are copies of it under other names.

To sync ten thousand takes a quarter of an hour, and is not what is measured. The sync that is measured would see a
copy that is not as it should be: it would change something, which its check refuses.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

_FOLDERS = ("public/models/{}", "public/models/{}.git", "state/git/models/{}.git")


def seed(root: Path, first: str, others: Sequence[str]) -> None:
    """Let `others` lie below `root` as `first` does."""
    for other in others:
        for folder in _FOLDERS:
            shutil.copytree(root / folder.format(first), root / folder.format(other), symlinks=True)
        for record in _records(root / _FOLDERS[0].format(other)):
            record.write_bytes(record.read_bytes().replace(first.encode(), other.encode()))
    with closing(sqlite3.connect(root / "state" / "state.db")) as db, db:
        columns = [row[1] for row in db.execute("PRAGMA table_info(repositories)") if row[1] != "repo"]
        names = ", ".join(columns)
        query = f"INSERT INTO repositories (repo, {names}) SELECT ?, {names} FROM repositories WHERE repo = ?"
        db.executemany(query, [(other, first) for other in others])


def _records(folder: Path) -> Iterator[Path]:
    return (path for path in (folder / "meta").rglob("*") if path.is_file() and not path.is_symlink())
