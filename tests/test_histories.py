"""Histories as the Hub's API tells them: what git's log becomes, within bounds, once for each commit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mirrortools import histories
from mirrortools.histories import Histories
from mirrortools.model import Manifest, RepoId, Revision
from mirrortools.store import Store
from mirrortools.upstreams import GitMirror
from tests.servers.author import run_git


@pytest.fixture
def mirror(tmp_path: Path) -> GitMirror:
    """A repository with three commits."""
    folder = tmp_path / "work"
    run_git("init", "--quiet", "--initial-branch=main", str(folder))
    for message in ("One", "Two\n\nWith a body,\nof two lines.\n", "Drei: größer \x1b[1m"):
        run_git("-C", str(folder), "commit", "--quiet", "--allow-empty", "--message", message)
    return GitMirror(folder / ".git")


def manifest_of(mirror: GitMirror) -> Manifest:
    return Manifest(Revision(RepoId.parse("a/b"), mirror.commits(["main"])["main"]), {}, 0)


def told(root: Path, mirror: GitMirror) -> list[dict[str, object]]:
    store = Store(root)
    blob = Histories.of(store, root / "stage", mirror, []).history(manifest_of(mirror))
    return list(json.loads(store.path(blob).read_bytes()))


def test_what_is_told_of_a_commit(tmp_path: Path, mirror: GitMirror) -> None:
    """The newest first, each with its title, the rest of its message, its author and its time."""
    got = told(tmp_path, mirror)
    commit = manifest_of(mirror).revision.commit

    assert [entry["title"] for entry in got] == ["Drei: größer \x1b[1m", "Two", "One"]
    assert [entry["message"] for entry in got] == ["", "With a body,\nof two lines.", ""]
    assert got[0]["id"] == commit
    assert got[0]["authors"] == [{"user": "Test Author"}]
    assert str(got[0]["date"]).endswith(".000Z")
    assert not list((tmp_path / "stage").iterdir())


def test_a_long_history_ends_somewhere(tmp_path: Path, mirror: GitMirror, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the number of commits, by their length together, and a message of its own."""
    for name, value, expected in (("MOST_COMMITS", 2, 2), ("MOST_BYTES", 100, 1), ("_LONGEST_TEXT", 3, 3)):
        with monkeypatch.context() as patch:
            patch.setattr(histories, name, value)
            got = told(tmp_path, mirror)

            assert len(got) == expected
    assert [entry["title"] for entry in got] == ["Dre", "Two", "One"]


def test_it_is_made_once(tmp_path: Path, mirror: GitMirror) -> None:
    """A commit's history never changes: one that is published is not asked for again."""
    store, manifest = Store(tmp_path), manifest_of(mirror)
    blob = Histories.of(store, tmp_path / "stage", mirror, []).history(manifest)
    held = Manifest(manifest.revision, {}, 0, history=blob)
    elsewhere = GitMirror(tmp_path / "nothing")

    assert Histories.of(store, tmp_path / "stage", elsewhere, [held]).history(manifest) == blob


def test_it_travels_with_the_manifest(tmp_path: Path, mirror: GitMirror) -> None:
    """It is one of its blobs, and part of what is signed."""
    plain = manifest_of(mirror)
    blob = Histories.of(Store(tmp_path), tmp_path / "stage", mirror, []).history(plain)
    manifest = Manifest(plain.revision, {}, 0, history=blob)

    assert manifest.blobs == {blob}
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert manifest.digest() != plain.digest()
