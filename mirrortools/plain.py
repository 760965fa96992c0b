"""Blobs that git itself holds: taken out of the local mirror into the store, verified by their git ids."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from mirrortools.errors import IntegrityError
from mirrortools.files import make_folder
from mirrortools.model import Blob
from mirrortools.store import Store, hash_file, write_error
from mirrortools.upstreams import GitMirror

_TOGETHER_BYTES = 4 << 20
_TOGETHER_COUNT = 1000


def adopt_plain(blobs: Sequence[Blob], mirror: GitMirror, store: Store, stage: Path) -> None:
    """Put git blobs into the store. Raises IntegrityError, NoSpace, StoreError."""
    try:
        make_folder(stage)
        for group in _groups(blobs):
            _adopt(group, mirror, store, stage)
    except OSError as error:
        raise write_error(stage, error) from error


def _groups(blobs: Sequence[Blob]) -> list[list[Blob]]:
    """Blobs in groups that fit into memory; a large one alone."""
    groups: list[list[Blob]] = [[]]
    size = 0
    for blob in blobs:
        if groups[-1] and (size + blob.size > _TOGETHER_BYTES or len(groups[-1]) == _TOGETHER_COUNT):
            groups.append([])
            size = 0
        groups[-1].append(blob)
        size += blob.size
    return groups


def _adopt(group: Sequence[Blob], mirror: GitMirror, store: Store, stage: Path) -> None:
    # A folder of its own: repositories that are synced side by side have files in common.
    with tempfile.TemporaryDirectory(prefix="git.", dir=stage) as folder:
        written = [(Path(folder) / blob.digest, blob) for blob in group]
        _write(written, mirror)
        store.adopt_all(written)


def _write(written: Sequence[tuple[Path, Blob]], mirror: GitMirror) -> None:
    """Write each blob to its path. Raises IntegrityError when git gives other content."""
    if len(written) == 1:
        mirror.write_blob(written[0][1].digest, written[0][0])
    else:
        contents = mirror.contents([blob.digest for _, blob in written])
        for (path, _), (_, content) in zip(written, contents, strict=True):
            path.write_bytes(content)
    for path, blob in written:
        got = hash_file(path, blob.algorithm)
        if got != blob.digest:
            raise IntegrityError(
                f"{mirror.folder}: git object {blob.digest} has content {got}; remove that folder and sync again"
            )
