"""Bring in what a plan names, from the nearest place that has it: this host, an older revision, the sources."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mirrortools.config import Config, Source
from mirrortools.desk import MOST_PLACES, Desk, Progress, Told, tell_nobody
from mirrortools.errors import NoSpace
from mirrortools.fetch import fetch
from mirrortools.model import Blob, Manifest, Realm
from mirrortools.places import Places, Terms
from mirrortools.plain import adopt_plain
from mirrortools.plan import Plan, Space, check_space
from mirrortools.resolve import Place
from mirrortools.standing import Standings
from mirrortools.store import Store
from mirrortools.upstreams import ByteSource, Clients, Upstream, open_upstream
from mirrortools.upstreams.seeds import held_by, open_seed


@dataclass(frozen=True, slots=True)
class Pull:
    """What is to come for one repository, and from where.

    `held` is what is served until it is here; `places` and `standings` are shared with the other repositories of a run;
    `told` hears how blobs grow.
    """

    config: Config
    place: Place
    upstream: Upstream
    clients: Clients
    plan: Plan
    manifests: Mapping[str, Manifest]
    held: Sequence[Manifest] = ()
    stopped: threading.Event = field(default_factory=threading.Event)
    places: Places = field(default_factory=lambda: Places(MOST_PLACES))
    standings: Standings = field(default_factory=Standings)
    told: Told = tell_nobody

    def run(self, store: Store, progress: Progress) -> None:
        """Put every blob of the plan into the store. Raises UpstreamError, IntegrityError, NoSpace, StoreError."""
        state = self.config.root / "state"
        if lack := self.lack_of_room():
            raise lack
        plain = [blob for blob in self.plan.fetch if blob.algorithm == "git"]
        adopt_plain(plain, self.place.mirror, store, state / "stage")
        progress.report(sum(blob.size for blob in plain))
        names, older = self.names, self._older(store)
        offers = self._offers()
        left = [blob for blob in self.plan.fetch if blob.algorithm == "sha256"]
        for sources, blobs in self._by_source(left, tuple(offer for offer, _ in offers)):
            desk = Desk(
                store,
                state / "partial",
                state / "quarantine",
                sources,
                self.config.max_parallel,
                older=older,
                stopped=self.stopped,
                places=self.places,
                standings=self.standings,
                terms={offer.name: terms for offer, terms in offers},
                told=self.told,
            )
            fetch({blob: names[blob] for blob in blobs}, desk, progress)

    @property
    def names(self) -> dict[Blob, str]:
        """A file name for each blob."""
        return {entry.blob: path for manifest in self.manifests.values() for path, entry in manifest.files.items()}

    def _offers(self) -> list[tuple[ByteSource, Terms]]:
        """The sources in their order, and how each may be used."""
        repository = self.place.repository
        offers = [(self.upstream.bytes, _terms(repository.source))]
        if backup := repository.backup_source:
            behind = open_upstream(backup, self.place.repo, self.place.mirror, self.clients)
            offers.append((behind.bytes, _terms(backup)))
        return offers

    def _by_source(
        self, left: list[Blob], sources: tuple[ByteSource, ...]
    ) -> Iterator[tuple[tuple[ByteSource, ...], list[Blob]]]:
        """Which blobs to ask of whom: seeds first for those that they have, with the sources behind them."""
        # What the public tree has is no secret, and need not come from afar once more; the other way round it would be.
        own = (self.config.root,) if self.place.repository.realm is Realm.PRIVATE else ()
        for folder in (*own, *self.config.seeds):
            held = held_by(folder, self.place.repo, left)
            if held:
                yield (open_seed(folder, self.place.repo), *sources), held
                left = [blob for blob in left if blob not in set(held)]
        yield sources, left

    def _older(self, store: Store) -> dict[Blob, Path]:
        """For each blob the one that had its place in a revision that is held."""
        before = {path: entry.blob for manifest in self.held for path, entry in manifest.files.items() if entry.is_lfs}
        return {
            entry.blob: store.path(before[path])
            for manifest in self.manifests.values()
            for path, entry in manifest.files.items()
            if path in before and entry.is_lfs and before[path] != entry.blob and store.has(before[path])
        }

    def lack_of_room(self) -> NoSpace | None:
        """What would not fit, known before the first byte; what partial blobs took is not counted twice."""
        partial = self.config.root / "state" / "partial"
        disk = os.statvfs(self.config.root)
        space = Space(disk.f_bavail * disk.f_frsize, self.config.min_free_bytes)
        begun = sum(_allocated(partial / f"{blob.digest}.part") for blob in self.plan.fetch)
        try:
            check_space(self.plan.fetch_bytes - begun, space, self.config.root)
        except NoSpace as lack:
            return lack
        return None


def _terms(source: Source) -> Terms:
    return Terms(source.url, source.max_parallel, source.minimum_rate_bytes_s, together=source.use == "together")


def _allocated(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
