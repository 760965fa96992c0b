"""Showing a run on a terminal while it goes on: a line for the whole, bars, and a line for what is finished."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from mirrortools.cli.lines import Lines, Tell
from mirrortools.model import RepoId
from mirrortools.outcomes import Outcome
from mirrortools.plan import Plan

_DRAWN_PER_S = 4


def transfers(console: Console) -> Progress:
    """Bars for what comes: how much of how much, how quickly, how long still."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )


class Bars(Lines):
    """On stderr: one line for a run over several repositories, or one bar for a single one; and lines for edges."""

    def __init__(self, tell: Tell, every: bool = False) -> None:
        super().__init__(tell, lambda _line: None, every)
        console = Console(stderr=True)
        self._tasks: dict[str, TaskID] = {}
        self._bars = transfers(console)
        self._live = Live(console=console, get_renderable=self._drawn, refresh_per_second=_DRAWN_PER_S, transient=True)

    def __enter__(self) -> Self:
        self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def _drawn(self) -> Group:
        whole = [] if self.meter.repositories == 1 else [self.line()]
        lines = [Text(line, no_wrap=True, overflow="ellipsis") for line in (*whole, *self.edge_lines())]
        return Group(self._bars, *lines)

    def planned(self, repo: RepoId, plan: Plan) -> None:
        """Draw the bar of a single repository."""
        super().planned(repo, plan)
        if self.meter.repositories == 1:
            self._bars.update(self._task(f"fetch {repo}"), total=plan.fetch_bytes)

    def fetched(self, repo: RepoId, count: int) -> None:
        """Let its bar grow."""
        super().fetched(repo, count)
        if self.meter.repositories == 1:
            self._bars.advance(self._task(f"fetch {repo}"), count)

    def ended(self, outcome: Outcome) -> None:
        """Take its bars away and tell the outcome."""
        with self._lock:
            for name in [name for name in self._tasks if name.endswith(f" {outcome.repo}")]:
                self._bars.remove_task(self._tasks.pop(name))
        super().ended(outcome)

    def show(self, outcome: Outcome) -> None:
        """Tell an outcome above the line."""
        self._live.stop()
        super().show(outcome)
        self._live.start(refresh=True)

    def _task(self, name: str) -> TaskID:
        with self._lock:
            if name not in self._tasks:
                self._tasks[name] = self._bars.add_task(name, total=None)
            return self._tasks[name]
