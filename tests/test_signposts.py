"""Signposts repeat what the tree says in one realpath, and never say what a ref named before."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mirrortools import signposts
from mirrortools.audit import Audit
from mirrortools.files import point_link
from mirrortools.model import Manifest, Publication, Realm, RepoId, Revision
from mirrortools.signposts import Signposts
from mirrortools.tree import Tree
from tests.test_tree import FIRST, REPO, SECOND, manifest, snapshot

FILES = {"config.json": b"{}", "twin.json": b"{}", "deep/er/x.bin": b"deep"}
OTHER = {**FILES, "config.json": b"[]"}


def told(root: Path, ref: str, path: str, repo: str = "models@org@name") -> tuple[str, str] | None:
    """The commit and the digest that one realpath names; None when there is no such signpost."""
    link = root / "signposts" / f"{repo}@{ref}" / path
    if not link.exists():
        return None
    mark = link.resolve()
    return mark.parent.name.rpartition("@")[2], mark.name


def links(root: Path) -> list[str]:
    """What the signposts of refs are called."""
    return sorted(path.name for path in (root / "signposts").glob("*") if path.is_symlink())


def publication(root: Path, refs: dict[str, str], manifests: dict[str, Manifest], repo: RepoId = REPO) -> Publication:
    return Publication(repo, refs, manifests, snapshot(root))


def both(root: Path) -> dict[str, Manifest]:
    return {FIRST: manifest(root, FILES), SECOND: manifest(root, OTHER, SECOND)}


def test_one_realpath_names_commit_and_blob(tmp_path: Path) -> None:
    """Of every file, by every ref and by the commit, whatever the ref is called."""
    manifests = both(tmp_path)
    refs = {"refs/heads/main": FIRST, "refs/heads/feature/x": FIRST, "refs/pr/1": FIRST}
    Tree(tmp_path).publish(publication(tmp_path, refs, manifests))
    expected = {path: (FIRST, entry.blob.digest) for path, entry in manifests[FIRST].files.items()}

    for name in ("main", "feature%2Fx", "refs%2Fpr%2F1", FIRST):
        assert {path: told(tmp_path, name, path) for path in FILES} == expected


def test_the_marks_of_a_revision_are_one_inode(tmp_path: Path) -> None:
    """It is empty, and what they are called is all that they say; later ones join it."""
    one, other = manifest(tmp_path, FILES), manifest(tmp_path, OTHER)
    for value in (one, other):
        Tree(tmp_path).publish(publication(tmp_path, {"refs/heads/main": FIRST}, {FIRST: value}))
    marks = list((tmp_path / "signposts" / f"@models@org@name@{FIRST}").iterdir())

    assert {mark.name for mark in marks} == {e.blob.digest for m in (one, other) for e in m.files.values()}
    assert len({mark.stat().st_ino for mark in marks}) == 1
    assert [mark.stat().st_size for mark in marks] == [0] * len(marks)


def test_names_of_one_segment_and_names_alike(tmp_path: Path) -> None:
    """No two repositories share a signpost."""
    for name in ("gpt2", "gpt2/x", "a-b/c", "a/b-c"):
        repo = RepoId("models", name)
        value = manifest(tmp_path, {"a": name.encode()}, repo=repo)
        Tree(tmp_path).publish(publication(tmp_path, {"refs/heads/main": FIRST}, {FIRST: value}, repo))
    names = ("models@gpt2@", "models@gpt2@x", "models@a-b@c", "models@a@b-c")

    assert len({told(tmp_path, "main", "a", name) for name in names}) == 4


def test_a_ref_takes_its_signpost_along(tmp_path: Path) -> None:
    """It moves with the ref and vanishes with it; the commit's stay, as nginx may have them in mind."""
    manifests, tree = both(tmp_path), Tree(tmp_path)
    tree.publish(publication(tmp_path, {"refs/heads/main": FIRST, "refs/tags/v1": FIRST}, manifests))
    tree.publish(publication(tmp_path, {"refs/heads/main": SECOND}, manifests))
    digests = {commit: manifests[commit].files["config.json"].blob.digest for commit in (FIRST, SECOND)}

    assert told(tmp_path, "main", "config.json") == (SECOND, digests[SECOND])
    assert told(tmp_path, FIRST, "config.json") == (FIRST, digests[FIRST])
    assert links(tmp_path) == ["models@org@name@main"]


def test_beside_a_ref_that_moves_the_tree_is_asked(tmp_path: Path) -> None:
    """A signpost leads to what the tree says from before the ref moves until it says the same; others stay."""
    Tree(tmp_path).publish(publication(tmp_path, {"refs/heads/main": FIRST, "refs/heads/x": FIRST}, both(tmp_path)))
    Signposts(tmp_path).step_aside(REPO, {"main": SECOND, "x": FIRST}, ["main", "x", "gone"])
    config = tmp_path / "signposts" / "models@org@name@main" / "config.json"

    assert told(tmp_path, "x", "config.json") is not None
    assert config.resolve() == (tmp_path / "public" / REPO.path / "refs" / "main" / "config.json").resolve()


@pytest.mark.parametrize("too_large", ["files", "ref", "repository"])
def test_what_is_too_large_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, too_large: str) -> None:
    """Neither a revision of very many files, nor what a name of a file could not hold; the tree serves it."""
    length = {"files": 1, "ref": 40, "repository": 96}[too_large]
    repo = RepoId("models", f"{'o' * length}/{'n' * length}")
    ref = f"refs/heads/{'r' * 215}" if too_large == "ref" else "refs/heads/main"
    monkeypatch.setattr(signposts, "MOST_FILES", 2 if too_large == "files" else 3)
    value = replace(manifest(tmp_path, FILES), revision=Revision(repo, FIRST))
    Tree(tmp_path).publish(publication(tmp_path, {ref: FIRST}, {FIRST: value}, repo))

    assert links(tmp_path) == []
    assert Tree(tmp_path).refs(repo) == {ref: FIRST}


def test_where_a_ref_has_no_signpost_any_more_the_tree_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as nginx may remember the file; it goes when the next revision has none either."""
    manifests, tree = both(tmp_path), Tree(tmp_path)
    tree.publish(publication(tmp_path, {"refs/heads/main": FIRST}, manifests))
    monkeypatch.setattr(signposts, "MOST_FILES", 0)
    third = {"c" * 40: replace(manifests[SECOND], revision=Revision(REPO, "c" * 40))}
    tree.publish(publication(tmp_path, {"refs/heads/main": "c" * 40}, third))
    config = tmp_path / "signposts" / "models@org@name@main" / "config.json"
    seen = config.resolve()
    fourth = {"d" * 40: replace(manifests[FIRST], revision=Revision(REPO, "d" * 40))}
    tree.publish(publication(tmp_path, {"refs/heads/main": "d" * 40}, fourth))

    assert seen == tmp_path / "public" / manifests[SECOND].files["config.json"].blob.path
    assert links(tmp_path) == []


def test_other_rules_for_a_commit_are_other_signposts(tmp_path: Path) -> None:
    """A file that is not served any more has none."""
    tree, main = Tree(tmp_path), {"refs/heads/main": FIRST}
    tree.publish(publication(tmp_path, main, {FIRST: manifest(tmp_path, FILES)}))
    tree.publish(publication(tmp_path, main, {FIRST: manifest(tmp_path, {"config.json": b"{}"})}))

    assert told(tmp_path, "main", "config.json") is not None
    assert told(tmp_path, "main", "twin.json") is None


def test_a_tree_of_before_gets_them_when_it_is_published_again(tmp_path: Path) -> None:
    """Also when nothing else is new; parts that a run left that was killed are in nobody's way."""
    tree, value = Tree(tmp_path), publication(tmp_path, {"refs/heads/main": FIRST}, both(tmp_path))
    tree.publish(value)
    (tmp_path / "signposts").rename(tmp_path / "gone")
    (tmp_path / "signposts" / f"@models@org@name@{FIRST}" / "half").mkdir(parents=True)

    assert tree.publish(value) is False
    assert told(tmp_path, "main", "deep/er/x.bin") is not None


def test_one_that_leads_elsewhere_is_found_and_mended(tmp_path: Path) -> None:
    """As a link of the tree is; one that is lost is none that is wrong."""
    value = publication(tmp_path, {"refs/heads/main": FIRST}, both(tmp_path))
    Tree(tmp_path).publish(value)
    folder = tmp_path / "signposts" / f"models@org@name@{FIRST}"
    (folder / "twin.json").unlink()
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to((folder / "deep/er/x.bin").readlink())
    audit, first = Audit(tmp_path), value.manifests[FIRST]
    wrong = audit.wrong_links(first)
    audit.forget(first)
    Tree(tmp_path).publish(value)

    assert wrong == ["config.json"]
    assert audit.wrong_links(first) == []
    assert told(tmp_path, "main", "config.json") == told(tmp_path, "main", "twin.json")


def test_a_folder_that_cannot_be_made_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The root may be somebody else's, where only what is below it is ours."""

    def refuse(folder: Path) -> None:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(signposts, "make_folder", refuse)
    Tree(tmp_path).publish(publication(tmp_path, {"refs/heads/main": FIRST}, both(tmp_path)))

    assert Tree(tmp_path).refs(REPO) == {"refs/heads/main": FIRST}
    assert links(tmp_path) == []


def test_after_another_program_moved_refs_serving_goes_by_the_tree(tmp_path: Path) -> None:
    """Who begins to serve takes away signposts that do not name the commit of their ref; right ones stay."""
    gpt2 = RepoId("models", "gpt2")
    for repo in (REPO, gpt2):
        manifests = {one: replace(value, revision=Revision(repo, one)) for one, value in both(tmp_path).items()}
        refs = {"refs/heads/main": FIRST, "refs/heads/a@b/c": FIRST, "refs/heads/gone": FIRST}
        Tree(tmp_path).publish(publication(tmp_path, refs, manifests, repo))
    refs_folder = tmp_path / "public" / gpt2.path / "refs"
    point_link(refs_folder / "main", f"../commits/{SECOND}")
    (refs_folder / "gone").unlink()
    (tmp_path / "signposts" / ".models@gpt2@@main.1.new").symlink_to("left by a run that was killed")
    Signposts(tmp_path).take_down_stale()

    assert links(tmp_path)[1:] == [
        "models@gpt2@@a%40b%2Fc",
        "models@org@name@a%40b%2Fc",
        "models@org@name@gone",
        "models@org@name@main",
    ]


def test_of_what_is_private_there_are_none(tmp_path: Path) -> None:
    """Nothing outside private/ knows its names."""
    git = snapshot(tmp_path)
    (tmp_path / "public").rename(tmp_path / "private")
    value = Publication(REPO, {"refs/heads/main": FIRST}, {FIRST: Manifest(Revision(REPO, FIRST), {}, 0)}, git)
    tree = Tree(tmp_path, Realm.PRIVATE)
    tree.publish(replace(value, realm=Realm.PRIVATE))

    assert tree.refs(REPO) == {"refs/heads/main": FIRST}
    assert not (tmp_path / "signposts").exists()
