"""Small public files that tell what a mirror has."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from mirrortools.announce import announce, trace, trace_file
from mirrortools.catalogue import Listed
from mirrortools.config import Config, EdgeConfig, load
from mirrortools.errors import StoreError
from mirrortools.model import RepoId
from mirrortools.state import State

COMMIT = "1" * 40

REPO, OTHER = RepoId.parse("acme/tiny"), RepoId.parse("datasets/acme/x")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Two edges, one of which clients can reach."""
    edges = {
        "b": EdgeConfig("b", "ssh://h/x", "https://b.example", None, None, "127.0.0.1:80"),
        "a": EdgeConfig("a", "file:///y", None, None, None, "127.0.0.1:80"),
    }
    main = tmp_path / "mirrortool.yaml"
    main.write_text(f"root: {tmp_path}/root\nsource: https://hub.example\n")
    return replace(load(main, {}), edges=edges)


@pytest.fixture
def state(config: Config) -> Iterator[State]:
    """What happened so far."""
    opened = State(config.root)
    yield opened
    opened.close()


def listed(repo: RepoId, **refs: str) -> Listed:
    return Listed(repo.path, json.dumps({f"refs/heads/{name}": commit for name, commit in refs.items()}))


def test_status_edges_and_trace_are_written_and_replaced(config: Config, state: State) -> None:
    """Twice, with news in between; nothing that is not public is in them."""
    state.update("acme/tiny", status="success", checked_at=5.0, published_at=4.0, error="a secret path")
    folder = config.root / "public" / ".mirror"
    announce(config, state, [], 1.0)
    announce(config, state, [listed(OTHER), listed(REPO, main=COMMIT)], 7.0)
    status = json.loads((folder / "status.json").read_text())

    assert status["now"] == 7.0
    assert status["repositories"] == [
        {
            "repo": "acme/tiny",
            "refs": {"refs/heads/main": COMMIT},
            "status": "success",
            "checked_at": 5.0,
            "published_at": 4.0,
        },
        {"repo": "datasets/acme/x", "refs": {}, "status": "none", "checked_at": None, "published_at": None},
    ]
    assert json.loads((folder / "edges.json").read_text()) == {"edges": {"b": "https://b.example"}}
    assert "Repositories: 2" in trace_file(config.root).read_text()
    assert sorted(path.name for path in folder.iterdir()) == ["edges.json", "status.json", "trace"]


def test_refs_that_are_not_known_are_told(config: Config, state: State) -> None:
    """With what to do; what was announced before stays."""
    announce(config, state, [listed(REPO)], 1.0)
    with pytest.raises(StoreError, match=r"acme/tiny: .*sync this repository again"):
        announce(config, state, [Listed(REPO.path, "")], 2.0)

    assert json.loads((config.root / "public" / ".mirror" / "status.json").read_text())["now"] == 1.0


def test_a_trace_begins_with_the_time_in_utc() -> None:
    """As Debian's mirror network has it."""
    lines = trace(3, 0.0).splitlines()

    assert lines[0] == "Thu Jan 01 00:00:00 UTC 1970"
    assert lines[1] == "Date: Thu, 01 Jan 1970 00:00:00 +0000"
    assert all(": " in line for line in lines[1:])


def test_a_tree_that_cannot_be_written_is_told(config: Config, state: State) -> None:
    """As StoreError with the path, so that outcomes are not lost to a bug report."""
    (config.root / "public").write_text("a file")
    with pytest.raises(StoreError, match="public"):
        announce(config, state, [], 1.0)


def test_a_host_without_a_name_has_a_trace(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """In containers the name may be empty."""
    monkeypatch.setattr("mirrortools.announce.os.uname", lambda: SimpleNamespace(nodename=""))

    assert trace_file(config.root).name == "localhost"
