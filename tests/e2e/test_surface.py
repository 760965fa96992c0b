"""What is served beside the files of a revision, with unmodified clients against plain nginx."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mirrortools.model import RepoId
from mirrortools.serve import Site, Standalone, find_njs_module, write_standalone
from tests.clients import HUB_VERSIONS, Expected, curl, run_hub
from tests.e2e.tree_fixture import FIRST, SECOND, SMALL, HandMade
from tests.servers import Nginx, free_port


@dataclass(frozen=True, slots=True)
class Mirror:
    """A served tree and what it must give."""

    root: Path
    url: str
    model: Expected
    dataset: Expected
    legacy: Expected


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mirror]:
    """One nginx that serves a model, a dataset and a model with a name of one segment."""
    folder = tmp_path_factory.mktemp("surface")
    root, port = folder / "root", free_port()
    history = {"refs/heads/feature/x": SMALL, "refs/tags/v1": FIRST, "refs/heads/main": SECOND}
    model = HandMade(root, folder / "model", RepoId("models", "org/name.v1")).publish(history)
    dataset = HandMade(root, folder / "dataset", RepoId("datasets", "org/data")).publish({"refs/heads/main": SMALL})
    legacy = HandMade(root, folder / "legacy", RepoId("models", "gpt2")).publish({"refs/heads/main": SMALL})
    place = Standalone(folder / "nginx", find_njs_module(), "root" if os.geteuid() == 0 else "")
    write_standalone(Site(root, (f"127.0.0.1:{port}",), place=place))
    with Nginx(folder / "nginx" / "nginx.conf", folder / "nginx", [port]):
        yield Mirror(root, f"http://127.0.0.1:{port}", model, dataset, legacy)


@pytest.mark.parametrize("kind", ["model", "dataset", "legacy"])
def test_a_download_is_checked_by_sha256sum(mirror: Mirror, kind: str, tmp_path: Path) -> None:
    """The SHA256SUMS beside a revision's files finds a folder right that a client of the Hub downloaded."""
    expected: Expected = getattr(mirror, kind)
    calls = [("snapshot_download", {**expected.address, "local_dir": str(tmp_path / "got")})]
    run_hub(HUB_VERSIONS[0], mirror.url, tmp_path / "cache", calls)
    sums = curl(f"{mirror.url}/{expected.repo.url_path}/meta/main/SHA256SUMS")
    done = subprocess.run(["sha256sum", "--check", "--strict", "-"], cwd=tmp_path / "got", input=sums.body)

    assert sums.status == 200
    assert sums.headers["content-type"] == "text/plain; charset=utf-8"
    assert sums.headers["x-repo-commit"] == expected.commits["main"]
    assert done.returncode == 0
    assert len(sums.body.splitlines()) == len(expected.files["main"])


def test_sums_of_every_revision(mirror: Mirror) -> None:
    """A tag, a branch with a slash and a commit lead to the sums of their own files; what is not there is a 404."""
    base = f"{mirror.url}/{mirror.model.repo.url_path}/meta"
    of_commit = {name: curl(f"{base}/{commit}/SHA256SUMS").body for name, commit in mirror.model.commits.items()}

    assert curl(f"{base}/v1/SHA256SUMS").body == of_commit["v1"]
    assert curl(f"{base}/feature%2Fx/SHA256SUMS").body == of_commit["feature/x"]
    assert len({*of_commit.values()}) == 3
    assert curl(f"{base}/nowhere/SHA256SUMS").headers["x-error-code"] == "RevisionNotFound"
    assert curl(f"{base}/main/NOTHING").headers["x-error-code"] == "EntryNotFound"
    assert curl(f"{base}/main/../../../../../state/x").status == 400
