"""Private repositories: configured, synced and kept apart from what everybody may read."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from mirrortools.config import load
from mirrortools.errors import ConfigError, StoreError
from mirrortools.model import Publication, Realm
from mirrortools.run import Wish
from mirrortools.store import Store
from mirrortools.tree import Tree
from tests.delivery import noise, publication
from tests.mirror import Mirror

MAIN = """\
root: /srv/mirrortools
source: https://hub.example
backup_source: https://other.example
edges: {bj1: {url: "ssh://mirror@bj1.example/srv/m"}}
groups: {team-vision: [carol, bob]}
"""
REFUSES = ", exclude_repositories: ['acme/*']"


def read(folder: Path, job: str) -> Path:
    """Write a main file and one job."""
    (folder / "conf.d").mkdir()
    (folder / "mirrortool.yaml").write_text(MAIN)
    (folder / "conf.d" / "own.yaml").write_text(job)
    return folder / "mirrortool.yaml"


def test_readers_are_users_and_those_of_groups(tmp_path: Path) -> None:
    """A job's readers hold for the repositories that name none, and groups become their users."""
    job = (
        "private: true\nreaders: [team-vision]\nrepositories: [acme/a, {repo: acme/b, readers: [alice], gated: true}]\n"
    )
    a, b = load(read(tmp_path, job), {}).repositories()

    assert (a.realm, a.readers, a.gated) == (Realm.PRIVATE, ("bob", "carol"), False)
    assert (b.realm, b.readers, b.gated) == (Realm.PRIVATE, ("alice",), True)


def test_a_private_name_is_asked_of_no_source_but_its_own_and_sent_to_no_edge_unasked(tmp_path: Path) -> None:
    """Neither the main file's backup source nor all edges are meant when a job is private."""
    (repository,) = load(read(tmp_path, "private: true\nreaders: [alice]\nrepositories: [acme/a]\n"), {}).repositories()

    assert repository.backup_source is None
    assert repository.edges == ()


def test_who_may_help_is_who_is_to_have_the_repository(tmp_path: Path) -> None:
    """Neither edges for what is public, nor those that may not have it by their own rules, nor those of the run."""
    path = read(tmp_path, "private: true\nreaders: [a]\nedges: [new, b, c]\nrepositories: [acme/a]\n")
    form = "{{url: 'ssh://m@{0}/srv/m', private: true{1}}}"
    others = "".join(f"  {name}: {form.format(name, own)}\n" for name, own in (("new", ""), ("b", ""), ("c", REFUSES)))
    path.write_text(MAIN.replace("edges: {bj1:", f"edges:\n{others}  bj1: ").replace("}}\ngroups", "}\ngroups"))
    (repository,) = load(path, {}).repositories()

    assert Wish(edges=("new",)).siblings_of(repository) == ["b"]
    assert Wish(edges=("new", "b")).siblings_of(repository) == []
    assert Wish().siblings_of(repository) == []


@pytest.mark.parametrize(
    ("job", "said"),
    [
        ("private: true\nrepositories: [acme/a]\n", "nobody may read it"),
        ("readers: [alice]\nrepositories: [acme/a]\n", "private: true"),
        ("repositories: [{repo: acme/a, gated: true}]\n", "private: true"),
        ("private: true\nreaders: [alice]\nedges: [bj1]\nrepositories: [acme/a]\n", "edge"),
    ],
)
def test_what_contradicts_itself_is_refused(tmp_path: Path, job: str, said: str) -> None:
    """Nobody to read it, readers of what is public, an edge that is not for it."""
    with pytest.raises(ConfigError, match=said):
        load(read(tmp_path, job), {})


def private(root: Path, shown: Publication) -> Publication:
    """The same as a private one; its blobs have to be put into the private store."""
    for blob in shown.blobs:
        copy = root / "state" / "copy"
        copy.write_bytes(Store(root).path(blob).read_bytes())
        Store(root, Realm.PRIVATE).verify_and_adopt(copy, blob)
    return replace(shown, realm=Realm.PRIVATE)


def test_a_publication_belongs_to_its_realm(tmp_path: Path) -> None:
    """A private one is not shown by the public tree, reads back as private, and is signed as something else."""
    shown = publication(tmp_path, {"config.json": b"{}", "model.safetensors": noise(1000)})
    hidden = private(tmp_path, shown)

    with pytest.raises(StoreError, match="is private"):
        Tree(tmp_path).publish(hidden)
    assert Tree(tmp_path, Realm.PRIVATE).publish(hidden)
    assert Tree(tmp_path, Realm.PRIVATE).publication(shown.repo) == hidden
    assert list(Tree(tmp_path).repositories()) == []
    assert hidden.digests()["refs"] != shown.digests()["refs"]
    assert Publication.from_json(hidden.to_json(), lambda _: None) == hidden


@pytest.fixture
def mirror(tmp_path: Path) -> Mirror:
    """An origin of a folder with a public and a private model that have a file in common."""
    for name in ("open", "secret"):
        model = tmp_path / "source" / "acme" / name
        model.mkdir(parents=True)
        (model / "shared.bin").write_bytes(noise(3000))
        (model / f"{name}.bin").write_bytes(noise(3000, seed=len(name)))
    made = Mirror(tmp_path / "origin", f"dir://{tmp_path}/source")
    made.add("acme/open")
    made.add("acme/secret", private=True, readers=["alice"])
    return made


def test_a_sync_keeps_realms_apart(mirror: Mirror) -> None:
    """The private model lies below private/ with blobs of its own, and is told nowhere else."""
    assert mirror.run("sync", "--all").status == 0
    public, hidden = mirror.root / "public", mirror.root / "private"
    files = [Path(top, name) for top, _, names in os.walk(hidden / "blobs") for name in names]
    twins = [file for file in files if (public / file.relative_to(hidden)).exists()]
    again = mirror.run("sync", "--all", "--json").json

    assert (hidden / "models/acme/secret/refs/main/shared.bin").read_bytes() == noise(3000)
    assert stat.S_IMODE(hidden.stat().st_mode) == 0o750
    assert len(twins) == 2, "shared.bin and .gitattributes"
    assert {file.stat().st_nlink for file in files} == {1}
    assert [each["changed"] for each in again] == [False, False]
    assert not [path for path in public.rglob("*") if "secret" in path.name]
    assert "secret" not in "".join(path.read_text() for path in (public / ".mirror").rglob("*") if path.is_file())
    assert mirror.run("check", "--all").status == 0
    assert "acme/secret" in mirror.run("status").stdout


@pytest.mark.parametrize(("before", "settings"), [("open", {"private": True, "readers": ["alice"]}), ("secret", {})])
def test_a_repository_does_not_change_its_realm_by_itself(
    mirror: Mirror, before: str, settings: dict[str, object]
) -> None:
    """What was public is not made private, nor the other way round; the operator hears why, and what to do."""
    assert mirror.run("sync", "--all").status == 0
    mirror.job["repositories"] = [{"repo": f"acme/{before}", **settings}]
    ended = mirror.fails("sync", "--all")

    assert ended.status == StoreError.exit_status
    assert f"models/acme/{before}" in ended.stderr
    assert "remove" in ended.stderr
