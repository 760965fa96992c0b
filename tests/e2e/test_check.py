"""`mirrortool check` and `edge audit` as an operator uses them, with a real sshd and edge."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest

from mirrortools.store import Store
from tests.delivery import noise, sha256_blob
from tests.mirror import Mirror, served
from tests.servers.sshd import Sshd

REPO = "acme/tiny"
ATTRIBUTES = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"
FILES = {"model.safetensors": noise(3 << 20, 1), "README.md": b"# tiny\n"}
SERVED = {**FILES, ".gitattributes": ATTRIBUTES}


@pytest.fixture
def mirror(tmp_path: Path, sshd: Sshd) -> Mirror:
    """An origin with one repository, and one edge that has it."""
    source = tmp_path / "models" / REPO
    source.mkdir(parents=True)
    for name, content in FILES.items():
        (source / name).write_bytes(content)
    made = Mirror(tmp_path / "origin", f"dir://{tmp_path}/models")
    url = sshd.url(quote(str(tmp_path / "bj1")))
    keys = {"identity_file": str(sshd.identity_file), "known_hosts": str(sshd.known_hosts)}
    made.settings["edges"] = {"bj1": {"url": url, **keys}}
    made.job["edges"] = ["bj1"]
    made.add(REPO)
    made.sync()
    return made


@pytest.fixture
def lost(mirror: Mirror, tmp_path: Path, sshd: Sshd) -> Mirror:
    """The same with a second edge; the origin has lost the model, and the first edge's is damaged."""
    more = {"url": sshd.url(quote(str(tmp_path / "bj2")))}
    mirror.settings["edges"]["bj2"] = mirror.settings["edges"]["bj1"] | more
    mirror.job["edges"] = ["bj1", "bj2"]
    mirror.sync()
    model(mirror.root).unlink()
    rot(tmp_path / "bj1")
    return mirror


def model(root: Path) -> Path:
    """Where the model lies."""
    return Store(root).path(sha256_blob(FILES["model.safetensors"]))


def rot(root: Path) -> None:
    """Flip a byte of the model, with size and time as they were."""
    path = model(root)
    content = bytearray(path.read_bytes())
    content[2 << 20] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(0o444)


def test_what_is_in_order_is_said_to_be(mirror: Mirror) -> None:
    """Every blob here and on the edge was read; status 0."""
    here = mirror.run("check", "--all", "--json")
    edge = mirror.run("check", "--all", "--edge", "bj1", "--json")
    parts = [mirror.run("check", "--all", "--subset", f"{n}/2", "--json").json[0]["blobs"] for n in (1, 2)]
    text = mirror.run("check", "--all").stdout

    assert (here.status, edge.status) == (0, 0)
    assert [(d["edge"], d["findings"], d["error"]) for d in here.json + edge.json] == [
        (None, [], None),
        ("bj1", [], None),
    ]
    assert here.json[0]["size_bytes"] == edge.json[0]["size_bytes"] > 3 << 20
    assert sum(parts) == here.json[0]["blobs"]
    assert "acme/tiny: in order" in text


def test_rot_on_the_origin_is_found_and_repaired(mirror: Mirror) -> None:
    """Rsync and stat see nothing; check names the file, and with --repair it comes again from the source."""
    rot(mirror.root)
    unseen = mirror.sync()
    found = mirror.fails("check", "--all")
    repaired = mirror.run("check", "--all", "--repair", "--json")
    nothing = mirror.run("check", "--all", "--repair", "--json")

    assert not unseen["changed"]
    assert found.status == 20
    assert "model.safetensors: expected sha256" in found.stdout
    assert repaired.status == 0, repaired
    assert "model.safetensors: expected sha256" in repaired.json["found"][0]["findings"][0]
    assert [(each["repo"], each["fetched_bytes"]) for each in repaired.json["repaired"]] == [(REPO, 3 << 20)]
    assert mirror.served(REPO) == SERVED
    assert nothing.status == 0
    assert [each["findings"] for each in nothing.json["found"]] == [[]]
    assert nothing.json["repaired"] == []


def test_rot_on_an_edge_is_found_and_repaired(mirror: Mirror, tmp_path: Path) -> None:
    """A plain delivery sees nothing; the edge itself finds it, and gets the blob again."""
    rot(tmp_path / "bj1")
    unseen = mirror.run("deliver", "--all", "--json").json
    found = mirror.fails("check", "--all", "--edge", "bj1")
    repaired = mirror.run("check", "--all", "--edge", "bj1", "--repair", "--json")

    assert unseen[0]["deliveries"][0]["sent_bytes"] == 0
    assert found.status == 20
    assert "edge bj1: BAD" in found.stdout
    assert "model.safetensors: expected sha256" in found.stdout
    assert repaired.status == 0, repaired
    assert [each["edge"] for each in repaired.json["found"] if each["findings"]] == ["bj1"]
    assert [(each["edge"], each["blobs"]) for each in repaired.json["repaired"][0]["deliveries"]] == [("bj1", 1)]
    assert served(tmp_path / "bj1", REPO) == SERVED
    assert mirror.run("check", "--all", "--edge", "bj1").status == 0


def test_what_the_origin_has_lost_is_repaired_from_another_edge(lost: Mirror, tmp_path: Path) -> None:
    """It is hashed on arrival as always, and the answer says from where it came."""
    repaired = lost.run("check", "--all", "--edge", "bj1", "--repair")

    assert repaired.status == 0, repaired
    assert "edge bj1: what it had lost was brought again; 1 blob, " in repaired.stdout
    assert "3.0 MiB came from edge bj2" in repaired.stdout
    assert served(tmp_path / "bj1", REPO) == SERVED
    assert not model(lost.root).exists()


def test_what_no_edge_has_either_is_told(lost: Mirror, tmp_path: Path) -> None:
    """A copy that is damaged too is found so and not kept; each message names who was asked, and what to do."""
    rot(tmp_path / "bj2")
    wrong = lost.fails("check", "--all", "--edge", "bj1", "--repair")
    model(tmp_path / "bj2").unlink()
    gone = lost.fails("deliver", "--all", "--edge", "bj1")
    repaired = lost.run("sync", "--all")

    assert wrong.status == 20
    assert "came wrong from bj2, and this host has lost it; run `mirrortool sync --repo acme/tiny`" in wrong.stderr
    assert gone.status == 32
    assert "gone from the origin, with 0 more that edge bj1 lacks" in gone.stderr
    assert "nor had the edges that were asked for them (bj2); `mirrortool sync --repo acme/tiny`" in gone.stderr
    assert repaired.status == 0, repaired
    assert [served(tmp_path / name, REPO) for name in ("bj1", "bj2")] == [SERVED] * 2


def test_an_audit_finds_an_edge_without_the_bytes(mirror: Mirror, tmp_path: Path) -> None:
    """Random ranges are proved; an edge whose model is another one cannot."""
    fine = mirror.run("edge", "audit", "--all", "--json")
    path = model(tmp_path / "bj1")
    path.chmod(0o644)
    path.write_bytes(noise(3 << 20, 9))
    found = mirror.fails("edge", "audit", "--all")

    assert fine.status == 0
    assert fine.json[0]["size_bytes"] > 1 << 20
    assert found.status == 20
    assert "model.safetensors: holds other bytes from " in found.stdout


def test_an_edge_that_is_behind_is_told(mirror: Mirror, tmp_path: Path) -> None:
    """What it holds is in order, but it is not what this host serves."""
    (tmp_path / "models" / REPO / "README.md").write_bytes(b"# newer\n")
    mirror.sync("--no-deliver")
    (found,) = mirror.run("edge", "audit", "--all", "--samples", "1", "--json").json
    checked = mirror.fails("check", "--all", "--edge", "bj1")

    assert found["findings"]
    assert "README.md: is not there" in checked.stdout


def test_an_edge_that_is_down_is_told_apart(mirror: Mirror) -> None:
    """It was not examined, which is not the same as bad."""
    mirror.settings["edges"]["bj1"]["url"] = "ssh://mirror@127.0.0.1:1/srv/x"
    ended = mirror.fails("check", "--all", "--edge", "bj1")

    assert ended.status == 40
    assert "not examined: edge bj1: ssh could not reach" in ended.stdout


def test_edges_are_listed(mirror: Mirror) -> None:
    """Name, place, and how much each is to have."""
    assert mirror.run("edge", "list").stdout.startswith("bj1  ssh://")
    assert mirror.run("edge", "list", "--json").json[0]["repositories"] == 1


def test_a_changed_key_reaches_the_edges_by_the_next_delivery(mirror: Mirror, tmp_path: Path) -> None:
    """The former key introduces it; what was published stays so; an edge that missed it says what to do."""
    changed = mirror.run("edge", "change-key")
    (source,) = (tmp_path / "models" / REPO).glob("README.md")
    source.write_bytes(b"# newer\n")
    after = mirror.sync()
    mirror.run("edge", "change-key")
    mirror.run("edge", "change-key")
    source.write_bytes(b"# newest\n")
    missed = mirror.fails("sync", "--all")

    assert changed.status == 0
    assert "SHA256:" in changed.stdout
    assert after["deliveries"][0]["error"] is None
    assert served(tmp_path / "bj1", REPO)["README.md"] == b"# newer\n"
    assert missed.status == 41
    assert "remove this file on the edge and run again" in missed.stderr
