"""Showing how far a `get` is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from mirrortools.cli.speed import Speed
from mirrortools.get import Watch
from mirrortools.text import size, span

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

SAY_S: Final = 60.0
log = logging.getLogger("mirrortools.get")


@contextmanager
def watching(what: str, *, quiet: bool) -> Iterator[Watch]:
    """Show how `what` comes, unless it is to be `quiet`."""
    if quiet:
        yield Watch()
    elif not sys.stderr.isatty():
        yield Said(lambda line: log.info("mirrortool: %s", line))
    else:
        from rich.console import Console  # it takes its time to load, and scripts have no terminal

        from mirrortools.cli.bars import transfers

        with transfers(Console(stderr=True)) as bars:
            yield Drawn(bars, bars.add_task(f"get {what}", total=None))


class Said(Watch):
    """Once a minute `say` gets a line."""

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._clock = clock
        self._said_s = clock()
        self._total_bytes = self._here_bytes = 0
        self._speed = Speed()
        self._lock = threading.Lock()

    def planned(self, to_come_bytes: int) -> None:
        """Know how much will come."""
        self._total_bytes = to_come_bytes

    def came(self, count: int) -> None:
        """Know how much is here."""
        with self._lock:
            now_s = self._clock()
            self._here_bytes += count
            self._speed.at(self._here_bytes, now_s)
            if now_s - self._said_s >= SAY_S:
                self._said_s = now_s
                self._say(self._line(now_s))

    def _line(self, now_s: float) -> str:
        rate, left_s = self._speed.rate(now_s), self._speed.left_s(self._total_bytes - self._here_bytes, now_s)
        parts = [f"{size(self._here_bytes)} of {size(self._total_bytes)}"]
        parts += [f"{size(round(rate))}/s"] if rate else []
        parts += [f"about {span(left_s)} left"] if left_s is not None else []
        return ", ".join(parts)


class Drawn(Watch):
    """A bar of rich, which is thread-safe."""

    def __init__(self, bars: Progress, task: TaskID) -> None:
        self._bars = bars
        self._task = task

    def planned(self, to_come_bytes: int) -> None:
        """Know how long the bar is."""
        self._bars.update(self._task, total=to_come_bytes)

    def came(self, count: int) -> None:
        """Let it grow."""
        self._bars.update(self._task, advance=count)
