"""Many things side by side: a few are looked at, and of those that have much to fetch a few fetch.

What waits to fetch holds no thread, no lock and no memory but its place in a queue. It is looked at again when its
turn has come.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from typing import Final, Generic, TypeVar

from mirrortools.order import LANES, PLACES, Lane, lane_of

LOOKING: Final = 8
_STOP_AGAIN_S: Final = 0.5
Item = TypeVar("Item")
Result = TypeVar("Result")

Enter = Callable[[int], bool]
"""Called with the bytes that are to come: whether to fetch them now. If not, the act ends, and is done again later."""


@dataclass(slots=True)
class _Task(Generic[Item]):
    """An item that a thread is at work on, the lane in which it has a place, and what it wanted to fetch when not."""

    item: Item
    lane: Lane[Item] | None = None
    wish_bytes: int = 0


@dataclass(slots=True)
class _Row(Generic[Item]):
    """Who waits, who looks and who fetches. Called from several threads."""

    items: Iterator[Item]
    is_hot: Callable[[Item], bool]
    lanes: list[Lane[Item]] = field(default_factory=lambda: [Lane(places) for _, places in LANES])
    looking: int = 0
    fetching: int = 0
    is_over: bool = False
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def take(self) -> _Task[Item] | None:
        """What to do next: fetch when it is somebody's turn, else look. None when all is done."""
        with self._changed:
            while not self.is_over:
                task = self._turn() or self._look()
                if task:
                    return task
                if not self.looking and not self.fetching:
                    self._end()
                else:
                    self._changed.wait()
            return None

    def _turn(self) -> _Task[Item] | None:
        for lane in self.lanes:
            item = lane.next()
            if item is not None:
                self.fetching += 1
                return _Task(item, lane)
        return None

    def _look(self) -> _Task[Item] | None:
        if self.looking < LOOKING:
            for item in self.items:
                self.looking += 1
                return _Task(item)
        return None

    def enter(self, task: _Task[Item], size_bytes: int) -> bool:
        """Whether a task may fetch so much now."""
        number = lane_of(size_bytes)
        if number is None or task.lane:
            return True
        with self._changed:
            if not self.lanes[number].enter():
                task.wish_bytes = size_bytes
                return False
            task.lane = self.lanes[number]
            self.looking -= 1
            self.fetching += 1
            self._changed.notify_all()
            return True

    def leave(self, task: _Task[Item], *, is_done: bool) -> None:
        """A task has ended; what is not done waits from now on, when nothing holds its item any more."""
        with self._changed:
            if task.lane:
                task.lane.leave()
                self.fetching -= 1
            else:
                self.looking -= 1
            number = lane_of(task.wish_bytes)
            if number is not None and not is_done:
                self.lanes[number].wait(task.wish_bytes, task.item, hot=self.is_hot(task.item))
            self._changed.notify_all()

    def end(self) -> None:
        """Let nothing begin any more."""
        with self._changed:
            self._end()

    def _end(self) -> None:
        self.is_over = True
        self._changed.notify_all()


Act = Callable[[Item, Enter], Result | None]


def abreast(
    items: Iterable[Item], act: Act[Item, Result], is_hot: Callable[[Item], bool], stop: Callable[[], None]
) -> Generator[Result, None, None]:
    """Do `act` for every item on a few threads, and give the results as they come.

    An act that may not enter gives None. What one raises is raised here. Then, and when whoever iterates does not go
    on, nothing more begins, and `stop` has to break off what is under way, which is waited for. It is called until all
    have ended: what begins just behind it is met the next time.
    """
    from concurrent.futures import ThreadPoolExecutor  # who syncs one repository needs no threads

    row = _Row(iter(items), is_hot)
    results: SimpleQueue[Result | BaseException | None] = SimpleQueue()
    working = 0
    with ThreadPoolExecutor(LOOKING + PLACES, "sync") as threads:
        try:
            for _ in range(LOOKING + PLACES):
                threads.submit(_work, row, act, results)
                working += 1
            while working:
                result = results.get()
                if isinstance(result, BaseException):
                    raise result
                if result is None:
                    working -= 1
                else:
                    yield result
        finally:
            row.end()
            while working:
                stop()
                with suppress(Empty):
                    working -= results.get(timeout=_STOP_AGAIN_S) is None


def _work(row: _Row[Item], act: Act[Item, Result], results: SimpleQueue[Result | BaseException | None]) -> None:
    """What one thread does until nothing is left; None is its last word."""
    try:
        while (task := row.take()) is not None:
            result = act(task.item, partial(row.enter, task))
            row.leave(task, is_done=result is not None)
            if result is not None:
                results.put(result)
    except BaseException as error:
        results.put(error)
    results.put(None)
