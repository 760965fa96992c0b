"""The answers of the Hub's API, made from a manifest alone, so that a static file can be each answer.

Only the standard library is used here, because the receiver runs this module on edges.
There is never an `xetHash` in them: with one, clients leave for a route that a mirror does not have.
"""

from __future__ import annotations

import hashlib
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mirrortools.model import Entry, Manifest, short_ref

# Deeper folders get no recursive listing of their own: each level repeats all that is below it.
RECURSIVE_DEPTH = 16
_YEAR_10000 = 253402300800

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Listing:
    """What one folder holds: itself (`""` is the root), and the entries that a tree request answers with.

    `recursive` is None for a folder deeper than RECURSIVE_DEPTH.
    """

    folder: str
    flat: list[Document]
    recursive: list[Document] | None


def info(manifest: Manifest, *, blobs: bool) -> Document:
    """What `model_info` or `dataset_info` asks for; with `blobs`, sizes and digests too."""
    repo = manifest.revision.repo
    moment = _moment(manifest.committed_at)
    document: Document = {
        "id": repo.name,
        "sha": manifest.revision.commit,
        "lastModified": moment,
        "createdAt": moment,
        "private": False,
        "gated": False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": [],
        "siblings": [_sibling(path, entry, blobs) for path, entry in sorted(manifest.files.items())],
    }
    if repo.kind == "models":
        document["modelId"] = repo.name
    if "/" in repo.name:
        document["author"] = repo.name.partition("/")[0]
    return document


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


def listings(manifest: Manifest) -> Iterator[Listing]:
    """The listing of the root and of every folder."""
    children = _children(manifest)
    entries = _entries(manifest, children)
    below: dict[str, list[Document]] = {}
    for folder in sorted(children, key=_depth, reverse=True):
        flat = [entries[path] for path in children[folder]]
        recursive = []
        for entry in flat:
            recursive.append(entry)
            recursive.extend(below.pop(entry["path"], ()))
        below[folder] = recursive
        yield Listing(folder, flat, recursive if _depth(folder) <= RECURSIVE_DEPTH else None)


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


def _children(manifest: Manifest) -> dict[str, list[str]]:
    """Folder → full paths of its files and folders, sorted. The root is always there."""
    found: dict[str, set[str]] = defaultdict(set, {"": set()})
    for path in manifest.files:
        while path and path not in found[folder := path.rpartition("/")[0]]:
            found[folder].add(path)
            path = folder
    return {folder: sorted(paths) for folder, paths in found.items()}


def _entries(manifest: Manifest, children: Mapping[str, list[str]]) -> dict[str, Document]:
    """Path → its entry in a tree answer, for every file and every folder."""
    entries = {path: _file(path, entry) for path, entry in manifest.files.items()}
    for folder in sorted((name for name in children if name), key=_depth, reverse=True):
        oid = _folder_oid([entries[path] for path in children[folder]])
        entries[folder] = {"type": "directory", "oid": oid, "size": 0, "path": folder}
    return entries


def _file(path: str, entry: Entry) -> Document:
    document: Document = {"type": "file", "oid": entry.git_oid, "size": entry.blob.size, "path": path}
    if entry.is_lfs:
        size, pointer_size = entry.blob.size, entry.pointer_size
        document["lfs"] = {"oid": entry.blob.digest, "size": size, "pointerSize": pointer_size}
    return document


def _folder_oid(entries: list[Document]) -> str:
    """A folder's id as git makes it (git-mktree(1)), as if every file were a plain one."""
    lines = {}
    for entry in entries:
        name = entry["path"].rpartition("/")[2].encode()
        folder = entry["type"] == "directory"
        mode = b"40000" if folder else b"100644"
        lines[name + b"/" * folder] = mode + b" " + name + b"\0" + bytes.fromhex(entry["oid"])
    content = b"".join(lines[name] for name in sorted(lines))
    return hashlib.sha1(b"tree %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
