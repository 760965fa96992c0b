"""A folder of model files as an upstream: a revision is made of what lies in it.

The folder is written into the local git mirror as a commit whose large files are LFS pointers, so that clients
see the same thing as from a git host. A commit is made only when the content differs from the last one; the
files' bytes stay where they are until they are fetched.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import astuple, dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from mirrortools.config import Source
from mirrortools.errors import SourceMissing, SourceUnavailable, StoreError
from mirrortools.files import write_json
from mirrortools.model import Blob, RepoId, check_path
from mirrortools.upstreams.base import Reader, RemoteRefs
from mirrortools.upstreams.git import GitMirror, write_pointer
from mirrortools.upstreams.hashing import sha256_of
from mirrortools.upstreams.local import FileBytes

BRANCH = "refs/heads/main"
_CANDIDATE = "refs/mirrortools/candidate"
_LARGE_BYTES = 1 << 20
_PASSED_OVER = (".git", ".cache")


@dataclass(frozen=True, slots=True)
class Known:
    """A file as it was when it was last hashed; the same stat means the same content."""

    size: int
    modified_ns: int
    inode: int
    sha256: str
    binary: bool


class Directory:
    """One repository below a `dir:///folder` source: the files of `<folder>/<org>/<name>`."""

    def __init__(self, source: Source, repo: RepoId, mirror: GitMirror) -> None:
        self.name = f"{source.url}/{repo.url_path}"
        self._folder = Path(unquote(urlsplit(source.url).path)) / repo.url_path
        self._mirror = mirror
        self._index_file = mirror.folder / "mirrortools-index.json"
        self._bytes = FileBytes(self.name, self._locate)
        self._by_digest: dict[str, str] = {}

    def refs(self) -> RemoteRefs:
        """Look at the folder, commit it when it changed, and give the one branch. Raises UpstreamError."""
        self._mirror.create()
        found = dict(self._scan())
        if not found:
            raise SourceMissing(f"{self.name}: {self._folder} is missing or empty")
        before = self._read_index()
        now = {path: self._look(path, stat, before.get(path)) for path, stat in found.items()}
        commit = self._mirror.refs().get(BRANCH)
        if commit is None or now != before:
            commit = self._commit(now, commit)
            write_json(self._index_file, {path: astuple(known) for path, known in now.items()})
        return RemoteRefs({BRANCH: commit}, {}, BRANCH)

    def bring(self, refs: Mapping[str, str], commits: Collection[str]) -> None:
        """`refs` has made every object already."""

    def prepare(self, _blobs: Sequence[Blob]) -> None:
        """Find blobs by their digests."""
        self._by_digest = {known.sha256: path for path, known in self._read_index().items()}

    def open(self, blob: Blob, start: int, stop: int) -> AbstractContextManager[Reader]:
        """Read a byte range of the file that had this content. Raises UpstreamError."""
        return self._bytes.open(blob, start, stop)

    def _locate(self, blob: Blob) -> Path | None:
        path = self._by_digest.get(blob.digest)
        return None if path is None else self._folder / path

    def _scan(self) -> Iterator[tuple[str, os.stat_result]]:
        for top, folders, files in os.walk(self._folder):
            inside = Path(top).relative_to(self._folder)
            folders[:] = sorted(name for name in folders if name not in _PASSED_OVER)
            for name in sorted(files):
                path = (inside / name).as_posix()
                check_path(path)
                yield path, (Path(top) / name).stat()

    def _look(self, path: str, stat: os.stat_result, before: Known | None) -> Known:
        same = before and (before.size, before.modified_ns, before.inode) == (
            stat.st_size,
            stat.st_mtime_ns,
            stat.st_ino,
        )
        if before and same:
            return before
        file = self._folder / path
        digest, binary = sha256_of(file)
        after = file.stat()
        if (after.st_size, after.st_mtime_ns) != (stat.st_size, stat.st_mtime_ns):
            raise SourceUnavailable(f"{file}: changes while it is read; sync again when it is complete")
        return Known(stat.st_size, stat.st_mtime_ns, stat.st_ino, digest, binary)

    def _read_index(self) -> dict[str, Known]:
        if not self._index_file.exists():
            return {}
        return {path: Known(*values) for path, values in json.loads(self._index_file.read_text()).items()}

    def _commit(self, files: Mapping[str, Known], parent: str | None) -> str:
        stream = b"".join(self._import_stream(files, parent))
        done = subprocess.run(
            self._mirror.command("fast-import", "--quiet", "--force"),
            input=stream,
            capture_output=True,
            check=False,
        )
        if done.returncode:
            raise StoreError(f"git fast-import failed for {self.name}: {done.stderr.decode(errors='replace')}")
        candidate = self._mirror.refs()[_CANDIDATE]
        if parent and self._mirror.tree_id(parent) == self._mirror.tree_id(candidate):
            return parent
        self._mirror.run("update-ref", BRANCH, candidate)
        return candidate

    def _import_stream(self, files: Mapping[str, Known], parent: str | None) -> Iterator[bytes]:
        """Input for git-fast-import(1): one commit that holds exactly `files`."""
        rules = lfs_rules(files)
        newest_s = max(known.modified_ns for known in files.values()) // 1_000_000_000
        yield f"commit {_CANDIDATE}\ncommitter mirrortool <mirrortool@localhost> {newest_s} +0000\n".encode()
        yield _data(f"Content of {self._folder.name}\n".encode())
        if parent:
            yield f"from {parent}\n".encode()
        yield b"deleteall\n"
        for path, known in sorted(files.items()):
            yield f"M 100644 inline {_quoted(path)}\n".encode()
            yield _data(self._content(path, known, rules))
        if rules and ".gitattributes" not in files:
            yield b"M 100644 inline .gitattributes\n"
            yield _data("".join(f"{rule} filter=lfs diff=lfs merge=lfs -text\n" for rule in rules).encode())

    def _content(self, path: str, known: Known, rules: Collection[str]) -> bytes:
        if known.size and lfs_rule(path) in rules:
            return write_pointer(Blob("sha256", known.sha256, known.size))
        return (self._folder / path).read_bytes()


def lfs_rules(files: Mapping[str, Known]) -> list[str]:
    """Which files are kept in LFS, as .gitattributes patterns: all of a suffix when one is large or binary."""
    return sorted({lfs_rule(path) for path, known in files.items() if known.binary or known.size > _LARGE_BYTES})


def lfs_rule(path: str) -> str:
    """The .gitattributes pattern that a file falls under: its suffix, or its whole name when it has none."""
    name = PurePosixPath(path)
    pattern = f"*{name.suffix}" if name.suffix.isascii() and name.suffix[1:].isalnum() else name.name
    return f'"{pattern}"' if " " in pattern else pattern


def _data(content: bytes) -> bytes:
    return b"data %d\n%s\n" % (len(content), content)


def _quoted(path: str) -> str:
    escaped = path.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
