"""The local git mirror: pointers, listings, hostile refs, and what git's complaints mean."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrortools.errors import (
    AccessDenied,
    HostileTree,
    NoSpace,
    RateLimited,
    SourceMissing,
    SourceUnavailable,
    StoreError,
    UpstreamError,
)
from mirrortools.model import Blob
from mirrortools.upstreams.git import (
    GitMirror,
    Remote,
    TreeFile,
    read_ls_remote,
    read_pointer,
    remote_error,
    write_pointer,
)
from tests.delivery import git_blob
from tests.fakes import ScriptedServer, answer
from tests.servers.author import run_git
from tests.servers.ports import free_port
from tests.strategies import digests, trials

DIGEST = "4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393"


@pytest.fixture
def mirror(tmp_path: Path) -> GitMirror:
    """An empty mirror."""
    made = GitMirror(tmp_path / "mirror" / "tiny.git")
    made.create()
    return made


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """A working repository to mirror from, with one commit."""
    folder = tmp_path / "work"
    run_git("init", "--quiet", "--initial-branch=main", str(folder))
    commit(folder, "a.txt", b"one")
    return folder


def commit(folder: Path, name: str, content: bytes) -> str:
    """Commit a file; the commit's id."""
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", f"Change {name}\n\nBody")
    return git(folder, "rev-parse", "HEAD")


def git(folder: Path, *words: str) -> str:
    """Run git in a repository."""
    return run_git("-C", str(folder), *words)


def remote(folder: Path) -> Remote:
    """A repository of this host as a remote."""
    return Remote(f"file://{folder}", {})


@given(digests(), st.integers(0, 10**19 - 1))
@trials(200)
def test_a_pointer_reads_as_it_was_written(digest: str, size: int) -> None:
    """And is always shorter than the longest that is looked at."""
    blob = Blob("sha256", digest, size)

    assert read_pointer(write_pointer(blob)) == blob
    assert len(write_pointer(blob)) < 1024


@given(st.binary(max_size=300))
@trials(200)
def test_other_content_is_no_pointer(data: bytes) -> None:
    """Nor is a pointer with something before or behind it."""
    pointer = write_pointer(Blob("sha256", DIGEST, 12345))

    assert read_pointer(data) is None
    assert read_pointer(pointer + data) is None or not data
    assert read_pointer(data + pointer) is None or not data


@pytest.mark.parametrize(
    "wrong",
    [
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{DIGEST}\nsize 012\n",
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{DIGEST}\nsize -1\n",
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{DIGEST[:-1]}\nsize 1\n",
        f"version https://git-lfs.github.com/spec/v1\noid sha256:../../{DIGEST[:58]}\nsize 1\n",
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{DIGEST.upper()}\nsize 1\n",
        f"version https://git-lfs.github.com/spec/v1\noid md5:{DIGEST}\nsize 1\n",
        f"version https://git-lfs.github.com/spec/v1\r\noid sha256:{DIGEST}\r\nsize 1\r\n",
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{DIGEST}\nsize 99999999999999999999\n",
    ],
)
def test_what_is_almost_a_pointer_is_a_plain_file(wrong: str) -> None:
    """It is served as it is, and no digest in it becomes a path."""
    assert read_pointer(wrong.encode()) is None


@pytest.mark.parametrize("padding", [1023, 1024])
def test_a_small_file_is_looked_at_up_to_1023_bytes(mirror: GitMirror, origin: Path, padding: int) -> None:
    """The specification's limit; files at the border that are no pointers are plain."""
    pointer = write_pointer(Blob("sha256", DIGEST, 7))
    commit(origin, "model.bin", pointer)
    commit(origin, "long.txt", pointer + b"x" * (padding - len(pointer)))
    head = commit(origin, "empty.bin", b"")
    mirror.fetch(remote(origin), {"refs/heads/main": head}, [])
    entries = mirror.entries(mirror.tree(head))

    assert entries["model.bin"].blob == Blob("sha256", DIGEST, 7)
    assert entries["model.bin"].pointer_size == len(pointer)
    assert not entries["long.txt"].is_lfs
    assert entries["long.txt"].blob.size == padding
    assert entries["empty.bin"].blob == git_blob(b"")


def test_odd_names_are_listed_as_they_are(mirror: GitMirror, origin: Path) -> None:
    """Tabs, newlines and quotes arrive as bytes; what is not UTF-8 is refused only when it is wanted."""
    for name in ("a\tb", "new\nline", 'q"uote', "权重"):
        commit(origin, name, b"x")
    os.close(os.open(os.fsencode(origin) + b"/\xff", os.O_CREAT))
    head = commit(origin, "last", b"y")
    mirror.fetch(remote(origin), {"refs/heads/main": head}, [])
    listed = list(mirror.tree(head))

    assert {file.path for file in listed} >= {b"a\tb", b"new\nline", b'q"uote', "权重".encode(), b"\xff"}
    with pytest.raises(HostileTree, match=r"\\xff.*UTF-8.*exclude"):
        mirror.entries(listed)
    assert "last" in mirror.entries(file for file in listed if file.path != b"\xff")


@pytest.mark.parametrize(("mode", "said"), [("120000", "symbolic link"), ("160000", "submodule")])
def test_links_and_submodules_are_refused_with_advice(mode: str, said: str) -> None:
    """The operator may exclude them."""
    with pytest.raises(HostileTree, match=rf"x/y.*{said}.*exclude"):
        TreeFile(b"x/y", mode, "0" * 40, 0).checked_path()


def test_ls_remote_tells_refs_tags_and_the_default_branch() -> None:
    """As git prints them."""
    one, two = "1" * 40, "2" * 40
    lines = ("ref: refs/heads/dev\tHEAD", f"{one}\tHEAD", f"{one}\trefs/heads/dev", f"{two}\trefs/tags/v1")
    found = read_ls_remote("\n".join([*lines, f"{one}\trefs/tags/v1^{{}}\n"]).encode())

    assert found.head == "refs/heads/dev"
    assert found.oids == {"refs/heads/dev": one, "refs/tags/v1": two}
    assert (found.commit("refs/tags/v1"), found.commit("refs/heads/dev")) == (one, one)


def test_ls_remote_of_an_empty_repository_is_empty() -> None:
    """No commit at all."""
    assert read_ls_remote(b"").oids == {}


@pytest.mark.parametrize("name", [b"refs/heads/\xff", b"refs/heads/" + b"x" * 300, "refs/heads/" + "模" * 60])
def test_a_ref_that_cannot_be_served_does_not_hold_the_others(name: bytes | str) -> None:
    """It is passed over: nobody can want it."""
    named = name.encode() if isinstance(name, str) else name
    found = read_ls_remote(b"1" * 40 + b"\t" + named + b"\n" + b"2" * 40 + b"\trefs/heads/main\n")

    assert found.oids == {"refs/heads/main": "2" * 40}


@given(st.binary(max_size=200))
@trials(200)
def test_any_answer_of_ls_remote_is_read(output: bytes) -> None:
    """Whatever a server sends, the refs that come out can be served."""
    assert all(name.startswith("refs/") for name in read_ls_remote(output).oids)


def test_refs_follow_the_remote_backwards_too(mirror: GitMirror, origin: Path) -> None:
    """Whether that is allowed is decided elsewhere; the old commit stays known."""
    old = git(origin, "rev-parse", "HEAD")
    new = commit(origin, "a.txt", b"two")
    mirror.fetch(remote(origin), {"refs/heads/main": new}, [])
    git(origin, "reset", "--quiet", "--hard", old)
    mirror.fetch(remote(origin), {"refs/heads/main": old}, [])

    assert mirror.refs() == {"refs/heads/main": old}
    assert mirror.is_ancestor(old, new)
    assert not mirror.is_ancestor(new, old)
    assert not mirror.is_ancestor("f" * 40, new)


@pytest.mark.parametrize(("before", "after"), [("feature", "feature/x"), ("feature/x", "feature")])
def test_a_branch_may_take_the_place_of_a_folder_of_branches(
    mirror: GitMirror, origin: Path, before: str, after: str
) -> None:
    """Upstream deletes `feature` and makes `feature/x`: to git's files that is a conflict, to us it is not."""
    git(origin, "branch", before)
    oid = git(origin, "rev-parse", before)
    mirror.fetch(remote(origin), {f"refs/heads/{before}": oid, "refs/heads/main": oid}, [])
    git(origin, "branch", "--delete", "--force", before)
    git(origin, "branch", after)
    mirror.fetch(remote(origin), {f"refs/heads/{after}": oid, "refs/heads/main": oid}, [])

    assert mirror.refs() == {f"refs/heads/{after}": oid, "refs/heads/main": oid}


def test_a_tag_of_a_tag_leads_to_a_commit_and_a_tag_of_a_blob_to_none(mirror: GitMirror, origin: Path) -> None:
    """All tags are peeled to their end."""
    head = git(origin, "rev-parse", "HEAD")
    git(origin, "tag", "--annotate", "--message", "one", "one")
    git(origin, "tag", "--annotate", "--message", "two", "two", "one")
    git(origin, "tag", "blob", "HEAD:a.txt")
    git(origin, "tag", "tree", "HEAD^{tree}")
    found = mirror.remote_refs(remote(origin))
    mirror.fetch(remote(origin), found.oids, [])
    leads_to = mirror.commits(list(found.oids.values()))

    assert found.commit("refs/tags/two") == head
    assert leads_to[found.oids["refs/tags/two"]] == head
    assert found.oids["refs/tags/blob"] not in leads_to
    assert found.oids["refs/tags/tree"] not in leads_to


def test_a_commit_is_told_by_time_and_title(mirror: GitMirror, origin: Path) -> None:
    """The first line of the message."""
    head = commit(origin, "b.txt", b"b")
    mirror.fetch(remote(origin), {"refs/heads/main": head}, [])

    assert mirror.commit_info(head).title == "Change b.txt"
    assert mirror.commit_info(head).committed_at > 1_700_000_000


def test_an_object_that_was_lost_is_told_with_advice(mirror: GitMirror) -> None:
    """The mirror is rebuilt when its folder is removed."""
    with pytest.raises(StoreError, match=r"tiny\.git.*remove"):
        dict(mirror.contents(["1" * 40]))
    with pytest.raises(StoreError, match=r"tiny\.git.*remove"):
        mirror.write_blob("1" * 40, mirror.folder / "x")


def test_a_write_to_a_full_disk_is_told_as_that(mirror: GitMirror, origin: Path) -> None:
    """Not as damage of the repository, and not as the source's fault."""
    head = commit(origin, "big.txt", os.urandom(100_000))
    mirror.fetch(remote(origin), {"refs/heads/main": head}, [])
    with pytest.raises(NoSpace, match="free some space"):
        mirror.write_blob(git(origin, "rev-parse", "HEAD:big.txt"), Path("/dev/full"))


def test_the_environment_of_a_hook_is_not_handed_on(
    mirror: GitMirror, origin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GIT_DIR and its kin from a post-receive hook would lead git elsewhere."""
    for name in ("GIT_DIR", "GIT_OBJECT_DIRECTORY", "GIT_WORK_TREE", "GIT_QUARANTINE_PATH"):
        monkeypatch.setenv(name, "/nowhere")
    head = mirror.remote_refs(remote(origin)).oids["refs/heads/main"]
    mirror.fetch(remote(origin), {"refs/heads/main": head}, [])

    assert mirror.refs() == {"refs/heads/main": head}


def complaint(mirror: GitMirror, url: str, settings: dict[str, str] | None = None) -> UpstreamError:
    """What `ls-remote` raises."""
    with pytest.raises(UpstreamError) as caught:
        mirror.remote_refs(Remote(url, settings or {}))
    return caught.value


def test_what_git_says_of_hosts_and_files(mirror: GitMirror, tmp_path: Path) -> None:
    """A name that does not resolve, a port that is closed, a folder that is none, and one that is no repository."""
    closed = free_port()
    errors = {
        "name": complaint(mirror, "http://nowhere.invalid/a/b"),
        "port": complaint(mirror, f"http://127.0.0.1:{closed}/a/b"),
        "gone": complaint(mirror, f"file://{tmp_path}/none"),
        "no repository": complaint(mirror, f"file://{tmp_path}"),
        "ssh": complaint(mirror, f"ssh://127.0.0.1:{closed}/a/b"),
    }

    assert {name: type(error) for name, error in errors.items()} == {
        "name": SourceUnavailable,
        "port": SourceUnavailable,
        "gone": SourceMissing,
        "no repository": SourceMissing,
        "ssh": SourceUnavailable,
    }
    assert "Could not resolve host" in str(errors["name"])
    assert "connect" in str(errors["port"])
    assert "does not appear to be a git repository" in str(errors["gone"])
    assert "check the name" in str(errors["gone"])
    assert "Connection refused" in str(errors["ssh"])
    assert {name for name, error in errors.items() if getattr(error, "unreachable", False)} == {"name", "port", "ssh"}


@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [
        (401, AccessDenied, "token_file"),
        (403, AccessDenied, "token_file"),
        (404, SourceMissing, "check the name"),
        (429, RateLimited, "429"),
        (500, SourceUnavailable, "500"),
        (503, SourceUnavailable, "503"),
        (302, SourceUnavailable, "configure the address"),
    ],
)
def test_what_git_says_of_statuses(mirror: GitMirror, status: int, kind: type[UpstreamError], said: str) -> None:
    """A real git against a host that answers each status; redirects are not followed with a token."""
    headers = {"Location": "http://127.0.0.1:1/", "WWW_Authenticate": "Basic realm=x"}
    with ScriptedServer(lambda _heard: answer(status=status, **headers)) as server:
        error = complaint(mirror, f"{server.origin}/a/b", {"http.followRedirects": "false"})

    assert type(error) is kind
    assert said in str(error)
    assert server.origin in str(error)


def test_a_repository_of_another_user_is_told_with_advice(mirror: GitMirror, origin: Path) -> None:
    """Git refuses it over file://; that must not look like a host that is down."""
    run_git("clone", "--quiet", "--bare", str(origin), str(origin.parent / "theirs.git"))
    subprocess.run(["chown", "-R", "nobody", str(origin.parent / "theirs.git")], check=True)
    error = complaint(mirror, f"file://{origin.parent}/theirs.git")

    assert type(error) is AccessDenied
    assert "another user" in str(error)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("fatal: unable to access 'http://h:42900/': Failed to connect to h port 42900", SourceUnavailable),
        ("fatal: unable to access 'https://h/org/TLS-model/': Could not resolve host: h", SourceUnavailable),
        ("git@h: Permission denied (publickey).\nfatal: Could not read from remote repository.", AccessDenied),
        ("Host key verification failed.\nfatal: Could not read from remote repository.", AccessDenied),
        ("ERROR: Repository not found.\nfatal: Could not read from remote repository.", SourceMissing),
        ("fatal: remote error: upload-pack: not our ref 1234", SourceMissing),
        ("error: object 1234567890123456789012345678901234567890: hasDotgit: x\nfatal: fsck error", HostileTree),
        ("", SourceUnavailable),
    ],
)
def test_complaints_are_understood(text: str, kind: type[UpstreamError]) -> None:
    """By their words, not by what happens to stand in a URL; the message has the line that says something."""
    error = remote_error("ssh://h/x", text)

    assert type(error) is kind
    assert "Could not read from remote repository" not in str(error)
    assert str(error).startswith("ssh://h/x: ")
    assert len(str(error)) > len("ssh://h/x: ") + 5


def test_a_certificate_that_is_not_trusted_is_told_with_what_to_set() -> None:
    """In the words of both TLS libraries that git is built with."""
    for text in (
        "fatal: unable to access 'https://h/': server certificate verification failed. CAfile: none CRLfile: none",
        "fatal: unable to access 'https://h/': SSL certificate problem: self-signed certificate",
    ):
        assert "ca_file" in str(remote_error("https://h", text))


def test_what_a_killed_git_left_is_cleared_up(mirror: GitMirror, origin: Path) -> None:
    """Locks of refs and of the configuration, and packs that were never finished."""
    left = [mirror.folder / name for name in ("config.lock", "refs/heads/main.lock", "objects/pack/tmp_pack_x")]
    for path in left:
        path.write_bytes(b"")
    head = mirror.remote_refs(remote(origin)).oids["refs/heads/main"]
    with pytest.raises(UpstreamError):
        mirror.fetch(remote(origin), {"refs/heads/main": head}, [])
    mirror.clear_up()
    mirror.fetch(remote(origin), {"refs/heads/main": head}, [])

    assert mirror.refs() == {"refs/heads/main": head}
    assert not [path for path in left if path.exists()]


def test_what_was_listed_is_what_is_brought(mirror: GitMirror, origin: Path) -> None:
    """Though a ref has moved on since; and nothing of what a template has is made durable."""
    listed = mirror.remote_refs(remote(origin)).oids
    commit(origin, "a.txt", b"two")
    mirror.fetch(remote(origin), listed, [])

    assert mirror.refs() == listed
    assert not (mirror.folder / "hooks").exists()


def test_a_mirror_is_made_whole_or_not_at_all(tmp_path: Path) -> None:
    """A folder that is half a repository, from a run that was killed, is replaced."""
    (tmp_path / "m.git" / "objects").mkdir(parents=True)
    mirror = GitMirror(tmp_path / "m.git")
    mirror.create()

    assert mirror.refs() == {}
    assert sorted(path.name for path in tmp_path.iterdir()) == [".new", "m.git"]
    assert [*(tmp_path / ".new").iterdir()] == []


def test_a_commit_of_very_many_files_is_read_whole(mirror: GitMirror) -> None:
    """Listings and pointers come in several pieces; none is lost between them."""
    pointers = {f"part/file-{number}.bin": Blob("sha256", f"{number:064x}", number + 1) for number in range(5000)}
    stream = [b"commit refs/heads/many\ncommitter a <a@example.org> 1 +0000\ndata 0\n"]
    for name, blob in pointers.items():
        content = write_pointer(blob)
        stream.append(b"M 100644 inline %s\ndata %d\n%s\n" % (name.encode(), len(content), content))
    mirror.run("fast-import", "--quiet", stdin=b"".join(stream))
    entries = mirror.entries(mirror.tree("refs/heads/many"))

    assert {name: entry.blob for name, entry in entries.items()} == pointers
