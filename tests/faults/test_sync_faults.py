"""A sync that is killed at any moment, or whose disk is full: readers see whole revisions, a plain re-run converges."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.delivery import noise, small_disk
from tests.mirror import Mirror
from tests.servers import GitLfsUpstream
from tests.servers.process import program
from tests.strategies import scaled

REPO = "acme/tiny"
OLD = {"model.safetensors": noise(300_000, 1), "config.json": b'{"old": true}', "only-old.txt": b"old"}
NEW = {"model.safetensors": noise(300_000, 2), "config.json": b'{"new": true}', "sub/only-new.txt": b"new"}
# What publishing is made of: names that appear, are replaced or vanish, and what makes them durable.
STEPS = ("rename", "fsync", "symlink", "unlink", "renameat2", "mkdir")


def write(folder: Path, files: dict[str, bytes]) -> None:
    """Make `folder` hold `files` and nothing else."""
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """The folder of the company's own model: a source without a network, so that many runs are quick."""
    folder = tmp_path / "own" / REPO
    folder.mkdir(parents=True)
    write(folder, OLD)
    return folder


@pytest.fixture
def mirror(tmp_path: Path, own: Path) -> Mirror:
    """An origin that serves the old revision."""
    made = Mirror(tmp_path / "origin", f"dir://{own.parents[1]}")
    made.add(REPO)
    made.sync()
    return made


def assert_whole(root: Path) -> None:
    """Every ref leads to a revision whose files hash to their names and are all there; so do git's packs."""
    place = root / "public" / "models" / REPO
    for ref in (place / "refs").iterdir():
        if ref.name.startswith("."):
            continue
        commit = ref.resolve(strict=True).name
        manifest = json.loads((place / "meta" / commit / "manifest.json").read_text())
        for path, (algorithm, digest, size, _, _) in manifest["files"].items():
            content = (ref / path).read_bytes()
            header = b"" if algorithm == "sha256" else b"blob %d\0" % size
            name = "sha256" if algorithm == "sha256" else "sha1"
            assert hashlib.new(name, header + content).hexdigest() == digest, path
    subprocess.run(
        ["git", "--git-dir", f"{place}.git", "fsck", "--full", "--strict", "--no-dangling"],
        check=True,
        capture_output=True,
    )


def served(mirror: Mirror) -> dict[str, bytes]:
    """The files of main, without what is made for git."""
    return {path: content for path, content in mirror.served(REPO).items() if path != ".gitattributes"}


def traced(mirror: Mirror, log: Path, *injections: str) -> int:
    """Sync under strace, its own threads but no other program; its status, negative for a signal."""
    inject = [part for injection in injections for part in ("-e", f"inject={injection}")]
    command = [program("strace"), "-f", "-q", "-o", str(log), "-e", f"trace={','.join(STEPS)}", *inject]
    return subprocess.run([*command, "--", *mirror.command("sync", "--all")], capture_output=True).returncode


def calls_of_mirrortool(log: Path) -> dict[str, int]:
    """How often mirrortool itself (not git) made each call."""
    lines = [line.split(maxsplit=1) for line in log.read_text().splitlines()]
    first = lines[0][0]
    names = [re.match(r"\w+", text) for pid, text in lines if pid == first]
    return {step: sum(1 for name in names if name and name[0] == step) for step in STEPS}


@contextmanager
def a_reader(mirror: Mirror) -> Iterator[list[str]]:
    """Somebody who reads main again and again; what was wrong each time."""
    stopped, wrong = threading.Event(), list[str]()

    def look() -> None:
        place = mirror.root / "public" / "models" / REPO
        while not stopped.is_set():
            commit = (place / "refs" / "main").resolve().name
            folder = place / "commits" / commit
            manifest = json.loads((place / "meta" / commit / "manifest.json").read_text())
            wrong.extend(path for path in manifest["files"] if not (folder / path).is_file())

    reading = threading.Thread(target=look)
    reading.start()
    yield wrong
    stopped.set()
    reading.join()


def test_a_kill_at_any_step_leaves_whole_revisions_and_a_re_run_converges(
    mirror: Mirror, own: Path, tmp_path: Path
) -> None:
    """SIGKILL at calls spread over the entire run: readers see old or new, and the next run gets there."""
    write(own, NEW)
    rehearsal = tmp_path / "rehearsal"
    subprocess.run(["cp", "-a", str(mirror.root), str(rehearsal)], check=True)
    log = tmp_path / "strace.log"
    assert traced(mirror, log) == 0
    moments = [(step, when) for step, many in calls_of_mirrortool(log).items() for when in range(1, many + 1)]
    killed = 0
    for step, when in _spread(moments, scaled(16)):
        subprocess.run(["rm", "-rf", str(mirror.root)], check=True)
        subprocess.run(["cp", "-a", str(rehearsal), str(mirror.root)], check=True)
        with a_reader(mirror) as wrong:
            status = traced(mirror, log, f"{step}:signal=KILL:when={when}")
        killed += status == -signal.SIGKILL
        assert wrong == [], (step, when)
        assert_whole(mirror.root)
        assert served(mirror) in (OLD, NEW), (step, when)
        mirror.sync()
        assert served(mirror) == NEW, (step, when)
        assert_whole(mirror.root)

    assert killed > scaled(16) // 2


def test_a_kill_of_the_very_first_sync_leaves_nothing_that_is_in_the_way(
    mirror: Mirror, own: Path, tmp_path: Path
) -> None:
    """No root, no database, no git mirror: wherever the making of them is broken off, the next run gets there."""
    log = tmp_path / "strace.log"
    subprocess.run(["rm", "-rf", str(mirror.root)], check=True)
    assert traced(mirror, log) == 0
    moments = [(step, when) for step, many in calls_of_mirrortool(log).items() for when in range(1, many + 1)]
    for step, when in _spread(moments, scaled(8)):
        subprocess.run(["rm", "-rf", str(mirror.root)], check=True)
        traced(mirror, log, f"{step}:signal=KILL:when={when}")
        mirror.sync()

        assert served(mirror) == OLD, (step, when)
        assert_whole(mirror.root)


def _spread(moments: list[tuple[str, int]], most: int) -> list[tuple[str, int]]:
    """So many of the moments, evenly."""
    step = max(1, len(moments) // most)
    return moments[::step][:most]


@pytest.mark.parametrize("step", ["fsync", "rename", "symlink", "mkdir"])
def test_a_disk_that_is_full_at_one_step_is_told_and_nothing_is_half(
    mirror: Mirror, own: Path, tmp_path: Path, step: str
) -> None:
    """ENOSPC from call N on: exit status 30, the old or the new revision is served whole, the next run converges."""
    write(own, NEW)
    rehearsal = tmp_path / "rehearsal"
    subprocess.run(["cp", "-a", str(mirror.root), str(rehearsal)], check=True)
    log = tmp_path / "strace.log"
    traced(mirror, log)
    many = calls_of_mirrortool(log)[step]
    for when in sorted({1, many // 2 + 1, many}):
        subprocess.run(["rm", "-rf", str(mirror.root)], check=True)
        subprocess.run(["cp", "-a", str(rehearsal), str(mirror.root)], check=True)
        status = traced(mirror, log, f"{step}:error=ENOSPC:when={when}+")

        # git does not say why when it cannot rename a ref of its own.
        assert status in ((0, 30, 32) if step == "rename" else (0, 30)), (step, when)
        assert_whole(mirror.root)
        assert served(mirror) in (OLD, NEW), (step, when)
        assert mirror.sync()["error"] is None
        assert served(mirror) == NEW


def test_a_full_disk_leaves_the_old_revision_and_room_is_enough_to_go_on(own: Path, tmp_path: Path) -> None:
    """A real small file system: status 30, advice, the old revision served; with room the same command ends well."""
    with small_disk(tmp_path / "disk", 24 << 20) as disk:
        mirror = Mirror(tmp_path / "origin", f"dir://{own.parents[1]}", root=str(disk / "root"))
        mirror.root = disk / "root"
        mirror.add(REPO)
        mirror.sync()
        ballast = disk / "ballast"
        ballast.write_bytes(b"\0" * (18 << 20))
        large = {**NEW, "large.bin": noise(8 << 20, 3)}
        write(own, large)

        early = mirror.fails("sync", "--all")
        stayed = served(mirror)
        # As if others had filled the disk after it was looked at: no blob is seen in advance.
        _fill_while_fetching(mirror, ballast)
        late = mirror.fails("sync", "--all")
        still_stayed = served(mirror)
        ballast.unlink()
        mirror.sync()

        assert (early.status, late.status) == (30, 30)
        assert "free" in early.stderr
        assert stayed == still_stayed == OLD
        assert served(mirror) == large
        assert_whole(mirror.root)


def _fill_while_fetching(mirror: Mirror, ballast: Path) -> None:
    """Leave a little room for the database and its like, and none for content."""
    disk = os.statvfs(ballast.parent)
    with ballast.open("ab") as file:
        file.write(b"\0" * max(0, disk.f_bavail * disk.f_frsize - (200 << 10)))


def test_a_disk_without_a_single_byte_is_told_as_full(own: Path, tmp_path: Path) -> None:
    """Neither the database nor a lock can be written: status 30 all the same, no bug, and the next run converges."""
    with small_disk(tmp_path / "disk", 8 << 20) as disk:
        mirror = Mirror(tmp_path / "origin", f"dir://{own.parents[1]}", root=str(disk / "root"))
        mirror.root = disk / "root"
        mirror.add(REPO)
        mirror.sync()
        write(own, NEW)
        with (disk / "ballast").open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"\0" * 4096)
            except OSError:
                pass
        ended = mirror.fails("sync", "--all")
        stayed = served(mirror)
        (disk / "ballast").unlink()
        mirror.sync()

        assert ended.status == 30
        assert stayed == OLD
        assert served(mirror) == NEW


@pytest.mark.parametrize("others", [0, 2])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_mid_file_ends_a_sync_at_once_and_keeps_its_segments(
    upstream: GitLfsUpstream, repo: str, tmp_path: Path, number: int, status: int, others: int
) -> None:
    """Though the sources say nothing more: no thread waits for its time-out, one line tells; the next run goes on."""
    names = [repo, *(f"{repo}-{other}" for other in range(others))]
    mirror = Mirror(tmp_path / "origin", upstream.url, max_parallel=2)
    for seed, name in enumerate(names):
        upstream.commit(name, {"model.safetensors": noise(14 << 20, seed)})
        mirror.add(name)
    upstream.stall_after(6 << 20)
    with mirror.start("sync", "--all") as running:
        try:
            _wait_until(
                lambda: any(_segments(journal) for journal in (mirror.root / "state").glob("partial/*.journal"))
            )
            running.send_signal(number)
            said = mirror.said(running, timeout_s=20)
        finally:
            running.kill()
    upstream.heal()
    outcomes = mirror.run("sync", "--all", "--json").json

    assert running.returncode == status
    assert said.strip() == (
        f"mirrortool: stopped ({signal.Signals(number).name}); "
        "what was fetched is kept, and the same command goes on from there"
    )
    assert sum(outcome["resumed_bytes"] for outcome in outcomes) > 0
    for seed, name in enumerate(names):
        assert mirror.served(name)["model.safetensors"] == noise(14 << 20, seed)


def test_status_needs_no_right_to_write(mirror: Mirror) -> None:
    """An account that may only read is told all the same; so is who asks before the first sync, and nothing is made."""
    rights = "-dac_override,-dac_read_search"
    stranger = [program("setpriv"), f"--inh-caps={rights}", f"--bounding-set={rights}"]
    subprocess.run(["chown", "-R", "65534:65534", str(mirror.root)], check=True)
    read = subprocess.run([*stranger, *mirror.command("status")], capture_output=True, text=True)
    mirror.settings["root"] = f"{mirror.root}-new"
    fresh = mirror.run("status")

    assert (read.returncode, read.stderr) == (0, "")
    assert read.stdout.startswith(f"{REPO}: success; main ")
    assert (fresh.status, fresh.stdout.splitlines()[0]) == (0, f"{REPO}: none; nothing published")
    assert f"{mirror.root}-new has no history yet" in fresh.stderr
    assert not Path(f"{mirror.root}-new").exists()


def _segments(journal: Path) -> int:
    """How many segments a journal remembers."""
    return max(0, len(journal.read_text().splitlines()) - 1)


def test_a_run_that_was_killed_shows_as_broken_off_and_a_dry_run_does_not(mirror: Mirror, own: Path) -> None:
    """`status` tells them apart: a dry run leaves no trace."""
    write(own, NEW)
    mirror.run("sync", "--all", "--dry-run")
    after_dry_run = mirror.run("status", "--json").json["repositories"][0]["status"]
    traced(mirror, mirror.folder / "log", "rename:signal=KILL:when=3")
    after_kill = mirror.run("status", "--json").json["repositories"][0]

    assert after_dry_run == "success"
    assert after_kill["status"] == "failed"
    assert "goes on" in after_kill["error"]


@pytest.mark.parametrize("damage", ["garbage", "empty", "gone"])
@pytest.mark.parametrize("record", ["git.json", "refs.json", "*/manifest.json"])
def test_a_record_that_rotted_is_written_anew_by_the_next_sync(
    mirror: Mirror, own: Path, record: str, damage: str
) -> None:
    """Though nothing is new upstream; and what refs named before is not forgotten with it."""
    [path] = (mirror.root / "public" / "models" / REPO / "meta").glob(record)
    before = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(b"{]" if damage == "garbage" else b"")
    mirror.sync()

    assert json.loads(path.read_bytes()) == json.loads(before)
    assert served(mirror) == OLD
    assert_whole(mirror.root)


def test_two_repositories_that_share_a_blob_sync_at_once(upstream: GitLfsUpstream, tmp_path: Path) -> None:
    """Two processes, one blob: it is fetched once, and both publish it."""
    content = noise(20 << 20, 7)
    mirror = Mirror(tmp_path / "origin", upstream.url, max_parallel=2)
    for name in ("shared/a", "shared/b"):
        upstream.commit(name, {"model.safetensors": content})
        mirror.add(name)
    upstream.limit_rate(16 << 20)
    upstream.forget()
    running = [mirror.start("sync", "--repo", name) for name in ("shared/a", "shared/b")]
    said = [process.communicate(timeout=100)[1] for process in running]

    assert [process.returncode for process in running] == [0, 0], said
    assert mirror.served("shared/a")["model.safetensors"] == mirror.served("shared/b")["model.safetensors"] == content
    assert upstream.lfs_bytes() == len(content)


def test_a_sync_without_any_right_to_write_is_told(own: Path, tmp_path: Path) -> None:
    """A root that is a file: status 32 and the path."""
    (tmp_path / "root").write_text("a file")
    mirror = Mirror(tmp_path / "origin", f"dir://{own.parents[1]}", root=str(tmp_path / "root"))
    mirror.add(REPO)
    ended = mirror.fails("sync", "--all")

    assert ended.status == 32
    assert str(tmp_path / "root") in ended.stderr


def _wait_until(true: Callable[[], bool], patience_s: float = 30) -> None:
    ends = time.monotonic() + patience_s
    while not true():
        assert time.monotonic() < ends, "it did not happen"
        time.sleep(0.01)
