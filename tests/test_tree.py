"""The served tree: what is published is complete, exact, and visible only when everything before it is."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirrortools import bare, changes, commits, records, signposts
from mirrortools import tree as tree_module
from mirrortools.errors import HostileTree, StoreError
from mirrortools.model import (
    Blob,
    Entry,
    GitSnapshot,
    Manifest,
    Publication,
    RepoId,
    Revision,
    check_no_file_is_a_folder,
    check_path,
)
from mirrortools.signposts import Signposts
from mirrortools.store import Store
from mirrortools.tree import Tree

PROJECT = Path(__file__).parent.parent

REPO = RepoId("models", "org/name")
FIRST, SECOND = "a" * 40, "b" * 40
PACK = f"pack-{'1' * 40}"


def put(root: Path, content: bytes, algorithm: str = "sha256") -> Blob:
    """Put `content` into the store of `root`."""
    header = b"" if algorithm == "sha256" else b"blob %d\0" % len(content)
    blob = Blob(algorithm, hashlib.new("sha1" if header else "sha256", header + content).hexdigest(), len(content))
    incoming = root / "incoming"
    incoming.write_bytes(content)
    Store(root).verify_and_adopt(incoming, blob)
    return blob


def entry(root: Path, content: bytes, *, lfs: bool = True) -> Entry:
    blob = put(root, content, "sha256" if lfs else "git")
    return Entry(blob, hashlib.sha1(content).hexdigest() if lfs else blob.digest, 130 if lfs else None)


def manifest(root: Path, files: Mapping[str, bytes], commit: str = FIRST, repo: RepoId = REPO) -> Manifest:
    entries = {path: entry(root, content, lfs=path.endswith(".bin")) for path, content in files.items()}
    return Manifest(Revision(repo, commit), entries, 1_700_000_000, "title")


def snapshot(root: Path, content: bytes = b"pack", name: str = PACK, commit: str = FIRST) -> GitSnapshot:
    packs = {f"{name}.pack": put(root, content), f"{name}.idx": put(root, content + b"index")}
    refs = {"refs/heads/main": commit, "refs/tags/v1": "c" * 40}
    return GitSnapshot(packs, refs, "refs/heads/main", {"refs/tags/v1": commit})


def publication(root: Path, files: Mapping[str, bytes], commit: str = FIRST) -> Publication:
    refs = {"refs/heads/main": commit}
    return Publication(REPO, refs, {commit: manifest(root, files, commit)}, snapshot(root, commit=commit))


def visible(root: Path) -> dict[str, str]:
    """Every name below public/ that is no blob, with its content or its symlink's target."""
    found = {}
    for path in sorted((root / "public").rglob("*")):
        name = path.relative_to(root / "public").as_posix()
        if path.is_symlink():
            found[name] = str(path.readlink())
        elif path.is_file() and not name.startswith("blobs/"):
            found[name] = path.read_text()
    return found


def answer(root: Path, name: str, commit: str = FIRST) -> object:
    return json.loads((root / "public" / REPO.path / "meta" / commit / name).read_text())


def test_files_are_relative_symlinks_to_blobs(tmp_path: Path) -> None:
    """A published file is a relative symlink that leads to the blob, at any depth."""
    Tree(tmp_path).publish(publication(tmp_path, {"top.bin": b"1", "a/b c/#%41 模型.txt": b"2"}))
    commit = tmp_path / "public/models/org/name/commits" / FIRST

    assert (commit / "top.bin").read_bytes() == b"1"
    assert (commit / "a/b c/#%41 模型.txt").read_bytes() == b"2"
    assert str((commit / "top.bin").readlink()).startswith("../../../../../blobs/sha256/")
    assert str((commit / "a/b c/#%41 模型.txt").readlink()).startswith("../../../../../../../blobs/git/")


def test_a_link_that_is_the_same_in_the_revision_before_is_one_inode(tmp_path: Path) -> None:
    """A file that changed, came, moved, or whose link somebody bent, has a link of its own, and leads to its blob."""
    tree, old = Tree(tmp_path), {"same.bin": b"1", "deep/same": b"2", "changed": b"3", "bent": b"4", "from": b"5"}
    new = {**old, "changed": b"33", "new": b"6", "to": b"5"}
    tree.publish(publication(tmp_path, old))
    commits = tmp_path / "public" / REPO.path / "commits"
    (commits / FIRST / "bent").unlink()
    (commits / FIRST / "bent").symlink_to("changed")
    tree.publish(publication(tmp_path, new, SECOND))
    shared = {
        path for path in old if (commits / FIRST / path).lstat().st_ino == (commits / SECOND / path).lstat().st_ino
    }

    assert shared == {"same.bin", "deep/same", "from"}
    assert {path: (commits / SECOND / path).read_bytes() for path in new} == new
    assert tree.wrong_links(manifest(tmp_path, new, SECOND)) == []


def test_one_segment_repository(tmp_path: Path) -> None:
    """`gpt2` lies at models/gpt2, and is found again."""
    repo = RepoId("models", "gpt2")
    tree = Tree(tmp_path)
    tree.publish_revision(manifest(tmp_path, {"x.bin": b"x"}, repo=repo))
    tree.publish_refs(repo, {"refs/heads/main": FIRST})

    assert (tmp_path / "public/models/gpt2/refs/main/x.bin").read_bytes() == b"x"
    assert list(tree.repositories()) == [repo]


def test_a_second_publish_changes_nothing(tmp_path: Path) -> None:
    """Publishing the same again returns False and leaves every name and content as it was."""
    tree = Tree(tmp_path)
    value = publication(tmp_path, {"a.bin": b"1", "d/e": b""})

    assert tree.publish(value) is True
    before = visible(tmp_path)
    assert tree.publish(value) is False
    assert visible(tmp_path) == before
    assert not list((tmp_path / "state/stage").iterdir())


def test_publication_reads_back(tmp_path: Path) -> None:
    """What was published can be rebuilt from the tree alone; an unknown repository is None."""
    tree = Tree(tmp_path)
    value = publication(tmp_path, {"a.bin": b"1", "d/e": b""})
    tree.publish(value)

    assert tree.publication(REPO) == value
    assert tree.publication(RepoId("models", "org/other")) is None
    assert tree.refs(RepoId("models", "org/other")) == {}
    assert tree.manifest(Revision(REPO, SECOND)) is None


@pytest.mark.parametrize("kind", ["sha256", "git", "pack"])
def test_a_missing_blob_refuses(tmp_path: Path, kind: str) -> None:
    """With one blob gone or cut short nothing new becomes visible through a ref, a clone or a path."""
    tree = Tree(tmp_path)
    tree.publish(publication(tmp_path, {"a.bin": b"old"}))
    wanted = publication(tmp_path, {"a.bin": b"new", "b": b"plain"}, SECOND)
    wanted = replace(wanted, git=snapshot(tmp_path, b"other", f"pack-{'2' * 40}", SECOND))
    victim = wanted.git.packs[f"pack-{'2' * 40}.idx"] if kind == "pack" else None
    victim = victim or next(blob for blob in wanted.manifests[SECOND].blobs if blob.algorithm == kind)
    before = visible(tmp_path)
    Store(tmp_path).path(victim).unlink()

    with pytest.raises(StoreError, match="not in the store"):
        tree.publish(wanted)
    after = visible(tmp_path)
    assert {name: after[name] for name in before} == before
    assert all(f"/{SECOND}/" in name for name in after.keys() - before.keys())
    assert kind == "pack" or after == before


def test_a_blob_of_another_size_refuses(tmp_path: Path) -> None:
    """A blob that was cut short is not published."""
    value = manifest(tmp_path, {"a.bin": b"12345"})
    blob = value.files["a.bin"].blob
    Store(tmp_path).path(blob).chmod(0o644)
    Store(tmp_path).path(blob).write_bytes(b"123")

    with pytest.raises(StoreError, match="has 3 bytes, expected 5"):
        Tree(tmp_path).publish_revision(value)


def test_a_ref_needs_its_revision(tmp_path: Path) -> None:
    """A ref to a commit that is not in the tree is refused, and the others stay as they were."""
    tree = Tree(tmp_path)
    tree.publish(publication(tmp_path, {"a": b"1"}))

    with pytest.raises(StoreError, match="not in the tree"):
        tree.publish_refs(REPO, {"refs/heads/main": SECOND})
    assert tree.refs(REPO) == {"refs/heads/main": FIRST}


def test_refs_move_and_vanish_while_commits_stay(tmp_path: Path) -> None:
    """Refs that are not named vanish; a moved ref shows the new files; the old commit stays servable."""
    tree = Tree(tmp_path)
    tree.publish(publication(tmp_path, {"a": b"1"}))
    tree.publish_refs(REPO, {"refs/heads/main": FIRST, "refs/heads/feature/x": FIRST})
    tree.publish(publication(tmp_path, {"a": b"2"}, SECOND))
    folder = tmp_path / "public" / REPO.path

    assert {link.name for link in (folder / "refs").iterdir()} == {"main"}
    assert (folder / "refs/main/a").read_bytes() == b"2"
    assert (folder / "commits" / FIRST / "a").read_bytes() == b"1"
    assert tree.commits(REPO) == [FIRST, SECOND]


def test_ref_names(tmp_path: Path) -> None:
    """Links carry the quoted short name; a branch wins over a tag; refs/pr/1 keeps its full name."""
    tree = Tree(tmp_path)
    for commit in (FIRST, SECOND):
        tree.publish_revision(manifest(tmp_path, {"a": b"1"}, commit))
    refs = {
        "refs/heads/feature/x": FIRST,
        "refs/heads/both": FIRST,
        "refs/tags/both": SECOND,
        "refs/pr/1": SECOND,
        "refs/convert/parquet": FIRST,
        "refs/odd/one": FIRST,
    }
    tree.publish_refs(REPO, refs)
    folder = tmp_path / "public" / REPO.path
    links = {link.name: link.readlink().name for link in (folder / "refs").iterdir()}
    shown = json.loads((folder / "meta/refs.json").read_text())

    assert links == {
        "feature%2Fx": FIRST,
        "both": FIRST,
        "refs%2Fpr%2F1": SECOND,
        "refs%2Fconvert%2Fparquet": FIRST,
        "refs%2Fodd%2Fone": FIRST,
    }
    assert tree.refs(REPO) == refs
    assert shown["tags"] == [{"name": "both", "ref": "refs/tags/both", "targetCommit": SECOND}]
    assert [ref["name"] for ref in shown["branches"]] == ["both", "feature/x"]
    assert shown["converts"] == [{"name": "parquet", "ref": "refs/convert/parquet", "targetCommit": FIRST}]
    assert shown["pullRequests"] == [{"name": "1", "ref": "refs/pr/1", "targetCommit": SECOND}]


def test_another_filter_swaps_the_same_commit(tmp_path: Path) -> None:
    """When the include rules changed, the commit shows exactly the new files."""
    tree = Tree(tmp_path)
    tree.publish(publication(tmp_path, {"a": b"1", "b": b"2"}))
    tree.publish(publication(tmp_path, {"b": b"2", "c/d": b"3"}))
    commit = tmp_path / "public" / REPO.path / "commits" / FIRST

    assert sorted(path.relative_to(commit).as_posix() for path in commit.rglob("*")) == ["b", "c", "c/d"]
    assert [sibling["rfilename"] for sibling in answer(tmp_path, "info.json")["siblings"]] == ["b", "c/d"]


def test_a_bare_repository_for_dumb_http(tmp_path: Path) -> None:
    """info/refs has tabs and peeled lines, packs are symlinks, HEAD names the branch."""
    tree = Tree(tmp_path)
    tree.publish_git(REPO, snapshot(tmp_path))
    bare = tmp_path / "public/models/org/name.git"

    assert (bare / "info/refs").read_text() == (
        f"{FIRST}\trefs/heads/main\n{'c' * 40}\trefs/tags/v1\n{FIRST}\trefs/tags/v1^{{}}\n"
    )
    assert (bare / "packed-refs").read_text().splitlines()[1:] == [
        f"{FIRST} refs/heads/main",
        f"{'c' * 40} refs/tags/v1",
        f"^{FIRST}",
    ]
    assert (bare / "HEAD").read_text() == "ref: refs/heads/main\n"
    assert (bare / "objects/info/packs").read_text() == f"P {PACK}.pack\n\n"
    assert (bare / f"objects/pack/{PACK}.pack").read_bytes() == b"pack"
    assert tree.git(REPO) == snapshot(tmp_path)


def test_packs_stay_for_one_more_generation(tmp_path: Path) -> None:
    """A clone that began before keeps its packs; those of the snapshot before that are gone."""
    tree = Tree(tmp_path)
    names = [f"pack-{digit * 40}" for digit in "123"]
    for name in names:
        tree.publish_git(REPO, snapshot(tmp_path, name.encode(), name))
    packs = {path.stem for path in (tmp_path / "public/models/org/name.git/objects/pack").iterdir()}

    assert packs == set(names[1:])


def test_a_head_that_is_no_ref_refuses(tmp_path: Path) -> None:
    """A default branch with a line break in it cannot write a second line into HEAD."""
    with pytest.raises(HostileTree):
        Tree(tmp_path).publish_git(REPO, replace(snapshot(tmp_path), head="refs/heads/a\nb"))


@pytest.mark.parametrize("name", ["org/refs", "org/tree", "api/x", "datasets/x", "foo.git/objects"])
def test_names_of_the_layout_are_refused(tmp_path: Path, name: str) -> None:
    """A repository whose URL or folder means something else is refused before anything is written."""
    with pytest.raises(StoreError, match="something else"):
        Tree(tmp_path).publish_refs(RepoId("models", name), {})


def test_damage_is_named(tmp_path: Path) -> None:
    """A manifest that cannot be read is a StoreError with its path, and a publish mends it."""
    tree = Tree(tmp_path)
    value = publication(tmp_path, {"a": b"1"})
    tree.publish(value)
    record = tmp_path / "public" / REPO.path / "meta" / FIRST / "manifest.json"
    record.write_text("{")

    with pytest.raises(StoreError, match=r"manifest\.json: damaged"):
        tree.manifest(Revision(REPO, FIRST))
    assert tree.publish(value) is True
    assert tree.publication(REPO) == value


def test_tree_answers(tmp_path: Path) -> None:
    """Listings name files and folders, LFS or not, for the root and each folder, flat and recursive."""
    Tree(tmp_path).publish(publication(tmp_path, {"a/b/c.bin": b"123", "a/d": b"", "e": b"5"}))
    flat, recursive = answer(tmp_path, "flat/.git"), answer(tmp_path, "recursive/.git")

    assert [(e["type"], e["path"]) for e in flat] == [("directory", "a"), ("file", "e")]
    assert [e["path"] for e in recursive] == ["a", "a/b", "a/b/c.bin", "a/d", "e"]
    assert [e["path"] for e in answer(tmp_path, "flat/a/.git")] == ["a/b", "a/d"]
    assert [e["path"] for e in answer(tmp_path, "recursive/a/.git")] == ["a/b", "a/b/c.bin", "a/d"]
    assert recursive[2]["lfs"] == {"oid": hashlib.sha256(b"123").hexdigest(), "size": 3, "pointerSize": 130}
    assert "lfs" not in recursive[3]


def test_a_folder_has_the_id_that_git_gives_it(tmp_path: Path) -> None:
    """For plain files the oid of a folder is git's own tree id (git mktree sorts a folder as `name/`)."""
    Tree(tmp_path).publish(publication(tmp_path, {"t/a/x": b"1\n", "t/a.txt": b"2\n"}))
    by_path = {e["path"]: e["oid"] for e in answer(tmp_path, "recursive/.git")}

    assert by_path["t/a"] == "1808145eca0a3bc7bbbd9ec1645e022e830c05eb"
    assert by_path["t"] == "6c416597d8a2dd7b0e6e0c285c1dcf43942368bd"


def test_info_answers(tmp_path: Path) -> None:
    """Info has the Hub's fields; the variant with blobs has sizes and digests; none has an xetHash."""
    Tree(tmp_path).publish(publication(tmp_path, {"a.bin": b"123", "e": b""}))
    plain, full = answer(tmp_path, "info.json"), answer(tmp_path, "info-blobs.json")
    everything = "".join(visible(tmp_path).values())

    assert (plain["id"], plain["modelId"], plain["author"], plain["sha"]) == (
        "org/name",
        "org/name",
        "org",
        FIRST,
    )
    assert plain["lastModified"] == "2023-11-14T22:13:20.000Z"
    assert plain["siblings"] == [{"rfilename": "a.bin"}, {"rfilename": "e"}]
    assert full["siblings"][0]["lfs"]["sha256"] == hashlib.sha256(b"123").hexdigest()
    assert full["siblings"][1]["size"] == 0
    assert "xet" not in everything


def test_an_empty_revision(tmp_path: Path) -> None:
    """A revision without files (everything was filtered away) is published and lists nothing."""
    Tree(tmp_path).publish(publication(tmp_path, {}))

    assert answer(tmp_path, "flat/.git") == []
    assert answer(tmp_path, "recursive/.git") == []


class Killed(BaseException):
    """Stands for SIGKILL: no handler of the code under test may catch it."""


WRITES: Mapping[Any, tuple[str, ...]] = {
    tree_module: ("point_link", "write_file", "unlink_all"),
    bare: ("point_link", "write_file", "unlink_all"),
    changes: ("point_link",),
    commits: ("move_folder",),
    records: ("write_file",),
    Signposts: ("put_up", "step_aside", "follow"),
    signposts: ("make_folder", "sync_folder", "_write_marks", "_write_links"),
}


def test_killed_between_any_two_writes(tmp_path: Path) -> None:
    """Whatever write is the last, main is all old or all new, nothing dangles, and a re-run converges.

    A signpost of main never names another commit than main does.
    """
    survived = [publish_and_die(tmp_path / str(fatal), fatal) for fatal in range(30)]

    assert 20 < survived.index(True) < 30
    assert all(survived[survived.index(True) :])


def publish_and_die(root: Path, fatal: int) -> bool:
    """Publish a change whose write with number `fatal` never happens, check; return whether it ended."""
    root.mkdir()
    tree = Tree(root)
    tree.publish(publication(root, {"a": b"old", "b": b"old too"}))
    wanted = publication(root, {"a": b"new", "c/d.bin": b"new too"}, SECOND)
    wanted = replace(wanted, git=snapshot(root, b"other", f"pack-{'2' * 40}", SECOND))
    survived = publish_until(tree, wanted, fatal)
    main = root / "public" / REPO.path / "refs" / "main"
    seen = {p.relative_to(main).as_posix(): p.read_bytes() for p in main.rglob("*") if p.is_file()}

    assert seen in ({"a": b"old", "b": b"old too"}, {"a": b"new", "c/d.bin": b"new too"})
    assert tree.refs(REPO)["refs/heads/main"] in (FIRST, SECOND)
    assert not [p for p in (root / "public").rglob("*") if p.is_symlink() and not p.exists()]
    assert signpost_of_main(root) in (main.resolve().name, root / "public")
    tree.publish(wanted)
    assert signpost_of_main(root) == SECOND
    assert (tree.refs(REPO), tree.git(REPO)) == (wanted.refs, wanted.git)
    assert tree.publish(wanted) is False
    return survived


def signpost_of_main(root: Path) -> str | Path:
    """The commit that nginx learns from the signposts of main, or the tree, when it asks there."""
    path = root / "signposts" / "models@org@name@main" / "a"
    is_marked = path.exists() and not path.resolve().is_relative_to(root / "public")
    return path.resolve().parent.name.rpartition("@")[2] if is_marked else root / "public"


def publish_until(tree: Tree, wanted: Publication, fatal: int) -> bool:
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, fatal)
        try:
            tree.publish(wanted)
        except Killed:
            return False
    return True


def kill_at(patch: pytest.MonkeyPatch, fatal: int) -> None:
    """Let the writes that publication is made of raise Killed from the one with number `fatal` on."""
    count = iter(range(1000))
    for owner, name in [(owner, name) for owner, names in WRITES.items() for name in names]:
        original = getattr(owner, name)

        def write(*arguments: object, original=original) -> object:  # type: ignore[no-untyped-def]
            if next(count) >= fatal:
                raise Killed
            return original(*arguments)

        patch.setattr(owner, name, write)


def is_legal(path: str) -> bool:
    try:
        check_path(path)
    except HostileTree:
        return False
    return True


SEGMENTS = st.text(st.sampled_from("aB .#%?+&;'\"$`~*[]{}()<>|!=@,:模é4"), min_size=1, max_size=6)
PATHS = st.lists(SEGMENTS, min_size=1, max_size=4).map("/".join).filter(is_legal)


def no_file_is_a_folder(files: Mapping[str, bytes]) -> bool:
    try:
        check_no_file_is_a_folder(files)
    except HostileTree:
        return False
    return True


@settings(max_examples=60, deadline=None)
@given(files=st.dictionaries(PATHS, st.binary(max_size=3), max_size=8).filter(no_file_is_a_folder))
def test_any_legal_paths_round_trip(files: dict[str, bytes]) -> None:
    """Whatever the names, every file reads back through its ref, and the manifest is the one that went in."""
    with TemporaryDirectory(dir="/dev/shm") as folder:  # in memory: what is durable takes long
        root = Path(folder)
        value = publication(root, files)
        Tree(root).publish(value)
        main = root / "public" / REPO.path / "refs" / "main"

        assert {path: (main / path).read_bytes() for path in files} == files
        assert Tree(root).publication(REPO) == value
        assert sum(1 for path in main.rglob("*") if path.is_file()) == len(files)


def changes(root: Path) -> list[str]:
    """What was noted of changes, without the times."""
    return [
        line.split()[1]
        for day in sorted((root / "public/.mirror/changes").iterdir())
        for line in day.read_text().splitlines()
    ]


def test_changes_are_noted_once_and_in_front_of_the_refs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill between the note and the refs costs a second note, and none is ever lost."""
    tree, value = Tree(tmp_path), publication(tmp_path, {"a": b"1"})
    with monkeypatch.context() as killed:
        killed.setattr(Tree, "publish_refs", lambda *_: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            tree.publish(value)
    tree.publish(value)
    tree.publish(value)
    of_commit, of_repo = f"models/org/name/meta/{FIRST}/rsync.list", "models/org/name/meta/rsync.list"

    assert changes(tmp_path) == [of_commit, of_repo, of_repo]
    for name in (of_commit, of_repo):
        for line in (tmp_path / "public" / name).read_text().splitlines():
            assert (tmp_path / "public" / line).exists(), line


@pytest.mark.parametrize(
    ("refs", "head", "latest"),
    [
        (["refs/heads/dev", "refs/heads/main"], "refs/heads/dev", "main"),
        (["refs/heads/a/b", "refs/heads/z"], "refs/heads/a/b", "a%2Fb"),
        (["refs/tags/v2", "refs/tags/v1"], "refs/heads/main", "v1"),
        ([], "refs/heads/main", None),
    ],
)
def test_the_latest_files_are_those_of_the_default_ref(
    tmp_path: Path, refs: list[str], head: str, latest: str | None
) -> None:
    """By the repository's name alone: main, else what a clone checks out, else the first; none for commits alone."""
    value = publication(tmp_path, {"a": b"1"})
    Tree(tmp_path).publish(value)
    Tree(tmp_path).publish(replace(value, refs=dict.fromkeys(refs, FIRST), git=replace(value.git, head=head)))
    link = tmp_path / "public/latest/models/org/name"

    assert link.is_symlink() == (latest is not None)
    if latest:
        assert str(link.readlink()) == f"../../../models/org/name/refs/{latest}"
        assert (link / "a").read_bytes() == b"1"


@pytest.mark.parametrize("loads", [True, False])
def test_what_publishing_needs_can_be_loaded_before(tmp_path: Path, loads: bool) -> None:
    """When it was, nothing is left to be loaded while everybody waits for the refs to move."""
    code = (
        "import sys; from pathlib import Path; from mirrortools import tree; from tests.delivery import publication\n"
        f"root = Path({str(tmp_path)!r}); shown = publication(root, {{'a.safetensors': b'x', 'b.json': b'1'}})\n"
        f"{'tree.load_for_publishing()' if loads else ''}\n"
        "before = set(sys.modules); tree.Tree(root).publish(shown)\n"
        "print(*sorted(name for name in set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PROJECT, check=True)

    assert ("mirrortools.revision" in done.stdout.split()) == (not loads)
    assert not loads or done.stdout.split() == []
