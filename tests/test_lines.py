"""What a timer's log shows of a run."""

from __future__ import annotations

from mirrortools.cli.lines import FEW, SAY_S, Lines
from mirrortools.errors import SourceMissing
from mirrortools.model import RepoId
from mirrortools.outcomes import Outcome

REPO = RepoId.parse("org/a")


class Logged(Lines):
    """Lines that keep what they say; `now_s` is what the clock shows."""

    def __init__(self, every: bool = False) -> None:
        self.told: list[Outcome] = []
        self.said: list[str] = []
        self.now_s = 0.0
        super().__init__(self.told.append, self.said.append, every, lambda: self.now_s)


def test_of_few_every_one_is_told() -> None:
    """Who syncs a handful wants to read them all."""
    lines = Logged()
    lines.begun(FEW)
    outcome = Outcome(REPO)
    lines.ended(outcome)

    assert lines.told == [outcome]


def test_of_many_those_are_told_where_something_happened() -> None:
    """Thousands that are up to date are a number at the end, unless all were asked for."""
    same, changed, failed = Outcome(REPO), Outcome(REPO, changed=True), Outcome(REPO, error=SourceMissing("gone"))
    for every in (False, True):
        lines = Logged(every)
        lines.begun(FEW + 1)
        for outcome in (same, changed, failed):
            lines.ended(outcome)

        assert lines.told == ([same] if every else []) + [changed, failed]


def test_the_whole_is_told_once_a_minute() -> None:
    """However much happens meanwhile; a single repository has its own line at the end."""
    lines, alone = Logged(), Logged()
    lines.begun(1000)
    alone.begun(1)
    for moment in range(round(SAY_S * 2.5)):
        lines.now_s = alone.now_s = float(moment)
        lines.ended(Outcome(RepoId.parse(f"org/{moment}")))
        alone.fetched(REPO, 1)

    assert lines.said == ["61/1,000 repositories", "121/1,000 repositories"]
    assert alone.said == []
