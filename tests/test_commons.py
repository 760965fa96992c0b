"""What the repositories of a run have in common, and runs one after the other: sources that fail are left alone."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mirrortools.commons import Commons
from mirrortools.errors import AccessDenied, MirrorError, RateLimited, SourceUnavailable
from mirrortools.standing import FIRST_COOLDOWN_S, LONGEST_PAUSE_S, Standings
from mirrortools.state import State, Trouble

PLACE = "https://h.example"
DOWN = SourceUnavailable(f"{PLACE}/a/b: Connection refused", unreachable=True)


@contextmanager
def run(root: Path, *, in_spite: bool = False) -> Iterator[Commons]:
    """A run that asks sources; it waits for nobody."""
    state = State(root)
    try:
        yield Commons(state, in_spite=in_spite, wait=lambda _stopped, _seconds: False)
    finally:
        state.close()


def raising(error: MirrorError) -> Callable[[], str]:
    """A question that fails."""

    def question() -> str:
        raise error

    return question


def troubles(root: Path) -> list[tuple[str, int]]:
    """What is kept, and how often it failed."""
    state = State(root)
    kept = [(trouble.what, trouble.failures) for trouble in state.troubles(time.time())]
    state.close()
    return kept


def fail(root: Path, error: MirrorError = DOWN, *, in_spite: bool = False) -> None:
    """A run that gets no answer."""
    with run(root, in_spite=in_spite) as commons, pytest.raises(type(error)):
        commons.ask(PLACE, raising(error))


def end_cooldowns(root: Path) -> None:
    """Let the time of all that is kept be over."""
    state = State(root)
    for trouble in state.troubles(time.time()):
        state.keep_trouble(trouble._replace(until=time.time() - 1))
    state.close()


def test_a_source_that_could_not_be_reached_is_not_asked_by_the_next_run(tmp_path: Path) -> None:
    """Nor for another of its repositories in the same one; other sources are, and it is told until when."""
    fail(tmp_path)
    with run(tmp_path) as commons:
        for _ in range(2):
            with pytest.raises(SourceUnavailable, match=r"not asked before .*Z, because .* 1 time: .*refused"):
                commons.ask(PLACE, lambda: pytest.fail("asked"))

        assert commons.ask("https://other.example", lambda: "refs") == "refs"


def test_what_fails_again_is_left_alone_longer_and_success_ends_it(tmp_path: Path) -> None:
    """Across processes: each of these runs is one of its own."""
    lengths = []
    for _ in range(3):
        fail(tmp_path)
        state = State(tmp_path)
        lengths.append(round(state.troubles(0)[0].until - time.time(), -1))
        state.close()
        end_cooldowns(tmp_path)

    assert lengths == [FIRST_COOLDOWN_S, 2 * FIRST_COOLDOWN_S, 4 * FIRST_COOLDOWN_S]
    assert troubles(tmp_path) == [("questions", 3)]
    with run(tmp_path) as commons:
        assert commons.ask(PLACE, lambda: "refs") == "refs"
    assert troubles(tmp_path) == []


def test_who_calls_a_repository_by_name_has_it_asked_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """That is said, and when it answers everybody asks it again."""
    caplog.set_level(logging.INFO)
    fail(tmp_path)
    with run(tmp_path, in_spite=True) as commons:
        assert commons.ask(PLACE, lambda: "refs") == "refs"

    assert "asked all the same, because it is called by name" in caplog.text
    with run(tmp_path) as commons:
        assert commons.ask(PLACE, lambda: "refs") == "refs"


@pytest.mark.parametrize("error", [SourceUnavailable("h/a/b: HTTP 500"), AccessDenied("h/a/b: HTTP 403")])
def test_what_is_about_one_repository_holds_no_other(tmp_path: Path, error: MirrorError) -> None:
    """A host that answers is not down."""
    fail(tmp_path, error)

    assert troubles(tmp_path) == []


def test_a_pause_that_a_source_asked_for_is_kept_by_the_next_run(tmp_path: Path) -> None:
    """Also when a repository is called by its name, and for an hour at most."""
    fail(tmp_path, RateLimited("h: 429", 10_000_000.0))
    for in_spite in (False, True):
        with run(tmp_path, in_spite=in_spite) as commons, pytest.raises(RateLimited, match="h: 429") as caught:
            commons.ask(PLACE, lambda: pytest.fail("asked"))
        assert LONGEST_PAUSE_S - 60 < caught.value.retry_after_s <= LONGEST_PAUSE_S

    end_cooldowns(tmp_path)
    with run(tmp_path) as commons:
        assert commons.ask(PLACE, lambda: "refs") == "refs"


def test_a_source_of_bytes_that_failed_is_asked_last_by_the_next_run(tmp_path: Path) -> None:
    """For as long as it would be in the same run; bytes end that, answers to questions do not."""
    with run(tmp_path) as commons:
        commons.standings.failed(PLACE, time.monotonic(), SourceUnavailable("slow"))
    with run(tmp_path) as commons:
        assert commons.ask(PLACE, lambda: "refs") == "refs"
        assert commons.standings.is_cooling(PLACE, time.monotonic())
        assert not commons.standings.is_cooling(PLACE, time.monotonic() + FIRST_COOLDOWN_S + 1)
        commons.standings.succeeded(PLACE, time.monotonic(), 0)

    assert troubles(tmp_path) == []


def test_times_of_a_clock_that_was_wrong_leave_nobody_alone_for_long() -> None:
    """A cooldown is never longer than its cap, whatever is written down."""
    kept = [Trouble(PLACE, what, 1, 9e9, "x") for what in ("bytes", "questions", "pause")]
    standings = Standings(kept, now_s=1000.0)

    assert standings.is_cooling(PLACE, 1001.0)
    assert standings.refusal(PLACE, 1001.0)
    assert not standings.is_cooling(PLACE, 1901.0)
    assert not standings.refusal(PLACE, 1901.0)
    standings.check_pause(PLACE, 1001.0 + LONGEST_PAUSE_S)


def test_what_fails_while_a_run_is_broken_off_says_nothing_about_a_source(tmp_path: Path) -> None:
    """Whoever is stopped has its connections ended; the next run asks as if nothing had been."""
    with run(tmp_path) as commons:
        commons.stopped.set()
        with pytest.raises(SourceUnavailable):
            commons.ask(PLACE, raising(DOWN))
        commons.standings.failed(PLACE, time.monotonic(), DOWN)

    assert troubles(tmp_path) == []


def test_a_run_without_trouble_loads_neither_places_nor_standings(tmp_path: Path) -> None:
    """Most runs find nothing new."""
    with run(tmp_path) as commons:
        commons.ask(PLACE, lambda: "refs")

        assert (commons._places, commons._standings) == (None, None)


def test_a_run_that_is_broken_off_asks_nobody_again(tmp_path: Path) -> None:
    """Ctrl-C does not wait until a source that does not answer was asked four times."""
    asked = []
    state = State(tmp_path)
    commons = Commons(state)

    def question() -> str:
        asked.append(PLACE)
        commons.stopped.set()
        raise DOWN

    with pytest.raises(SourceUnavailable, match="refused"):
        commons.ask(PLACE, question)
    state.close()

    assert asked == [PLACE]
