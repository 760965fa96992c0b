"""A folder of model files as an upstream: a revision is made of what lies in it.

The folder is written into the local git mirror as a commit whose large files are LFS pointers, so that clients
see the same thing as from a git host. A commit is made only when the content differs from the last one; the
files' bytes stay where they are until they are fetched.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path, PurePosixPath
from typing import NoReturn
from urllib.parse import unquote, urlsplit

from mirrortools.config import Source
from mirrortools.errors import HostileTree, SourceMissing, SourceUnavailable
from mirrortools.files import write_json
from mirrortools.model import Blob, RepoId, check_path
from mirrortools.upstreams.base import ByteSource, RemoteRefs
from mirrortools.upstreams.git import GitMirror, write_pointer
from mirrortools.upstreams.hashing import sha256_of
from mirrortools.upstreams.local import FileBytes, open_inside, read_error

BRANCH = "refs/heads/main"
_CANDIDATE = "refs/mirrortools/candidate"
_PASSED_OVER = (".git", ".cache")
_ATTRIBUTES = ".gitattributes"
_IN_LFS = ("filter=lfs", "diff=lfs", "merge=lfs", "-text")
_LARGE_BYTES = 1 << 20
# A file that was written so shortly before it was hashed may change again within the same tick of its clock.
_UNSETTLED_NS = 2_000_000_000
_LATEST_S = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class Known:
    """A file as it was when it was hashed; the same stat means the same content, once it has `settled`."""

    size: int
    modified_ns: int
    changed_ns: int
    inode: int
    sha256: str
    binary: bool
    settled: bool

    def is_still(self, now: os.stat_result) -> bool:
        """Whether the file's stat is what it was."""
        seen = (self.size, self.modified_ns, self.changed_ns, self.inode)
        return seen == (now.st_size, now.st_mtime_ns, now.st_ctime_ns, now.st_ino)


class Directory:
    """One repository below a `dir:///folder` source: the files of `<folder>/<org>/<name>`.

    Links are followed as long as they lead to files below `<folder>`: whoever may write there could publish any
    file of this host otherwise.
    """

    def __init__(self, source: Source, repo: RepoId, mirror: GitMirror) -> None:
        self.name = f"{source.url}/{repo.url_path}"
        self._top = Path(unquote(urlsplit(source.url).path))
        self._folder = self._top / repo.url_path
        self._mirror = mirror
        self._index_file = mirror.folder / "mirrortools-index.json"
        self.bytes: ByteSource = FileBytes(self.name, self._find)
        self._by_digest: dict[str, tuple[str, Known]] | None = None

    def refs(self) -> RemoteRefs:
        """Look at the folder, commit it when it changed, and give the one branch. Raises UpstreamError."""
        self._mirror.create()
        found = dict(self._scan())
        if not found:
            raise SourceMissing(f"{self._folder}: is empty; check that it is mounted, and the `source`")
        indexed, before = self._read_index()
        now = {path: self._look(path, seen, before.get(path)) for path, seen in found.items()}
        self._know(now)
        commit = self._mirror.refs().get(BRANCH)
        if commit is None or commit != indexed or now != before:
            commit = self._commit(now, commit)
            files = {path: astuple(known) for path, known in now.items()}
            write_json(self._index_file, {"commit": commit, "files": files})
        return RemoteRefs({BRANCH: commit}, {}, BRANCH)

    def bring(self, refs: Mapping[str, str], commits: Collection[str]) -> None:
        """`refs` has made every object already."""

    def _know(self, files: Mapping[str, Known]) -> None:
        """Find blobs by their digests from now on."""
        self._by_digest = {known.sha256: (path, known) for path, known in files.items()}

    def _find(self, blob: Blob) -> int | None:
        if self._by_digest is None:
            self._know(self._read_index()[1])
        if self._by_digest is None or blob.digest not in self._by_digest:
            return None
        path, known = self._by_digest[blob.digest]
        file = open_inside(self._top, self._folder / path)
        if known.is_still(os.fstat(file)):
            return file
        os.close(file)
        raise self._changes(path)

    def _changes(self, path: str) -> SourceUnavailable:
        return SourceUnavailable(f"{self._folder / path}: changes while it is read; sync again when it is complete")

    def _scan(self) -> Iterator[tuple[str, os.stat_result]]:
        for top, folders, files in os.walk(self._folder, onerror=_refuse):
            inside = Path(top).relative_to(self._folder)
            folders[:] = sorted(name for name in folders if name not in _PASSED_OVER)
            for name in folders:
                if (Path(top) / name).is_symlink():
                    raise HostileTree(f"{Path(top) / name}: is a link to a folder; put the files themselves there")
            for name in sorted(files):
                path = (inside / name).as_posix()
                check_path(path)
                yield path, _stat(Path(top) / name)

    def _look(self, path: str, seen: os.stat_result, before: Known | None) -> Known:
        if before and before.settled and before.is_still(seen):
            return before
        file = open_inside(self._top, self._folder / path)
        try:
            digest, binary = sha256_of(file)
            after = os.fstat(file)
        except OSError as error:
            raise read_error(self._folder / path, error) from error
        finally:
            os.close(file)
        settled = max(after.st_mtime_ns, after.st_ctime_ns) < time.time_ns() - _UNSETTLED_NS
        known = Known(seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino, digest, binary, settled)
        if not known.is_still(after):
            raise self._changes(path)
        return known

    def _read_index(self) -> tuple[str, dict[str, Known]]:
        """The commit that was made last, and of which files; when that cannot be read, nothing: all is hashed anew."""
        try:
            document = json.loads(self._index_file.read_text())
            return str(document["commit"]), {path: Known(*values) for path, values in document["files"].items()}
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
            return "", {}

    def _commit(self, files: Mapping[str, Known], parent: str | None) -> str:
        stream = b"".join(self._import_stream(files, parent))
        self._mirror.run("fast-import", "--quiet", "--force", stdin=stream)
        candidate = self._mirror.refs()[_CANDIDATE]
        if parent and self._mirror.tree_id(parent) == self._mirror.tree_id(candidate):
            return parent
        self._mirror.run("update-ref", BRANCH, candidate)
        return candidate

    def _import_stream(self, files: Mapping[str, Known], parent: str | None) -> Iterator[bytes]:
        """Input for git-fast-import(1): one commit that holds exactly `files`."""
        rules = lfs_rules(files)
        newest_s = max(known.modified_ns for known in files.values()) // 1_000_000_000
        when = min(max(newest_s, 0), _LATEST_S)
        yield f"commit {_CANDIDATE}\ncommitter mirrortool <mirrortool@localhost> {when} +0000\n".encode()
        yield _data(f"Content of {self._folder.name}\n".encode())
        if parent:
            yield f"from {parent}\n".encode()
        yield b"deleteall\n"
        own = b""
        for path, known in sorted(files.items()):
            content = self._content(path, known, rules)
            if path == _ATTRIBUTES:
                own = content if content.endswith(b"\n") else content + b"\n"
                continue
            yield f"M 100644 inline {_quoted(path)}\n".encode()
            yield _data(content)
        if rules or own:
            yield f"M 100644 inline {_ATTRIBUTES}\n".encode()
            held = held_rules(own.decode(errors="surrogateescape"))
            yield _data(own + "".join(f"{' '.join((rule, *_IN_LFS))}\n" for rule in rules if rule not in held).encode())

    def _content(self, path: str, known: Known, rules: Collection[str]) -> bytes:
        if known.size and lfs_rule(path) in rules and path != _ATTRIBUTES:
            return write_pointer(Blob("sha256", known.sha256, known.size))
        with os.fdopen(open_inside(self._top, self._folder / path), "rb") as file:
            content = file.read(known.size + 1)
        if hashlib.sha256(content).hexdigest() != known.sha256:
            raise self._changes(path)
        return content


def _refuse(error: OSError) -> NoReturn:
    """A folder that cannot be listed must not pass for an empty one."""
    raise read_error(Path(error.filename), error) from error


def _stat(path: Path) -> os.stat_result:
    try:
        seen = path.stat()
    except FileNotFoundError as error:
        if path.is_symlink():
            raise HostileTree(f"{path}: is a link that leads nowhere; take it away") from error
        raise SourceUnavailable(
            f"{path}: vanished while the folder was read; sync again when it is complete"
        ) from error
    except OSError as error:
        raise read_error(path, error) from error
    if not stat.S_ISREG(seen.st_mode):
        raise HostileTree(f"{path}: is not a regular file; take it away")
    return seen


def lfs_rules(files: Mapping[str, Known]) -> list[str]:
    """Which files are kept in LFS, as .gitattributes patterns: all of a suffix when one is large or binary."""
    return sorted({lfs_rule(path) for path, known in files.items() if known.binary or known.size > _LARGE_BYTES})


def held_rules(attributes: str) -> set[str]:
    """The patterns that are kept in LFS by a .gitattributes already: the last line that speaks of filters counts.

    Lines behind those that say anything else of filters; none where a macro may say it (gitattributes(5)).
    """
    held: set[str] = set()
    for line in () if "[attr]" in attributes else reversed(attributes.splitlines()):
        pattern, *rest = line.rsplit(None, len(_IN_LFS)) or [""]
        if rest == [*_IN_LFS]:
            held.add(pattern.strip())
        elif "filter" in line and not line.lstrip().startswith("#"):
            break
    return held


def lfs_rule(path: str) -> str:
    """The .gitattributes pattern that a file falls under: its suffix, or its whole name when it has none."""
    name = PurePosixPath(path)
    if name.suffix.isascii() and name.suffix[1:].isalnum():
        return f"*{name.suffix}"
    literal = re.sub(r"([\[\]*?!\\])", r"\\\1", name.name)
    return '"' + re.sub(r'(["\\])', r"\\\1", literal) + '"'


def _data(content: bytes) -> bytes:
    return b"data %d\n%s\n" % (len(content), content)


def _quoted(path: str) -> str:
    escaped = path.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
