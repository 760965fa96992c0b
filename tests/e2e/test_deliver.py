"""Deliveries over real OpenSSH and rsync: what arrives, what it costs, what is said when it fails."""

from __future__ import annotations

import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from socket import socket

import pytest

from mirrortools.errors import EdgeUnreachable
from mirrortools.findings import Comparison, Findings
from mirrortools.model import Publication, RepoId
from mirrortools.pool import EdgePool, Scope
from mirrortools.shown import digest_of
from mirrortools.signing import Signer
from mirrortools.steps import Step
from mirrortools.store import Store
from mirrortools.transports.ssh import SshTransport
from mirrortools.tree import Tree
from tests.delivery import NOWHERE, TALK_BYTES, local_edge, noise, publication, run, served_files, sha256_blob, ssh_edge
from tests.servers.ports import free_port
from tests.servers.sshd import Sshd

MIB = 1 << 20
FILES = {
    "model.safetensors": noise(8 * MIB, 1),
    "b/weights.safetensors": noise(4 * MIB, 2),
    "config.json": b"{}",
    "empty": b"",
}


@pytest.fixture
def shown(origin: Path) -> Publication:
    """A revision of 12 MiB."""
    return publication(origin, FILES)


def test_new_edges_are_filled_from_nothing(sshd: Sshd, origin: Path, shown: Publication, tmp_path: Path) -> None:
    """Two edges, one over ssh and one on a disk, serve every file; bytes on the wire are those of the plan."""
    bj1 = ssh_edge(sshd, tmp_path / "bj1", relay_host=NOWHERE)
    edges = {"bj1": bj1, "disk1": local_edge(tmp_path / "disk1")}
    sshd.forget()
    with EdgePool(Scope(edges, origin, [shown.repo])) as pool:
        deliveries = pool.deliver(shown, list(edges))
    planned = sum(blob.size for blob in shown.blobs)

    assert [(d.edge, d.changed, d.error, d.bytes_planned) for d in deliveries] == [
        ("bj1", True, None, planned),
        ("disk1", True, None, planned),
    ]
    assert served_files(tmp_path / "bj1", shown) == FILES
    assert served_files(tmp_path / "disk1", shown) == FILES
    assert planned < sshd.received_bytes() < planned * 1.01 + TALK_BYTES
    assert planned <= deliveries[0].bytes_sent <= sshd.received_bytes()
    assert sshd.logins() == 1


def test_bytes_go_to_a_port_of_the_edge_and_to_many_once(
    sshd: Sshd, origin: Path, shown: Publication, tmp_path: Path
) -> None:
    """Where the relays can be reached nothing but words go through ssh, and the origin sends each byte to one edge."""
    edges = {name: ssh_edge(sshd, tmp_path / name, name) for name in ("bj1", "bj2", "bj3")}
    sshd.forget()
    with EdgePool(Scope(edges, origin, [shown.repo])) as pool:
        deliveries = pool.deliver(shown, list(edges))
    planned = sum(blob.size for blob in shown.blobs)

    assert [(d.edge, d.changed, d.error) for d in deliveries] == [(name, True, None) for name in edges]
    assert [served_files(tmp_path / name, shown) for name in edges] == [FILES] * 3
    assert sum(d.bytes_sent for d in deliveries) < 2 * planned
    assert sshd.received_bytes() < 3 * TALK_BYTES


def test_a_changed_revision_sends_only_the_new_blob(
    sshd: Sshd, origin: Path, shown: Publication, tmp_path: Path
) -> None:
    """The blobs that the edge has from the revision before do not travel."""
    edges = {"bj1": ssh_edge(sshd, tmp_path / "bj1")}
    changed = {**FILES, "b/weights.safetensors": noise(2 * MIB, 3)}
    with EdgePool(Scope(edges, origin)) as pool:
        pool.deliver(shown, ["bj1"])
    newer = publication(origin, changed)
    sshd.forget()
    with EdgePool(Scope(edges, origin)) as pool:
        [delivery] = pool.deliver(newer, ["bj1"])

    assert (delivery.changed, delivery.error, delivery.blobs) == (True, None, 2)
    assert delivery.bytes_planned == 2 * MIB + 700
    assert 2 * MIB < sshd.received_bytes() < 2 * MIB * 1.01 + TALK_BYTES
    assert served_files(tmp_path / "bj1", newer) == changed


@pytest.mark.parametrize("change", ["in place", "shifted"])
def test_of_a_changed_blob_only_what_changed_is_sent(sshd: Sshd, origin: Path, tmp_path: Path, change: str) -> None:
    """The edge makes the blob out of the one that it has and the new bytes, and hashes it as any other."""
    edges = {name: ssh_edge(sshd, tmp_path / name, name) for name in ("bj1", "bj2")}
    older = noise(16 * MIB, 5)
    newer = older[:MIB] + noise(300_000, 6) + older[MIB + (300_000 if change == "in place" else 299_000) :]
    for content in (older, newer):
        shown = publication(origin, {"model.safetensors": content, "config.json": b"{}"})
        Tree(origin).publish(shown)
        sshd.forget()
        with EdgePool(Scope(edges, origin)) as pool:
            deliveries = pool.deliver(shown, list(edges))

    assert [delivery.error for delivery in deliveries] == [None, None]
    assert [served_files(tmp_path / name, shown)["model.safetensors"] for name in edges] == [newer, newer]
    assert all(delivery.bytes_saved > 14 * MIB for delivery in deliveries)
    assert sshd.received_bytes() < 2 * (2 * MIB + TALK_BYTES)
    assert list((origin / "state" / "stage").iterdir()) == []


def test_an_edge_that_lost_the_older_blob_gets_the_whole(
    sshd: Sshd, origin: Path, shown: Publication, tmp_path: Path
) -> None:
    """What it has is asked for before it is built upon; a rotten older blob is found by the hash of the new one."""
    edges = {name: ssh_edge(sshd, tmp_path / name, name) for name in ("bj1", "bj2")}
    Tree(origin).publish(shown)
    with EdgePool(Scope(edges, origin)) as pool:
        pool.deliver(shown, list(edges))
    model = max(shown.blobs, key=lambda blob: blob.size)
    rotten = Store(tmp_path / "bj2").path(model)
    rotten.chmod(0o644)
    rotten.write_bytes(bytes(model.size))
    changed = {**FILES, "model.safetensors": FILES["model.safetensors"][:-1000] + noise(1000, 9)}
    newer = publication(origin, changed)
    Tree(origin).publish(newer)
    with EdgePool(Scope(edges, origin, [shown.repo])) as pool:
        pool.session("bj1").held(shown.repo)
        Store(tmp_path / "bj1").path(model).unlink()
        deliveries = pool.deliver(newer, list(edges))

    assert [delivery.error for delivery in deliveries] == [None, None]
    assert deliveries[0].bytes_saved == 0
    assert deliveries[0].bytes_planned >= model.size
    assert [served_files(tmp_path / name, newer) for name in edges] == [changed, changed]
    assert list((origin / "state" / "findings").iterdir()) == []


def test_what_an_earlier_run_found_is_used_and_never_trusted(sshd: Sshd, origin: Path, tmp_path: Path) -> None:
    """A finding that is wrong, and looks right, makes no wrong bytes visible; it is found anew after that."""
    older = noise(3 * MIB, 5)
    newer = older[:MIB] + noise(1000, 6) + older[MIB:]
    edges = {name: ssh_edge(sshd, tmp_path / name, name) for name in ("bj1", "bj2")}
    for content in (older, newer):
        shown = publication(origin, {"model.safetensors": content})
        Tree(origin).publish(shown)
        with EdgePool(Scope(edges, origin)) as pool:
            pool.deliver(shown, ["bj1", "bj2"] if content == older else ["bj1"])
    base, blob, findings = sha256_blob(older), sha256_blob(newer), Findings(origin / "state" / "findings")
    found = findings.known(base, blob)
    findings.keep(base, blob, Comparison.of(blob.size, [Step(False, 0, base.size), Step(True, base.size, 1000)]))
    with EdgePool(Scope(edges, origin)) as pool:
        [delivery] = pool.deliver(shown, ["bj2"])

    assert found
    assert found.shifted
    assert (delivery.error, delivery.bytes_saved) == (None, 0)
    assert served_files(tmp_path / "bj2", shown) == {"model.safetensors": newer}
    assert findings.known(base, blob) is None


def test_no_change_moves_nothing_for_any_number_of_repositories(sshd: Sshd, origin: Path, tmp_path: Path) -> None:
    """One login and one question for the whole run; the edge's tree is not touched."""
    edges = {"bj1": ssh_edge(sshd, tmp_path / "bj1")}
    all_shown = [publication(origin, {"a.txt": b"%d" % n}, RepoId.parse(f"acme/model{n}")) for n in range(10)]
    repos = [shown.repo for shown in all_shown]
    with EdgePool(Scope(edges, origin, repos)) as pool:
        first = [pool.deliver(shown, ["bj1"])[0] for shown in all_shown]
    before = {path: path.lstat().st_mtime_ns for path in (tmp_path / "bj1" / "public").rglob("*")}
    sshd.forget()
    with EdgePool(Scope(edges, origin, repos)) as pool:
        second = [pool.deliver(shown, ["bj1"])[0] for shown in all_shown]

    assert [(d.changed, d.error) for d in first] == [(True, None)] * 10
    assert [(d.changed, d.error, d.bytes_sent) for d in second] == [(False, None, 0)] * 10
    assert {path: path.lstat().st_mtime_ns for path in (tmp_path / "bj1" / "public").rglob("*")} == before
    assert sshd.logins() == 1
    assert sshd.received_bytes() < 16 * 1024  # the edge keeps the receiver


def test_edges_that_noted_what_they_show_cost_a_round_trip_each(origin: Path, tmp_path: Path) -> None:
    """Of repositories that are as the edges noted nothing is signed, asked or opened; others are brought as ever."""
    edges = {name: local_edge(tmp_path / name, name) for name in ("disk1", "disk2")}
    all_shown = [publication(origin, {"a.txt": b"%d" % n}, RepoId.parse(f"acme/model{n}")) for n in range(4)]
    repos = [shown.repo for shown in all_shown]
    with EdgePool(Scope(edges, origin, repos, believes=True)) as pool:
        first = [pool.deliver(shown, list(edges)) for shown in all_shown]
    shutil.rmtree(tmp_path / "disk2" / "state" / "shown")
    Store(tmp_path / "disk2").path(max(all_shown[2].blobs)).unlink()
    all_shown[3] = publication(origin, {"a.txt": b"newer"}, repos[3])
    said = digest_of(Signer(origin).signed(all_shown[0]).text)
    with EdgePool(Scope(edges, origin, repos, believes=True)) as pool:
        second = [pool.deliver(shown, list(edges)) for shown in all_shown]
        opened = [pool.session(name).is_shown(repos[0], lambda _: said) for name in edges]

    assert {(d.changed, d.error) for deliveries in first for d in deliveries} == {(True, None)}
    assert [[(d.changed, d.blobs) for d in deliveries] for deliveries in second] == [
        [(False, 0), (False, 0)],
        [(False, 0), (False, 0)],
        [(False, 0), (False, 1)],
        [(True, 2), (True, 2)],
    ]
    assert opened == [True, False]  # what was looked at is noted for the next run
    assert served_files(tmp_path / "disk2", all_shown[3]) == {"a.txt": b"newer"}


def test_a_dead_edge_does_not_hold_the_others(sshd: Sshd, origin: Path, shown: Publication, tmp_path: Path) -> None:
    """The living edge is complete; the error names the dead one, what ssh said and what to try."""
    dead = f"ssh://mirror@127.0.0.1:{free_port()}{tmp_path}/bj2"
    edges = {"bj2": ssh_edge(sshd, tmp_path, "bj2", url=dead), "bj1": ssh_edge(sshd, tmp_path / "bj1")}
    with EdgePool(Scope(edges, origin)) as pool:
        failed, done = pool.deliver(shown, ["bj2", "bj1"])
        [again] = pool.deliver(shown, ["bj2"])

    assert (done.edge, done.changed, done.error) == ("bj1", True, None)
    assert served_files(tmp_path / "bj1", shown) == FILES
    assert isinstance(failed.error, EdgeUnreachable)
    assert "edge bj2: ssh could not reach 127.0.0.1" in str(failed.error)
    assert "Connection refused" in str(failed.error)
    assert "try by hand: ssh" in str(failed.error)
    assert again.error is failed.error


def test_an_edge_that_accepts_and_says_nothing_is_given_up(
    origin: Path, shown: Publication, sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that hangs before the login ends after the connect timeout."""
    monkeypatch.setattr("mirrortools.transports.ssh._OPTIONS", ("BatchMode=yes", "ConnectTimeout=1"))
    with closing(socket()) as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"ssh://mirror@127.0.0.1:{silent.getsockname()[1]}{tmp_path}/bj1"
        with EdgePool(Scope({"bj1": ssh_edge(sshd, tmp_path, url=url)}, origin)) as pool:
            [delivery] = pool.deliver(shown, ["bj1"])

    assert isinstance(delivery.error, EdgeUnreachable)
    assert "timed out" in str(delivery.error)


def test_an_unknown_host_key_is_refused(sshd: Sshd, origin: Path, shown: Publication, tmp_path: Path) -> None:
    """Nothing is trusted on first sight; the message says which file wants the key."""
    known = tmp_path / "known hosts"
    known.write_text("")
    delivery = run(ssh_edge(sshd, tmp_path / "bj1", known_hosts=known), origin, shown)

    assert isinstance(delivery.error, EdgeUnreachable)
    assert f"its host key is not known: compare it with the host's own, then add it to {known}" in str(delivery.error)
    assert not (tmp_path / "bj1").exists()


def test_a_changed_host_key_is_refused(sshd: Sshd, origin: Path, shown: Publication, tmp_path: Path) -> None:
    """A host with another key than the known one gets nothing."""
    known = tmp_path / "known_hosts"
    other_key = (sshd.folder / "user_key.pub").read_text()
    known.write_text(f"[127.0.0.1]:{sshd.port} {other_key}")
    delivery = run(ssh_edge(sshd, tmp_path / "bj1", known_hosts=known), origin, shown)

    assert isinstance(delivery.error, EdgeUnreachable)
    assert "its host key is not the known one" in str(delivery.error)


def test_a_key_that_is_not_accepted_is_explained(sshd: Sshd, origin: Path, shown: Publication, tmp_path: Path) -> None:
    """The message says where the public key belongs; no password is asked for."""
    edge = ssh_edge(sshd, tmp_path / "bj1", identity_file=sshd.folder / "host_key")
    delivery = run(edge, origin, shown)

    assert isinstance(delivery.error, EdgeUnreachable)
    assert "add the public key to authorized_keys there" in str(delivery.error)


def test_a_key_that_others_can_read_is_named(sshd: Sshd, origin: Path, shown: Publication, tmp_path: Path) -> None:
    """With it ssh would let the edge refuse: instead the message names file, mode and remedy, which helps."""
    key = tmp_path / "key"
    key.write_bytes(sshd.identity_file.read_bytes())
    key.chmod(0o644)
    edges = {"bj1": ssh_edge(sshd, tmp_path / "bj1", identity_file=key)}
    with EdgePool(Scope(edges, origin)) as pool:
        [refused] = pool.deliver(shown, ["bj1"])
    key.chmod(0o600)
    with EdgePool(Scope(edges, origin)) as pool:
        [done] = pool.deliver(shown, ["bj1"])

    assert isinstance(refused.error, EdgeUnreachable)
    assert str(refused.error).startswith(f"edge bj1: {key}: its mode 0644 ")
    assert f"chmod 600 {key}" in str(refused.error)
    assert (done.changed, done.error) == (True, None)


def test_what_ssh_says_of_an_open_key_is_explained(sshd: Sshd, tmp_path: Path) -> None:
    """A key that ssh finds by itself is not looked at before, but ssh's complaint is not taken for the edge's."""
    key = tmp_path / "key"
    key.write_bytes(sshd.identity_file.read_bytes())
    key.chmod(0o644)
    way = SshTransport(ssh_edge(sshd, tmp_path / "bj1", identity_file=key), tmp_path / "state")
    ended = subprocess.run(way.command(["true"]), capture_output=True, text=True, stdin=subprocess.DEVNULL)
    error = way.unreachable(ended.returncode, " | ".join(ended.stderr.splitlines()[-4:]))

    assert "chmod 600 the file" in str(error)


def test_the_environment_does_not_change_what_ssh_and_rsync_do(
    sshd: Sshd, origin: Path, shown: Publication, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Variables of rsync, an agent and other locales are not passed on."""
    for name, value in {
        "RSYNC_RSH": "/bin/false",
        "RSYNC_PARTIAL_DIR": "elsewhere",
        "SSH_AUTH_SOCK": "/nowhere",
        "LC_ALL": "de_DE.UTF-8",
        "PYTHONPATH": "/nowhere",
    }.items():
        monkeypatch.setenv(name, value)
    delivery = run(ssh_edge(sshd, tmp_path / "bj1"), origin, shown)

    assert delivery.error is None
    assert served_files(tmp_path / "bj1", shown) == FILES


def test_repositories_may_be_delivered_from_several_threads(sshd: Sshd, origin: Path, tmp_path: Path) -> None:
    """An edge takes them one after the other over its one connection."""
    all_shown = [publication(origin, {"a.txt": b"%d" % n}, RepoId.parse(f"acme/model{n}")) for n in range(6)]
    sshd.forget()
    with EdgePool(Scope({"bj1": ssh_edge(sshd, tmp_path / "bj1")}, origin)) as pool, ThreadPoolExecutor(3) as threads:
        deliveries = list(threads.map(lambda shown: pool.deliver(shown, ["bj1"])[0], all_shown))

    assert [d.error for d in deliveries] == [None] * 6
    assert sshd.logins() == 1
    assert all(served_files(tmp_path / "bj1", shown) for shown in all_shown)


def test_blobs_are_read_only_and_folders_can_be_read_by_all(origin: Path, shown: Publication, tmp_path: Path) -> None:
    """Nginx runs as another user than the one that delivers."""
    root = tmp_path / "disk1"
    run(local_edge(root), origin, shown)

    assert {(root / "public" / blob.path).stat().st_mode & 0o777 for blob in shown.blobs} == {0o444}
    assert all(path.stat().st_mode & 0o055 == 0o055 for path in (root / "public").rglob("*") if path.is_dir())


def test_a_closed_pool_leaves_nothing_running(sshd: Sshd, origin: Path, shown: Publication, tmp_path: Path) -> None:
    """No process stays on the edge, and no socket on the origin."""
    sshd.kill_sessions()
    run(ssh_edge(sshd, tmp_path / "bj1"), origin, shown)

    assert list((origin / "state" / "ssh").iterdir()) == []
    assert list((tmp_path / "bj1" / "state" / "incoming").iterdir()) == []


@pytest.mark.parametrize(("limit", "is_squeezed"), [(8 * MIB, True), (None, False)], ids=["slow", "fast"])
def test_on_a_slow_way_what_shrinks_is_compressed(
    sshd: Sshd, origin: Path, tmp_path: Path, limit: int | None, is_squeezed: bool
) -> None:
    """Texts travel at a fraction of their size, noise as it is; what arrives is the same."""
    text = b"".join(b'{"id": %d, "text": "a line of a data set"}\n' % number for number in range(100_000))
    files = {"model.safetensors": noise(2 * MIB, 1), "data.safetensors": text}
    shown = publication(origin, files)
    edge = ssh_edge(sshd, tmp_path / "bj1", rate_limit_bytes_s=limit)
    sshd.forget()
    delivery = run(edge, origin, shown)

    assert delivery.error is None
    assert served_files(tmp_path / "bj1", shown) == files
    assert (delivery.bytes_sent < 2 * MIB + len(text) // 4) == is_squeezed
    assert (sshd.received_bytes() < 2 * MIB + len(text) // 4 + TALK_BYTES) == is_squeezed
