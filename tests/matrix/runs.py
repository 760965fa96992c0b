"""The clients of the matrix, and runs of all of them or of a part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.clients import HUB_VERSIONS
from tests.matrix.browser import CHROMIUM
from tests.matrix.cells import PLACES, Cell, Client, visit_all
from tests.matrix.cli import CLI
from tests.matrix.git import GIT
from tests.matrix.hub import HUB
from tests.matrix.loaders import DATASETS, TRANSFORMERS
from tests.matrix.places import World
from tests.matrix.rsync import RSYNC
from tests.matrix.web import ARIA2, CURL, WGET

CLIENTS: Sequence[Client] = (HUB, CLI, TRANSFORMERS, DATASETS, GIT, CURL, WGET, ARIA2, RSYNC, CHROMIUM)
_AT_ONCE = 2


@dataclass(frozen=True, slots=True)
class Stop:
    """A client in one version at one place, where it does all that it has to do there."""

    client: Client
    version: str
    place: str

    def __str__(self) -> str:
        return f"{self.client.name}, {self.version}, at {self.place}"


def stops(*, whole: bool) -> Iterator[Stop]:
    """Every stop, or those that tests of every change make."""
    for client in CLIENTS:
        operations = [operation for operation in client.operations if whole or not operation.long]
        for version in client.versions:
            if whole or version in HUB_VERSIONS or client not in (HUB, CLI):
                places = [
                    p
                    for p in (client.places if whole else PLACES)
                    if any(client.tried(o, version, p) for o in operations)
                ]
                yield from (Stop(client, version, place) for place in places)


def run(stop: Stop, world: World, scratch: Path, *, whole: bool) -> list[Cell]:
    """Make one stop."""
    return visit_all(stop.client, stop.version, world.places[stop.place], world, scratch, whole=whole)


def run_all(world: World, scratch: Path, chosen: Sequence[Stop]) -> Iterator[list[Cell]]:
    """Make the stops, some at once; their cells in the same order."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        yield from pool.map(lambda stop: run(stop, world, scratch, whole=True), chosen)
