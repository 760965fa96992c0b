"""The root that the benchmark of very many repositories begins with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from bench.seeded import seed
from mirrortools.cli import run
from tests.servers.author import run_git


def test_copies_are_in_sync_as_the_first_one_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A sync of all finds nothing new, and each is told, and recorded, under its own name."""
    source = tmp_path / "source" / "org"
    run_git("init", "--quiet", "--initial-branch=main", str(source / "a.git"))
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    run_git("-C", str(source / "a.git"), *identity, "commit", "--quiet", "--allow-empty", "-m", "one")
    (source / "a.git" / "file").write_text("content")
    run_git("-C", str(source / "a.git"), "add", "file")
    run_git("-C", str(source / "a.git"), *identity, "commit", "--quiet", "-m", "two")
    shutil.copytree(source / "a.git", source / "b.git")
    config = tmp_path / "mirrortool.yaml"
    main = f"root: {tmp_path}/root\nsource: file://{tmp_path}/source\nmin_free: 0\nrepositories: [org/a, org/b]\n"
    config.write_text(main)
    assert run(["--config", str(config), "sync", "--repo", "org/a"], {}) == 0
    seed(tmp_path / "root", "org/a", ["org/b"])
    capsys.readouterr()
    status = run(["--config", str(config), "sync", "--all", "--json"], {})
    outcomes = json.loads(capsys.readouterr().out)

    assert status == 0
    assert [(outcome["repo"], outcome["changed"]) for outcome in outcomes] == [("org/a", False), ("org/b", False)]
    manifest = next((tmp_path / "root/public/models/org/b/meta").glob("*/manifest.json"))
    assert json.loads(manifest.read_text())["repo"] == "models/org/b"
