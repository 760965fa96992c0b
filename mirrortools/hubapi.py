"""The answers of the Hub's API, made from a manifest alone, so that a static file can be each answer.

Only the standard library is used here, because the receiver runs this module on edges.
There is never an `xetHash` in them: with one, clients leave for a route that a mirror does not have.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from mirrortools.model import Entry, Manifest, Publication, short_ref

# Deeper folders get no recursive listing of their own: each level repeats all that is below it.
RECURSIVE_DEPTH = 16
# huggingface_hub fetches no file of more bytes over HTTP when it is told how many they are.
HUGE_BYTES = 50_000_000_000
# The most entries that one answer lists; of a longer listing there are more pages.
PAGE_ENTRIES = 10_000
_YEAR_10000 = 253402300800

Document = dict[str, Any]


class Listing(NamedTuple):
    """What one folder holds: itself (`""` is the root), and the entries that a tree request answers with.

    The entries are made while they are taken: there may be very many. `recursive` is None for a folder deeper than
    RECURSIVE_DEPTH.
    """

    folder: str
    flat: Iterator[Document]
    recursive: Iterator[Document] | None


def info(manifest: Manifest, *, blobs: bool, is_private: bool = False) -> Document:
    """What `model_info` or `dataset_info` asks for; with `blobs`, sizes and digests too.

    The value of `siblings` is an iterator.
    """
    siblings = (_sibling(path, manifest.files[path], blobs) for path in sorted(manifest.files))
    return brief(manifest, is_private=is_private) | {"siblings": siblings}


def brief(manifest: Manifest, *, is_private: bool = False) -> Document:
    """What a list of repositories tells of each: the same without its files."""
    repo = manifest.revision.repo
    moment = _moment(manifest.committed_at)
    document: Document = {
        "id": repo.name,
        "sha": manifest.revision.commit,
        "lastModified": moment,
        "createdAt": moment,
        "private": is_private,
        "gated": False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": [],
    }
    if repo.kind == "models":
        document["modelId"] = repo.name
    if "/" in repo.name:
        document["author"] = repo.name.partition("/")[0]
    return document


def commit(oid: str, author: str, committed_at: int, title: str, message: str) -> Document:
    """One entry of what `list_repo_commits` asks for; `author` is git's, there are no users here."""
    moment = _moment(committed_at)
    return {"id": oid, "title": title, "message": message, "authors": [{"user": author}], "date": moment}


def refs(refs: Mapping[str, str]) -> Document:
    """What `list_repo_refs` asks for; `refs` keeps every full name, of kinds unknown to the Hub too."""
    groups = {
        "branches": "refs/heads/",
        "tags": "refs/tags/",
        "converts": "refs/convert/",
        "pullRequests": "refs/pr/",
    }
    document: Document = {
        group: [
            _ref(name.removeprefix(prefix), name, commit)
            for name, commit in sorted(refs.items())
            if name.startswith(prefix)
        ]
        for group, prefix in groups.items()
    }
    document["refs"] = dict(sorted(refs.items()))
    return document


def short_refs(refs: Mapping[str, str]) -> dict[str, str]:
    """The names users type → commit; where a branch and a tag share one, the branch has it."""
    weakest_first = sorted(refs, key=lambda name: (name.startswith("refs/heads/"), name.startswith("refs/tags/")))
    return {short_ref(name): refs[name] for name in weakest_first}


def default_ref(publication: Publication) -> str | None:
    """The ref that users mean when they name none: main, else what a clone checks out, else the first; its short name.

    None when only commits are served.
    """
    names = sorted(short_refs(publication.refs))
    favourites = ("main", publication.git.head.removeprefix("refs/heads/"), *names)
    return next((name for name in favourites if name in names), None)


def listings(manifest: Manifest) -> Iterator[Listing]:
    """The listing of the root and of every folder."""
    shelf = _Shelf(manifest.files)
    for folder in sorted(shelf.children, key=_depth, reverse=True):
        recursive = shelf.recursive(folder) if _depth(folder) <= RECURSIVE_DEPTH else None
        yield Listing(folder, shelf.flat(folder), recursive)


def _moment(seconds: int) -> str:
    """Unix seconds as the Hub writes them: ISO 8601, UTC, milliseconds, within the years 1970 to 9999."""
    within = min(max(seconds, 0), _YEAR_10000 - 1)
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(within))


def _sibling(path: str, entry: Entry, blobs: bool) -> Document:
    sibling: Document = {"rfilename": path}
    if blobs:
        sibling |= {"blobId": entry.git_oid, "size": entry.blob.size}
        if entry.is_lfs:
            size, pointer_size = entry.blob.size, entry.pointer_size
            sibling["lfs"] = {"sha256": entry.blob.digest, "size": size, "pointerSize": pointer_size}
    return sibling


def _ref(short: str, full: str, commit: str) -> Document:
    return {"name": short, "ref": full, "targetCommit": commit}


def _depth(folder: str) -> int:
    return folder.count("/") + 1 if folder else 0


class _Shelf:
    """The files of a revision by folder: `children` has the sorted full paths of the files and folders in each."""

    def __init__(self, files: Mapping[str, Entry]) -> None:
        self.children = _children(files)
        self._files = files
        self._folder_oids: dict[str, str] = {}
        for folder in sorted((name for name in self.children if name), key=_depth, reverse=True):
            self._folder_oids[folder] = _folder_oid(self.flat(folder))

    def flat(self, folder: str) -> Iterator[Document]:
        """The entries of a folder."""
        return map(self._document, self.children[folder])

    def recursive(self, folder: str) -> Iterator[Document]:
        """The entries of a folder, behind each folder those below it."""
        open_folders = [iter(self.children[folder])]
        while open_folders:
            path = next(open_folders[-1], None)
            if path is None:
                open_folders.pop()
                continue
            yield self._document(path)
            if path in self.children:
                open_folders.append(iter(self.children[path]))

    def _document(self, path: str) -> Document:
        """The entry of a file or folder in a tree answer."""
        if path in self._folder_oids:
            return {"type": "directory", "oid": self._folder_oids[path], "size": 0, "path": path}
        return _file(path, self._files[path])


def _children(files: Iterable[str]) -> dict[str, list[str]]:
    """Folder → full paths of its files and folders, sorted. The root is always there."""
    found: dict[str, list[str]] = {"": []}
    for path in files:
        folder = path.rpartition("/")[0]
        while folder not in found:
            found[folder] = [path]
            path, folder = folder, folder.rpartition("/")[0]
        found[folder].append(path)
    for paths in found.values():
        paths.sort()
    return found


def _file(path: str, entry: Entry) -> Document:
    document: Document = {"type": "file", "oid": entry.git_oid, "size": entry.blob.size, "path": path}
    if entry.is_lfs:
        size, pointer_size = entry.blob.size, entry.pointer_size
        document["lfs"] = {"oid": entry.blob.digest, "size": size, "pointerSize": pointer_size}
    return document


def _folder_oid(entries: Iterable[Document]) -> str:
    """A folder's id as git makes it (git-mktree(1)), as if every file were a plain one."""
    lines = {}
    for entry in entries:
        name = entry["path"].rpartition("/")[2].encode()
        folder = entry["type"] == "directory"
        mode = b"40000" if folder else b"100644"
        lines[name + b"/" * folder] = mode + b" " + name + b"\0" + bytes.fromhex(entry["oid"])
    content = b"".join(lines[name] for name in sorted(lines))
    return hashlib.sha1(b"tree %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
