"""The record of what happened: fields, history, several processes, damage."""

from __future__ import annotations

import multiprocessing
import sqlite3
from pathlib import Path

import pytest

from mirrortools.errors import NoSpace, StoreError
from mirrortools.state import RepositoryState, Run, State


def test_an_unknown_repository_has_defaults(tmp_path: Path) -> None:
    """Nothing is known of it."""
    state = State(tmp_path)

    assert state.repository("acme/tiny") == RepositoryState("acme/tiny")
    assert state.runs("acme/tiny") == []
    assert state.deliveries("acme/tiny") == []
    state.close()


def test_fields_change_one_by_one_and_survive(tmp_path: Path) -> None:
    """Other fields stay as they are, also in another process's eyes."""
    state = State(tmp_path)
    state.update("acme/tiny", status="syncing", total_bytes=7)
    state.update("acme/tiny", done_bytes=3)
    state.close()
    again = State(tmp_path)

    assert again.repository("acme/tiny") == RepositoryState("acme/tiny", "syncing", total_bytes=7, done_bytes=3)
    again.close()


def test_history_is_newest_first_and_limited(tmp_path: Path) -> None:
    """As many as one wants to see."""
    state = State(tmp_path)
    for number in range(5):
        state.add_run(Run("acme/tiny", number, number + 1, "success", changed=bool(number % 2)))
    latest = state.runs("acme/tiny", 2)

    assert [run.started_at for run in latest] == [4, 3]
    state.close()


def test_an_edge_lacks_since_its_first_failure_until_a_success(tmp_path: Path) -> None:
    """Bytes add up; the last success stays known."""
    state = State(tmp_path)
    for now, error in ((10.0, None), (20.0, "down"), (30.0, "down")):
        state.delivered("e1", "acme/tiny", now, 5, error)
    [failed] = state.deliveries("acme/tiny")
    state.delivered("e1", "acme/tiny", 40.0, 5, None)
    [healed] = state.deliveries("acme/tiny")

    assert (failed.status, failed.success_at, failed.lacking_since, failed.total_sent_bytes) == ("failed", 10, 20, 15)
    assert (healed.status, healed.success_at, healed.lacking_since, healed.error) == ("success", 40, None, None)
    state.close()


def _write_much(root: Path, number: int) -> None:
    state = State(root)
    for i in range(20):
        state.update(f"acme/r{i}", done_bytes=number)
        state.add_run(Run("acme/all", number, i, "success", changed=False))
    state.close()


@pytest.mark.parametrize("attempt", range(3))
def test_several_processes_open_and_write_at_once(tmp_path: Path, attempt: int) -> None:
    """Also when none has made the database yet: nobody is told that it is locked, and nothing is lost."""
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_write_much, args=(tmp_path, number)) for number in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    state = State(tmp_path)

    assert [process.exitcode for process in processes] == [0] * 6
    assert len(state.runs("acme/all", 1000)) == 120
    state.close()


def test_a_damaged_database_says_what_to_do(tmp_path: Path) -> None:
    """It holds history only, so it may be moved away; nothing is left open."""
    State(tmp_path).close()
    for path in (tmp_path / "state").iterdir():
        path.write_bytes(b"this is no database, but long enough to be read as one" * 100)
    with pytest.raises(StoreError, match=r"state\.db: .*move it away"):
        State(tmp_path)


def test_a_root_that_cannot_be_written_says_where_and_why(tmp_path: Path) -> None:
    """Exit status 32, not a bug."""
    (tmp_path / "state").write_text("a file, where a folder must be")
    with pytest.raises(StoreError, match=r"state.*who runs mirrortool"):
        State(tmp_path)


def test_a_full_disk_is_told_as_that(tmp_path: Path) -> None:
    """Exit status 30: the advice is another one than for damage."""
    state = State(tmp_path)
    state._db.execute("PRAGMA max_page_count = 1")
    with pytest.raises(NoSpace, match="free some space"):
        state.add_run(Run("acme/tiny", 0, 0, "failed", changed=False, error="x" * 1_000_000))
    state.close()


def test_the_error_of_a_closed_database_is_no_bug(tmp_path: Path) -> None:
    """Whoever writes too late is told by StoreError."""
    state = State(tmp_path)
    state.close()
    with pytest.raises(StoreError):
        state.update("acme/tiny", status="success")


def test_names_with_quotes_are_values(tmp_path: Path) -> None:
    """Nothing that comes from outside becomes SQL."""
    state = State(tmp_path)
    state.update("a'; DROP TABLE runs; --", error='it\'s "quoted"')

    assert state.repository("a'; DROP TABLE runs; --").error == 'it\'s "quoted"'
    assert isinstance(state._db, sqlite3.Connection)
    state.close()
