"""Blobs that lie about on this host already: in another root, a cache of the Hub's client, a git-LFS folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from mirrortools.errors import UpstreamError
from mirrortools.model import Blob, RepoId
from mirrortools.upstreams.local import FileBytes, open_regular


def open_seed(folder: Path, repo: RepoId) -> FileBytes:
    """What `folder` may have of a repository. Its bytes are verified like any source's."""
    return FileBytes(str(folder), lambda blob: _open(folder, repo, blob))


def held_by(folder: Path, repo: RepoId, blobs: Sequence[Blob]) -> list[Blob]:
    """The blobs that a seed has, by name and size."""
    found = []
    for blob in blobs:
        file = _open(folder, repo, blob)
        if file is not None:
            found.append(blob)
            os.close(file)
    return found


def _open(folder: Path, repo: RepoId, blob: Blob) -> int | None:
    for path in _places(folder, repo, blob.digest):
        try:
            file = open_regular(path)
        except UpstreamError:
            continue
        if os.fstat(file).st_size == blob.size:
            return file
        os.close(file)
    return None


def _places(folder: Path, repo: RepoId, digest: str) -> Iterator[Path]:
    """Where each kind of folder keeps a SHA-256 blob."""
    sharded = f"{digest[:2]}/{digest[2:4]}/{digest}"
    for inside in ("public/blobs/sha256", "blobs/sha256", "lfs/objects", ".git/lfs/objects", "objects"):
        yield folder / inside / sharded
    cached = f"{repo.kind}--{repo.name.replace('/', '--')}/blobs/{digest}"
    for inside in ("", "hub"):
        yield folder / inside / cached
