"""A bare local mirror of a git repository, worked by the git program and never checked out.

Every call runs with a scrubbed environment, operands behind `--`, and only the protocols that we ask for: a
hostile URL or configuration could run commands otherwise.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Final, NamedTuple

from mirrortools.errors import (
    AccessDenied,
    HostileTree,
    MirrorError,
    NoSpace,
    RateLimited,
    SourceMissing,
    SourceUnavailable,
    StoreError,
    UpstreamError,
)
from mirrortools.files import is_full, make_folder, move_folder
from mirrortools.model import COMMIT, Blob, Entry, check_full_ref
from mirrortools.upstreams.base import RemoteRefs
from mirrortools.upstreams.leftovers import leftovers
from mirrortools.upstreams.program import run_program

PROTOCOLS = "http:https:ssh:file"
POINTER_BYTES = 1024
# Files whose pointers are read by one git process, and what is read of its output at once.
_TOGETHER = 4096
_PIECE_BYTES = 64 << 10
# It never collects garbage by itself: a commit that upstream dropped may still be served.
_SETTINGS = ("protocol.version=2", "gc.auto=0", "core.fsync=all")
_PAUSE_S = 30.0
# Expressions are compiled where they are first used: most runs have no use for any.
_POINTER = rb"version https://git-lfs\.github\.com/spec/v1\noid sha256:([0-9a-f]{64})\nsize (0|[1-9][0-9]{0,18})\n\Z"
# A connection that died without a word is given up after a minute.
SSH = ("ssh", "-oBatchMode=yes", "-oConnectTimeout=20", "-oServerAliveInterval=15", "-oServerAliveCountMax=4")
_KEPT_ENVIRONMENT = ("PATH", "HOME", "SSH_AUTH_SOCK")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
# The last one is cat-file whose output could not be written.
_FULL = r"No space left on device|Disk quota exceeded|disk full|unable to stream"
# Old, harmless sins of real repositories; anything else that fsck calls an error is refused.
_FORGIVEN = ("zeroPaddedFilemode", "missingSpaceBeforeDate", "badTimezone", "missingSpaceBeforeEmail")


class Remote(NamedTuple):
    """Where to pull from. `settings` are git configuration, passed by environment to stay out of `ps`."""

    url: str
    settings: Mapping[str, str]


class CommitInfo(NamedTuple):
    """A commit's time in Unix seconds and the first line of its message."""

    committed_at: int
    title: str


class GitMirror:
    """The bare repository at `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def _half_made(self) -> Path:
        """Where repositories are made: not among the whole ones, of which there may be thousands."""
        return self.folder.parent / ".new"

    def create(self) -> None:
        """Make the repository, whole or not at all, if it is not there."""
        if (self.folder / "HEAD").exists():
            return
        import shutil
        import tempfile

        make_folder(self._half_made)
        beside = GitMirror(Path(tempfile.mkdtemp(prefix=f"{self.folder.name}.", dir=self._half_made)))
        try:
            # Without a template: two dozen sample files would have to be made durable.
            beside.run("init", "--bare", "--quiet", "--initial-branch=main", "--template=", ".")
            move_folder(beside.folder, self.folder)
        except OSError as error:
            raise beside._error("init", f"{error.filename2 or error.filename}: {error.strerror}") from error
        finally:
            shutil.rmtree(beside.folder, ignore_errors=True)

    def clear_up(self) -> None:
        """Remove what a git that was killed left behind: its locks would be in the way for ever.

        Only whoever holds the repository's lock may do this.
        """
        if (self.folder / "HEAD").exists():
            for left in leftovers(self.folder):
                with contextlib.suppress(OSError):  # git says what it is when it is in the way
                    left.unlink()
            return
        import shutil

        for half_made in self._half_made.glob(f"{self.folder.name}.*"):
            shutil.rmtree(half_made, ignore_errors=True)

    def run(
        self,
        *arguments: str,
        stdin: bytes | None = None,
        stdout: IO[bytes] | None = None,
        remote: Remote | None = None,
    ) -> bytes:
        """Run git here and give its output. Raises StoreError, or UpstreamError when a remote is involved."""
        environment = _environment(remote)
        done = run_program(self.command(*arguments), stdin=stdin, stdout=stdout, env=environment, cwd=self.folder)
        if done.returncode:
            text = done.stderr.decode(errors="replace").strip()
            if remote and not self._is_full(text):
                raise remote_error(remote.url, text)
            raise self._error(arguments[0], text)
        return done.stdout

    def _error(self, act: str, text: str) -> MirrorError:
        """What it means that git failed here."""
        if self._is_full(text):
            return NoSpace(f"{self.folder}: no space left for git; free some space, then run it again")
        return StoreError(
            f"git {act} failed in {self.folder}: {text}; if it is damaged, remove that folder and sync again"
        )

    def _is_full(self, text: str) -> bool:
        return bool(re.search(_FULL, text)) or is_full(self.folder)

    def command(self, *arguments: str) -> list[str]:
        """The argument list that runs git on this repository."""
        settings = [part for setting in _SETTINGS for part in ("-c", setting)]
        return ["git", "--git-dir", str(self.folder), *settings, *arguments]

    def remote_refs(self, remote: Remote) -> RemoteRefs:
        """The refs of a remote; one request. Raises UpstreamError."""
        self.create()
        return read_ls_remote(self.run("ls-remote", "--symref", "--", remote.url, remote=remote))

    def fetch(self, remote: Remote, refs: Mapping[str, str], commits: Collection[str]) -> None:
        """Bring the objects of `refs` and `commits`, and set the local refs. Raises UpstreamError.

        Objects are asked for by their ids, so that the remote need not list its refs once more.
        """
        self.create()
        wanted = [f"+{oid}:{name}" for name, oid in sorted(refs.items())]
        wanted += [commit for commit in sorted(commits) if not self.has(commit)]
        if not wanted:
            return
        self._clear_the_way(refs)
        checks = [f"fetch.fsck.{sin}=ignore" for sin in _FORGIVEN]
        options = [part for setting in ("fetch.fsckObjects=true", *checks) for part in ("-c", setting)]
        self.run(
            *options,
            "fetch",
            "--quiet",
            "--no-tags",
            "--no-write-fetch-head",
            "--no-auto-maintenance",
            "--recurse-submodules=no",
            "--",
            remote.url,
            *wanted,
            remote=remote,
        )

    def _clear_the_way(self, wanted: Collection[str]) -> None:
        """Drop the local refs that cannot stand beside `wanted`: `a` and `a/b` are a file and its folder to git."""
        wanted_folders = {folder for name in wanted for folder in _folders(name)}
        here = self.refs()
        stale = [name for name in here if name in wanted_folders or any(folder in wanted for folder in _folders(name))]
        if stale:
            self.run("update-ref", "--stdin", stdin="".join(f"delete {name}\n" for name in stale).encode())

    def has(self, oid: str) -> bool:
        """Whether an object is here."""
        checked = self.run("cat-file", "--batch-check", stdin=f"{oid}\n".encode())
        return not checked.endswith(b"missing\n")

    def refs(self) -> dict[str, str]:
        """The local refs: full name → object id."""
        lines = self.run("for-each-ref", "--format=%(objectname) %(refname)").decode().splitlines()
        return {name: oid for oid, name in (line.split(" ", 1) for line in lines)}

    def commits(self, names: Sequence[str]) -> dict[str, str]:
        """What refs, tags or ids lead to: name → commit. What leads to none, such as a tag of a blob, is left out."""
        question = "".join(f"{name}^{{commit}}\n" for name in names).encode()
        answers = self.run("cat-file", "--batch-check=%(objectname)", stdin=question).decode().splitlines()
        return {name: answer for name, answer in zip(names, answers, strict=True) if COMMIT.match(answer)}

    def is_ancestor(self, older: str, newer: str) -> bool:
        """Whether `older` is in the history of `newer`."""
        if not self.has(older):
            return False
        found = self.run("rev-list", "--max-count=1", f"{older}", f"^{newer}")
        return not found.strip()

    def tree_id(self, commit: str) -> str:
        """The id of a commit's tree: equal trees, equal content."""
        return self.run("rev-parse", "--verify", f"{commit}^{{tree}}").decode().strip()

    def commit_info(self, commit: str) -> CommitInfo:
        """When a commit was made, and its title."""
        text = self.run("log", "-1", "--format=%ct%x00%s", commit, "--").decode(errors="replace")
        committed_at, _, title = text.partition("\0")
        return CommitInfo(int(committed_at), title.strip())

    def history(self, commit: str, most: int) -> Iterator[Logged]:
        """The last `most` commits that led to `commit`, the newest first. They wait in a file: messages may be long."""
        fields = "%H%x00%an%x00%ct%x00%s%x00%b"
        with self._temporary_file() as listing:
            self.run("log", "-z", f"--max-count={most}", f"--format={fields}", commit, "--", stdout=listing)
            listing.seek(0)
            texts = (record.decode(errors="replace") for record in _records(listing))
            for oid, author, moment, title, message in zip(*[texts] * 5, strict=True):
                yield Logged(oid, author, int(moment), title, message.strip())

    def tree(self, commit: str) -> Iterator[TreeFile]:
        """Every file of a commit, in git's order. The listing waits in a file: it may be long."""
        with self._temporary_file() as listing:
            self.run("ls-tree", "-r", "-z", "-l", "--full-tree", commit, stdout=listing)
            listing.seek(0)
            for line in _records(listing):
                description, _, path = line.partition(b"\t")
                mode, _, oid, size = description.decode().split()
                yield TreeFile(path, mode, oid, 0 if size == "-" else int(size))

    def _temporary_file(self) -> IO[bytes]:
        import tempfile

        try:
            return tempfile.TemporaryFile(dir=self.folder)
        except OSError as error:
            raise self._error("ls-tree or cat-file", f"{error.filename}: {error.strerror}") from error

    def contents(self, oids: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """The contents of many small objects, by one git process. They wait in a file: together they may be large."""
        if not oids:
            return
        question = "".join(f"{oid}\n" for oid in oids).encode()
        with self._temporary_file() as output:
            self.run("cat-file", "--batch", "--buffer", stdin=question, stdout=output)
            output.seek(0)
            for oid in oids:
                header = output.readline().split()
                if header[-1] == b"missing":
                    raise StoreError(f"{self.folder}: git object {oid} is missing; remove the folder and sync again")
                yield oid, output.read(int(header[2]))
                output.read(1)

    def write_blob(self, oid: str, target: Path) -> None:
        """Write one object's content to a file, whatever its size."""
        with target.open("wb") as file:
            done = run_program(self.command("cat-file", "blob", oid), stdout=file, env=_environment(None))
        if done.returncode:
            raise self._error(f"cat-file blob {oid}", done.stderr.decode(errors="replace").strip())

    def entries(self, files: Iterable[TreeFile]) -> dict[str, Entry]:
        """Turn listed files into manifest entries: LFS pointers become the blobs they point to.

        Raises HostileTree for names that are not UTF-8, symlinks and submodules.
        """
        entries: dict[str, Entry] = {}
        source = iter(files)
        while some := list(islice(source, _TOGETHER)):
            pointers = self._pointers({file.oid for file in some if 0 < file.size < POINTER_BYTES})
            entries.update((file.checked_path(), _entry(file, pointers.get(file.oid))) for file in some)
        return entries

    def _pointers(self, oids: Collection[str]) -> dict[str, Blob]:
        """Those of `oids` that are LFS pointers, and what they point to."""
        return {oid: blob for oid, data in self.contents(sorted(oids)) if (blob := read_pointer(data))}

    def pack(self, folder: Path, tips: Iterable[str], known: Iterable[str]) -> list[Path]:
        """Write a pack of what `tips` reach and `known` do not; the pack and its index, or nothing."""
        exclude = [f"^{oid}" for oid in known if self.has(oid)]
        lines = "".join(f"{line}\n" for line in [*tips, *exclude]).encode()
        name = self.run("pack-objects", "--revs", "--quiet", "--non-empty", str(folder / "pack"), stdin=lines).decode()
        return [folder / f"pack-{name.strip()}.{kind}" for kind in ("pack", "idx")] if name.strip() else []


class Logged(NamedTuple):
    """A commit as `git log` tells it: who wrote it, when it was committed (Unix seconds), its title and the rest."""

    oid: str
    author: str
    committed_at: int
    title: str
    message: str


class TreeFile(NamedTuple):
    """One line of `git ls-tree -r -l`: the path's bytes, the octal mode, the object id, the size in bytes."""

    path: bytes
    mode: str
    oid: str
    size: int

    @property
    def name(self) -> str:
        """The path for matching and messages; bytes that are not UTF-8 are escaped."""
        return self.path.decode(errors="backslashreplace")

    def checked_path(self) -> str:
        """The path, once its encoding and the file's mode are acceptable. Raises HostileTree."""
        problem = {"120000": "a symbolic link", "160000": "a submodule"}.get(self.mode)
        if problem:
            raise HostileTree(f"refused {self.name!r}: {problem}; add it to `exclude` to mirror the rest")
        try:
            return self.path.decode()
        except UnicodeDecodeError as error:
            raise HostileTree(f"refused file name {self.name!r}: not UTF-8; add it to `exclude`") from error


def _records(file: IO[bytes]) -> Iterator[bytes]:
    """The parts of a file that NUL bytes end, read a piece at a time."""
    rest = b""
    while piece := file.read(_PIECE_BYTES):
        *whole, rest = (rest + piece).split(b"\0")
        yield from whole


def _entry(file: TreeFile, pointed: Blob | None) -> Entry:
    if pointed:
        return Entry(pointed, file.oid, file.size)
    return Entry(Blob("git", file.oid, file.size), file.oid)


def read_pointer(data: bytes) -> Blob | None:
    """The blob that a git-LFS pointer names, or None for any other content (git-lfs spec v1)."""
    match = re.match(_POINTER, data)
    return Blob("sha256", match[1].decode(), int(match[2])) if match else None


def write_pointer(blob: Blob) -> bytes:
    """The pointer file for a blob (git-lfs spec v1)."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{blob.digest}\nsize {blob.size}\n".encode()


def read_ls_remote(output: bytes) -> RemoteRefs:
    """Read the answer of `git ls-remote --symref`; refs whose names cannot be served are passed over."""
    pairs = [line.partition("\t")[::2] for line in output.decode(errors="surrogateescape").split("\n")]
    head = next((value[5:] for value, name in pairs if value.startswith("ref: ") and name == "HEAD"), "")
    return served_refs(((oid, name) for oid, name in pairs if not oid.startswith("ref: ")), head)


def served_refs(pairs: Iterable[tuple[str, str]], head: str) -> RemoteRefs:
    """What a host tells of its refs (object id, name), without those whose names cannot be served."""
    oids: dict[str, str] = {}
    peeled: dict[str, str] = {}
    for oid, name in pairs:
        if name.endswith("^{}"):
            peeled[name.removesuffix("^{}")] = oid
        elif name != "HEAD" and _can_be_served(name):
            oids[name] = oid
    return RemoteRefs(oids, {name: oid for name, oid in peeled.items() if name in oids}, head)


def _can_be_served(ref: str) -> bool:
    try:
        check_full_ref(ref)
    except (HostileTree, UnicodeEncodeError):
        return False
    return True


def _folders(ref: str) -> Iterator[str]:
    while "/" in ref:
        ref = ref.rpartition("/")[0]
        yield ref


def _environment(remote: Remote | None) -> dict[str, str]:
    kept = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
    kept |= {name: value for name in _PROXIES if (value := os.environ.get(name) or os.environ.get(name.upper()))}
    settings = dict(remote.settings) if remote else {}
    given = {"GIT_CONFIG_COUNT": str(len(settings))}
    for number, (key, value) in enumerate(settings.items()):
        given |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return {
        **kept,
        **given,
        "LC_ALL": "C",
        "GIT_ALLOW_PROTOCOL": PROTOCOLS,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_SSH_COMMAND": " ".join(SSH),
        "GIT_HTTP_LOW_SPEED_LIMIT": "1000",
        "GIT_HTTP_LOW_SPEED_TIME": "60",
    }


def remote_error(url: str, text: str) -> UpstreamError:
    """What the complaint of git or ssh about a remote means."""
    message = f"{url}: {_telling_line(text)}"
    if re.search(r"returned error: 429", text):
        return RateLimited(message, _PAUSE_S)
    for pattern, kind, advice in _COMPLAINTS:
        if re.search(pattern, text):
            return kind(message + advice)
    if "fsck error" in text or re.search(r"error: object [0-9a-f]{40}: ", text):
        return HostileTree(f"{url}: git refused the objects: {text[:500]}")
    return SourceUnavailable(message, unreachable=bool(re.search(_UNREACHED, text)))


def _telling_line(text: str) -> str:
    """The line that says what happened, without git's advice for people at a keyboard."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for prefixes in (("fatal:", "error:"), ("ssh:", "ERROR:", "Host key"), ("",)):
        found = [line for line in lines if line.startswith(prefixes) and not re.search(_EMPTY_WORDS, line)]
        if found:
            return re.sub(r"^(?:fatal|error): ", "", found[0])
    return "git or ssh failed and said nothing"


_EMPTY_WORDS = r"Could not read from remote repository|make sure you have the correct|and the repository exists"
# What git's HTTP library and ssh say of a host that did not answer.
_UNREACHED = (
    r"Could not resolve host|Failed to connect|Connection refused|Connection timed out|Connection reset by"
    r"|No route to host|Network is unreachable"
)
_COMPLAINTS: Final[tuple[tuple[str, Callable[[str], UpstreamError], str], ...]] = (
    (
        r"could not read (Username|Password)|returned error: 40[137]|Authentication failed",
        AccessDenied,
        ": denied; set or check `token_file` for this source, and whether its account may read this repository",
    ),
    (
        r"Permission denied \(|Host key verification failed",
        AccessDenied,
        "; let the user who runs mirrortool log in there once with `ssh`: it needs a key and the host's key",
    ),
    (
        r"dubious ownership",
        AccessDenied,
        "; it belongs to another user: run mirrortool as that one, or reach it by ssh:// or http://",
    ),
    (r"returned error: 30[12378]", SourceUnavailable, "; it redirects: configure the address that it redirects to"),
    (
        r"certificate (verification|problem|verify)",
        SourceUnavailable,
        "; set `ca_file` for this source when its authority is a private one",
    ),
    (
        r"not found|does not exist|does not appear to be a git repository|not our ref|couldn't find remote ref",
        SourceMissing,
        "; check the name of the repository, and that it and the revision exist there",
    ),
)
