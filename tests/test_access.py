"""What accounts may read, by owner, group and mode."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirrortools.access import Account, reason

ME = Account("me", os.getuid())
STRANGER = Account("stranger", 4_000_000)
COLLEAGUE = Account("colleague", 4_000_001, frozenset({os.getgid()}))


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every account can reach."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.parametrize(
    ("mode", "closed_to"), [(0o600, {STRANGER, COLLEAGUE}), (0o640, {STRANGER}), (0o604, {COLLEAGUE}), (0o644, set())]
)
def test_modes_say_who_may_read(mode: int, closed_to: set[Account], folder: Path) -> None:
    """The owner's, the group's or the others' bits count, the first that fits alone."""
    path = folder / "token"
    path.touch()
    path.chmod(mode)

    assert {account for account in (ME, STRANGER, COLLEAGUE) if account.obstacle(path)} == closed_to


def test_a_closed_folder_is_the_obstacle(folder: Path) -> None:
    """A folder that cannot be searched is named instead of the file in it, the outermost one."""
    path = folder / "closed" / "too" / "token"
    path.parent.mkdir(parents=True)
    (folder / "closed").chmod(0o700)
    path.parent.chmod(0o700)
    path.touch(mode=0o644)

    assert STRANGER.obstacle(path) == folder / "closed"
    assert ME.obstacle(path) is None


def test_nothing_keeps_root_out(folder: Path) -> None:
    """Modes do not count for root, and a file that is missing is somebody else's complaint."""
    path = folder / "token"
    path.touch(mode=0)

    assert Account("root", 0).obstacle(path) is None
    assert STRANGER.obstacle(folder / "missing") is None


def test_accounts_are_looked_up() -> None:
    """An account of this host has a number; any other has none."""
    assert Account.named("root").uid == 0
    assert Account.named("no-such-account").uid is None


def test_a_refusal_names_the_account() -> None:
    """Who was refused is said, and how to see where; other errors keep the system's words."""
    refused = reason(PermissionError(13, "Permission denied", "/srv/m/token"))

    assert refused.startswith("Permission denied for the account ")
    assert refused.endswith("; `namei -l /srv/m/token` shows where")
    assert reason(FileNotFoundError(2, "No such file or directory", "/srv/m")) == "No such file or directory"
