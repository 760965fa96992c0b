"""What goes to one edge while this host is still fetching: the large part of a repository, before it is published."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mirrortools.errand import Holding, Meter, Reached, blob_items, check_room, understood
from mirrortools.fanout import FanOut, Parcel
from mirrortools.model import Blob, RepoId


@dataclass(frozen=True, slots=True)
class Vanguard:
    """Blobs on their way to an edge that was reached, except for `later` ones.

    It brings them by way of other edges or not at all, and publishes nothing: the delivery that follows sees what is
    there. Blobs that this host has lie below `source`.
    """

    reached: Reached
    repo: RepoId
    blobs: frozenset[Blob]
    later: Container[Blob]
    source: Path
    meter: Meter

    def run(self, fan_out: FanOut) -> None:
        """Bring what the edge lacks, as it comes, and have the edge hash it. Raises EdgeError, NoSpace, Locked."""
        holding = self._begin()
        check_room(self.reached, self.repo, holding)
        lacking = {blob: have for blob, have in holding.lacking.items() if blob not in self.later}
        planned_bytes = sum(blob.size - have for blob, have in lacking.items())
        self.meter.plan(len(lacking), planned_bytes)
        if not lacking:
            return
        offered = self.blobs - (holding.lacking.keys() - lacking.keys())
        parcel = Parcel(self.reached.edge, self.repo, lacking, offered, [self.source])
        brought = fan_out.bring(parcel, self.reached.session, self.meter.batch_at)
        if brought:
            self.meter.batch_done(brought.sent_bytes)
            self.meter.relayed(planned_bytes - brought.sent_bytes, brought.feeders)
            # What is wrong is gone there, and so the delivery that follows brings it again.
            self.reached.session.ask(self._request("adopt", lacking))

    def _begin(self) -> Holding:
        # A receiver that is older than this word passes over it, and holds the repository as for any delivery.
        answer = self.reached.session.ask({**self._request("begin", self.blobs), "ahead": True})
        with understood(self.reached.edge.name):
            return Holding.from_json(answer, self.blobs)

    def _request(self, ask: str, blobs: Iterable[Blob]) -> dict[str, Any]:
        return {"ask": ask, "repo": self.repo.path, "blobs": blob_items(blobs)}
