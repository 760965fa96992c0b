"""What happened: repositories, runs and deliveries, in `<root>/state/state.db` (SQLite, WAL).

Nothing here decides what is published, so that a lost database costs history and no more.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from mirrortools.errors import NoSpace, StoreError
from mirrortools.files import is_full, make_folder
from mirrortools.text import count, moment

# tunasync's words for the state of a mirror job, so that mirror sites can read ours.
STATUSES: Final = ("none", "pre-syncing", "syncing", "success", "failed", "paused", "disabled")
_BUSY_S = 30.0
_LOOK_S = 0.02
_SCHEMA = """
CREATE TABLE IF NOT EXISTS repositories (
    repo TEXT PRIMARY KEY, status TEXT NOT NULL DEFAULT 'none', rules TEXT NOT NULL DEFAULT '',
    checked_at REAL, published_at REAL, lacking_since REAL, done_bytes INTEGER, total_bytes INTEGER,
    error TEXT, error_status INTEGER);
CREATE TABLE IF NOT EXISTS runs (
    id INTEGER PRIMARY KEY, repo TEXT NOT NULL, started_at REAL NOT NULL, ended_at REAL NOT NULL,
    status TEXT NOT NULL, changed INTEGER NOT NULL, fetched_bytes INTEGER NOT NULL, reused_bytes INTEGER NOT NULL,
    resumed_bytes INTEGER NOT NULL, delivered_bytes INTEGER NOT NULL, error TEXT);
CREATE INDEX IF NOT EXISTS runs_by_repo ON runs (repo, id);
CREATE TABLE IF NOT EXISTS deliveries (
    edge TEXT NOT NULL, repo TEXT NOT NULL, status TEXT NOT NULL, tried_at REAL NOT NULL, success_at REAL,
    lacking_since REAL, sent_bytes INTEGER NOT NULL, total_sent_bytes INTEGER NOT NULL, error TEXT,
    PRIMARY KEY (edge, repo));
CREATE TABLE IF NOT EXISTS edge_rates (edge TEXT PRIMARY KEY, bytes_s REAL NOT NULL);
CREATE TABLE IF NOT EXISTS sendings (
    id INTEGER PRIMARY KEY, edge TEXT NOT NULL, repo TEXT NOT NULL, revision TEXT, ended_at REAL NOT NULL,
    duration_s REAL NOT NULL, blobs INTEGER NOT NULL, sent_bytes INTEGER NOT NULL, saved_bytes INTEGER NOT NULL,
    error TEXT, exit_status INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS sendings_by_edge ON sendings (edge, repo, id);
CREATE TABLE IF NOT EXISTS under_way (
    edge TEXT NOT NULL, repo TEXT NOT NULL, process INTEGER NOT NULL, started_at REAL NOT NULL,
    noted_at REAL NOT NULL, sent_bytes INTEGER NOT NULL, planned_bytes INTEGER NOT NULL, PRIMARY KEY (edge, repo));
CREATE TABLE IF NOT EXISTS troubles (
    place TEXT NOT NULL, what TEXT NOT NULL, failures INTEGER NOT NULL, until REAL NOT NULL, error TEXT NOT NULL,
    PRIMARY KEY (place, what));
CREATE INDEX IF NOT EXISTS failed_deliveries ON deliveries (edge) WHERE status = 'failed';
CREATE TABLE IF NOT EXISTS rounds (edge TEXT NOT NULL, job TEXT NOT NULL, at REAL NOT NULL, PRIMARY KEY (edge, job));
"""
_LATEST_TABLE = "under_way"
# Whoever has not failed for so long begins anew.
_TROUBLE_S: Final = 86400.0
# What history keeps of one repository at one edge.
MOST_SENDINGS: Final = 100
# And of the runs of one repository.
MOST_RUNS: Final = 100


class RepositoryState(NamedTuple):
    """What is known of a repository. Times in Unix seconds, sizes in bytes.

    `lacking_since` is when upstream was first seen to have what is not published here. `rules` tells with which
    include and exclude rules it was published. `done_bytes` of `total_bytes` is the progress of a running sync.
    """

    repo: str
    status: str = "none"
    rules: str = ""
    checked_at: float | None = None
    published_at: float | None = None
    lacking_since: float | None = None
    done_bytes: int | None = None
    total_bytes: int | None = None
    error: str | None = None
    error_status: int | None = None


class Run(NamedTuple):
    """One sync of one repository, as history keeps it."""

    repo: str
    started_at: float
    ended_at: float
    status: str
    changed: bool
    fetched_bytes: int = 0
    reused_bytes: int = 0
    resumed_bytes: int = 0
    delivered_bytes: int = 0
    error: str | None = None


class DeliveryState(NamedTuple):
    """How an edge stands with a repository. `sent_bytes` is what the last delivery that sent anything sent."""

    edge: str
    repo: str
    status: str
    tried_at: float
    success_at: float | None
    lacking_since: float | None
    sent_bytes: int
    total_sent_bytes: int
    error: str | None


class Sending(NamedTuple):
    """One delivery of one repository to one edge that had something to do, or failed, as history keeps it.

    `revision` is the commit of the default branch. `sent_bytes` is what left this host, `saved_bytes` what the
    edge took from older blobs instead. `exit_status` is that of the error, 0 without one.
    """

    edge: str
    repo: str
    revision: str | None
    ended_at: float
    duration_s: float
    blobs: int
    sent_bytes: int
    saved_bytes: int
    error: str | None
    exit_status: int

    @property
    def rate_bytes_s(self) -> float:
        """How many bytes a second went out."""
        return self.sent_bytes / self.duration_s if self.duration_s > 0 else 0.0


class UnderWay(NamedTuple):
    """A delivery that runs now, or did when its process was killed: `sent_bytes` of `planned_bytes` at `noted_at`."""

    edge: str
    repo: str
    process: int
    started_at: float
    noted_at: float
    sent_bytes: int
    planned_bytes: int

    @property
    def rate_bytes_s(self) -> float:
        """How many bytes a second went out since its start."""
        elapsed_s = self.noted_at - self.started_at
        return self.sent_bytes / elapsed_s if elapsed_s > 0 else 0.0

    @property
    def left_s(self) -> float | None:
        """How long the rest takes at that rate; None when nobody can tell."""
        left_bytes = max(0, self.planned_bytes - self.sent_bytes)
        return left_bytes / self.rate_bytes_s if self.rate_bytes_s else None


class Contact(NamedTuple):
    """How a delivery went, for the record; `sending` is None when the edge had everything."""

    edge: str
    repo: str
    sent_bytes: int
    error: str | None
    sending: Sending | None = None


class Trouble(NamedTuple):
    """Why a source is left alone, in some way, until a time (Unix seconds): after so many failures in a row.

    `what` it is about: `questions` (it could not be reached), `bytes` (it is asked for them after others), or `pause`
    (it asked for one).
    """

    place: str
    what: str
    failures: int
    until: float
    error: str

    @property
    def text(self) -> str:
        """What it means, for the operator."""
        over, times = moment(self.until), count(self.failures, "time")
        meaning = {
            "questions": f"not asked before {over}, because it could not be reached {times}",
            "bytes": f"asked for files after other sources until {over}, because it failed {times}",
            "pause": f"left alone until {over}, as it asked",
        }
        return f"{self.place}: {meaning[self.what]}: {self.error}"


Row = TypeVar("Row", RepositoryState, Run, DeliveryState, Sending, UnderWay, Trouble)


class State:
    """The database of one root. Thread-safe; several processes may use it at once.

    Who is only `reading` needs no right to write; `is_missing` tells when there is nothing to read.
    """

    def __init__(self, root: Path, *, reading: bool = False) -> None:
        self._path = root / "state" / "state.db"
        self._verb = "read" if reading else "write"
        self._lock = threading.Lock()
        self.is_missing = False
        try:
            self._db = self._open_to_read() if reading else self._open_to_write()
        except OSError as error:
            text = f"{error.filename or root}: {error.strerror}; may the user who runs mirrortool {self._verb} there?"
            raise StoreError(text) from error
        except sqlite3.Error as error:
            raise self._error(error) from error
        self._db.row_factory = sqlite3.Row

    def _open_to_write(self) -> sqlite3.Connection:
        make_folder(self._path.parent)
        db = _connect(str(self._path))
        try:
            _prepare(db)
        except sqlite3.Error:
            db.close()
            raise
        return db

    def _open_to_read(self) -> sqlite3.Connection:
        db = self._shared() if self._path.exists() else None
        if db and db.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (_LATEST_TABLE,)).fetchone():
            return db
        if db:  # somebody is about to make the tables
            db.close()
        self.is_missing = True
        db = _connect(":memory:")
        db.executescript(_SCHEMA)
        return db

    def _shared(self) -> sqlite3.Connection:
        """The database, beside others that have it open.

        SQLite shares it by two more files, which the last one removes. A reader that may not write there can use
        them when a writer made them; otherwise nobody writes, and SQLite must be told that nothing changes (asked for
        `mode=ro`, it would leave files behind that the owner of the database cannot write).
        """
        place = self._path.absolute().as_uri()
        if all(os.access(path, os.W_OK) for path in (self._path, self._path.parent)):
            return _read(f"{place}?mode=rw")
        if self._path.with_name("state.db-wal").exists():
            with contextlib.suppress(sqlite3.OperationalError):
                return _read(f"{place}?mode=ro")
        return _read(f"{place}?immutable=1")

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def repository(self, repo: str) -> RepositoryState:
        """What is known of a repository; all defaults when nothing is."""
        found = self._rows(RepositoryState, "SELECT * FROM repositories WHERE repo = ?", repo)
        return found[0] if found else RepositoryState(repo)

    def repositories(self) -> dict[str, RepositoryState]:
        """What is known of all repositories, by their names."""
        return {known.repo: known for known in self._rows(RepositoryState, "SELECT * FROM repositories")}

    def checked_at(self) -> dict[str, float]:
        """When each repository was last looked at with success, of those that were."""
        query = "SELECT repo, checked_at FROM repositories WHERE checked_at IS NOT NULL"
        with self._guarded():
            return {row["repo"]: row["checked_at"] for row in self._db.execute(query)}

    def update(self, repo: str, **values: float | str | None) -> None:
        """Change fields of `RepositoryState`."""
        with self._guarded():
            self._change(repo, values)

    def _change(self, repo: str, values: Mapping[str, float | str | None]) -> None:
        assignments = ", ".join(f"{name} = :{name}" for name in values)
        names = ", ".join(["repo", *values])
        places = ", ".join([":repo", *(f":{name}" for name in values)])
        self._db.execute(
            f"INSERT INTO repositories ({names}) VALUES ({places}) ON CONFLICT (repo) DO UPDATE SET {assignments}",  # noqa: S608  (names of fields, not values)
            {"repo": repo, **values},
        )

    def add_run(self, run: Run, **values: float | str | None) -> None:
        """Add to the history, of which the latest runs are kept, and change fields of `RepositoryState`."""
        with self._at_once():
            if values:
                self._change(run.repo, values)
            self._db.execute(_insert("runs", run._fields), run._asdict())
            self._db.execute(
                "DELETE FROM runs WHERE repo = :repo AND id <= (SELECT id FROM runs"
                " WHERE repo = :repo ORDER BY id DESC LIMIT 1 OFFSET :most)",
                {"repo": run.repo, "most": MOST_RUNS},
            )

    def runs(self, repo: str, most: int = 20) -> list[Run]:
        """The latest runs, newest first."""
        return self._rows(Run, "SELECT * FROM runs WHERE repo = ? ORDER BY id DESC LIMIT ?", repo, most)

    def delivered(self, contacts: Sequence[Contact], now: float) -> None:
        """Note how deliveries went, all at once; they are not under way any more."""
        values = [self._contact(contact, now) for contact in contacts]
        with self._at_once():
            self._db.executemany(
                "INSERT INTO deliveries VALUES (:edge, :repo, :status, :now, :success, :lacking, :sent, :sent, :error)"
                " ON CONFLICT (edge, repo) DO UPDATE SET status = :status, tried_at = :now, error = :error,"
                " success_at = coalesce(:success, success_at),"
                " sent_bytes = CASE WHEN :sent > 0 THEN :sent ELSE sent_bytes END,"
                " lacking_since = CASE WHEN :lacking IS NULL THEN NULL ELSE coalesce(lacking_since, :lacking) END,"
                " total_sent_bytes = total_sent_bytes + :sent",
                values,
            )
            self._db.executemany("DELETE FROM under_way WHERE edge = :edge AND repo = :repo", values)
            for contact in contacts:
                self._keep_sending(contact)

    def in_step(self, edge: str, job: str, repos: Collection[str], now: float) -> None:
        """Note that an edge shows these repositories of a job as they are, and needed nothing.

        Of most of them nothing is written one by one: `rounds` tells when.
        """
        with self._guarded():
            knows = self._db.execute("SELECT 1 FROM rounds WHERE edge = ? AND job = ?", (edge, job)).fetchone()
            query = "SELECT repo FROM deliveries WHERE edge = ? AND status = 'failed'"
            failed = {row["repo"] for row in self._db.execute(query, (edge,))}
        healed = [repo for repo in repos if repo in failed] if knows else repos
        if healed:
            self.delivered([Contact(edge, repo, 0, None) for repo in healed], now)
        self._do("INSERT OR REPLACE INTO rounds VALUES (:edge, :job, :at)", {"edge": edge, "job": job, "at": now})

    def rounds(self, edge: str) -> dict[str, float]:
        """When an edge last showed what it is to show of a job, by job; those apart that failed then, or since."""
        if not self._has("rounds"):
            return {}
        with self._guarded():
            found = self._db.execute("SELECT job, at FROM rounds WHERE edge = ?", (edge,))
            return {row["job"]: row["at"] for row in found}

    @staticmethod
    def _contact(contact: Contact, now: float) -> dict[str, float | str | None]:
        return {
            "edge": contact.edge,
            "repo": contact.repo,
            "now": now,
            "sent": contact.sent_bytes,
            "error": contact.error,
            "status": "failed" if contact.error else "success",
            "success": None if contact.error else now,
            "lacking": now if contact.error else None,
        }

    def _keep_sending(self, contact: Contact) -> None:
        """Add to the history what a delivery sent, if anything."""
        if contact.sending:
            self._db.execute(_insert("sendings", contact.sending._fields), contact.sending._asdict())
            self._db.execute(
                "DELETE FROM sendings WHERE edge = :edge AND repo = :repo AND id <= (SELECT id FROM sendings"
                " WHERE edge = :edge AND repo = :repo ORDER BY id DESC LIMIT 1 OFFSET :most)",
                {"edge": contact.edge, "repo": contact.repo, "most": MOST_SENDINGS},
            )

    def sendings(self, most: int, edge: str | None = None, repo: str | None = None) -> list[Sending]:
        """What went to edges, newest first: to one, of one repository, or all of it."""
        query = (
            "SELECT * FROM sendings WHERE (?1 IS NULL OR edge = ?1) AND (?2 IS NULL OR repo = ?2)"
            " ORDER BY id DESC LIMIT ?3"
        )
        return self._rows(Sending, query, edge, repo, most)

    def saved_bytes(self, edge: str) -> int:
        """What deliveries to an edge need not send, in all that history keeps."""
        query = "SELECT coalesce(sum(saved_bytes), 0) AS total FROM sendings WHERE edge = ?"
        with self._guarded():
            return int(self._db.execute(query, (edge,)).fetchone()["total"])

    def rates(self) -> dict[str, float]:
        """What each edge took when it was last seen to take much, in bytes a second."""
        with self._guarded():
            return {row["edge"]: row["bytes_s"] for row in self._db.execute("SELECT * FROM edge_rates")}

    def keep_rates(self, rates: Mapping[str, float]) -> None:
        """Keep them for later runs."""
        for edge, bytes_s in rates.items():
            self._do("INSERT OR REPLACE INTO edge_rates VALUES (:edge, :bytes_s)", {"edge": edge, "bytes_s": bytes_s})

    def go(self, delivery: UnderWay) -> None:
        """Note how far a delivery is."""
        values = delivery._asdict()
        self._do(_insert("under_way", values).replace("INSERT", "INSERT OR REPLACE", 1), values)

    def under_way(self) -> list[UnderWay]:
        """The deliveries that run now, by processes of this host that live."""
        found = self._rows(UnderWay, "SELECT * FROM under_way ORDER BY edge, repo")
        return [delivery for delivery in found if Path(f"/proc/{delivery.process}").exists()]

    def troubles(self, now: float) -> list[Trouble]:
        """What sources did lately, in earlier runs and others; some of it may be over, and counts when it goes on."""
        query = "SELECT * FROM troubles WHERE until > ? ORDER BY place, what"
        return self._rows(Trouble, query, now - _TROUBLE_S) if self._has("troubles") else []

    def keep_trouble(self, trouble: Trouble) -> None:
        """Keep it for other runs, in the place of what there was; without a failure there is none."""
        if trouble.failures:
            self._do(_insert("troubles", Trouble._fields).replace("INSERT", "INSERT OR REPLACE", 1), trouble._asdict())
        else:
            self._do("DELETE FROM troubles WHERE place = :place AND what = :what", trouble._asdict())

    def deliveries(self, repo: str) -> list[DeliveryState]:
        """How each edge stands with a repository."""
        return self._rows(DeliveryState, "SELECT * FROM deliveries WHERE repo = ? ORDER BY edge", repo)

    def deliveries_to(self, edge: str) -> list[DeliveryState]:
        """How an edge stands with all repositories."""
        return self._rows(DeliveryState, "SELECT * FROM deliveries WHERE edge = ? ORDER BY repo", edge)

    def _has(self, table: str) -> bool:
        """Whether there is such a table: who only reads may meet what an earlier release made."""
        with self._guarded():
            return self._db.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone() is not None

    def _rows(self, kind: type[Row], query: str, *values: Any) -> list[Row]:
        with self._guarded():
            return [kind(**{name: row[name] for name in kind._fields}) for row in self._db.execute(query, values)]

    def _do(self, statement: str, values: dict[str, Any]) -> None:
        with self._guarded():
            self._db.execute(statement, values)

    @contextlib.contextmanager
    def _at_once(self) -> Iterator[None]:
        """All or nothing, in one commit."""
        with self._guarded():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # a full disk has ended it already
                    self._db.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except sqlite3.Error as error:
                raise self._error(error) from error

    def _error(self, error: sqlite3.Error) -> StoreError | NoSpace:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL or is_full(self._path.parent):
            return NoSpace(f"{self._path}: {error}; free some space, then run it again")
        return StoreError(
            f"{self._path}: {error}; may the user who runs mirrortool {self._verb} there, and is the disk in order? "
            "If the file is damaged, move it away: it holds history only"
        )


def _insert(table: str, fields: Iterable[str]) -> str:
    names, places = ", ".join(fields), ", ".join(f":{name}" for name in fields)
    return f"INSERT INTO {table} ({names}) VALUES ({places})"  # noqa: S608  (names of fields, not values)


def _connect(place: str) -> sqlite3.Connection:
    is_uri = place.startswith("file:")
    return sqlite3.connect(place, timeout=_BUSY_S, check_same_thread=False, isolation_level=None, uri=is_uri)


def _read(place: str) -> sqlite3.Connection:
    db = _connect(place)
    try:
        db.execute("SELECT count(*) FROM sqlite_master")
    except sqlite3.Error:
        db.close()
        raise
    return db


def _prepare(db: sqlite3.Connection) -> None:
    """Make the tables. Turning to WAL does not wait for others by itself, so several new processes take turns."""
    ends = time.monotonic() + _BUSY_S
    while True:
        try:
            db.execute("PRAGMA journal_mode=WAL")
            break
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > ends:
                raise
            time.sleep(_LOOK_S)
    # A power cut may cost the latest history, nothing else: nobody has to wait for the disk at every step of a run.
    db.execute("PRAGMA synchronous=NORMAL")
    db.executescript(_SCHEMA)
