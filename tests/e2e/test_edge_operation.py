"""What an operator sees of edges, while deliveries run and afterwards, with a real sshd."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from mirrortools.keeping import FOLDER
from tests.delivery import noise
from tests.mirror import Mirror, served
from tests.servers.sshd import Sshd

MIB = 1 << 20
REPO = "acme/tiny"


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
    """Whole, delta and held bytes of an edge that has the former revision, and of one that keeps the receiver alone."""
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
    told = site.run("deliver", "--all", "--dry-run").stdout
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
    assert f"{REPO} to 2 edges: " in told
    assert " would leave this host; edges pass on the rest to each other" in told
    kept = [path for path in after if path not in before]
    assert kept[:-1] == [Path("bj2"), Path("bj2/state"), Path("bj2", FOLDER)]
    assert kept[-1].parent == Path("bj2", FOLDER)
    assert delivered["planned_bytes"] == old["send_bytes"]
    assert "holds all " in nothing


def test_an_edge_with_rules_of_its_own_is_kept_so(site: Site) -> None:
    """It lists just what it has, in the Hub's answers too; another edge has it all; both are up to date at once."""
    site.edge("all")
    site.edge("part", repositories=["acme/*"], exclude=["other.json"])
    site.model(REPO, model=noise(MIB, 1), config=b"{}", other=noise(2 * MIB, 2))
    site.model("elsewhere/big", model=noise(MIB, 3))
    first = {known["repo"]: known for known in site.run("sync", "--all", "--json").json}
    again = site.run("deliver", "--all", "--json").json
    checked = site.run("check", "--all", "--edge", "part", "--edge", "all", "--json")
    proved = site.run("edge", "audit", "--all")
    meta = site.edges / "part" / "public" / "models" / REPO / "meta"
    [info] = [json.loads(path.read_bytes()) for path in meta.glob("*/info.json")]

    assert {d["edge"] for d in first["elsewhere/big"]["deliveries"]} == {"all"}
    assert set(served(site.edges / "part", REPO)) == {".gitattributes", "config.json", "model.safetensors"}
    assert set(served(site.edges / "all", REPO)) == {*served(site.edges / "part", REPO), "other.json"}
    assert sorted(file["rfilename"] for file in info["siblings"]) == sorted(served(site.edges / "part", REPO))
    assert [d["sent_bytes"] for known in again for d in known["deliveries"]] == [0, 0, 0]
    assert (checked.status, proved.status) == (0, 0), (checked.stdout, proved.stdout)


def test_rules_that_change_are_followed_at_the_next_delivery(site: Site) -> None:
    """From all to a part and back, each time at once, though the statements are of one second."""
    site.edge("e1")
    site.model(REPO, model=noise(MIB, 1), other=b"{}")
    site.run("sync", "--all")
    names = [set(served(site.edges / "e1", REPO))]
    for rules in ({"exclude": ["other.json"]}, {}, {"include": ["*.safetensors"]}):
        site.edge("e1", **rules)
        ended = site.run("deliver", "--all")
        assert ended.status == 0, ended.stderr
        names.append(set(served(site.edges / "e1", REPO)))

    every = {".gitattributes", "other.json", "model.safetensors"}
    assert names == [every, every - {"other.json"}, every, {"model.safetensors"}]


def test_a_quota_is_kept_and_what_is_left_out_is_told(site: Site) -> None:
    """Hot ones first, then the newest; the edge's own count decides; what it has stays served and follows refs."""
    site.edge("small", quota="7MiB")
    for name in ("old", "new", "hot"):
        site.model(f"acme/{name}", model=noise(3 * MIB, len(name)) + name.encode())
        site.run("sync", "--repo", f"acme/{name}", "--no-deliver")
    site.job["repositories"][-1]["hot"] = True
    full = site.fails("deliver", "--all")
    held = [name for name in ("old", "new", "hot") if served(site.edges / "small", f"acme/{name}")]
    site.edge("small", quota="20MiB")
    raised = site.run("deliver", "--all")

    assert full.status == 30
    assert held == ["new", "hot"]
    assert "acme/old is left out: its quota is 7.0 MiB, it holds 6.0 MiB, and 3.0 MiB more are needed" in full.stderr
    assert "left out, edge small: acme/old (3.0 MiB)" in full.stdout
    assert raised.status == 0
    assert served(site.edges / "small", "acme/old")


def test_catch_up_in_one_go(site: Site, sshd: Sshd) -> None:
    """An edge that was away gets several revisions of several repositories over one connection."""
    repos = ["acme/one", "acme/two", "acme/three"]
    site.edge("away")
    contents = {repo: noise(4 * MIB, number) for number, repo in enumerate(repos)}
    for repo in repos:
        site.model(repo, model=contents[repo])
    site.run("sync", "--all")
    for revision in range(3):
        for repo in repos[:2]:
            contents[repo] = contents[repo][:MIB] + noise(1000, 50 + revision) + contents[repo][MIB + 1000 :]
            site.model(repo, model=contents[repo], config=b"%d" % revision)
        site.model(f"acme/new{revision}", model=noise(MIB, 60 + revision))
        site.run("sync", "--all", "--no-deliver")
    sshd.forget()
    outcomes = site.run("deliver", "--all", "--json").json

    assert sshd.logins() == 1
    assert [delivery["exit_status"] for outcome in outcomes for delivery in outcome["deliveries"]] == [0] * 6
    assert [outcome["deliveries"][0]["sent_bytes"] < MIB for outcome in outcomes[:2]] == [True, True]
    for repo in site.job["repositories"]:
        assert served(site.edges / "away", repo["repo"]) == site.served(repo["repo"])


def test_damage_on_an_edge_is_repaired_from_the_origin(site: Site) -> None:
    """Found by the edge's own hashes, taken away, and brought again at once; an edge with a part stays so."""
    site.edge("e1", exclude=["other.json"])
    site.model(REPO, model=noise(3 * MIB, 1), other=b"{}")
    site.run("sync", "--all")
    [blob] = [path for path in (site.edges / "e1" / "public" / "blobs" / "sha256").rglob("*") if _size(path) == 3 * MIB]
    blob.chmod(0o644)
    blob.write_bytes(bytes(3 * MIB))
    found = site.run("check", "--all", "--edge", "e1")
    repaired = site.run("check", "--all", "--edge", "e1", "--repair")
    clean = site.run("check", "--all", "--edge", "e1")

    assert (found.status, clean.status) == (20, 0)
    assert "model.safetensors: expected sha256" in found.stdout
    assert served(site.edges / "e1", REPO)["model.safetensors"] == noise(3 * MIB, 1), repaired.stdout
    assert "other.json" not in served(site.edges / "e1", REPO)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
