"""Runs in which nothing changed: what they do not look at, and who has it looked at."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.mirror import Mirror, served

REPOS = [f"acme/m{number}" for number in range(3)]
AWAY = "ssh://mirror@127.0.0.1:1{}/srv/mirror"


class Site(Mirror):
    """An origin of three small repositories with two edges, one of which has a share, that are folders here."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "origin", f"dir://{folder}/models")
        self.edges = folder / "edges"
        self.edges.mkdir()
        self.settings["edges"] = {
            "full": {"url": f"file://{self.edges}/full"},
            "part": {"url": f"file://{self.edges}/part", "exclude": ["*.bin"]},
        }
        self.models = folder / "models"
        for repo in REPOS:
            self.model(repo, b"{}")
            self.add(repo)

    def model(self, repo: str, content: bytes) -> None:
        """A repository at the source."""
        (self.models / repo).mkdir(parents=True, exist_ok=True)
        (self.models / repo / "config.json").write_bytes(content)
        (self.models / repo / "model.bin").write_bytes(b"\0" * 100)

    def in_step(self) -> None:
        """Sync, let what was published settle, and deliver, so that notes are made."""
        assert self.run("sync", "--all").status == 0
        for meta in self.root.glob("public/models/*/*/meta"):
            settle(meta)
        assert self.deliver() == {repo: [0, 0] for repo in REPOS}

    def deliver(self, *words: str) -> dict[str, list[Any]]:
        """For each repository how many blobs each edge lacked; -1 where it failed."""
        ended = self.run("deliver", "--json", *(words or ("--all",)))
        return {one["repo"]: [-1 if d["error"] else d["blobs"] for d in one["deliveries"]] for one in ended.json}

    def edge_blob(self, edge: str) -> Path:
        """The blob of the first repository's config.json on an edge."""
        return (self.edges / edge / "public" / "models" / REPOS[0] / "refs" / "main" / "config.json").resolve()


def settle(meta: Path) -> None:
    """Wait until nothing has changed there for so long that it can be told from what changes next."""
    while time.time() - meta.stat().st_ctime < 2.1:
        time.sleep(0.05)


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A site in step, whose tests leave it so."""
    site = Site(tmp_path_factory.mktemp("unchanged"))
    site.in_step()
    return site


def test_a_run_of_nothing_reads_no_publication(ready: Site) -> None:
    """Records that somebody spoilt in place are not seen by a plain run, and by who asks for a look at once."""
    record = next(ready.root.glob(f"public/models/{REPOS[0]}/meta/*/manifest.json"))
    whole = record.read_bytes()
    record.write_bytes(b"{")
    plain, looking = ready.run("deliver", "--all", "--json"), ready.run("deliver", "--repo", REPOS[0])
    record.write_bytes(whole)
    [outcome, *_] = plain.json

    assert plain.status == 0
    assert outcome["refs"] == {"refs/heads/main": record.parent.name}
    assert [(d["edge"], d["changed"], d["exit_status"]) for d in outcome["deliveries"]] == [
        ("full", False, 0),
        ("part", False, 0),
    ]
    assert looking.status != 0
    assert "manifest.json: damaged" in looking.stderr


def test_a_sync_without_news_goes_by_the_same_notes(ready: Site) -> None:
    """Nothing is delivered, and nothing noted, on either side."""
    ready.deliver()
    notes = [*ready.root.glob("state/said/*"), *ready.edges.glob("*/state/shown/*")]
    before = [path.read_bytes() for path in notes]
    outcomes = ready.run("sync", "--all", "--json").json
    deliveries = [delivery for outcome in outcomes for delivery in outcome["deliveries"]]

    assert len(notes) == 3
    assert [path.read_bytes() for path in notes] == before
    assert {(one["changed"], one["blobs"], one["exit_status"]) for one in deliveries} == {(False, 0, 0)}
    assert len(deliveries) == 2 * len(REPOS)


def test_what_is_gone_on_an_edge_is_found_by_who_asks(ready: Site) -> None:
    """A plain run goes by the notes of the day; one that names a repository has the edge look, and mends it."""
    ready.edge_blob("full").unlink()
    plain, looking, after = ready.deliver(), ready.deliver("--repo", REPOS[0]), ready.deliver()

    assert plain == after == {repo: [0, 0] for repo in REPOS}
    assert looking == {REPOS[0]: [1, 0]}


def test_a_check_that_finds_something_ends_the_belief(ready: Site) -> None:
    """The next plain run has that edge look at all it has."""
    ready.edge_blob("part").unlink()
    assert ready.run("check", "--all", "--edge", "part").status != 0

    assert ready.deliver() == {repo: [0, 1 if repo == REPOS[0] else 0] for repo in REPOS}


def test_a_day_later_a_plain_run_looks(ready: Site) -> None:
    """On both sides; then it is noted anew."""
    ready.edge_blob("full").unlink()
    for record in (ready.root / "state" / "said" / "public", ready.edges / "full" / "state" / "shown" / "public"):
        notes = [line.split(" ", 1) for line in record.read_text().splitlines() if line[0].isdigit()]
        record.write_text("".join(f"{int(noted_at) - 86400} {rest}\n" for noted_at, rest in notes))

    assert ready.deliver() == {repo: [1 if repo == REPOS[0] else 0, 0] for repo in REPOS}


def test_what_an_edge_forgot_it_looks_for(ready: Site) -> None:
    """An edge whose state was lost, or whose tree was put back from a backup, says what it has."""
    statement = ready.edges / "full" / "public" / "models" / REPOS[1] / "meta" / "statement.json"
    os.utime(statement, (1, 1))
    ready.edge_blob("full").unlink()
    (ready.edges / "full" / "state" / "shown" / "public").unlink()

    assert ready.deliver() == {repo: [1 if repo == REPOS[0] else 0, 0] for repo in REPOS}


def test_a_change_is_brought_and_nothing_else_is_looked_at(ready: Site) -> None:
    """By a sync and by a delivery; the run behind it finds all in step."""
    before = status(ready)
    ready.model(REPOS[2], b'{"newer": true}')
    assert ready.run("sync", "--all", "--no-deliver").status == 0
    brought, after = ready.deliver(), ready.deliver()

    assert [bool(sum(brought[repo])) for repo in REPOS] == [False, False, True]
    assert after == {repo: [0, 0] for repo in REPOS}
    assert served(ready.edges / "part", REPOS[2])["config.json"] == b'{"newer": true}'
    assert all(later > earlier for later, earlier in zip(status(ready), before, strict=True))


def test_rules_of_an_edge_that_change_are_followed(ready: Site) -> None:
    """What was noted is about another share."""

    def shown(edge: str) -> dict[str, bytes]:
        return served(ready.edges / edge, REPOS[0])

    before, rules = shown("part"), ready.settings["edges"]["part"].pop("exclude")
    widened, whole = ready.deliver(), shown("part")
    ready.settings["edges"]["part"]["exclude"] = rules
    ready.deliver()

    assert any(blobs for _, blobs in widened.values())  # they have one blob in common
    assert whole == shown("full") != before == shown("part")


def test_a_changed_key_reaches_edges_in_step(ready: Site) -> None:
    """Nothing has to travel but the key."""
    signers = [ready.edges / name / "state" / "keys" / "signer" for name in ("full", "part")]
    before = [path.read_text() for path in signers]
    assert ready.run("edge", "change-key").status == 0

    assert ready.deliver() == {repo: [0, 0] for repo in REPOS}
    assert all(path.read_text() != text for path, text in zip(signers, before, strict=True))


def test_an_edge_that_is_away_is_told_for_each_repository(ready: Site) -> None:
    """Nothing is read for that; when it is back, its record is mended without a delivery."""
    edges = ready.settings["edges"]
    urls = {name: edges[name]["url"] for name in ("part", "full")}
    told = []
    for number, name in enumerate(urls):
        edges[name]["url"] = AWAY.format(number)
        told.append((ready.deliver(), edges_of(ready)))
    for name, url in urls.items():
        edges[name]["url"] = url
    told.append((ready.deliver(), edges_of(ready)))

    well, failed = ("success", 0), ("failed", len(REPOS))
    assert told == [
        ({repo: [0, -1] for repo in REPOS}, {"full": well, "part": failed}),
        ({repo: [-1, -1] for repo in REPOS}, {"full": failed, "part": failed}),
        ({repo: [0, 0] for repo in REPOS}, {"full": well, "part": well}),
    ]


def test_history_that_was_lost_is_written_again(ready: Site) -> None:
    """Of edges in step too, though nothing is delivered to them."""
    for path in (ready.root / "state").glob("state.db*"):
        path.unlink()
    ready.deliver()

    assert all(at for at in status(ready))


def test_a_terse_run_says_that_all_is_up_to_date(ready: Site) -> None:
    """As it did when everything was read."""
    told = ready.run("deliver", "--all").stdout.splitlines()

    assert [line for line in told if "up to date, nothing sent" in line] == [
        "  edge full: up to date, nothing sent",
        "  edge part: up to date, nothing sent",
    ] * len(REPOS)
    assert told[-2:] == ["3 repositories: 0 changed, 0 failed", "2 edges: up to date"]


def status(site: Site) -> list[float]:
    """When each edge last showed each repository as it is."""
    documents = site.run("status", "--json").json["repositories"]
    return [edge["last_success"] for document in documents for edge in document["edges"]]


def edges_of(site: Site) -> dict[str, tuple[str, int]]:
    """The status of each edge, and of how many repositories it failed."""
    return {edge["edge"]: (edge["status"], edge["failed"]) for edge in site.run("edge", "list", "--json").json}
