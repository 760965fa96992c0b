"""Deliveries that break: whatever happens, the edge serves a whole revision, and a plain re-run converges."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from mirrortools import errand
from mirrortools.berth import Berth
from mirrortools.config import EdgeConfig
from mirrortools.deliver import EdgeSession
from mirrortools.errand import Delivery
from mirrortools.errors import EdgeUnreachable, IntegrityError, Locked, MirrorError, NoSpace
from mirrortools.files import make_folder
from mirrortools.inflow import Inflow
from mirrortools.model import Blob, Publication, Realm, RepoId, quote_ref
from mirrortools.pool import EdgePool, Scope
from mirrortools.shown import Shown, digest_of
from mirrortools.signing import Signer
from mirrortools.store import Store
from mirrortools.transports.local import LocalTransport
from mirrortools.tree import Tree
from tests.delivery import (
    NOWHERE,
    REPO,
    TALK_BYTES,
    here,
    local_edge,
    noise,
    publication,
    run,
    served_files,
    small_disk,
    ssh_edge,
)
from tests.servers.sshd import Sshd

MIB = 1 << 20
WAIT_S = 60
OLD = {"model.safetensors": noise(MIB, 1), "config.json": b"{}"}
NEW = {"model.safetensors": noise(8 * MIB, 2), "config.json": b"{}", "added.txt": b"new"}


def once(act: Callable[[], object], at_bytes: int) -> errand.Progress:
    """A progress callback that acts when so much has gone out, and never again."""
    done: list[bool] = []

    def progress(edge: str, repo: RepoId, sent_bytes: int, planned_bytes: int) -> None:
        if sent_bytes >= at_bytes and not done:
            done.append(True)
            act()

    return progress


def model_blob(shown: Publication) -> Blob:
    """The large file of a publication."""
    return max(shown.blobs, key=lambda blob: blob.size)


def incoming(root: Path) -> Path:
    """Where an edge's blobs arrive."""
    return root / "state" / "incoming" / quote_ref(REPO.path)


@pytest.mark.parametrize("present", [8 * MIB, 3 * MIB], ids=["whole", "part"])
def test_a_corrupt_blob_in_incoming_is_sent_again(sshd: Sshd, origin: Path, tmp_path: Path, present: int) -> None:
    """What is left of another run and wrong is found by the edge's own hash, removed, and sent once more, whole."""
    shown, root = publication(origin, NEW), tmp_path / "bj1"
    make_folder(incoming(root))
    (incoming(root) / model_blob(shown).digest).write_bytes(noise(present, 99))
    delivery = run(ssh_edge(sshd, root), origin, shown)

    assert delivery.error is None
    assert served_files(root, shown) == NEW
    assert 8 * MIB < delivery.bytes_sent < (16 * MIB - present) * 1.01 + TALK_BYTES


def test_an_edge_that_is_killed_in_mid_transfer_goes_on_where_it_stopped(
    sshd: Sshd, origin: Path, tmp_path: Path
) -> None:
    """All processes of the edge die; the next run sends only what is lacking."""
    root, old = tmp_path / "bj1", publication(origin, OLD)
    run(ssh_edge(sshd, root), origin, old)
    shown = publication(origin, NEW)
    slow = ssh_edge(sshd, root, rate_limit_bytes_s=4 * MIB)
    broken = run(slow, origin, shown, once(sshd.kill_sessions, 3 * MIB))
    arrived = (incoming(root) / model_blob(shown).digest).stat().st_size
    served_meanwhile = served_files(root, old)
    sshd.forget()
    healed = run(ssh_edge(sshd, root), origin, shown)

    assert isinstance(broken.error, EdgeUnreachable)
    assert broken.bytes_sent >= 3 * MIB
    assert served_meanwhile == OLD
    assert arrived >= 2 * MIB
    assert healed.error is None
    assert healed.bytes_planned <= 8 * MIB + 1000 - arrived
    assert sshd.received_bytes() < (8 * MIB - arrived) * 1.01 + TALK_BYTES
    assert served_files(root, shown) == NEW


def test_a_connection_that_is_cut_again_and_again_gets_there(sshd: Sshd, origin: Path, tmp_path: Path) -> None:
    """Each run brings what got through; together they send hardly more than the file."""
    shown, root = publication(origin, NEW), tmp_path / "bj1"
    sshd.forget()
    deliveries = []
    for _ in range(12):
        sshd.cut_after(3 * MIB)
        deliveries.append(run(ssh_edge(sshd, root, relay_host=NOWHERE), origin, shown))
        if deliveries[-1].error is None:
            break
    sshd.cut_after(1 << 40)

    assert len(deliveries) >= 3
    assert deliveries[-1].error is None
    assert [type(d.error) for d in deliveries[:-1]] == [EdgeUnreachable] * (len(deliveries) - 1)
    assert served_files(root, shown) == NEW
    # What was on the wire when it was cut is lost, a window each time.
    assert sshd.received_bytes() < 8 * MIB + len(deliveries) * 2 * MIB


def test_an_edge_that_lacks_room_is_refused_before_a_byte_is_sent(sshd: Sshd, origin: Path, tmp_path: Path) -> None:
    """The old revision stays served; the error names the edge, what is needed and what is free."""
    with small_disk(tmp_path / "disk", 6 * MIB) as disk:
        edge = ssh_edge(sshd, disk / "bj1")
        old = publication(origin, OLD)
        run(edge, origin, old)
        delivery = run(edge, origin, publication(origin, NEW))

        assert isinstance(delivery.error, NoSpace)
        assert "edge bj1" in str(delivery.error)
        assert "are needed and" in str(delivery.error)
        assert delivery.bytes_sent == 0
        assert served_files(disk / "bj1", old) == OLD


def test_a_disk_that_fills_up_in_mid_transfer_keeps_the_old_revision(origin: Path, tmp_path: Path) -> None:
    """Somebody else takes the room; when it is free again, the run goes on."""
    with small_disk(tmp_path / "disk", 16 * MIB) as disk:
        old = publication(origin, OLD)
        run(local_edge(disk / "edge"), origin, old)
        shown = publication(origin, NEW)
        hog = disk / "hog"
        slow = local_edge(disk / "edge", rate_limit_bytes_s=6 * MIB)
        full = run(slow, origin, shown, once(lambda: _fill(hog), 2 * MIB))
        served_meanwhile = served_files(disk / "edge", old)
        hog.unlink()
        healed = run(local_edge(disk / "edge"), origin, shown)

        assert isinstance(full.error, NoSpace)
        assert served_meanwhile == OLD
        assert healed.error is None
        assert healed.bytes_planned < 7 * MIB
        assert served_files(disk / "edge", shown) == NEW


def _fill(path: Path) -> None:
    """Take all the room of a file system."""
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(65536)):
                continue
        except OSError:
            return


def test_a_disk_that_is_too_full_to_publish_keeps_the_old_revision(origin: Path, tmp_path: Path) -> None:
    """The blobs fit, the links do not: NoSpace from the receiver."""
    with small_disk(tmp_path / "disk", 16 * MIB) as disk:
        old = publication(origin, OLD)
        run(local_edge(disk / "edge"), origin, old)
        shown = publication(origin, NEW)
        delivery = run(local_edge(disk / "edge"), origin, shown, once(lambda: _leave(disk, 8 * MIB + 20000), 0))

        assert isinstance(delivery.error, NoSpace)
        assert served_files(disk / "edge", old) == OLD


def _leave(disk: Path, size_bytes: int) -> None:
    """Take all the room of a file system but `size_bytes`."""
    _fill(disk / "hog")
    os.truncate(disk / "hog", (disk / "hog").stat().st_size - size_bytes)


def test_a_blob_that_is_wrong_on_the_origin_is_never_published(sshd: Sshd, origin: Path, tmp_path: Path) -> None:
    """The edge finds it, the origin looks at its own copy, and says expected, got, and which file to remove."""
    root, old = tmp_path / "bj1", publication(origin, OLD)
    edge = ssh_edge(sshd, root)
    run(edge, origin, old)
    shown = publication(origin, NEW)
    damaged = Store(origin).path(model_blob(shown))
    damaged.chmod(0o644)
    damaged.write_bytes(noise(8 * MIB, 77))
    delivery = run(edge, origin, shown)

    assert isinstance(delivery.error, IntegrityError)
    assert f"expected sha256 {model_blob(shown).digest}, got " in str(delivery.error)
    assert str(damaged) in str(delivery.error)
    assert served_files(root, old) == OLD
    assert not Store(root).has(model_blob(shown))


class KilledTransport(LocalTransport):
    """A receiver that is killed at its n-th call of `syscall`."""

    syscall = "rename"
    count = 1

    def command(self, words: Sequence[str]) -> list[str]:
        inject = f"inject={self.syscall}:signal=KILL:when={self.count}"
        return ["strace", "-f", "-o", "/dev/null", "-e", f"trace={self.syscall}", "-e", inject, *words]


@pytest.mark.parametrize("syscall", ["rename", "fsync", "mkdir", "symlink", "unlink"])
def test_a_receiver_that_is_killed_anywhere_leaves_a_whole_revision(syscall: str, origin: Path, tmp_path: Path) -> None:
    """Killed at any step, the edge serves the old or the new revision, whole; a re-run converges."""
    root, old = tmp_path / "disk1", publication(origin, OLD)
    edge = local_edge(root)
    run(edge, origin, old)
    shown = publication(origin, {**OLD, "added.txt": b"new", "b/c.txt": b"deeper"})
    killed = 0
    for count in range(1, 60, 3):
        transport = KilledTransport(edge, origin / "state")
        transport.syscall, transport.count = syscall, count
        session = EdgeSession(edge, transport, here(origin), [REPO], believes=True)
        delivery = session.deliver(shown)
        session.close()
        assert _served(root) in (old.refs, shown.refs)
        _assert_whole(root)
        assert _noted(root) in ({}, {REPO.path: digest_of(Signer(origin).signed(shown).text)})
        assert not _noted(root) or _served(root) == shown.refs
        if delivery.error is None:
            break
        killed += 1
    healed = run(edge, origin, shown)

    assert killed >= 1
    assert healed.error is None
    assert served_files(root, shown) == {**OLD, "added.txt": b"new", "b/c.txt": b"deeper"}


def _served(root: Path) -> dict[str, str]:
    link = root / "public" / REPO.path / "refs" / "main"
    return {"refs/heads/main": link.resolve().name}


def _noted(root: Path) -> dict[str, str]:
    """What an edge would say that it shows, without a look."""
    return Shown(root, Realm.PUBLIC, Tree(root).stated_ns).believed([REPO.path], time.time())


def _assert_whole(root: Path) -> None:
    """Every ref leads to files that are all there, and every blob is named by its content."""
    for path in (root / "public" / REPO.path / "refs").glob("*/**/*"):
        assert path.exists(), path
    for repo in Tree(root).repositories():
        shown = Tree(root).publication(repo)
        assert shown is None or Store(root).missing(shown.blobs) == []


ORIGIN_PROGRAM = """
import sys
from pathlib import Path
from mirrortools.config import EdgeConfig
from mirrortools.pool import EdgePool, Scope
from mirrortools.model import RepoId
from mirrortools.tree import Tree

root, url, identity, known = sys.argv[1:]
edge = EdgeConfig("bj1", url, None, Path(identity), Path(known), "", 2 << 20)
shown = Tree(Path(root)).publication(RepoId.parse("acme/tiny"))

def progress(edge, repo, sent, planned):
    if sent > 2 << 20:
        print("under way", flush=True)

with EdgePool(Scope({"bj1": edge}, Path(root))) as pool:
    pool.deliver(shown, ["bj1"], progress)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_an_origin_that_is_ended_in_mid_transfer_leaves_no_process_and_goes_on(
    sshd: Sshd, origin: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """Killed or interrupted, its ssh and rsync end too, the edge's lock is free, and the next run sends the rest."""
    sshd.kill_sessions()
    shown, root = publication(origin, NEW), tmp_path / "bj1"
    Tree(origin).publish(shown)
    words = [origin, sshd.url(root), sshd.identity_file, sshd.known_hosts]
    program = subprocess.Popen(
        [sys.executable, "-c", ORIGIN_PROGRAM, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with program:
        assert program.stdout is not None
        assert program.stdout.readline() == b"under way\n"
        program.send_signal(number)
        program.communicate()
    _wait_until(lambda: _processes_naming(str(root)) == [])
    healed = run(ssh_edge(sshd, root), origin, shown)

    assert program.returncode in (-number, 1)
    assert healed.error is None
    assert healed.bytes_planned < 7 * MIB
    assert served_files(root, shown) == NEW


def _wait_until(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not ready():
        assert time.monotonic() < deadline, "it did not happen within 30 s"
        time.sleep(0.05)


def _processes_naming(text: str) -> list[str]:
    """Command lines of processes that name `text`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in line:
            found.append(line)
    return found


def test_a_repository_that_another_origin_delivers_is_locked(sshd: Sshd, origin: Path, tmp_path: Path) -> None:
    """Two origins at once: the second is told who works there, and other repositories are not held up."""
    shown, root = publication(origin, NEW), tmp_path / "bj1"
    other = publication(origin, {"a.txt": b"a"}, RepoId.parse("acme/other"))
    errors: list[MirrorError | None] = []

    def meanwhile() -> None:
        with EdgePool(Scope({"bj1": ssh_edge(sshd, root)}, origin)) as second:
            errors.extend(second.deliver(each, ["bj1"])[0].error for each in (shown, other))

    slow = ssh_edge(sshd, root, rate_limit_bytes_s=8 * MIB)
    first = run(slow, origin, shown, once(meanwhile, MIB))

    assert first.error is None
    assert isinstance(errors[0], Locked)
    assert "a delivery from" in str(errors[0])
    assert errors[1] is None


# What goes ahead while the origin fetches


class Ahead:
    """Brings a publication to an edge from an origin that has so much of its large blob, until it is let go on."""

    def __init__(self, edge: EdgeConfig, origin: Path, shown: Publication, ready_bytes: int) -> None:
        blob = model_blob(shown)
        self._inflow = Inflow([blob], lambda blob: [Store(origin).path(blob)])
        self._inflow.grown(blob, ready_bytes)
        self._pool = EdgePool(Scope({edge.name: edge}, origin))
        self._fan_out = self._pool.fan_out(self._inflow)
        self._threads = ThreadPoolExecutor(1)
        session = self._pool.further_session(edge.name, shown)
        self._coming = self._threads.submit(session.forward, shown, self._fan_out, errand.no_progress)

    def end(self) -> Delivery:
        """Let all of it be fetched; gives what came of it."""
        self._inflow.end()
        return self._coming.result(WAIT_S)

    def close(self) -> None:
        self._fan_out.close()
        self._threads.shutdown()
        self._pool.close()


def arrives(root: Path, size_bytes: int) -> Path:
    """The folder in which so much has come ahead."""
    folder = Berth(root, REPO, is_ahead=True).folder
    until_s = time.monotonic() + WAIT_S
    while sum(path.stat().st_size for path in folder.glob("*")) < size_bytes:
        assert time.monotonic() < until_s
        time.sleep(0.01)
    return folder


def test_what_goes_ahead_is_in_nobodys_way(sshd: Sshd, origin: Path, tmp_path: Path) -> None:
    """Meanwhile the repository is delivered by another run, and described; a second one that goes ahead is refused."""
    root, old, new = tmp_path / "bj1", publication(origin, OLD), publication(origin, NEW)
    edge = ssh_edge(sshd, root)
    with closing(Ahead(edge, origin, new, 3 * MIB)) as ahead:
        arrives(root, 2 * MIB)
        delivery, served_meanwhile = run(edge, origin, old), served_files(root, old)
        with EdgePool(Scope({edge.name: edge}, origin)) as pool:
            described = pool.session(edge.name).ask(REPO, {"ask": "describe", "repo": REPO.path})
        with closing(Ahead(edge, origin, new, 3 * MIB)) as second:
            refused = second.end()
        came = ahead.end()
    healed = run(edge, origin, new)

    assert (delivery.error, served_meanwhile) == (None, OLD)
    assert described["bad"] == []
    assert isinstance(refused.error, Locked)
    assert (came.error, healed.error) == (None, None)
    assert 8 * MIB <= came.bytes_sent < 9 * MIB
    assert healed.bytes_sent < MIB
    assert served_files(root, new) == NEW
    assert list((root / "state" / "incoming").iterdir()) == []


def test_what_came_ahead_of_a_break_is_not_sent_again(sshd: Sshd, origin: Path, tmp_path: Path) -> None:
    """Whether the delivery goes on with it, or what goes ahead the next time."""
    root, new = tmp_path / "bj1", publication(origin, NEW)
    edge, came = ssh_edge(sshd, root), []
    for ready_bytes in (3 * MIB, 6 * MIB):
        with closing(Ahead(edge, origin, new, ready_bytes)) as ahead:
            folder = arrives(root, ready_bytes - MIB)
            sshd.kill_sessions()
            came.append(ahead.end())
        assert served_files(root, new) == {}
    present = sum(path.stat().st_size for path in folder.iterdir())
    healed = run(edge, origin, new)

    assert [type(each.error) for each in came] == [EdgeUnreachable] * 2
    assert came[1].bytes_planned < 6 * MIB
    assert healed.error is None
    assert healed.bytes_planned <= 8 * MIB + 1000 - present
    assert served_files(root, new) == NEW
