"""A git that is killed while it brings objects: whatever it left, a plain re-run converges (invariant I4)."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.delivery import noise
from tests.mirror import Mirror
from tests.servers.author import run_git
from tests.servers.dumb import DumbHost
from tests.strategies import scaled

REPO = "acme/tiny"
FILES = {f"part-{number}.txt": noise(40_000, number) for number in range(100)}
MOST_KILLS = 4


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A repository with one large pack and, beside it, loose objects and a tag."""
    folder = tmp_path / "work"
    run_git("init", "--quiet", "--initial-branch=main", str(folder))
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
        if name.endswith(("0.txt", "99.txt")):
            run_git("-C", str(folder), "add", "--all")
            run_git("-C", str(folder), "commit", "--quiet", "--message", f"To {name}")
        if name == "part-90.txt":
            run_git("-C", str(folder), "repack", "-a", "-d", "--quiet")
    run_git("-C", str(folder), "tag", "v1", "HEAD~3")
    return folder


@contextmanager
def source(kind: str, work: Path) -> Iterator[str]:
    """What to configure in order to pull `work` as REPO in git's smart or dumb way."""
    with DumbHost(work.parent / "host", bytes_per_s=40 << 20) as host:
        host.show(REPO, work)
        yield host.url if kind == "dumb" else f"file://{host.folder}"


def git_mirror(mirror: Mirror) -> Path:
    """The local git mirror of REPO."""
    return mirror.root / "state" / "git" / "models" / f"{REPO}.git"


def kill_within(mirror: Mirror, moment_s: float) -> None:
    """Start a sync, and kill it with all its programs so long after its git has begun to write a pack."""
    packs = git_mirror(mirror) / "objects" / "pack"
    running = subprocess.Popen(
        mirror.command("sync", "--all"),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while running.poll() is None and not any(packs.glob("*")):
        time.sleep(0.001)
    time.sleep(moment_s)
    with suppress(ProcessLookupError):
        os.killpg(running.pid, signal.SIGKILL)
    running.wait()


@pytest.mark.parametrize("kind", ["dumb", "smart"])
def test_a_fetch_that_is_killed_at_random_moments_is_repeated_with_success(
    kind: str, work: Path, tmp_path: Path
) -> None:
    """Several kills after one another, then one run to the end: everything is served, git finds no fault."""
    mirror, chance = Mirror(tmp_path / "origin", ""), random.Random(kind)
    mirror.add(REPO, revisions=["main", "v1"])
    with source(kind, work) as mirror.settings["source"]:
        for _ in range(scaled(5)):
            shutil.rmtree(mirror.root, ignore_errors=True)
            for _ in range(chance.randint(1, MOST_KILLS)):
                kill_within(mirror, chance.random() * 0.12)
            mirror.sync()

            assert mirror.served(REPO) == FILES
            run_git("--git-dir", str(git_mirror(mirror)), "fsck", "--full", "--strict")
