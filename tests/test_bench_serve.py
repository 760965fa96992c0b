"""bench/serve: every host answers the same files, and what the report says of them is true."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bench import environments
from bench.case import DidNotRun
from bench.contests import KEPT, OLAH, OURS, PLAIN, Contest, Field, Outcome, Scale, Target, contests, hold
from bench.hosts import SMALL, Host, ours, plain, proxy, publish
from bench.load import Rate, get, head
from bench.record import Heading, Stamp
from bench.serve_report import Held, ServeRecord, load_serve_record, serve_report
from tests.clients import curl

TINY = Scale(1.0, 1 << 20, (1, 20))
HEADING = Heading("today", {"Processor": "one"}, {"nginx": "1"})
CONTEST = Contest("get", "GET of a file", "requests/s", (OURS, PLAIN), Target(OURS, PLAIN, 0.4))


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Host]]:
    environments.make(OLAH)
    folder = tmp_path_factory.mktemp("serve")
    root = folder / "root"
    commit = publish(root, TINY.large_bytes)
    with (
        ours(root, commit, folder / "ours") as first,
        plain(root, commit, folder / "plain") as second,
        plain(root, commit, folder / "kept", keeps_open=True) as third,
        proxy(first, folder / "proxy") as fourth,
    ):
        yield {OURS: first, PLAIN: second, KEPT: third, OLAH: fourth}


def test_all_hosts_serve_the_same_bytes(hosts: dict[str, Host]) -> None:
    """The small file by ref and by commit, the large one and the tree page are the same from each."""
    for what in ("by_ref", "by_commit", "large", "tree"):
        bodies = {hashlib.sha256(curl(host.at(getattr(host, what))).body).hexdigest() for host in hosts.values()}

        assert len(bodies) == 1, what


def test_only_ours_knows_the_hub(hosts: dict[str, Host]) -> None:
    """What ours is held against does nothing of the Hub's protocol."""
    heads = {name: curl(host.at(host.by_ref), "--head").headers for name, host in hosts.items()}

    assert "x-repo-commit" in heads[OURS]
    assert "x-repo-commit" not in heads[PLAIN]
    assert len(heads[OURS]["etag"].strip('"')) == 40


def test_every_contest_can_be_held(tmp_path: Path) -> None:
    """Each question is answered by each host, with as many rates as rounds."""
    with Field(tmp_path / "field", TINY) as field:
        (tmp_path / "field").mkdir()
        for contest in contests(TINY):
            outcomes = hold(
                replace(contest, hosts=[h for h in contest.hosts if h != OLAH]), field, 1, lambda _text: None
            )

            assert {name: outcome.problem for name, outcome in outcomes.items() if outcome.problem} == {}
            assert all(len(outcome.rates) == 1 and outcome.rates[0].per_s > 0 for outcome in outcomes.values())


def test_bad_answers_are_not_counted(hosts: dict[str, Host]) -> None:
    """A server that says 404 very quickly has not won."""
    host = hosts[OURS]
    for ask in (get, head):
        with pytest.raises(DidNotRun):
            ask(host.at(f"/bench/model/resolve/nowhere/{SMALL}"), host.pid, 1.0)


def held(*pairs: tuple[float, float], contest: Contest = CONTEST) -> Held:
    """A contest with the rates of ours and plain in each round."""
    our, their = ([Rate(pair[side], 1.0) for pair in pairs] for side in (0, 1))
    return Held(contest, {OURS: Outcome(our), PLAIN: Outcome(their)}, Stamp("today", "bench/serve", "commit 1"))


def test_shares_are_taken_round_by_round() -> None:
    """The median of the rounds' shares decides, not the share of the medians."""
    result = held((50, 100), (30, 100), (90, 200))

    assert result.shares(OURS) == [0.5, 0.3, 0.45]
    assert result.is_met
    assert not held((39, 100)).is_met
    assert not held().is_met


def test_a_run_replaces_what_it_held_alone(tmp_path: Path) -> None:
    """Numbers come back from the file as they were, and what was not held again stays."""
    output = tmp_path / "SERVE.md"
    other = replace(CONTEST, name="head", title="HEAD of a file")
    ServeRecord(HEADING).with_held(held((50, 100))).with_held(held((1, 100), contest=other)).write(output)
    load_serve_record(output, HEADING).with_held(held((60, 100))).write(output)
    again = load_serve_record(output, HEADING)

    assert [rate.per_s for rate in again.held["get"].outcomes[OURS].rates] == [60]
    assert [rate.per_s for rate in again.held["head"].outcomes[OURS].rates] == [1]
    assert output.read_text() == serve_report(again)


def test_the_report_names_what_failed() -> None:
    """A host without a rate stands there with the reason; a target that is missed is seen at once."""
    failed = Held(CONTEST, {OURS: Outcome([Rate(1, 1)]), PLAIN: Outcome([], "it | broke")}, Stamp())
    text = serve_report(ServeRecord(HEADING).with_held(failed))

    assert "`plain` did not run: it / broke" in text
    assert "not measured" in text
    assert "**not met**" in serve_report(ServeRecord(HEADING).with_held(held((39, 100))))
