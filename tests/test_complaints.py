"""What an operator reads after a run that went wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from mirrortools.cli.complaints import complaints, next_steps
from mirrortools.config import Config, load
from mirrortools.errand import Delivery
from mirrortools.errors import EdgeUnreachable, MirrorError, NoSpace, RateLimited, SourceMissing, SourceUnavailable
from mirrortools.model import RepoId
from mirrortools.outcomes import Outcome

NOON = 1_700_049_600.0
DOWN = SourceUnavailable("h.example: Connection refused")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Three repositories, the last with a backup."""
    with_backup = "{repo: a/three, source: 'https://h.example', backup_source: 'https://b.example'}"
    text = f"root: /srv/m\nsource: https://h.example\nrepositories: [a/one, a/two, {with_backup}]\n"
    (tmp_path / "mirrortool.yaml").write_text(text)
    return load(tmp_path / "mirrortool.yaml", {})


def undelivered(name: str, error: MirrorError) -> Outcome:
    """The outcome of a repository that an edge did not take."""
    return Outcome(
        RepoId.parse(f"a/{name}"), deliveries=(Delivery("e", RepoId.parse("a/b"), False, 0, 0, 0, 0, error),)
    )


def failed(name: str, error: MirrorError | None) -> Outcome:
    """The outcome of one repository."""
    return Outcome(RepoId.parse(f"a/{name}"), error=error)


def test_the_same_error_is_told_once_with_the_number_of_repositories() -> None:
    """An edge that cannot be reached fails all of them in the same words; other errors keep their lines."""
    unreached = EdgeUnreachable("edge e: nothing answers")
    full = NoSpace("edge f: full")
    outcomes = [undelivered("one", unreached), undelivered("two", full), undelivered("three", unreached)]

    errors = [error for outcome in outcomes for error in outcome.errors]

    assert complaints(errors) == ["edge e: nothing answers (this concerns 2 repositories)", "edge f: full"]


def test_a_source_that_is_down_is_told_once_with_what_to_do(config: Config) -> None:
    """However many repositories it fails: run it again, look at the status, configure a backup."""
    again, backup = next_steps([failed("one", DOWN), failed("two", DOWN), failed("three", DOWN)], config, NOON)

    assert "again later" in again
    assert "`mirrortool status`" in again
    assert "`backup_source:`" in backup


def test_who_has_a_backup_is_not_told_to_get_one(config: Config) -> None:
    """The advice is for those who lack it."""
    (again,) = next_steps([failed("one", None), failed("three", DOWN)], config, NOON)

    assert "backup" not in again


@pytest.mark.parametrize(
    ("pause_s", "told"),
    [
        (1200.0, "for 20 min: run the same command again after 2023-11-15 12:20:00Z"),
        (float("inf"), "for 366 d: run the same command again after 2024-11-15 12:00:00Z"),
    ],
)
def test_a_pause_is_told_with_its_end(config: Config, pause_s: float, told: str) -> None:
    """The longest of several, and no number that a source sends is too much."""
    outcomes = [failed("one", RateLimited("429", 3.0)), failed("three", RateLimited("429", pause_s))]

    assert told in next_steps(outcomes, config, NOON)[0]


def test_errors_that_say_themselves_what_to_do_get_no_more_advice(config: Config) -> None:
    """Nor does success."""
    assert next_steps([failed("one", None), failed("two", SourceMissing("a/two: not there"))], config, NOON) == []
