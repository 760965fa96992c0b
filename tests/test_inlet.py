"""Who is let into the folder where blobs arrive, and when nobody is."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path

import pytest

from mirrortools.berth import Berth
from mirrortools.errors import Locked
from mirrortools.inlet import Inlet
from mirrortools.model import RepoId

REPO = RepoId.parse("acme/tiny")


def test_nobody_comes_in_while_it_is_closed(tmp_path: Path) -> None:
    """Nor is it closed while anybody is in; the other berth has an inlet of its own."""
    inlet, other = Inlet(Berth(tmp_path, REPO)), Inlet(Berth(tmp_path, REPO, is_ahead=True))
    with inlet.closed():
        with pytest.raises(Locked, match=r"acme/tiny: .*being hashed"):
            inlet.enter(wait_s=0)
        os.close(other.enter(wait_s=0))
    entered = [inlet.enter(wait_s=0), inlet.enter(wait_s=0)]
    for file in entered:
        with pytest.raises(Locked, match="still writes"), inlet.closed(wait_s=0):
            """It is not."""
        os.close(file)
    with inlet.closed(wait_s=0):
        """Both have gone."""


def test_it_is_open_for_as_long_as_who_inherited_it_lives(tmp_path: Path) -> None:
    """Whoever started that program may be gone."""
    inlet = Inlet(Berth(tmp_path, REPO))
    entered = inlet.enter()
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[entered]) as writer:
        os.close(entered)
        is_open = inlet.mark() is None
        assert writer.stdin
        writer.stdin.close()

    assert is_open
    assert inlet.mark() is not None


def test_closing_waits_until_they_have_gone(tmp_path: Path) -> None:
    """An rsync that has nothing more to say is not waited for in vain."""
    inlet = Inlet(Berth(tmp_path, REPO))
    threading.Timer(0.1, os.close, [inlet.enter()]).start()

    with inlet.closed(wait_s=30) as mark:
        assert mark


def test_the_mark_tells_whether_anybody_was_in(tmp_path: Path) -> None:
    """It stays while nobody was, and is another one after each."""
    inlet = Inlet(Berth(tmp_path, REPO))
    marks = [inlet.mark(), inlet.mark()]
    for _ in range(2):
        os.close(inlet.enter())
        marks.append(inlet.mark())

    assert marks[0] == marks[1] == ""
    assert len(set(marks)) == 3
