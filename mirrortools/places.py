"""Who may have a connection: so many at a time in all, and to each source, shared fairly between those who fetch."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from math import inf
from typing import Final, NamedTuple

# In all fetches of a run together, when nobody says how many.
MOST_PLACES: Final = 32
_LOOK_S: Final = 1.0


class Terms(NamedTuple):
    """On which terms a source is used.

    `place` is the same for all repositories of one source; `max_parallel` is how many connections they may have to it
    at a time, None: as many as there may be in all. `minimum_rate` is in bytes a second, over all its connections: a
    source that stays under it is left when there is another one. One that may be used `together` with the first one
    brings bytes beside it, as long as that pays; over one connection in any case when it `shares_load`.
    """

    place: str
    max_parallel: int | None = None
    minimum_rate: int = 0
    together: bool = False
    shares_load: bool = False


@dataclass(eq=False, slots=True)
class Party:
    """One who fetches: how many places it holds, and which it waits for (source → since when, as a number).

    `wake` is called, from any thread, when there may be a place for it.
    """

    wake: Callable[[], None] = lambda: None
    held: int = 0
    wishes: dict[str, int] = field(default_factory=dict)


class Places:
    """The places of a run, one for each connection. Thread-safe.

    None waits in vain: whoever holds fewest goes first, and of those who hold as many whoever waits longest.
    """

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._used: Counter[str] = Counter()
        self._most: dict[str, int] = {}
        self._parties: list[Party] = []
        self._numbers = count()
        self._changed = threading.Condition()

    @contextmanager
    def joined(self, party: Party) -> Iterator[None]:
        """Let somebody take places."""
        with self._changed:
            self._parties.append(party)
        try:
            yield
        finally:
            with self._changed:
                self._parties.remove(party)
                self._wake()

    def enter(self, party: Party, terms: Terms) -> bool:
        """Take a place at a source if it is the party's turn. It counts as waiting for one (more) until `content`."""
        with self._changed:
            entered = self._enter(party, terms)
            if entered:
                party.wishes[terms.place] = next(self._numbers)
            return entered

    def _enter(self, party: Party, terms: Terms) -> bool:
        if terms.max_parallel:
            self._most[terms.place] = min(terms.max_parallel, self._most.get(terms.place, terms.max_parallel))
        if not self._has_room(terms.place) or self._is_before_its_turn(party):
            party.wishes.setdefault(terms.place, next(self._numbers))
            return False
        party.wishes.pop(terms.place, None)
        party.held += 1
        self._free -= 1
        self._used[terms.place] += 1
        return True

    def _has_room(self, source: str) -> bool:
        return self._free > 0 and self._used[source] < self._most.get(source, self._used[source] + 1)

    def _is_before_its_turn(self, party: Party) -> bool:
        """Whether somebody who could be given a place holds fewer, or as many and waits longer."""
        own = (party.held, self._since(party))
        return any((other.held, self._since(other)) < own for other in self._parties if self._since(other) < inf)

    def _since(self, party: Party) -> float:
        """Since when it waits for a place that is free."""
        return min((since for source, since in party.wishes.items() if self._has_room(source)), default=inf)

    def content(self, party: Party) -> None:
        """Wait for nothing any more, so that nobody stands back for it."""
        with self._changed:
            if party.wishes:
                party.wishes.clear()
                self._wake()

    def wait_for(self, party: Party, terms: Terms, stopped: threading.Event) -> bool:
        """Take a place, however long that takes; False when `stopped` was set before."""
        with self._changed:
            while not stopped.is_set():
                if self._enter(party, terms):
                    return True
                self._changed.wait(_LOOK_S)
            party.wishes.pop(terms.place, None)
            return False

    def leave(self, party: Party, source: str) -> None:
        """Give a place back."""
        with self._changed:
            party.held -= 1
            self._free += 1
            self._used[source] -= 1
            self._wake()

    def _wake(self) -> None:
        self._changed.notify_all()
        for party in self._parties:
            if party.wishes:
                party.wake()


class Seat:
    """One connection's place, which its holder takes from source to source. Not thread-safe."""

    def __init__(self, places: Places, party: Party, stopped: threading.Event) -> None:
        self._places = places
        self._party = party
        self._stopped = stopped
        self._at = ""

    def take(self, terms: Terms) -> bool:
        """Take a place at a source if there is one now."""
        if self._places.enter(self._party, terms):
            self._at = terms.place
        return bool(self._at)

    def move(self, terms: Terms) -> bool:
        """Have a place at a source, waiting for it when need be; False when all is being ended."""
        if self._at == terms.place:
            return True
        self.leave()
        if self._places.wait_for(self._party, terms, self._stopped):
            self._at = terms.place
        return bool(self._at)

    def leave(self) -> None:
        """Give the place back; a second time is fine."""
        if self._at:
            self._places.leave(self._party, self._at)
            self._at = ""


@contextmanager
def seated(places: Places, party: Party, terms: Terms, stopped: threading.Event) -> Iterator[bool]:
    """Have a place at a source, waiting for it when need be; gives False, and none, when `stopped` was set before."""
    seat = Seat(places, party, stopped)
    try:
        yield seat.move(terms)
    finally:
        seat.leave()
