"""Unmodified clients against a hand-made tree that plain nginx serves."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mirrortools.model import RepoId
from mirrortools.serve import Site, Standalone, find_njs_module, write_standalone
from tests import clients
from tests.clients import HUB_VERSIONS, Expected
from tests.e2e.tree_fixture import FIRST, SECOND, SMALL, HandMade
from tests.servers import Nginx, free_port


@dataclass(frozen=True, slots=True)
class Mirror:
    """A served tree and what it must give."""

    url: str
    model: Expected
    dataset: Expected
    legacy: Expected


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mirror]:
    """One nginx that serves a model, a dataset and a model with a name of one segment."""
    folder = tmp_path_factory.mktemp("mirror")
    root, port = folder / "root", free_port()
    history = {
        "refs/heads/feature/x": SMALL,
        "refs/pr/1": SMALL | {"proposal.json": b"{}"},
        "refs/tags/v1": FIRST,
        "refs/heads/main": SECOND,
    }
    model = HandMade(root, folder / "model", RepoId("models", "org/name.v1")).publish(history)
    dataset = HandMade(root, folder / "dataset", RepoId("datasets", "org/data")).publish({"refs/heads/main": SMALL})
    legacy = HandMade(root, folder / "legacy", RepoId("models", "gpt2")).publish({"refs/heads/main": SMALL})
    place = Standalone(folder / "nginx", find_njs_module(), "root" if os.geteuid() == 0 else "")
    write_standalone(Site(root, (f"127.0.0.1:{port}",), place=place))
    with Nginx(folder / "nginx" / "nginx.conf", folder / "nginx", [port]):
        yield Mirror(f"http://127.0.0.1:{port}", model, dataset, legacy)


@pytest.mark.parametrize("version", HUB_VERSIONS)
@pytest.mark.parametrize("kind", ["model", "dataset", "legacy"])
def test_hub_client(mirror: Mirror, version: str, kind: str, tmp_path: Path) -> None:
    """Downloads, API answers and errors are right for a model, a dataset and a one-segment model."""
    clients.check_all(version, mirror.url, getattr(mirror, kind), tmp_path)


@pytest.mark.parametrize("kind", ["model", "dataset", "legacy"])
def test_git_clone_and_lfs_pull(mirror: Mirror, kind: str, tmp_path: Path) -> None:
    """Plain git and git-lfs get every file of every branch and tag over dumb HTTP."""
    clients.check_git(mirror.url, getattr(mirror, kind), tmp_path)
