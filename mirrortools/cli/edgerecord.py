"""What is on record of edges, for `status` and `edge list`: how they stand, what goes to them now, what went."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mirrortools.state import DeliveryState, Sending, State, UnderWay
from mirrortools.text import moment, size, span


@dataclass(frozen=True)
class Record:
    """The state as it is `now`; `history` is how many deliveries of the past are told of each edge and repository."""

    state: State
    now: float
    history: int = 0

    @cached_property
    def under_way(self) -> list[UnderWay]:
        """The deliveries that run now."""
        return self.state.under_way()

    def of_repository(self, repo: str, job: str, edges: Sequence[str]) -> list[dict[str, Any]]:
        """How each of `edges` stands with one repository of a job."""
        known = {delivery.edge: delivery for delivery in self.state.deliveries(repo)}
        return [self._standing(edge, repo, known.get(edge), self._rounds(edge).get(job)) for edge in edges]

    def _rounds(self, edge: str) -> Mapping[str, float]:
        """When it was last in step, by job."""
        if edge not in self._known_rounds:
            self._known_rounds[edge] = self.state.rounds(edge)
        return self._known_rounds[edge]

    @cached_property
    def _known_rounds(self) -> dict[str, Mapping[str, float]]:
        return {}

    def of_edge(self, edge: str) -> dict[str, Any]:
        """How an edge stands with all that it was ever sent: the worst of it, the latest, and sums."""
        known = self.state.deliveries_to(edge)
        failed = [delivery for delivery in known if delivery.error]
        running = [delivery for delivery in self.under_way if delivery.edge == edge]
        lacking = [delivery.lacking_since for delivery in known if delivery.lacking_since is not None]
        times = [*self._rounds(edge).values(), *(delivery.success_at for delivery in known)]
        latest = max((at for at in times if at is not None), default=None)
        sendings = self.state.sendings(max(1, self.history), edge=edge)
        return {
            "status": "syncing" if running else "failed" if failed else "success" if known else "none",
            "delivered": len(known) - len(failed),
            "failed": len(failed),
            "lag_s": lag_s(min(lacking, default=None), latest, self.now),
            "last_success": latest,
            "sent_bytes": sendings[0].sent_bytes if sendings else 0,
            "total_sent_bytes": sum(delivery.total_sent_bytes for delivery in known),
            "total_saved_bytes": self.state.saved_bytes(edge),
            "last": _sending(sendings[0]) if sendings else None,
            "under_way": [_running(delivery) for delivery in running],
            "error": failed[0].error if failed else None,
            "history": [_sending(sending) for sending in sendings[: self.history]],
        }

    def _standing(self, edge: str, repo: str, known: DeliveryState | None, round_at: float | None) -> dict[str, Any]:
        known = known or DeliveryState(edge, repo, "none", 0.0, None, None, 0, 0, None)
        success_at = known.success_at
        if success_at is not None and known.error is None:
            success_at = max(success_at, round_at or 0.0)
        running = [_running(d) for d in self.under_way if (d.edge, d.repo) == (edge, repo)]
        sendings = self.state.sendings(max(1, self.history), edge, repo)
        return {
            "edge": edge,
            "status": "syncing" if running else known.status,
            "lag_s": lag_s(known.lacking_since, success_at, self.now),
            "last_success": success_at,
            "sent_bytes": known.sent_bytes,
            "total_sent_bytes": known.total_sent_bytes,
            "last": _sending(sendings[0]) if sendings else None,
            "under_way": running,
            "error": known.error,
            "history": [_sending(sending) for sending in sendings[: self.history]],
        }


def _sending(sending: Sending) -> dict[str, Any]:
    return {**sending._asdict(), "rate_bytes_s": round(sending.rate_bytes_s)}


def _running(delivery: UnderWay) -> dict[str, Any]:
    return {**delivery._asdict(), "rate_bytes_s": round(delivery.rate_bytes_s), "left_s": delivery.left_s}


def lag_s(lacking_since: float | None, last_success: float | None, now: float) -> float | None:
    """Zero when nothing was lacking when it was last looked at; None when it never was."""
    if lacking_since is not None:
        return now - lacking_since
    return None if last_success is None else 0.0


def ages(document: Mapping[str, Any]) -> str:
    """How far behind something is, and since when."""
    lag = document["lag_s"]
    shown = "unknown" if lag is None else "none" if lag == 0 else span(lag)
    return f"lag {shown}; last success {moment(document['last_success'])}"


def bytes_of(document: Mapping[str, Any]) -> str:
    """What went there last, and in all."""
    last = document["last"]
    saved = f" for {size(last['sent_bytes'] + last['saved_bytes'])}" if last and last["saved_bytes"] else ""
    return f"; sent {size(document['sent_bytes'])}{saved} last, {size(document['total_sent_bytes'])} in all"


def details_of(document: Mapping[str, Any]) -> Iterator[str]:
    """What runs now, the error, and the history."""
    for running in document["under_way"]:
        left = f", about {span(running['left_s'])} left" if running["left_s"] is not None else ""
        rate = f", {size(running['rate_bytes_s'])}/s" if running["rate_bytes_s"] else ""
        done = f"{size(running['sent_bytes'])} of {size(running['planned_bytes'])}"
        yield f"under way: {running['repo']}: {done}{rate}{left} (process {running['process']})"
    if document["error"]:
        yield f"error: {document['error']}"
    for sending in document["history"]:
        yield _told(sending)


def _told(sending: Mapping[str, Any]) -> str:
    sent, saved = size(sending["sent_bytes"]), sending["saved_bytes"]
    wanted = f" for {size(sending['sent_bytes'] + saved)}" if saved else ""
    result = f"FAILED ({sending['exit_status']})" if sending["exit_status"] else "ok"
    what = f"{sending['repo']} {(sending['revision'] or 'pinned commits')[:14]}"
    took = f"{span(sending['duration_s'])}, {size(sending['rate_bytes_s'])}/s"
    return f"{moment(sending['ended_at'])}: {what}: {result}, sent {sent}{wanted} in {took}"
