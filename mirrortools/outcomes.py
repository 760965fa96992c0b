"""What a run tells: how far it is, while it goes on, and what came of each repository and of all together."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from mirrortools.errors import MirrorError
from mirrortools.model import Blob, Publication, RepoId
from mirrortools.state import Run

if TYPE_CHECKING:
    from mirrortools.errand import Delivery
    from mirrortools.outgoing import EdgeTally
    from mirrortools.plan import Plan
    from mirrortools.progress import Progress


class Watch:
    """Who looks on; this one does not care. Called from several threads."""

    def begun(self, repositories: int) -> None:
        """A run over so many repositories begins."""

    def planned(self, repo: RepoId, plan: Plan) -> None:
        """A plan was made; nothing was fetched yet. It is made again for who had to wait."""

    def fetched(self, repo: RepoId, count: int) -> None:
        """`count` bytes came, or were on disk from an earlier run."""

    def delivered(self, edge: str, repo: RepoId, sent_bytes: int, planned_bytes: int) -> None:
        """An edge has been sent so much of what is planned."""

    def ended(self, outcome: Outcome) -> None:
        """A repository is done, or failed."""

    def in_step(self, repositories: int, outcomes: Iterable[Outcome]) -> None:
        """So many repositories needed nothing anywhere; who wants to know more takes their outcomes."""


class Brought(NamedTuple):
    """The bytes that came in for a repository: from each source, from older blobs, and in an earlier run."""

    from_source: Mapping[str, int] = MappingProxyType({})
    reused_bytes: int = 0
    resumed_bytes: int = 0

    @classmethod
    def of(cls, progress: Progress) -> Brought:
        """What was counted until now."""
        return cls(dict(progress.from_source), progress.reused_bytes, progress.resumed_bytes)

    @property
    def fetched_bytes(self) -> int:
        """All bytes that came from sources, those that had to be thrown away among them."""
        return sum(self.from_source.values())


_NOTHING: Final = Brought()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run did for one repository.

    `publication` is what is served now, or just its `refs`, where it was not read; `plan` is None when nothing was new;
    `names` tells the file of a blob.
    """

    repo: RepoId
    changed: bool = False
    publication: Publication | None = None
    plan: Plan | None = None
    names: Mapping[Blob, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    brought: Brought = _NOTHING
    deliveries: tuple[Delivery, ...] = ()
    duration_s: float = 0.0
    error: MirrorError | None = None
    refs: Mapping[str, str] = field(default_factory=dict)

    @property
    def served_refs(self) -> Mapping[str, str]:
        """The full names of the refs that are served now, and their commits."""
        return self.publication.refs if self.publication else self.refs

    @property
    def errors(self) -> list[MirrorError]:
        """What went wrong, at the source or at edges."""
        found = [self.error, *(delivery.error for delivery in self.deliveries)]
        return [error for error in found if error]

    @property
    def is_remarkable(self) -> bool:
        """Whether anything happened, here or at an edge."""
        return self.changed or self.plan is not None or bool(self.errors or self.notes or self.sent_bytes)

    @property
    def sent_bytes(self) -> int:
        """What left this host for all edges."""
        return sum(delivery.bytes_sent for delivery in self.deliveries)

    def end(self) -> dict[str, float | str | None]:
        """What the state keeps of a repository when it was brought in, or was not."""
        error = self.error
        if error:
            return {"status": "failed", "error": str(error), "error_status": error.exit_status}
        return {"status": "success", "error": None, "error_status": None, "checked_at": time.time()}

    def run(self, started_at: float) -> Run:
        """What history keeps of it, when all is done."""
        errors = "\n".join(str(error) for error in self.errors)
        return Run(
            repo=str(self.repo),
            started_at=started_at,
            ended_at=time.time(),
            status="failed" if errors else "success",
            changed=self.changed,
            fetched_bytes=self.brought.fetched_bytes,
            reused_bytes=self.plan.reuse_bytes if self.plan else 0,
            resumed_bytes=self.brought.resumed_bytes,
            delivered_bytes=self.sent_bytes,
            error=errors or None,
        )


@dataclass(slots=True)
class Tally:
    """What a run came to: of very many repositories only those are kept of which something is to be said.

    `error` is what went wrong behind the last repository.
    """

    repositories: int = 0
    changed: int = 0
    failed: int = 0
    remarkable: list[Outcome] = field(default_factory=list)
    edges: dict[str, EdgeTally] = field(default_factory=dict)
    error: MirrorError | None = None

    def add(self, outcome: Outcome) -> None:
        """Count one that has ended."""
        for delivery in outcome.deliveries:
            from mirrortools.outgoing import EdgeTally

            self.edges.setdefault(delivery.edge, EdgeTally(delivery.edge)).add(delivery)
        self.repositories += 1
        self.changed += outcome.changed
        self.failed += bool(outcome.errors)
        if outcome.errors or outcome.notes:
            self.remarkable.append(replace(outcome, publication=None, plan=None, names={}))

    def add_in_step(self, repositories: int, edges: Iterable[str]) -> None:
        """Count so many that needed nothing at any of these edges."""
        from mirrortools.outgoing import EdgeTally

        self.repositories += repositories
        for edge in edges:
            self.edges.setdefault(edge, EdgeTally(edge)).repositories += repositories

    @property
    def errors(self) -> list[MirrorError]:
        """All that went wrong."""
        found = [error for outcome in self.remarkable for error in outcome.errors]
        return [*found, self.error] if self.error else found
