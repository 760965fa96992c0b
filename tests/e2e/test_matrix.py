"""Unmodified clients at an origin, an edge that was delivered to, and behind redirects: a part of the matrix, or all.

MIRRORTOOL_MATRIX=whole makes every stop of `scripts/clients` a test, which takes some minutes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import clients
from tests.clients import ClientError
from tests.matrix.cells import Cell, Client, Limit, Operation, Visit, Wrong, visit_all
from tests.matrix.content import DATASET, MODEL
from tests.matrix.places import World, world
from tests.matrix.report import report
from tests.matrix.runs import CLIENTS, Stop, run, stops
from tests.servers import GitLfsUpstream, Sshd

WHOLE = os.environ.get("MIRRORTOOL_MATRIX") == "whole"


@pytest.fixture(scope="module")
def places(
    tmp_path_factory: pytest.TempPathFactory, shared_upstream: GitLfsUpstream, shared_sshd: Sshd
) -> Iterator[World]:
    """An origin, two edges and fronts, with models, datasets and a space."""
    with world(tmp_path_factory.mktemp("world"), shared_upstream, shared_sshd, whole=WHOLE) as found:
        yield found


@pytest.mark.parametrize("stop", [*stops(whole=WHOLE)], ids=str)
def test_a_client_at_a_place(places: World, stop: Stop, tmp_path: Path) -> None:
    """All that it does there ends well, or as it is known to end."""
    cells = run(stop, places, tmp_path, whole=WHOLE)

    assert [cell for cell in cells if cell.surprise] == []


@pytest.mark.parametrize("host", ["origin", "edge"])
@pytest.mark.parametrize("repo", [MODEL, DATASET])
def test_headers(places: World, host: str, repo: str) -> None:
    """Commit, ETag, size and ranges are exact over HTTP, for every file of every ref."""
    clients.check_http(places.places[host].url, places.repos[repo])


def test_the_document_is_of_these_operations(project: Path) -> None:
    """docs/clients.md has a row for each operation and names each version; another list needs another run."""
    text = (project / "docs" / "clients.md").read_text()
    sections = {part.partition("\n")[0]: part for part in text.split("\n## ")}
    for client in CLIENTS:
        section = sections[client.name]

        assert [name for name in client.versions if name[0].isdigit() and name not in section] == []
        assert [line.split(" | ")[0].removeprefix("| ") for line in section.splitlines() if line.startswith("| ")][
            1:
        ] == [operation.row for operation in client.operations]
    assert "not as expected" not in text


def _outcomes(client: Client, places: World, folder: Path) -> list[Cell]:
    return visit_all(client, "1", places.places["edge"], places, folder, whole=True)


def test_what_becomes_of_an_operation(places: World, tmp_path: Path) -> None:
    """A note, an error by its first telling line, a known limit; and a limit that does not show is a surprise too."""

    def fails(_visit: Visit) -> None:
        raise ClientError("/a/b ended with 1:\nsomething\nfatal: no such thing\nmore")

    def wrong(_visit: Visit) -> None:
        raise Wrong("size: expected 1, got 2")

    known = Limit("no such", "it cannot")
    operations = [
        Operation("notes", lambda _: "it says so"),
        Operation("fails", fails),
        Operation("known", fails, [known]),
        Operation("other", wrong, [known]),
        Operation("mended", lambda _: None, [known]),
        Operation("elsewhere", fails, places=("origin",)),
    ]
    cells = _outcomes(Client("it", ["1"], operations), places, tmp_path)

    assert [(cell.operation, cell.note, cell.error, cell.why, cell.surprise) for cell in cells] == [
        ("notes", "it says so", "", "", False),
        ("fails", "", "fatal: no such thing", "", True),
        ("known", "", "fatal: no such thing", "it cannot", False),
        ("other", "", "size: expected 1, got 2", "", True),
        ("mended", "", "", "", True),
    ]


def test_versions_share_a_cell_where_they_agree() -> None:
    """A reader sees one word where all do the same, and who differs where they do not."""
    operations = [Operation("same", lambda _: None), Operation("differs | so", lambda _: None)]
    client = Client("it", ["1", "2"], operations)
    cells = [Cell("it", "same", version, "edge") for version in client.versions]
    cells += [
        Cell("it", "differs | so", "1", "edge", note="slowly"),
        Cell("it", "differs | so", "2", "edge", error="no", why="it cannot"),
    ]
    text = report([client], cells, ["today"])

    assert "| same | – | works | – |" in text
    assert "| differs \\| so | – | 1: works: slowly<br>2: does not: `no` (1) | – |" in text
    assert "\n1. It cannot.\n" in text
    assert "4 cells: 3 work, 1 do not" in text
