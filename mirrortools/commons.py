"""What all repositories of a run have in common: places for connections, and what is known of their sources.

Most runs fetch nothing and meet no trouble: neither is made, nor loaded, before it is needed.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from mirrortools.errors import MirrorError, RateLimited, SourceUnavailable
from mirrortools.state import State, Trouble
from mirrortools.upstreams import patient

if TYPE_CHECKING:
    from mirrortools.places import Places
    from mirrortools.standing import Standings

T = TypeVar("T")
_log = logging.getLogger("mirrortools.commons")


class Commons:
    """Made once for a run. Thread-safe. `stopped` is set when the run is to be broken off.

    `most_connections` is how many there may be to all sources together, None: as many as pay. Who calls a repository by
    its name wants it asked for `in_spite` of a source that could not be reached lately; a pause is kept all the same.
    """

    def __init__(
        self,
        state: State,
        most_connections: int | None = None,
        *,
        in_spite: bool = False,
        wait: Callable[[threading.Event, float], bool] = threading.Event.wait,
    ) -> None:
        self.stopped = threading.Event()
        self._state = state
        self._most_connections = most_connections
        self._in_spite = in_spite
        self._wait = wait
        self._lock = threading.Lock()
        self._places: Places | None = None
        self._standings: Standings | None = None
        self._kept = state.troubles(time.time())
        for trouble in self._kept:
            if trouble.until > time.time():
                _log.debug("mirrortool: %s", trouble.text)

    @property
    def places(self) -> Places:
        """The places for connections."""
        from mirrortools.places import MOST_PLACES, Places

        with self._lock:
            self._places = self._places or Places(self._most_connections or MOST_PLACES)
            return self._places

    @property
    def standings(self) -> Standings:
        """How the sources behave, and did in runs before."""
        from mirrortools.standing import Standings

        with self._lock:
            if self._standings is None:
                now_s = time.monotonic()
                self._standings = Standings(self._kept, self._keep, time.time() - now_s, now_s)
            return self._standings

    def _keep(self, trouble: Trouble) -> None:
        if self.stopped.is_set():
            return  # what fails while a run is broken off says nothing about a source
        with contextlib.suppress(MirrorError):  # who cannot write finds out where it matters
            self._state.keep_trouble(trouble)

    def ask(self, place: str, question: Callable[[], T]) -> T:
        """Put a question to a source, again after a pause when it fails for now. Raises UpstreamError.

        One that could not be reached lately is not asked: `place` is the same for all its repositories.
        """
        if self._has_standings and (refusal := self.standings.refusal(place, time.monotonic())):
            if not self._in_spite:
                raise refusal
            _log.info("mirrortool: %s; asked all the same, because it is called by name", refusal)
        return self.patient(lambda: self._asked(place, question))

    def patient(self, question: Callable[[], T]) -> T:
        """Put a question, again after a pause when it fails for now, while the run goes on. Raises UpstreamError."""
        return patient(question, lambda pause_s: self._wait(self.stopped, pause_s))

    @property
    def _has_standings(self) -> bool:
        """Whether anything is known that is worth a look."""
        return bool(self._kept) or self._standings is not None

    def _asked(self, place: str, question: Callable[[], T]) -> T:
        if self._has_standings:
            self.standings.check_pause(place, time.monotonic())
        try:
            answer = question()
        except RateLimited as error:
            self.standings.paused(place, time.monotonic(), error)
            raise
        except SourceUnavailable as error:
            if error.unreachable:
                self.standings.unreached(place, time.monotonic(), error)
            raise
        if self._has_standings:
            self.standings.answered(place)
        return answer
