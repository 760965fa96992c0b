"""What a delivery would send to an edge, and why: each file whole, as a delta, or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from mirrortools.deltas import LEAST_BYTES, Deltas
from mirrortools.errand import Holding
from mirrortools.errors import MirrorError
from mirrortools.model import Blob, Publication, RepoId
from mirrortools.route import Route

How = Literal["whole", "delta", "rest"]


@dataclass(frozen=True, slots=True)
class Item:
    """One file that an edge lacks: `send_bytes` of it would go out, `how`, and why so. A delta is one to `base`."""

    path: str
    blob: Blob
    how: How
    send_bytes: int
    reason: str
    base: Blob | None = None


@dataclass(frozen=True, slots=True)
class Foresight:
    """What a delivery of one repository to one edge would do. `held` is what the edge has of it already.

    `relays` is whether it takes from other edges, and passes on to them; `route` from whom, where that is known.
    """

    edge: str
    repo: RepoId
    items: tuple[Item, ...] = ()
    held_blobs: int = 0
    held_bytes: int = 0
    error: MirrorError | None = None
    relays: bool = False
    route: Route | None = None

    def send_bytes(self, *how: How) -> int:
        """What would go out in these ways; in any, when none is named."""
        return sum(item.send_bytes for item in self.items if not how or item.how in how)

    @property
    def lacking_bytes(self) -> int:
        """The size of what the edge lacks."""
        return sum(item.blob.size for item in self.items)

    @property
    def wants(self) -> frozenset[str]:
        """The digests of what it lacks and does not make of what it has."""
        return frozenset(item.blob.digest for item in self.items if item.how != "delta")

    @property
    def makes(self) -> frozenset[str]:
        """The digests of what it makes of what it has."""
        return frozenset(item.blob.digest for item in self.items if item.how == "delta")


def leaves_once(foresights: Sequence[Foresight]) -> int:
    """How many bytes would leave this host for some edges of a repository: what several lack they pass on."""
    alone = sum(foresight.send_bytes() for foresight in foresights if not foresight.relays)
    together: dict[tuple[Blob, Blob | None], int] = {}
    for item in (item for foresight in foresights if foresight.relays for item in foresight.items):
        key = item.blob, item.base
        together[key] = max(together.get(key, 0), item.send_bytes)
    return alone + sum(together.values())


def foreseen(
    edge: str,
    publication: Publication,
    holding: Holding,
    older: Mapping[Blob, Blob],
    deltas: Deltas,
    *,
    relays: bool = False,
) -> Foresight:
    """Decide as a delivery would: of what is lacking, which blobs travel whole. Raises StoreError, NoSpace."""
    paths = dict(_paths(publication))
    blobs = sorted(holding.lacking, key=lambda blob: (paths[blob], blob))
    items = tuple(_item(paths[blob], blob, holding.lacking[blob], older.get(blob), deltas) for blob in blobs)
    held = publication.blobs - holding.lacking.keys()
    return Foresight(edge, publication.repo, items, len(held), sum(blob.size for blob in held), relays=relays)


def _paths(publication: Publication) -> Iterator[tuple[Blob, str]]:
    """A name for each blob."""
    for name, blob in publication.git.packs.items():
        yield blob, f"git: {name}"
    for manifest in publication.manifests.values():
        for what, made in (("card", manifest.card), ("history", manifest.history)):
            if made:
                yield made, f"{what} of {manifest.revision.commit}"
        for path, entry in manifest.files.items():
            yield entry.blob, path


def _item(path: str, blob: Blob, arrived_bytes: int, base: Blob | None, deltas: Deltas) -> Item:
    if arrived_bytes:
        return Item(path, blob, "rest", blob.size - arrived_bytes, "goes on after a broken delivery")
    if blob.size < LEAST_BYTES:
        return Item(path, blob, "whole", blob.size, "too small for a delta")
    if base is None:
        return Item(path, blob, "whole", blob.size, "the edge has nothing like it")
    compared = deltas.compared(base, blob)
    if compared is None:
        return Item(path, blob, "whole", blob.size, "the older file is not here to compare with, or is small")
    if not compared.pays:
        return Item(path, blob, "whole", blob.size, compared.reason)
    return Item(path, blob, "delta", compared.new_bytes, compared.reason, base)
