"""The record of what happened: fields, history, several processes, damage."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from mirrortools.errors import NoSpace, StoreError
from mirrortools.state import MOST_RUNS, MOST_SENDINGS, Contact, RepositoryState, Run, Sending, State, UnderWay
from tests.servers.process import program


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


def test_a_run_and_what_is_known_change_together(tmp_path: Path) -> None:
    """In one step, so that a run that is broken off leaves neither alone; other fields stay."""
    state = State(tmp_path)
    state.update("acme/tiny", rules="r")
    state.add_run(Run("acme/tiny", 1, 2, "success", changed=False), status="success", checked_at=2.0)
    with pytest.raises(StoreError):
        state.add_run(Run("acme/tiny", 3, 4, None, changed=False), status="failed")

    assert state.repository("acme/tiny") == RepositoryState("acme/tiny", "success", "r", checked_at=2.0)
    assert [run.started_at for run in state.runs("acme/tiny")] == [1]
    state.close()


def test_history_does_not_grow_for_ever(tmp_path: Path) -> None:
    """The latest runs of each repository stay, also when another one is synced more often."""
    state = State(tmp_path)
    state.add_run(Run("acme/rare", 0, 0, "success", changed=False))
    for number in range(MOST_RUNS + 5):
        state.add_run(Run("acme/tiny", number, number, "success", changed=False))

    assert [run.started_at for run in state.runs("acme/tiny", 999)] == list(range(MOST_RUNS + 4, 4, -1))
    assert len(state.runs("acme/rare")) == 1
    state.close()


def test_an_edge_lacks_since_its_first_failure_until_a_success(tmp_path: Path) -> None:
    """Bytes add up; the last success stays known."""
    state = State(tmp_path)
    for now, error in ((10.0, None), (20.0, "down"), (30.0, "down")):
        state.delivered([Contact("e1", "acme/tiny", 5, error)], now)
    [failed] = state.deliveries("acme/tiny")
    state.delivered([Contact("e1", "acme/tiny", 5, None)], 40.0)
    [healed] = state.deliveries("acme/tiny")

    assert (failed.status, failed.success_at, failed.lacking_since, failed.total_sent_bytes) == ("failed", 10, 20, 15)
    assert (healed.status, healed.success_at, healed.lacking_since, healed.error) == ("success", 40, None, None)
    state.close()


def sent(edge: str, repo: str, at: float) -> Contact:
    """One delivery that sent something."""
    return Contact(edge, repo, 5, None, Sending(edge, repo, "0" * 40, at, 2.0, 1, 5, 3, None, 0))


def test_what_went_to_edges_is_kept_newest_first(tmp_path: Path) -> None:
    """By edge, by repository, or all of it; a delivery that had nothing to do leaves no entry."""
    state = State(tmp_path)
    for at, (edge, repo) in enumerate([("e1", "a/b"), ("e2", "a/b"), ("e1", "a/c")]):
        state.delivered([sent(edge, repo, at), Contact("e3", repo, 0, None)], at)
    found = [state.sendings(9), state.sendings(9, edge="e1"), state.sendings(9, repo="a/b"), state.sendings(1)]
    [latest] = state.sendings(1)

    assert [[sending.ended_at for sending in each] for each in found] == [[2, 1, 0], [2, 0], [1, 0], [2]]
    assert (latest.saved_bytes, latest.rate_bytes_s) == (3, 2.5)
    assert [known.repo for known in state.deliveries_to("e3")] == ["a/b", "a/c"]
    state.close()


def test_history_of_an_edge_does_not_grow_for_ever(tmp_path: Path) -> None:
    """The latest of each repository stay, also when another one is busier."""
    state = State(tmp_path)
    state.delivered([sent("e1", "a/c", 0)], 0)
    for at in range(MOST_SENDINGS + 5):
        state.delivered([sent("e1", "a/b", at)], at)

    assert [sending.ended_at for sending in state.sendings(999, repo="a/b")] == list(range(MOST_SENDINGS + 4, 4, -1))
    assert len(state.sendings(999, repo="a/c")) == 1
    state.close()


def test_a_delivery_is_under_way_until_it_has_ended_or_its_process_has(tmp_path: Path) -> None:
    """Rate and time left are those since its start."""
    state = State(tmp_path)
    ended = subprocess.Popen(["true"])
    ended.wait()
    state.go(UnderWay("e1", "a/b", os.getpid(), 10, 12, 100, 500))
    state.go(UnderWay("e1", "a/c", ended.pid, 10, 12, 100, 500))
    state.go(UnderWay("e1", "a/b", os.getpid(), 10, 14, 200, 500))
    running = state.under_way()
    state.delivered([sent("e1", "a/b", 20)], 20)

    assert [(each.repo, each.sent_bytes, each.rate_bytes_s, each.left_s) for each in running] == [("a/b", 200, 50, 6)]
    assert state.under_way() == []
    state.close()


READER = """
import sys
from pathlib import Path
from mirrortools.state import State
state = State(Path(sys.argv[1]), reading=True)
print(state.repository("acme/tiny").status, state.is_missing)
state.close()
"""


def _read_as_stranger(root: Path) -> subprocess.CompletedProcess[str]:
    """Read as an account that has no rights on the files but those of others."""
    rights = "-dac_override,-dac_read_search,-fowner,-chown"
    drop = [program("setpriv"), f"--inh-caps={rights}", f"--bounding-set={rights}"]
    return subprocess.run([*drop, sys.executable, "-c", READER, str(root)], capture_output=True, text=True)


def _give_away(root: Path) -> None:
    for path in (root, *root.rglob("*")):
        os.chown(path, 65534, 65534)
    root.chmod(0o755)


def _names(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "state").iterdir())


def test_who_may_only_read_can_read(tmp_path: Path) -> None:
    """While a run is at work, after it has ended, and after it was killed; nothing is left behind or changed."""
    root = tmp_path / "root"
    state = State(root)
    state.update("acme/tiny", status="syncing")
    _give_away(root)
    beside_a_writer, names = _read_as_stranger(root), _names(root)
    shutil.copytree(root, tmp_path / "killed")
    _give_away(tmp_path / "killed")
    state.close()
    after_a_writer = _read_as_stranger(root)
    after_a_kill = _read_as_stranger(tmp_path / "killed")

    assert names == ["state.db", "state.db-shm", "state.db-wal"]
    for read in (beside_a_writer, after_a_writer, after_a_kill):
        assert (read.stdout, read.stderr) == ("syncing False\n", "")
    assert _names(root) == ["state.db"]


def test_a_reader_who_may_write_leaves_nothing_behind(tmp_path: Path) -> None:
    """The files by which SQLite shares are gone with it."""
    State(tmp_path).close()
    reader = State(tmp_path, reading=True)
    reader.close()

    assert not reader.is_missing
    assert _names(tmp_path) == ["state.db"]


@pytest.mark.parametrize("content", [None, b""])
def test_a_missing_database_reads_as_no_history(tmp_path: Path, content: bytes | None) -> None:
    """It is not made, and neither is the root; one that has no tables yet counts as missing."""
    root = tmp_path / "root"
    if content is not None:
        (root / "state").mkdir(parents=True)
        (root / "state" / "state.db").write_bytes(content)
    state = State(root, reading=True)

    assert state.is_missing
    assert state.repository("acme/tiny") == RepositoryState("acme/tiny")
    assert state.runs("acme/tiny") == []
    assert root.exists() == (content is not None)
    state.close()


def test_a_database_that_may_not_be_read_says_so(tmp_path: Path) -> None:
    """Not that it is missing."""
    State(tmp_path).close()
    _give_away(tmp_path)
    (tmp_path / "state" / "state.db").chmod(0o600)
    of_file = _read_as_stranger(tmp_path)
    (tmp_path / "state").chmod(0o700)
    of_folder = _read_as_stranger(tmp_path)

    assert "StoreError" in of_file.stderr
    assert "may the user who runs mirrortool read there" in of_file.stderr
    assert "state.db: Permission denied; may the user who runs mirrortool read there?" in of_folder.stderr


def _write_much(root: Path, number: int) -> None:
    state = State(root)
    for i in range(20):
        state.update(f"acme/r{i}", done_bytes=number)
        state.add_run(Run(f"acme/p{number}", number, i, "success", changed=False), rules=str(i))
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
    assert [len(state.runs(f"acme/p{number}", 1000)) for number in range(6)] == [20] * 6
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


def test_rates_are_kept_for_later_runs(tmp_path: Path) -> None:
    """The latest of each edge; of those that were not seen to take anything the former one stays."""
    state = State(tmp_path)
    state.keep_rates({"bj1": 1e6, "bj2": 2e6})
    state.keep_rates({"bj1": 3e6})
    state.close()
    again = State(tmp_path)

    assert again.rates() == {"bj1": 3e6, "bj2": 2e6}
    again.close()


def test_what_an_earlier_release_made_is_read(tmp_path: Path) -> None:
    """Before a sync of this one has added what it knows besides: `status` comes first after many an upgrade."""
    state = State(tmp_path)
    state.update("acme/tiny", status="success")
    state.close()
    with sqlite3.connect(tmp_path / "state" / "state.db") as db:
        db.execute("DROP TABLE troubles")
        db.execute("DROP TABLE rounds")
    db.close()
    state = State(tmp_path, reading=True)

    assert not state.is_missing
    assert state.repository("acme/tiny").status == "success"
    assert state.troubles(0.0) == []
    assert state.rounds("e1") == {}
    state.close()


def test_of_edges_in_step_little_is_written(tmp_path: Path) -> None:
    """Each repository at first, then one line for all, and those that had failed."""
    state = State(tmp_path)
    repos = ["a/b", "a/c", "a/d"]
    state.in_step("e1", "job", repos, 10)
    state.delivered([Contact("e1", "a/c", 0, "gone")], 20)
    state.in_step("e1", "job", repos, 30)

    assert [(known.repo, known.status, known.success_at) for known in state.deliveries_to("e1")] == [
        ("a/b", "success", 10),
        ("a/c", "success", 30),
        ("a/d", "success", 10),
    ]
    assert (state.rounds("e1"), state.rounds("e2")) == ({"job": 30}, {})
    state.close()
