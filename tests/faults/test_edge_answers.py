"""What an edge answers when it is busy, out of order, or of another version; with a real sshd."""

from __future__ import annotations

import io
import os
import subprocess
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from mirrortools.errand import Delivery
from mirrortools.errors import EdgeRefused, Locked, NoSpace
from mirrortools.files import make_folder
from mirrortools.frames import PROTOCOL_VERSION
from mirrortools.intake import ABANDONED_S
from mirrortools.locks import RepositoryLock
from mirrortools.model import RepoId, quote_ref
from mirrortools.pool import EdgePool, Scope
from mirrortools.transports import installed_receiver
from tests.delivery import noise, publication, run, served_files, small_disk, ssh_edge
from tests.servers.sshd import Sshd

MIB = 1 << 20
OLD = {"model.safetensors": noise(MIB, 1), "config.json": b"{}"}
NEW = {"model.safetensors": noise(4 * MIB, 2), "config.json": b"{}"}


def fill(path: Path) -> None:
    """Take all the room of a file system."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            continue


def test_of_two_deliveries_of_a_repository_one_is_told_who_is_at_work(sshd: Sshd, origin: Path, tmp_path: Path) -> None:
    """It changes nothing, and goes through when the other has ended; another repository does not wait."""
    root = tmp_path / "bj1"
    slow, shown = ssh_edge(sshd, root, rate_limit_bytes_s=2 * MIB), publication(origin, NEW)
    other = publication(origin, OLD, RepoId.parse("acme/other"))
    met: list[Delivery] = []

    def meet(_edge: str, _repo: RepoId, sent_bytes: int, _planned_bytes: int) -> None:
        if sent_bytes and not met:
            met.extend(run(ssh_edge(sshd, root), origin, wanted) for wanted in (shown, other))

    with EdgePool(Scope({slow.name: slow}, origin)) as pool:
        [first] = pool.deliver(shown, [slow.name], meet)
    again = run(ssh_edge(sshd, root), origin, shown)

    assert isinstance(met[0].error, Locked)
    assert "acme/tiny: a delivery from " in str(met[0].error)
    assert (first.error, met[1].error, again.error) == (None, None, None)
    assert served_files(root, shown) == NEW
    assert served_files(root, other) == OLD


def test_many_deliveries_at_once_end_with_a_whole_revision(sshd: Sshd, origin: Path, tmp_path: Path) -> None:
    """Several runs that start together: each goes through or is told that another is at work."""
    edge, shown = ssh_edge(sshd, tmp_path / "bj1"), publication(origin, NEW)
    with ThreadPoolExecutor(4) as threads:
        done = list(threads.map(lambda _: run(edge, origin, shown), range(4)))

    assert any(delivery.error is None for delivery in done)
    assert [delivery.error for delivery in done if not isinstance(delivery.error, Locked | None)] == []
    assert served_files(tmp_path / "bj1", shown) == NEW


def test_what_an_abandoned_delivery_left_goes_after_a_while(sshd: Sshd, origin: Path, tmp_path: Path) -> None:
    """Old parts of other repositories, but neither recent ones nor those of a repository that is being delivered."""
    root = tmp_path / "bj1"
    old = time.time() - ABANDONED_S - 60
    names = ["acme/dead", "acme/fresh", "acme/busy"]
    folders = [root / "state" / "incoming" / quote_ref(RepoId.parse(name).path) for name in names]
    folders += [folders[0].with_name(f"{folder.name}@ahead") for folder in (folders[0], folders[2])]
    folders.append(root / "state" / "incoming" / "no repository")
    for folder in folders:
        make_folder(folder)
        (folder / ("f" * 64)).write_bytes(b"part")
        if "fresh" not in folder.name:
            os.utime(folder / ("f" * 64), (old, old))
            os.utime(folder, (old, old))
    busy = RepositoryLock(root, RepoId.parse("acme/busy"), "a delivery")
    busy_ahead = RepositoryLock(root, RepoId.parse("acme/busy"), "what goes ahead", is_ahead=True)
    delivery = run(ssh_edge(sshd, root), origin, publication(origin, OLD))
    busy.close()
    busy_ahead.close()

    assert delivery.error is None
    assert [folder.exists() for folder in folders] == [False, True, True, False, True, False]


def test_an_edge_on_a_read_only_file_system_says_so(sshd: Sshd, origin: Path, tmp_path: Path) -> None:
    """With the path and the command that shows which; what it has stays served, and it goes on when it can."""
    with small_disk(tmp_path / "disk", 32 * MIB) as disk:
        edge, old, new = ssh_edge(sshd, disk / "bj1"), publication(origin, OLD), publication(origin, NEW)
        run(edge, origin, old)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        refused = run(edge, origin, new)
        meanwhile = served_files(disk / "bj1", old)
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        healed = run(edge, origin, new)

    assert isinstance(refused.error, EdgeRefused)
    assert "edge bj1: " in str(refused.error)
    assert "Read-only file system; `findmnt -T " in str(refused.error)
    assert meanwhile == OLD
    assert healed.error is None


def test_an_edge_whose_disk_is_full_says_so(sshd: Sshd, origin: Path, tmp_path: Path) -> None:
    """Before a byte goes out when the receiver sees it; also when not even a lock fits."""
    with small_disk(tmp_path / "disk", 8 * MIB) as disk:
        edge, old, new = ssh_edge(sshd, disk / "bj1"), publication(origin, OLD), publication(origin, NEW)
        run(edge, origin, old)
        fill(disk / "hog")
        full = run(edge, origin, new)
        meanwhile = served_files(disk / "bj1", old)
        (disk / "hog").unlink()
        healed = run(edge, origin, new)

    assert isinstance(full.error, NoSpace)
    assert full.bytes_sent == 0
    assert "edge bj1: " in str(full.error)
    assert meanwhile == OLD
    assert healed.error is None


def receiver_of_version(version: int) -> bytes:
    """The receiver that another release installs."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(installed_receiver())) as archive, zipfile.ZipFile(made, "w") as changed:
        for name in archive.namelist():
            if name.endswith(".pyc"):  # made of the text that is changed here
                continue
            text = archive.read(name)
            text = text.replace(b"VERSION: Final = %d" % PROTOCOL_VERSION, b"VERSION: Final = %d" % version)
            changed.writestr(name, text.replace(b'__version__ = "', b'__version__ = "other-'))
    return made.getvalue()


@pytest.mark.parametrize(
    ("version", "advice"),
    [
        (PROTOCOL_VERSION - 1, "run `mirrortool edge provision bj1` on the origin"),
        (PROTOCOL_VERSION + 1, "the origin is the older one: install mirrortools other-"),
    ],
    ids=["older", "newer"],
)
def test_an_installed_receiver_of_another_version_names_both(
    sshd: Sshd, origin: Path, tmp_path: Path, version: int, advice: str
) -> None:
    """One that is older, or newer, than the origin says what to do; nothing is changed."""
    root, installed = tmp_path / "bj1", tmp_path / "receiver.pyz"
    installed.write_bytes(receiver_of_version(version))
    sshd.authorize(f'restrict,command="python3 -I {installed} --edge=bj1 {root}"')
    refused = run(ssh_edge(sshd, root), origin, publication(origin, OLD))
    sshd.authorize()
    text = str(refused.error)

    assert isinstance(refused.error, EdgeRefused)
    assert "edge bj1: the receiver other-" in text
    assert f" speaks version {version}, the origin {PROTOCOL_VERSION} (mirrortools '" in text
    assert advice in text
    assert not root.exists()
