"""The right to change a repository, and the wish of whoever came while it was taken."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mirrortools.berth import Berth
from mirrortools.errors import Locked, SourceUnavailable, StoreError
from mirrortools.locks import RepositoryLock, alone, in_turn, owner_of
from mirrortools.model import RepoId

REPO = RepoId.parse("datasets/acme/tiny")


def note(root: Path) -> Path:
    """The note that somebody came by."""
    return root / "state" / "locks" / "datasets%2Facme%2Ftiny.again"


def test_a_taken_lock_names_its_owner(tmp_path: Path) -> None:
    """Who, which process, since when."""
    lock = RepositoryLock(tmp_path, REPO, "mirrortool sync")
    with pytest.raises(Locked, match=rf"acme/tiny: mirrortool sync \(process {os.getpid()}, since .*works on it"):
        RepositoryLock(tmp_path, REPO, "another")
    owner = owner_of(tmp_path, REPO)
    lock.close()

    assert owner is not None
    assert "mirrortool sync" in owner
    assert owner_of(tmp_path, REPO) is None
    RepositoryLock(tmp_path, REPO, "the next one").close()


def test_nobody_owns_what_was_never_taken(tmp_path: Path) -> None:
    """No lock file, no owner."""
    assert owner_of(tmp_path, REPO) is None


def test_whoever_only_looks_is_not_in_the_way(tmp_path: Path) -> None:
    """`status` looks at locks all the time; a sync that begins at that moment waits for the blink of an eye."""
    RepositoryLock(tmp_path, REPO, "before").close()
    with (tmp_path / "state" / "locks" / "datasets%2Facme%2Ftiny.lock").open() as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        threading.Timer(0.2, lambda: fcntl.flock(looking, fcntl.LOCK_UN)).start()
        RepositoryLock(tmp_path, REPO, "sync").close()


def test_a_berth_is_had_alone_or_left_alone(tmp_path: Path) -> None:
    """Nobody is told that it is taken for so short a time, not even by the name that a killed owner left there."""
    berth = Berth(tmp_path, REPO, is_ahead=True)
    lock = RepositoryLock(tmp_path, REPO, "what goes ahead", is_ahead=True)
    with alone(berth) as while_taken:
        """Nothing is moved."""
    lock.close()
    berth.lock("lock").write_text("one that was killed\n")
    with ThreadPoolExecutor(1) as threads:
        with alone(berth) as is_alone:
            next_one = threads.submit(RepositoryLock, tmp_path, REPO, "the next one", is_ahead=True)
            RepositoryLock(tmp_path, REPO, "who is at the other berth").close()
            time.sleep(0.1)
            was_let_in = next_one.done()
        next_one.result().close()

    assert (while_taken, is_alone, was_let_in) == (False, True, False)


def test_a_lock_that_cannot_be_made_says_where_and_why(tmp_path: Path) -> None:
    """Not as a bug, and with what to look at."""
    (tmp_path / "state").write_text("a file")
    with pytest.raises(StoreError, match=r"state.*who runs mirrortool"):
        RepositoryLock(tmp_path, REPO, "sync")
    with pytest.raises(StoreError, match=r"state.*who runs mirrortool"):
        in_turn(tmp_path, REPO, "sync", lambda: None, lambda: None)


def test_alone_it_acts_once(tmp_path: Path) -> None:
    """Nobody came by."""
    acts: list[str] = []
    in_turn(tmp_path, REPO, "sync", lambda: acts.append("first"), lambda: acts.append("again"))

    assert acts == ["first"]
    assert not note(tmp_path).exists()


def test_whoever_came_by_is_served_with_all_of_it(tmp_path: Path) -> None:
    """The second act may be a larger one than the first: the others' wishes are not known."""
    acts: list[str] = []

    def first() -> str:
        acts.append("first")
        with pytest.raises(Locked, match="will run once more"):
            in_turn(tmp_path, REPO, "second", lambda: "never", lambda: "never")
        return "old"

    def again() -> str:
        acts.append("again")
        return "new"

    assert in_turn(tmp_path, REPO, "sync", first, again) == "new"
    assert acts == ["first", "again"]
    assert not note(tmp_path).exists()


def test_a_failure_does_not_lose_the_wish_of_another(tmp_path: Path) -> None:
    """The first act fails after somebody came by: it is done once more all the same."""

    def first() -> str:
        note(tmp_path).touch()
        raise SourceUnavailable("down")

    assert in_turn(tmp_path, REPO, "sync", first, lambda: "worked") == "worked"


def test_the_last_result_counts_also_when_it_is_a_failure(tmp_path: Path) -> None:
    """And the lock is free afterwards."""

    def again() -> str:
        raise SourceUnavailable("down again")

    with pytest.raises(SourceUnavailable, match="down again"):
        in_turn(tmp_path, REPO, "sync", lambda: note(tmp_path).touch() or "fine", again)  # type: ignore[func-returns-value]

    assert owner_of(tmp_path, REPO) is None


def test_an_interruption_lets_go_of_the_lock(tmp_path: Path) -> None:
    """Ctrl-C in the middle."""

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        in_turn(tmp_path, REPO, "sync", interrupted, interrupted)

    assert owner_of(tmp_path, REPO) is None


def _take_part(root: Path, number: int) -> None:
    """Make one's wish known and have it done, by oneself or by whoever has the lock."""
    wish = root / "wishes" / str(number)
    wish.touch()

    def act() -> None:
        for asked in sorted((root / "wishes").iterdir()):
            (root / "done" / asked.name).touch()
        time.sleep(0.002)

    try:
        in_turn(root, REPO, f"process {number}", act, act)
    except Locked:
        (root / "locked" / str(number)).touch()


def test_no_wish_is_lost_between_many_processes(tmp_path: Path) -> None:
    """Each process writes its wish first; when all have ended, every wish was seen by an act that began later."""
    for name in ("wishes", "done", "locked"):
        (tmp_path / name).mkdir()
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_take_part, args=(tmp_path, number)) for number in range(40)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)

    assert [process.exitcode for process in processes] == [0] * 40
    assert len(list((tmp_path / "done").iterdir())) == 40
    assert not note(tmp_path).exists()
