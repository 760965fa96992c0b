"""Relays of edges that were provisioned: the chain and the limit of incoming, with forced commands over real sshds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from mirrortools.bounds import held_bytes
from mirrortools.config import EdgeConfig
from mirrortools.errand import Delivery
from mirrortools.errors import NoSpace
from mirrortools.model import Publication, RepoId
from mirrortools.pool import EdgePool, Scope
from mirrortools.tree import Tree
from tests.delivery import bound_edge, noise, publication, served_files
from tests.servers.sshd import Sshd

MIB = 1 << 20
LIMIT_BYTES = 24 * MIB
# What may come between two looks at the limit.
UNASKED_BYTES = 4 * MIB
LOOK_S = 0.01
FILES = {f"{number}.safetensors": noise(12 * MIB, number) for number in range(2)}


@pytest.fixture
def edges(tmp_path: Path) -> Iterator[dict[str, EdgeConfig]]:
    """Two edges, each with an sshd of its own and a key that is bound to an installed receiver."""
    with ExitStack() as running:
        found = {}
        for name in ("bj1", "sh1"):
            sshd = running.enter_context(Sshd(tmp_path / f"sshd-{name}"))
            found[name] = bound_edge(sshd, tmp_path / name, name, f"--incoming-limit={LIMIT_BYTES}")
        yield found


def published(origin: Path, name: str, files: dict[str, bytes]) -> Publication:
    shown = publication(origin, files, RepoId.parse(name))
    Tree(origin).publish(shown)
    return shown


def deliver(edges: dict[str, EdgeConfig], origin: Path, shown: Publication) -> list[Delivery]:
    with EdgePool(Scope(edges, origin)) as pool:
        return pool.deliver(shown, [*edges])


def test_a_chain_of_provisioned_edges(edges: dict[str, EdgeConfig], tmp_path: Path) -> None:
    """Both have all, and the bytes left the origin once."""
    shown = published(tmp_path / "origin", "acme/one", {"model.safetensors": FILES["0.safetensors"]})
    deliveries = deliver(edges, tmp_path / "origin", shown)

    assert [delivery.error for delivery in deliveries] == [None, None]
    for edge in edges.values():
        assert served_files(edge.root, shown) == {"model.safetensors": FILES["0.safetensors"]}
    assert sum(delivery.bytes_sent for delivery in deliveries) < 1.5 * 12 * MIB
    assert sum(delivery.bytes_relayed for delivery in deliveries) > 6 * MIB


def test_relays_at_once_keep_the_limit_together(edges: dict[str, EdgeConfig], tmp_path: Path) -> None:
    """Each delivery alone would fit. What broke off makes room for the next, so that both get there in the end."""
    origin = tmp_path / "origin"
    files = [{name: noise(8 * MIB, 10 * turn + n) for n, name in enumerate(FILES)} for turn in range(2)]
    shown = [published(origin, f"acme/{turn}", each) for turn, each in enumerate(files)]
    slow = {"bj1": replace(edges["bj1"], rate_limit_bytes_s=12 * MIB)}
    with ThreadPoolExecutor(2) as threads:
        running = [threads.submit(deliver, slow, origin, each) for each in shown]
        most_bytes = 0
        while not all(each.done() for each in running):
            most_bytes = max(most_bytes, held_bytes(slow["bj1"].root))
            time.sleep(LOOK_S)
    errors = [delivery.error for each in running for delivery in each.result()]
    again = [deliver({"bj1": edges["bj1"]}, origin, each)[0].error for each in shown]

    assert {type(error) for error in errors} <= {NoSpace, type(None)}
    assert most_bytes <= LIMIT_BYTES + 2 * UNASKED_BYTES
    assert again == [None, None]
    for each, content in zip(shown, files, strict=True):
        assert served_files(slow["bj1"].root, each) == content
