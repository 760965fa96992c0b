"""Hash the pieces of what is served, and let the metalinks say them: work for quiet hours, done where the blobs are.

Only the standard library is used here, because the receiver runs this module on edges.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mirrortools.errors import IntegrityError
from mirrortools.locks import RepositoryLock
from mirrortools.model import Publication
from mirrortools.pieces import needs_pieces, read_pieces, write_pieces_of
from mirrortools.store import write_error
from mirrortools.tree import Tree


@dataclass(frozen=True, slots=True)
class Described:
    """What was hashed: so many blobs with so many bytes; `bad` says which are not what their name says."""

    blobs: int
    size_bytes: int
    bad: tuple[str, ...]


def describe(root: Path, publication: Publication) -> Described:
    """Hash the pieces that are not known yet, then write the metalinks that do not say so.

    Blobs never change, so the repository is locked for the metalinks alone. Raises Locked, StoreError, NoSpace.
    """
    served, tree = root / publication.realm.value, Tree(root, publication.realm)
    blobs = [blob for blob in sorted(publication.blobs) if needs_pieces(blob) and not read_pieces(served, blob)]
    bad = []
    for blob in blobs:
        try:
            write_pieces_of(served, blob)
        except IntegrityError as error:
            bad.append(str(error))
        except OSError as error:
            raise write_error(served / blob.path, error) from error
    lock = RepositoryLock(root, publication.repo, "mirrortool describe")
    try:
        mirrors = tree.mirrors(publication.repo)
        changed = [
            commit
            for commit, manifest in publication.manifests.items()
            if tree.publish_revision(manifest, mirrors) or tree.publish_metalinks(manifest, mirrors)
        ]
        if changed:
            tree.note_change(publication, changed)
    finally:
        lock.close()
    return Described(len(blobs), sum(blob.size for blob in blobs), tuple(bad))
