"""What a git that was killed leaves: what is in the way goes, what belongs to the repository stays."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mirrortools.errors import SourceUnavailable
from mirrortools.upstreams.git import GitMirror, Remote
from mirrortools.upstreams.leftovers import left_of_packs, leftovers
from tests.servers.author import run_git
from tests.servers.dumb import DumbHost

ONE, TWO = f"pack-{'1' * 40}", f"pack-{'2' * 64}"
LEFT = (
    "config.lock",
    "shallow.lock",
    "packed-refs.lock",
    "packed-refs.new",
    ".mirrortools-index.json.17.new",
    "refs/heads/main.lock",
    "refs/tags/deep/er.lock",
    "objects/tmp_obj_x1Y2z3",
    "objects/ab/tmp_obj_x1Y2z3",
    f"objects/ab/{'c' * 38}.temp",
    f"objects/ab/{'c' * 38}.temp.prev",
    "objects/pack/tmp_pack_x1Y2z3",
    "objects/pack/tmp_idx_x1Y2z3",
    "objects/pack/tmp_rev_x1Y2z3",
    f"objects/pack/{ONE}.pack.temp",
    f"objects/pack/{ONE}.idx.temp.temp",
    f"objects/pack/{ONE}.idx",
    f"objects/pack/{TWO}.keep",
)


def repository(folder: Path) -> GitMirror:
    """A bare repository with a loose object, a pack, and a packed ref."""
    work = folder / "work"
    run_git("init", "--quiet", "--initial-branch=main", str(work))
    for name in ("packed", "loose"):
        (work / name).write_text(name)
        run_git("-C", str(work), "add", "--all")
        run_git("-C", str(work), "commit", "--quiet", "--message", name)
        if name == "packed":
            run_git("-C", str(work), "repack", "-a", "-d", "--quiet", "--write-bitmap-index")
            run_git("-C", str(work), "multi-pack-index", "write")
            run_git("-C", str(work), "pack-refs", "--all")
    return GitMirror(work / ".git")


def test_only_what_was_left_goes(tmp_path: Path) -> None:
    """Not an object, a pack or a ref; and twice does no harm."""
    mirror = repository(tmp_path)
    before = {path for path in mirror.folder.rglob("*") if path.is_file()}
    assert list(leftovers(mirror.folder)) == []
    for name in LEFT:
        (mirror.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (mirror.folder / name).write_bytes(b"left")
    found = {str(path.relative_to(mirror.folder)) for path in leftovers(mirror.folder)}
    for _ in range(2):
        mirror.clear_up()

    assert found == set(LEFT)
    assert {path for path in mirror.folder.rglob("*") if path.is_file()} == before
    run_git("--git-dir", str(mirror.folder), "fsck", "--full", "--strict")


@pytest.mark.parametrize("missing", ["pack", "idx"])
def test_a_pack_without_its_index_or_an_index_without_its_pack_is_no_pack(missing: str) -> None:
    """All of it goes; the other pack stays with everything that belongs to it."""
    kinds = ("pack", "idx", "rev", "bitmap")
    whole = [f"{TWO}.{kind}" for kind in kinds]
    half = [f"{ONE}.{kind}" for kind in kinds if kind != missing]

    assert left_of_packs([*half, *whole, "multi-pack-index"]) == sorted(half)


def test_a_repository_that_was_never_made_whole_goes(tmp_path: Path) -> None:
    """What lies beside is half made, by a run that was killed; others' folders are left alone."""
    for name in (".new/tiny.git.a1b2c3/refs", ".new/tiny2.git.a1b2c3/refs", "other.git"):
        (tmp_path / name).mkdir(parents=True)
    GitMirror(tmp_path / "tiny.git").clear_up()

    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("*/*")) == [".new/tiny2.git.a1b2c3"]
    assert (tmp_path / "other.git").is_dir()


@pytest.mark.parametrize("damage", ["whole", "garbage"])
def test_a_pack_that_came_whole_before_git_was_killed_is_not_in_the_way(tmp_path: Path, damage: str) -> None:
    """Over dumb HTTP git resumes it behind its end, which the server refuses for ever."""
    work = repository(tmp_path).folder.parent
    mirror = GitMirror(tmp_path / "mirror.git")
    mirror.create()
    with DumbHost(tmp_path / "host") as host:
        bare, remote = host.show("tiny", work), Remote(f"{host.url}/tiny", {})
        refs = mirror.remote_refs(remote).oids
        [pack] = (bare / "objects" / "pack").glob("*.pack")
        left = mirror.folder / "objects" / "pack" / f"{pack.name}.temp"
        shutil.copy(pack, left)
        if damage == "garbage":
            left.write_bytes(b"\0" * left.stat().st_size)
        with pytest.raises(SourceUnavailable, match="Unable to get pack file"):
            mirror.fetch(remote, refs, [])
        mirror.clear_up()
        mirror.fetch(remote, refs, [])

    assert mirror.refs() == refs


def test_an_index_that_a_power_cut_emptied_is_not_in_the_way(tmp_path: Path) -> None:
    """Over dumb HTTP indexes come before their packs and are not fsynced."""
    work = repository(tmp_path).folder.parent
    mirror = GitMirror(tmp_path / "mirror.git")
    mirror.create()
    with DumbHost(tmp_path / "host") as host:
        bare, remote = host.show("tiny", work), Remote(f"{host.url}/tiny", {})
        [pack] = (bare / "objects" / "pack").glob("*.pack")
        (mirror.folder / "objects" / "pack" / pack.with_suffix(".idx").name).write_bytes(b"")
        refs = mirror.remote_refs(remote).oids
        mirror.clear_up()
        mirror.fetch(remote, refs, [])

    assert mirror.refs() == refs
