"""The history of a revision as the Hub's API tells it, made on the origin, which has git; it travels as a blob."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mirrortools import hubapi
from mirrortools.model import Blob, Manifest
from mirrortools.store import Store
from mirrortools.upstreams import GitMirror

# Of a longer history the newest commits are told. nginx reads all of a history to answer with a page of it.
MOST_COMMITS: Final = 10_000
MOST_BYTES: Final = 4 << 20
_LONGEST_TEXT: Final = 4096


@dataclass(frozen=True, slots=True)
class Histories:
    """Makes the histories of manifests, as blobs of a store. `known` has those of commits that are published."""

    store: Store
    stage: Path
    mirror: GitMirror
    known: Mapping[str, Blob]

    @classmethod
    def of(cls, store: Store, stage: Path, mirror: GitMirror, held: Iterable[Manifest]) -> Histories:
        """Those of a repository of which `held` are published."""
        known = {manifest.revision.commit: manifest.history for manifest in held if manifest.history}
        return cls(store, stage, mirror, known)

    def history(self, manifest: Manifest) -> Blob:
        """The history of a revision, in the store. Raises StoreError, NoSpace."""
        known = self.known.get(manifest.revision.commit)
        if known and self.store.has(known):
            return known
        return self.store.adopt_made(self._told(manifest.revision.commit).encode(), self.stage)

    def _told(self, commit: str) -> str:
        """A JSON list, the newest commit first, as long as it is within bounds."""
        told: list[str] = []
        left = MOST_BYTES
        for one in self.mirror.history(commit, MOST_COMMITS):
            title, message = one.title[:_LONGEST_TEXT], one.message[:_LONGEST_TEXT]
            told.append(
                json.dumps(hubapi.commit(one.oid, one.author[:_LONGEST_TEXT], one.committed_at, title, message))
            )
            left -= len(told[-1])
            if left < 0:
                break
        return f"[{','.join(told)}]"
