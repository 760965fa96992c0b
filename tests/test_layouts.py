"""Where files go: the names, and the cache of the Hub's client as it expects it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mirrortools.errors import HostileTree
from mirrortools.layouts import Folder, HubCache, hub_cache
from mirrortools.model import Entry, Manifest, RepoId, Revision
from tests.delivery import git_blob, sha256_blob

LFS = Entry(sha256_blob(b"large"), "2" * 40, 130)
PLAIN = Entry(git_blob(b"{}"), git_blob(b"{}").digest)
FIRST, SECOND = "a" * 40, "b" * 40


def test_the_place_of_the_cache() -> None:
    """As constants.py of huggingface_hub has it, the most particular name first."""
    every = {"HF_HUB_CACHE": "/c", "HUGGINGFACE_HUB_CACHE": "/d", "HF_HOME": "/e", "XDG_CACHE_HOME": "/f"}
    places = ["/c", "/d", "/e/hub", "/f/huggingface/hub"]

    for name, place in zip(list(every), places, strict=True):
        assert hub_cache(every) == Path(place)
        del every[name]
    assert hub_cache({}) == Path("~/.cache/huggingface/hub").expanduser()


@pytest.mark.parametrize("path", [".mirrortool/x", ".mirrortool.json", ".mirrortool"])
def test_a_revision_cannot_write_into_our_own_records(tmp_path: Path, path: str) -> None:
    """In a plain folder those names are taken."""
    with pytest.raises(HostileTree, match="--exclude"):
        Folder(tmp_path).place(path, PLAIN)


def test_folders_of_a_cache() -> None:
    """Named by kind and name; one-segment names too."""
    cache = Path("/none")

    assert HubCache.of(cache, RepoId.parse("datasets/a/b"), "main").root == cache / "datasets--a--b"
    assert HubCache.of(cache, RepoId.parse("gpt2"), "main").root == cache / "models--gpt2"


def test_links_and_refs_of_a_cache(tmp_path: Path) -> None:
    """Relative links to blobs by the ETag, a file for a ref with its slash, none for a pinned commit."""
    repo = RepoId.parse("org/name")
    layout = HubCache.of(tmp_path, repo, "feature/x")
    manifest = Manifest(Revision(repo, FIRST), {"m.bin": LFS, "sub/deep/c.json": PLAIN}, 0)
    snapshot = layout.finish(manifest, "feature/x")
    layout.finish(Manifest(Revision(repo, SECOND), {"m.bin": LFS}, 0), SECOND)

    assert snapshot == tmp_path / "models--org--name" / "snapshots" / FIRST
    assert (snapshot / "m.bin").readlink() == Path(f"../../blobs/{LFS.blob.digest}")
    assert (snapshot / "sub/deep/c.json").readlink() == Path(f"../../../../blobs/{PLAIN.blob.digest}")
    assert layout.place("sub/deep/c.json", PLAIN) == f"blobs/{PLAIN.blob.digest}"
    assert (layout.root / "refs/feature/x").read_text() == FIRST
    assert [path.name for path in (layout.root / "refs").iterdir()] == ["feature"]


def test_a_link_in_the_place_of_whatever_was_there(tmp_path: Path) -> None:
    """A file that was copied there, and a link to other content; a second time nothing changes."""
    repo = RepoId.parse("org/name")
    layout = HubCache.of(tmp_path, repo, "main")
    snapshot = layout.root / "snapshots" / FIRST
    snapshot.mkdir(parents=True)
    (snapshot / "m.bin").write_bytes(b"copy")
    (snapshot / "c.json").symlink_to("nowhere")
    manifest = Manifest(Revision(repo, FIRST), {"m.bin": LFS, "c.json": PLAIN}, 0)
    for _ in range(2):
        layout.finish(manifest, "main")

    assert (snapshot / "m.bin").readlink() == Path(f"../../blobs/{LFS.blob.digest}")
    assert (snapshot / "c.json").readlink() == Path(f"../../blobs/{PLAIN.blob.digest}")


def test_what_a_cache_had_before(tmp_path: Path) -> None:
    """The commit that the ref names; where there is no ref, the one that came last."""
    repo = RepoId.parse("org/name")
    assert HubCache.of(tmp_path, repo, "main").older("m.bin") is None
    root = tmp_path / "models--org--name"
    for commit in (FIRST, SECOND):
        (root / "snapshots" / commit).mkdir(parents=True)
        (root / "snapshots" / commit / "m.bin").write_bytes(b"large")
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(FIRST)

    assert HubCache.of(tmp_path, repo, "main").older("m.bin") == root / "snapshots" / FIRST / "m.bin"
    assert HubCache.of(tmp_path, repo, "other").before in (FIRST, SECOND)
    assert HubCache.of(tmp_path, repo, "main").older("none") is None
