"""A run that is told to stop ends at once, whatever it waits for."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.mirror import Mirror

REPO = "acme/tiny"
SILENT = "#!/bin/sh\nsleep 100 &\necho >> {log}\nwait\n"


@pytest.fixture
def silent_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An ssh that connects nowhere and has a helper with the same pipes; the file that tells when it was called."""
    log, program = tmp_path / "called", tmp_path / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text(SILENT.format(log=log))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return log


@contextmanager
def mute() -> Iterator[tuple[str, socket.socket]]:
    """A server that takes connections and says nothing; its URL, and where they come in."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        yield f"http://127.0.0.1:{door.getsockname()[1]}", door


def stopped(running: subprocess.Popen[str], number: signal.Signals) -> str:
    """What a run said that was told to stop."""
    with running:
        try:
            running.send_signal(number)
            return Mirror.said(running, timeout_s=60)
        finally:
            running.kill()


def assert_by_itself(said: str, number: signal.Signals) -> None:
    """It ended by itself, and said no more than that."""
    assert said.startswith(f"mirrortool: stopped ({number.name})")
    assert "by force" not in said
    assert said.count("\n") == 1


def wait_for(path: Path) -> None:
    """Wait until something made a file."""
    ends_s = time.monotonic() + 60
    while not path.exists() and time.monotonic() < ends_s:
        time.sleep(0.02)
    assert path.exists()


def a_mirror(tmp_path: Path, edges: int) -> Mirror:
    """A mirror of a folder, with edges that are never reached."""
    model = tmp_path / "own" / REPO
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    there = {f"edge{number}": {"url": f"ssh://silent{number}/srv"} for number in range(edges)}
    mirror = Mirror(tmp_path / "origin", f"dir://{tmp_path}/own", edges=there)
    mirror.add(REPO)
    mirror.run("sync", "--all", "--no-deliver")
    return mirror


@pytest.mark.parametrize(
    "command", [("sync", "--all"), ("deliver", "--all"), ("deliver", "--repo", REPO), ("check", "--all", "--edge")]
)
def test_edges_that_do_not_answer_are_not_waited_for(
    tmp_path: Path, silent_ssh: Path, command: tuple[str, ...]
) -> None:
    """Neither where all are asked at once nor where they are one after the other."""
    mirror = a_mirror(tmp_path, edges=2)
    running = mirror.start(*command, *(["edge0"] if "--edge" in command else []))
    wait_for(silent_ssh)
    said = stopped(running, signal.SIGTERM)

    assert running.returncode == 143
    assert_by_itself(said, signal.SIGTERM)


@pytest.mark.parametrize("others", [0, 1])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_git_started_is_ended_with_it(
    tmp_path: Path, silent_ssh: Path, number: signal.Signals, others: int
) -> None:
    """A helper that holds its pipes, and does not notice that git has gone."""
    mirror = Mirror(tmp_path / "origin", "ssh://silent/srv")
    for name in range(1 + others):
        mirror.add(f"{REPO}-{name}")
    running = mirror.start("sync", "--all")
    wait_for(silent_ssh)
    said = stopped(running, number)

    assert running.returncode == 128 + number
    assert_by_itself(said, number)


@pytest.mark.parametrize("others", [0, 1])
def test_a_source_that_says_nothing_is_not_waited_for(tmp_path: Path, others: int) -> None:
    """Nor asked once more, after a pause."""
    with mute() as (url, door):
        mirror = Mirror(tmp_path / "origin", url)
        for name in range(1 + others):
            mirror.add(f"{REPO}-{name}")
        running = mirror.start("sync", "--all")
        taken = door.accept()[0]
        said = stopped(running, signal.SIGTERM)
        taken.close()

    assert running.returncode == 143
    assert_by_itself(said, signal.SIGTERM)


@pytest.mark.parametrize("others", [0, 1])
def test_an_address_that_swallows_all_is_not_waited_for(tmp_path: Path, others: int) -> None:
    """No connection comes about, nor does it fail, and nothing wakes who waits for that."""
    with ExitStack() as making:
        door = making.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = making.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(door.getsockname())
        mirror = Mirror(tmp_path / "origin", f"http://127.0.0.1:{door.getsockname()[1]}")
        for name in range(1 + others):
            mirror.add(f"{REPO}-{name}")
        running = mirror.start("sync", "--all")
        wait_for(mirror.root / "state" / "locks")
        said = stopped(running, signal.SIGTERM)

    assert running.returncode == 143
    assert_by_itself(said, signal.SIGTERM)
