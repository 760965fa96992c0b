"""The command lines that are read without click: as click reads them, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrortools.cli import Invocation, calling, group
from mirrortools.cli.brief import Choice, DeliverOptions, SyncOptions, brief
from mirrortools.errors import ConfigError
from tests.strategies import trials

SWITCHES = ("--all", "--json", "--no-deliver", "--dry-run", "-q", "-v", "--quiet", "--verbose")
WITH_VALUE = ("--repo", "--job", "--edge", "--revision", "--config")
OTHERS = ("sync", "deliver", "--", "-qv", "--help", "--al", "--json=1", "x", "-", "")
VALUES = ("a/b", "c", "", "-q", "sync", "x=y", "/nowhere/m.yaml")
with_value = st.tuples(st.sampled_from(WITH_VALUE), st.sampled_from(VALUES))
words = st.one_of(
    st.sampled_from([*SWITCHES, *OTHERS]).map(lambda word: [word]),
    with_value.map(list),
    with_value.map(lambda pair: [f"{pair[0]}={pair[1]}"]),
)


def as_click_reads(arguments: list[str]) -> tuple[Invocation, SyncOptions | DeliverOptions | None]:
    """What click makes of a command line; nothing when it refuses that."""
    invocation, seen = Invocation({}, arguments), list[SyncOptions | DeliverOptions]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calling, "run", lambda _invocation, options: seen.append(options) or 0)
        try:
            group.act(invocation)
        except ConfigError:
            return invocation, None
    return invocation, seen[0] if seen else None


@given(st.lists(words, max_size=3), st.sampled_from(["sync", "deliver"]), st.lists(words, max_size=6))
@trials(200)
def test_what_is_read_without_click_is_what_click_reads(
    before: list[list[str]], command: str, behind: list[list[str]]
) -> None:
    """Options that may stand before the command, and all others behind it; what click refuses is left to click."""
    arguments = [*(word for part in before for word in part), command, *(word for part in behind for word in part)]
    briefly, options = Invocation({}, arguments), brief(Invocation({}, arguments))
    if options is None:
        return
    brief(briefly)
    invocation, read = as_click_reads(arguments)

    assert options == read
    told = ("config_path", "verbose", "quiet")
    assert [getattr(briefly, name) for name in told] == [getattr(invocation, name) for name in told]


def test_what_timers_say_is_read() -> None:
    """The units, cron lines of the documentation, and what people write in either order."""
    invocation = Invocation({}, ["--config", "/etc/m.yaml", "sync", "--job", "hot", "--repo=a/b", "-q", "--json"])

    assert brief(invocation) == SyncOptions(Choice(("a/b",), ("hot",)), as_json=True)
    assert (invocation.config_path, invocation.quiet, invocation.verbose) == (Path("/etc/m.yaml"), True, False)
    assert brief(Invocation({}, ["sync", "--all"])) == SyncOptions(Choice(every=True))
    assert brief(Invocation({}, ["deliver", "--all", "--edge", "bj1"])) == DeliverOptions(Choice(every=True), ("bj1",))


@pytest.mark.parametrize(
    "line",
    [
        "",
        "sync --help",
        "sync x",
        "sync sync",
        "--all sync",
        "status",
        "deliver --no-deliver",
        "deliver sync",
        "sync --repo",
        "sync --config /",
    ],
)
def test_everything_else_is_left_to_click(line: str) -> None:
    """Help, mistakes, other commands, a configuration that is a folder."""
    assert brief(Invocation({}, line.split())) is None
