"""What an operator sees of edges, while deliveries run and afterwards, with a real sshd."""

from __future__ import annotations

import os
import pty
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.delivery import noise
from tests.mirror import Mirror
from tests.servers.sshd import Sshd

MIB = 1 << 20
REPO = "acme/tiny"


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """One sshd, behind which lie the edges of this file."""
    with Sshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server


class Site(Mirror):
    """An origin whose source is a folder, with edges behind an sshd."""

    def __init__(self, folder: Path, sshd: Sshd) -> None:
        super().__init__(folder / "origin", f"dir://{folder}/models")
        self.models, self.edges, self._sshd = folder / "models", folder / "edges", sshd
        self.edges.mkdir()
        self.settings["edges"] = {}

    def edge(self, name: str, root: Path | None = None, **settings: Any) -> None:
        """One more edge."""
        keys = {"identity_file": str(self._sshd.identity_file), "known_hosts": str(self._sshd.known_hosts)}
        url = self._sshd.url(quote(str(root or self.edges / name)))
        self.settings["edges"][name] = {"url": url, **keys, **settings}

    def model(self, repo: str, **files: bytes) -> None:
        """A repository as it is at the source: `model` becomes model.safetensors, anything else a JSON file."""
        folder = self.models / repo
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / (f"{name}.safetensors" if name == "model" else f"{name}.json")).write_bytes(content)
        if repo not in [known["repo"] for known in self.job["repositories"]]:
            self.add(repo)


@pytest.fixture
def site(tmp_path: Path, sshd: Sshd) -> Site:
    """An origin without repositories and edges."""
    sshd.forget()
    return Site(tmp_path, sshd)


def test_what_edges_cost_is_counted_told_and_kept(site: Site) -> None:
    """The run's own words, `status` and `edge list` agree: sent, saved, rate, result, and what to run next."""
    site.edge("bj1")
    site.edge("gone")
    site.settings["edges"]["gone"]["url"] = "ssh://mirror@127.0.0.1:1/srv/mirror"
    older = noise(8 * MIB, 1)
    site.model(REPO, model=older)
    first = site.fails("sync", "--all")
    site.model(REPO, model=older[: 4 * MIB] + noise(64 << 10, 2) + older[4 * MIB :])
    site.fails("sync", "--all")
    site.fails("deliver", "--all")
    document = site.run("status", "--all", "--history", "9", "--json").json["repositories"][0]
    listed = site.run("edge", "list", "--history", "9", "--json").json
    good, bad = document["edges"]
    told = site.run("edge", "list", "--history", "9").stdout + site.run("status").stdout

    assert "next, edge gone: mirrortool deliver --repo acme/tiny --edge gone" in first.stdout
    assert [sending["saved_bytes"] > 7 * MIB for sending in good["history"]] == [True, False]
    assert all(sending["exit_status"] == 0 and sending["revision"] for sending in good["history"])
    assert good["last"]["sent_bytes"] < MIB
    assert [sending["exit_status"] for sending in bad["history"]] == [40] * 3
    assert [edge["status"] for edge in listed] == ["success", "failed"]
    assert (listed[0]["total_sent_bytes"], listed[0]["history"]) == (good["total_sent_bytes"], good["history"])
    assert listed[0]["total_saved_bytes"] == good["history"][0]["saved_bytes"]
    assert "for 8.1 MiB last" in told
    assert "FAILED (40)" in told


def test_a_delivery_is_seen_while_it_runs(site: Site) -> None:
    """By `edge list`, `status` and on the terminal of who runs it: bytes, rate and time left of each edge."""
    site.edge("bj1", rate_limit="16Mbit")
    site.model(REPO, model=noise(8 * MIB, 1))
    site.run("sync", "--all", "--no-deliver")
    near, far = pty.openpty()
    running = subprocess.Popen(site.command("deliver", "--all"), stdout=subprocess.DEVNULL, stderr=far)
    os.close(far)
    shown: list[bytes] = []
    reader = threading.Thread(target=_read_all, args=(near, shown))
    reader.start()
    seen = _seen(site, running)
    told = site.run("edge", "list").stdout
    status = running.wait()
    reader.join()
    os.close(near)

    assert status == 0
    assert seen["status"] == "syncing"
    assert seen["under_way"][0]["planned_bytes"] > 8 * MIB - 1
    assert "under way: acme/tiny: " in told
    assert b"edge bj1: " in b"".join(shown)
    assert site.run("edge", "list", "--json").json[0]["under_way"] == []


def _seen(site: Site, running: subprocess.Popen[bytes]) -> dict[str, Any]:
    """How the edge is listed when bytes have gone to it."""
    while running.poll() is None:
        edge: dict[str, Any] = site.run("edge", "list", "--json").json[0]
        if edge["under_way"] and edge["under_way"][0]["sent_bytes"]:
            return edge
        time.sleep(0.05)
    raise AssertionError("the delivery was over before it was seen")


def _read_all(descriptor: int, into: list[bytes]) -> None:
    """Read a terminal until its other end is closed, which is an error (EIO) there."""
    try:
        while data := os.read(descriptor, 65536):
            into.append(data)
    except OSError:
        return


def test_a_dry_run_tells_for_each_edge_what_would_go_out_and_why(site: Site) -> None:
    """Whole, delta and held bytes of an edge that has the former revision, and of one that has nothing; no change."""
    older = noise(8 * MIB, 1)
    site.edge("bj1")
    site.model(REPO, model=older, config=b"{}", other=noise(2 * MIB, 3))
    site.run("sync", "--all")
    shifted = older[: 2 * MIB] + noise(1000, 2) + older[2 * MIB :]
    site.model(REPO, model=shifted, config=b'{"new": 1}', other=noise(2 * MIB, 4))
    site.run("sync", "--all", "--no-deliver")
    site.edge("bj2")
    before = sorted(path.relative_to(site.edges) for path in site.edges.rglob("*"))
    old, new = site.run("deliver", "--all", "--dry-run", "--json").json
    told = site.run("deliver", "--all", "--dry-run", "--edge", "bj1").stdout
    after = sorted(path.relative_to(site.edges) for path in site.edges.rglob("*"))
    reasons = {file["path"]: (file["how"], file["reason"]) for file in old["files"]}
    delivered = site.run("deliver", "--all", "--edge", "bj1", "--json").json[0]["deliveries"][0]
    nothing = site.run("deliver", "--all", "--dry-run", "--edge", "bj1").stdout

    assert reasons["model.safetensors"][0] == "delta"
    assert "shifted data, " in reasons["model.safetensors"][1]
    assert "100.0 % is new, so that a delta does not pay: whole" in reasons["other.json"][1]
    assert reasons["config.json"] == ("whole", "too small for a delta")
    assert {file["reason"] for file in new["files"] if file["size_bytes"] > MIB} == {"the edge has nothing like it"}
    assert old["delta_bytes"] < MIB < 2 * MIB < old["whole_bytes"] < 3 * MIB
    assert "model.safetensors  (shifted data" in told
    assert [path for path in after if path not in before] == [Path("bj2")]
    assert delivered["planned_bytes"] == old["send_bytes"]
    assert "holds all " in nothing
