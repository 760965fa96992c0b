"""Showing a run on a terminal while it goes on: bars, and a line for what is finished."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from mirrortools.cli.lines import Lines, Tell
from mirrortools.model import RepoId
from mirrortools.plan import Plan
from mirrortools.sync import Outcome


class Bars(Lines):
    """Bars on stderr: one for the whole run, one for each repository that is fetched, one for each edge.

    The whole has a total, and so an ETA, once every repository was looked at: before that any would be made up.
    """

    def __init__(self, tell: Tell) -> None:
        super().__init__(tell)
        self._lock = threading.Lock()
        self._tasks: dict[str, TaskID] = {}
        self._totals: dict[RepoId, int] = {}
        self._whole: TaskID | None = None
        self._expected = self._ended = 0
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def begun(self, repositories: int) -> None:
        """Draw the bar of the whole, when it is about more than one."""
        self._expected = repositories
        if repositories > 1:
            self._whole = self._progress.add_task("", total=None)
            self._count()

    def planned(self, repo: RepoId, plan: Plan) -> None:
        """Know how much will be fetched."""
        self._totals[repo] = plan.fetch_bytes
        self._count()

    def fetched(self, repo: RepoId, count: int) -> None:
        """Let the bars grow."""
        self._progress.advance(self._task(f"fetch {repo}", self._totals.get(repo)), count)
        if self._whole is not None:
            self._progress.advance(self._whole, count)

    def _count(self) -> None:
        if self._whole is not None:
            total = sum(self._totals.values()) if len(self._totals) == self._expected else None
            self._progress.update(self._whole, description=f"{self._ended}/{self._expected} repositories", total=total)

    def delivered(self, edge: str, repo: RepoId, sent_bytes: int, planned_bytes: int) -> None:
        """Draw an edge's bar, or let it grow."""
        self._progress.update(self._task(f"{edge} {repo}", planned_bytes), completed=sent_bytes)

    def ended(self, outcome: Outcome) -> None:
        """Take its bars away and tell the outcome."""
        with self._lock:
            for name in [name for name in self._tasks if name.endswith(f" {outcome.repo}")]:
                self._progress.remove_task(self._tasks.pop(name))
        self._totals.setdefault(outcome.repo, 0)
        self._ended += 1
        self._count()
        self._progress.stop()
        super().ended(outcome)
        self._progress.start()

    def _task(self, name: str, total: int | None) -> TaskID:
        with self._lock:
            if name not in self._tasks:
                self._tasks[name] = self._progress.add_task(name, total=total)
            return self._tasks[name]
