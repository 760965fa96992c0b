"""What deliveries of a realm are made of on this host."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mirrortools.deltas import LEAST_BYTES, Deltas
from mirrortools.model import Blob, Publication, Realm, Revision
from mirrortools.readers import Access
from mirrortools.signing import Signer
from mirrortools.store import Store
from mirrortools.tree import Tree

# How many of the revisions that an edge has are looked through for older blobs.
_OLDER_REVISIONS: Final = 4


@dataclass(frozen=True, slots=True)
class Here:
    """What deliveries of a realm are made of: blobs and revisions of this host, the key that it signs with, deltas.

    `access` tells who may read on an edge; None where nobody has to be told.
    """

    store: Store
    tree: Tree
    signer: Signer
    deltas: Deltas
    access: Callable[[str], Access] | None = None

    @classmethod
    def of(cls, root: Path, realm: Realm = Realm.PUBLIC, access: Callable[[str], Access] | None = None) -> Here:
        """Those of one root."""
        return cls(Store(root, realm), Tree(root, realm), Signer(root), Deltas(root, realm), access)

    def older(self, publication: Publication, parts: Mapping[str, str]) -> dict[Blob, Blob]:
        """For blobs of a publication: one that an edge with these `parts` has at the same path, or that is most alike.

        Raises StoreError.
        """
        wanted = [
            (path, entry.blob)
            for manifest in publication.manifests.values()
            for path, entry in manifest.files.items()
            if entry.blob.size >= LEAST_BYTES
        ]
        if not wanted:  # what is there need not be read
            return {}
        there = [commit for commit in parts if commit != "refs"]
        latest = self.tree.latest(publication.repo, there, _OLDER_REVISIONS)
        manifests = [m for c in latest if (m := self.tree.manifest(Revision(publication.repo, c)))]
        by_path = {path: entry.blob for manifest in reversed(manifests) for path, entry in manifest.files.items()}
        held = {blob for manifest in manifests for blob in manifest.blobs}
        large = [blob for blob in held if blob.size >= LEAST_BYTES]
        found: dict[Blob, Blob] = {}
        for path, blob in wanted:
            if blob not in held:
                base = by_path.get(path) or self.deltas.most_alike(blob, large)
                found |= {blob: base} if base else {}
        return found
