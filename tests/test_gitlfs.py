"""A git-LFS source's own files: what is wrong with them is told before anything is asked."""

from __future__ import annotations

import errno
from contextlib import closing
from pathlib import Path, PosixPath

import pytest

from mirrortools.config import Source
from mirrortools.errors import ConfigError
from mirrortools.model import RepoId
from mirrortools.upstreams import Clients, GitMirror, open_upstream


class ForbiddenFile(PosixPath):
    """A file that this account may not read, also when the account is root's."""

    def read_text(self, encoding: str | None = None, errors: str | None = None) -> str:
        """Refuse."""
        raise PermissionError(errno.EACCES, "Permission denied", str(self))


def refusal(folder: Path, token_file: Path) -> str:
    """What opening a source says about its token."""
    source, mirror = Source("https://h.example", token_file), GitMirror(folder / "b.git")
    with closing(Clients()) as clients, pytest.raises(ConfigError) as caught:
        open_upstream(source, RepoId.parse("a/b"), mirror, clients)
    return str(caught.value)


def test_a_token_that_may_not_be_read_is_told_with_the_account(tmp_path: Path) -> None:
    """Who was refused, and the command that shows where."""
    text = refusal(tmp_path, ForbiddenFile("/etc/hub.token"))

    assert text.startswith("/etc/hub.token: Permission denied for the account ")
    assert "`namei -l /etc/hub.token` shows where" in text
    assert text.endswith(" (token_file of https://h.example)")


def test_a_token_that_is_not_there_or_empty_is_told(tmp_path: Path) -> None:
    """With the source that names it."""
    (tmp_path / "empty").write_text("\n")

    assert refusal(tmp_path, tmp_path / "none").startswith(
        f"{tmp_path}/none: No such file or directory (token_file of "
    )
    assert "is empty" in refusal(tmp_path, tmp_path / "empty")
