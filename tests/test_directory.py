"""A folder of model files as an upstream: what becomes a revision, and what never does."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrortools.config import Source
from mirrortools.errors import AccessDenied, HostileTree, SourceMissing, SourceUnavailable, UpstreamError
from mirrortools.model import Entry, RepoId
from mirrortools.upstreams import directory as module
from mirrortools.upstreams.directory import BRANCH, Directory, lfs_rule
from mirrortools.upstreams.git import GitMirror
from tests.delivery import git_blob, noise, sha256_blob
from tests.servers.author import run_git
from tests.strategies import trials

REPO = RepoId.parse("acme/tiny")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The repository's folder below the source."""
    made = tmp_path / "own" / "acme" / "tiny"
    made.mkdir(parents=True)
    return made


@pytest.fixture
def mirror(tmp_path: Path) -> GitMirror:
    """Where the commits go."""
    return GitMirror(tmp_path / "mirror.git")


@pytest.fixture
def source(folder: Path, mirror: GitMirror) -> Directory:
    """The folder as an upstream."""
    return Directory(Source(f"dir://{folder.parents[1]}"), REPO, mirror)


def put(folder: Path, files: dict[str, bytes], age_s: float = 100.0) -> None:
    """Write files that have been lying there for a while."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.utime(path, (time.time() - age_s,) * 2)


def entries(source: Directory, mirror: GitMirror) -> dict[str, Entry]:
    """The files of the revision that the folder makes."""
    return mirror.entries(mirror.tree(source.refs().oids[BRANCH]))


def read(source: Directory, content: bytes) -> bytes:
    """The bytes of a blob."""
    blob = sha256_blob(content)
    buffer = memoryview(bytearray(blob.size + 1))
    source.bytes.prepare([blob])
    with source.bytes.open(blob, 0, blob.size) as reader:
        return bytes(buffer[: reader.readinto(buffer)])


def test_large_and_binary_files_are_lfs_and_the_rest_is_plain(
    source: Directory, folder: Path, mirror: GitMirror
) -> None:
    """All files of a suffix are treated alike; empty ones are plain."""
    model, text = noise(2 << 20), b"x" * ((1 << 20) + 1)
    put(folder, {"a.safetensors": model, "empty.safetensors": b"", "c.json": b"{}", "big.txt": text, "s.txt": b"s"})
    found = entries(source, mirror)

    assert found["a.safetensors"].blob == sha256_blob(model)
    assert found["empty.safetensors"].blob == git_blob(b"")
    assert found["c.json"].blob == git_blob(b"{}")
    assert found["big.txt"].blob == sha256_blob(text)
    assert found["s.txt"].blob == sha256_blob(b"s")
    assert read(source, model) == model


def test_the_same_content_is_the_same_commit(source: Directory, folder: Path) -> None:
    """Times and inodes do not matter, content does."""
    put(folder, {"a.bin": noise(100), "b.txt": b"b"})
    first = source.refs()
    (folder / "a.bin").unlink()
    put(folder, {"a.bin": noise(100)}, age_s=5)
    same = source.refs()
    put(folder, {"b.txt": b"changed"})
    changed = source.refs()

    assert first == same
    assert changed.oids != same.oids


def test_a_change_that_keeps_size_and_time_is_seen(source: Directory, folder: Path) -> None:
    """`cp -p` and `touch -r` keep them; what the kernel notes is looked at too."""
    put(folder, {"a.bin": b"\0one", "b.bin": b"\0two"})
    first = source.refs()
    stat = (folder / "a.bin").stat()
    (folder / "a.bin").write_bytes(b"\0ONE")
    os.utime(folder / "a.bin", ns=(stat.st_atime_ns, stat.st_mtime_ns))

    assert source.refs().oids != first.oids


def test_a_file_that_was_just_written_is_hashed_again_next_time(
    source: Directory, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within one tick of the clock a second write shows in no stat; later the stat suffices."""
    hashed: list[int] = []
    original = module.sha256_of
    monkeypatch.setattr(module, "sha256_of", lambda file: hashed.append(file) or original(file))
    put(folder, {"a.bin": b"\0one"})
    source.refs()
    source.refs()
    unsettled = len(hashed)
    monkeypatch.setattr(module, "_UNSETTLED_NS", -1 << 62)
    source.refs()
    source.refs()

    assert unsettled == 2
    assert len(hashed) == 3


@pytest.mark.parametrize("how", ["missing", "empty", "only passed over", "a file"])
def test_a_folder_that_vanished_is_an_error_and_no_empty_revision(
    source: Directory, folder: Path, mirror: GitMirror, how: str
) -> None:
    """An unmounted disk must not empty the mirror."""
    put(folder, {"a.bin": b"\0one"})
    before = source.refs()
    (folder / "a.bin").unlink()
    if how == "only passed over":
        put(folder, {".cache/x": b"x", ".git/config": b"y"})
    if how in ("missing", "a file"):
        folder.rmdir()
    if how == "a file":
        folder.write_text("not a folder")
    with pytest.raises((SourceMissing, SourceUnavailable), match="tiny"):
        source.refs()

    assert mirror.refs()[BRANCH] == before.oids[BRANCH]


def test_links_inside_are_followed_and_links_out_are_refused(
    source: Directory, folder: Path, mirror: GitMirror, tmp_path: Path
) -> None:
    """Whoever may write into the folder must not publish other files of this host."""
    put(folder.parents[1], {"blobs/x": b"\0shared"})
    put(tmp_path, {"secret": b"\0password"})
    put(folder, {"a.txt": b"a"})
    (folder / "model.bin").symlink_to("../../blobs/x")
    inside = entries(source, mirror)["model.bin"].blob
    (folder / "evil.bin").symlink_to(tmp_path / "secret")
    with pytest.raises(HostileTree, match=r"evil\.bin: leads to .*secret, out of"):
        source.refs()

    assert inside == sha256_blob(b"\0shared")


def test_a_file_that_became_a_link_out_is_not_read(source: Directory, folder: Path, tmp_path: Path) -> None:
    """Between the look and the fetch."""
    put(folder, {"model.bin": b"\0fine"})
    put(tmp_path, {"secret": b"\0pass"})
    source.refs()
    source.bytes.prepare([])
    (folder / "model.bin").unlink()
    (folder / "model.bin").symlink_to(tmp_path / "secret")
    with pytest.raises(UpstreamError, match=r"model\.bin"), source.bytes.open(sha256_blob(b"\0fine"), 0, 5):
        """Never entered."""


def make_odd(folder: Path, what: str) -> None:
    """Put something into the folder that is no file of a model."""
    match what:
        case "link to nothing":
            (folder / "odd").symlink_to("nowhere")
        case "link to a folder":
            (folder / "sub").mkdir()
            (folder / "odd").symlink_to("sub")
        case "pipe":
            os.mkfifo(folder / "odd")
        case "newline":
            (folder / "odd\nname").write_text("x")
        case "not UTF-8":
            (Path(os.fsdecode(os.fsencode(folder) + b"/odd\xff"))).write_text("x")
        case "backslash":
            (folder / "odd\\name").write_text("x")
        case "git file":
            (folder / "odd").mkdir()
            (folder / "odd" / ".git").write_text("gitdir: /x")


@pytest.mark.parametrize(
    "what", ["link to nothing", "link to a folder", "pipe", "newline", "not UTF-8", "backslash", "git file"]
)
def test_what_is_no_file_of_a_model_is_refused_by_name(source: Directory, folder: Path, what: str) -> None:
    """Never passed over in silence, and never waited for."""
    put(folder, {"a.txt": b"a"})
    make_odd(folder, what)
    with pytest.raises(HostileTree, match="odd"):
        source.refs()


def test_names_with_spaces_and_quotes_are_kept(source: Directory, folder: Path, mirror: GitMirror) -> None:
    """As they are, in git's input too."""
    files = {'a "quoted".txt': b"1", "sp ace/ü+#%41.txt": b"2", "权重.txt": b"3", "'single'": b"4"}
    put(folder, files)

    assert {path: entry.blob for path, entry in entries(source, mirror).items()} == {
        path: git_blob(content) for path, content in files.items()
    }


@contextmanager
def somebody_else() -> Iterator[None]:
    """Run as a user to whom permissions apply, which they do not to root."""
    me = os.geteuid()
    os.seteuid(me or 65534)
    try:
        yield
    finally:
        os.seteuid(me)


@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_may_not_be_read_is_an_error_and_not_passed_over(
    source: Directory, folder: Path, mirror: GitMirror, tmp_path: Path, what: str
) -> None:
    """A revision without the files of a folder that cannot be listed would look like a deletion."""
    put(folder, {"a.txt": b"a", "sub/b.txt": b"b"})
    mirror.create()
    for place in (tmp_path, *tmp_path.parents[:-2]):
        place.chmod(0o755)
    (folder / ("sub" if what == "folder" else "a.txt")).chmod(0)
    with somebody_else(), pytest.raises(AccessDenied, match=r"(sub|a\.txt): Permission denied; let the user"):
        source._look("a.txt", (folder / "a.txt").stat(), None) if what == "file" else list(source._scan())


def test_a_file_that_changes_while_it_is_hashed_is_not_published(
    source: Directory, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy is still running."""
    put(folder, {"a.bin": noise(1000)})
    original = module.sha256_of

    def changing(file: int) -> tuple[str, bool]:
        with (folder / "a.bin").open("ab") as more:
            more.write(b"more")
        return original(file)

    monkeypatch.setattr(module, "sha256_of", changing)
    with pytest.raises(SourceUnavailable, match=r"a\.bin: changes while it is read"):
        source.refs()


def test_a_small_file_that_changes_before_it_is_committed_is_not_published(
    source: Directory, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its content must be the one that was hashed."""
    put(folder, {"a.txt": b"one"})
    original = module.lfs_rules
    monkeypatch.setattr(module, "lfs_rules", lambda files: put(folder, {"a.txt": b"two"}) or original(files))
    with pytest.raises(SourceUnavailable, match=r"a\.txt: changes while it is read"):
        source.refs()


def test_a_file_that_changed_after_the_look_is_not_read(source: Directory, folder: Path) -> None:
    """The bytes would not be the revision's; that is told before they are moved."""
    content = noise(1000)
    put(folder, {"a.bin": content})
    source.refs()
    source.bytes.prepare([])
    put(folder, {"a.bin": content[:-1]})
    with pytest.raises(SourceUnavailable, match="changes while"), source.bytes.open(sha256_blob(content), 0, 1000):
        """Never entered."""


def test_a_file_that_vanished_after_the_look_is_missing(source: Directory, folder: Path) -> None:
    """And an unknown blob too."""
    put(folder, {"a.bin": b"\0x"})
    source.refs()
    source.bytes.prepare([])
    (folder / "a.bin").unlink()
    for content in (b"\0x", b"never there"):
        with pytest.raises(SourceMissing), source.bytes.open(sha256_blob(content), 0, 1):
            """Never entered."""


@pytest.mark.parametrize(
    "index", ["", "[]", "{", '{"a.bin": [1, 2, 3, "x", true]}', '{"commit": 1, "files": {"a": 1}}']
)
def test_an_index_that_cannot_be_read_costs_time_only(
    source: Directory, folder: Path, mirror: GitMirror, index: str
) -> None:
    """Everything is hashed anew; the commit is the same."""
    put(folder, {"a.bin": b"\0x"})
    before = source.refs()
    (mirror.folder / "mirrortools-index.json").write_text(index)

    assert source.refs() == before


def test_a_branch_that_something_else_moved_is_made_right(source: Directory, folder: Path, mirror: GitMirror) -> None:
    """A repository whose source was another one in between: the folder's content counts, not the index."""
    put(folder, {"a.txt": b"a"})
    source.refs()
    put(folder, {"b.txt": b"b"})
    second = source.refs().oids[BRANCH]
    first = run_git("--git-dir", str(mirror.folder), "rev-parse", f"{second}^")
    run_git("--git-dir", str(mirror.folder), "update-ref", BRANCH, first)

    assert set(entries(source, mirror)) == {"a.txt", "b.txt"}


@pytest.mark.parametrize("modified_s", [-5, 0, 1 << 33])
def test_times_that_git_cannot_write_do_no_harm(source: Directory, folder: Path, modified_s: int) -> None:
    """Before 1970 and after 2106."""
    put(folder, {"a.txt": b"a"})
    os.utime(folder / "a.txt", (modified_s, modified_s))

    assert source.refs().head == BRANCH


def test_own_attributes_are_kept_and_lfs_rules_come_behind(source: Directory, folder: Path, mirror: GitMirror) -> None:
    """Without ours, a clone would leave pointers in the place of files."""
    put(folder, {".gitattributes": b"*.txt text", "a.bin": b"\0x"})
    commit = source.refs().oids[BRANCH]
    attributes = run_git("--git-dir", str(mirror.folder), "show", f"{commit}:.gitattributes")

    assert attributes.splitlines() == ["*.txt text", "*.bin filter=lfs diff=lfs merge=lfs -text"]
    assert entries(source, mirror)["a.bin"].is_lfs


@pytest.mark.parametrize(
    ("own", "added"),
    [
        ("*.bin filter=lfs diff=lfs merge=lfs -text\n*.txt text", ""),
        ("*.bin  filter=lfs\tdiff=lfs merge=lfs -text \r\n# filter\n*.h5 filter=lfs diff=lfs merge=lfs -text\n", ""),
        ("*.bin filter=lfs diff=lfs merge=lfs -text\na.bin -filter\n", "*.bin"),
        ("[attr]big -filter\n*.bin filter=lfs diff=lfs merge=lfs -text\n", "*.bin"),
        ("*.h5 filter=lfs diff=lfs merge=lfs -text\n", "*.bin"),
        ("*.bin filter=lfs\n", "*.bin"),
    ],
)
def test_a_rule_that_holds_already_is_not_written_again(
    source: Directory, folder: Path, mirror: GitMirror, own: str, added: str
) -> None:
    """A folder that was cloned from a hub brings the rules along; git has the last word on what is in LFS."""
    put(folder, {".gitattributes": own.encode(), "a.bin": b"\0x"})
    commit = source.refs().oids["refs/heads/main"]
    attributes = run_git("--git-dir", str(mirror.folder), "show", f"{commit}:.gitattributes")
    last = attributes.splitlines()[-1]

    assert len(attributes.splitlines()) == len(own.splitlines()) + bool(added)
    assert not added or last == f"{added} filter=lfs diff=lfs merge=lfs -text"


@given(
    st.text(
        st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp"), exclude_characters="/\\\0"), min_size=1, max_size=12
    )
    | st.sampled_from(["model", "a b", "we[ig]ht", "st*r", 'q"uote', "#hash", "!bang", "a.b c", "权重", "x?", "a.2"])
)
@trials(40)
def test_an_lfs_rule_matches_its_own_file(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    """As git reads it, whatever the name."""
    if name in (".", "..") or len(name.encode()) > 200:
        return
    repository = tmp_path_factory.mktemp("rule")
    run_git("init", "--quiet", str(repository))
    (repository / ".gitattributes").write_text(f"{lfs_rule(name)} filter=lfs\n")

    answer = run_git("-C", str(repository), "check-attr", "-z", "filter", "--", f"folder/{name}")
    assert answer.split("\0")[2] == "lfs"


def test_reading_is_safe_from_several_threads(source: Directory, folder: Path) -> None:
    """Each has a file of its own."""
    contents = [noise(50_000, seed) for seed in range(6)]
    put(folder, {f"{number}.bin": content for number, content in enumerate(contents)})
    source.refs()
    source.bytes.prepare([])
    got: dict[int, bytes] = {}

    def fetch(number: int) -> None:
        buffer = memoryview(bytearray(60_000))
        with source.bytes.open(sha256_blob(contents[number]), 100, 40_000) as reader:
            got[number] = bytes(buffer[: reader.readinto(buffer)])

    threads = [threading.Thread(target=fetch, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert got == {number: content[100:40_000] for number, content in enumerate(contents)}
