"""How many questions a host is asked: a budget for five minutes that all processes of a root share.

Public hubs count requests in five-minute windows and refuse more. What counts here are questions (refs, objects of
git, links); bytes come from elsewhere. A host that asked to be left alone is left alone by all processes.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple
from urllib.parse import quote

from mirrortools.errors import RateLimited, SourceUnavailable
from mirrortools.files import make_folder

WINDOW_S: Final = 300.0
_log = logging.getLogger("mirrortools.budget")
_SLOT_S: Final = 10.0
LONGEST_PAUSE_S: Final = 120.0


class Spent(NamedTuple):
    """What was asked of a host: slot (of ten seconds) → questions, and until when it wants to be left alone."""

    slots: Mapping[int, int] = MappingProxyType({})
    closed_until_s: float = 0.0

    def wait_s(self, now_s: float, count: int, limit: int) -> float:
        """How long to wait until `count` more questions fit; 0 when they do now."""
        if self.closed_until_s > now_s:
            return self.closed_until_s - now_s
        slots = self._recent(now_s)
        room = limit - sum(slots.values())
        for slot in sorted(slots):
            if room >= count:
                break
            room += slots[slot]
            if room >= count:
                return (slot + 1) * _SLOT_S + WINDOW_S - now_s
        return 0.0

    def plus(self, now_s: float, count: int) -> Spent:
        """With `count` questions more."""
        slots = self._recent(now_s)
        slot = int(now_s / _SLOT_S)
        return Spent({**slots, slot: slots.get(slot, 0) + count}, self.closed_until_s)

    def _recent(self, now_s: float) -> dict[int, int]:
        # Times of the future are of a clock that was wrong.
        return {slot: n for slot, n in self.slots.items() if now_s - WINDOW_S < (slot + 1) * _SLOT_S <= now_s + _SLOT_S}


class Budget:
    """The budget for each host, kept in `folder`; no folder or no limit: nothing is counted."""

    def __init__(
        self,
        folder: Path | None = None,
        limit: int | None = None,
        clock: Callable[[], float] = time.time,
        wait: Callable[[threading.Event, float], object] = threading.Event.wait,
    ) -> None:
        self._folder = folder
        self._limit = limit
        self._clock = clock
        self._wait = wait
        self._stopped = threading.Event()

    def break_off(self) -> None:
        """Wake those that wait, with an error."""
        self._stopped.set()

    @contextlib.contextmanager
    def asking(self, host: str, count: int) -> Iterator[None]:
        """Ask a host `count` questions, when there is room for them. Raises SourceUnavailable when broken off."""
        self._take(host, count)
        try:
            yield
        except RateLimited as error:
            self._close(host, error.retry_after_s)
            raise

    def _take(self, host: str, count: int) -> None:
        if self._folder is None or self._limit is None:
            return
        while not self._stopped.is_set():
            with self._opened(host) as file:
                spent, now_s = _read(file), self._clock()
                wait_s = spent.wait_s(now_s, min(count, self._limit), self._limit)
                if not wait_s:
                    _write(file, spent.plus(now_s, count))
                    return
            _log.info("%s: request_budget is used up; going on in %.0f s", host, wait_s)
            self._wait(self._stopped, wait_s)
        raise SourceUnavailable(f"{host}: interrupted")

    def _close(self, host: str, pause_s: float) -> None:
        if self._folder is None or self._limit is None:
            return
        with self._opened(host) as file:
            spent = _read(file)
            until_s = self._clock() + min(pause_s, LONGEST_PAUSE_S)
            _write(file, Spent(spent.slots, max(until_s, spent.closed_until_s)))

    @contextlib.contextmanager
    def _opened(self, host: str) -> Iterator[int]:
        """The host's file, for one process at a time."""
        assert self._folder is not None  # noqa: S101  (the callers looked)
        make_folder(self._folder)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        file = os.open(self._folder / f"{quote(host, safe='')}.json", flags, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file
        finally:
            os.close(file)


def _read(file: int) -> Spent:
    """What a file says; one that was cut off says nothing."""
    try:
        document = json.loads(os.pread(file, 1 << 16, 0))
        slots = {int(slot): int(count) for slot, count in document["slots"].items()}
        return Spent(slots, float(document["closed_until_s"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        return Spent()


def _write(file: int, spent: Spent) -> None:
    data = json.dumps({"slots": dict(spent.slots), "closed_until_s": spent.closed_until_s}).encode()
    os.pwrite(file, data, 0)
    os.ftruncate(file, len(data))
