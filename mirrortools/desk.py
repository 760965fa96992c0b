"""Where fetching happens."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mirrortools.model import Blob
from mirrortools.places import MOST_PLACES as MOST_PLACES
from mirrortools.places import Places, Terms
from mirrortools.progress import Progress as Progress
from mirrortools.segments import SEGMENT_BYTES
from mirrortools.standing import Standings
from mirrortools.store import Store
from mirrortools.upstreams import ByteSource

Told = Callable[[Blob, int], None]
"""Told how much of a blob is on disk, from its start on, each time that this is more. Called from several threads."""


def tell_nobody(blob: Blob, ready_bytes: int) -> None:
    """Nobody wants to know."""


@dataclass(frozen=True, slots=True)
class Desk:
    """Where fetching happens: the store, the folders beside it, the sources in order.

    `workers` is the number of connections; None: as many as pay. `older` names for a blob the file that had its place
    before: segments that did not change are taken from there, when a source tells which those are.

    `places` and `standings` are shared by all fetches of a run; `terms` say, by a source's name, how it may be used.

    `remedy` is what the operator is told when a blob's bytes are wrong wherever they come from.
    `told` hears how blobs grow.

    `wait` lets time pass on `clock`, unless the event is set meanwhile; `stopped` ends everything from outside.
    """

    store: Store
    partial: Path
    quarantine: Path
    sources: tuple[ByteSource, ...]
    workers: int | None = None
    segment_bytes: int = SEGMENT_BYTES
    clock: Callable[[], float] = time.monotonic
    wait: Callable[[threading.Event, float], object] = threading.Event.wait
    stopped: threading.Event = field(default_factory=threading.Event)
    older: Mapping[Blob, Path] = field(default_factory=dict)
    places: Places = field(default_factory=lambda: Places(MOST_PLACES))
    standings: Standings = field(default_factory=Standings)
    terms: Mapping[str, Terms] = field(default_factory=dict)
    remedy: str = "the published revision is unchanged. Tell whoever runs the source, or add a backup_source"
    told: Told = tell_nobody

    def terms_of(self, source: ByteSource) -> Terms:
        """How a source may be used."""
        return self.terms.get(source.name) or Terms(source.name)
