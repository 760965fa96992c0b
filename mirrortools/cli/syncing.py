"""What `mirrortool sync` and `mirrortool deliver` do: one call, and what came of it for people or machines."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mirrortools.cli import Invocation
from mirrortools.cli.brief import DeliverOptions, SyncOptions
from mirrortools.cli.lines import Lines
from mirrortools.cli.network import proxies
from mirrortools.config import Config, RepositoryConfig
from mirrortools.errors import Locked, MirrorError
from mirrortools.model import short_ref
from mirrortools.outcomes import Outcome, Tally, Watch
from mirrortools.plan import Plan
from mirrortools.run import Origin, Wish
from mirrortools.state import State
from mirrortools.store import Store
from mirrortools.sync import sync as run_sync
from mirrortools.text import count, size, span
from mirrortools.tree import Tree
from mirrortools.upstreams import Budget, Clients

if TYPE_CHECKING:
    from mirrortools.errand import Delivery
    from mirrortools.transports import Transport

_GOES_ON = "what was {} is kept, and the same command goes on from there"
log = logging.getLogger("mirrortools.sync")


Write = Callable[[str], object]
"""Takes text for whoever reads standard output, or what stands in for that."""


def sync(
    invocation: Invocation, options: SyncOptions, ways: Mapping[str, Transport], write: Write | None = None
) -> int:
    """Sync what is chosen, tell what came of it, and give the exit status; JSON goes to `write`."""
    invocation.when_stopped = "nothing was changed" if options.dry_run else _GOES_ON.format("fetched")
    to = () if options.no_deliver else _checked(options.edges, invocation.config)
    wish = Wish(options.only or None, to, options.dry_run, looks=bool(options.choice.repos))
    chosen = options.choice.of(invocation.config)
    documents = _Documents(chosen, write or sys.stdout.write) if options.as_json else None
    with (
        _origin(invocation, ways) as origin,
        _watch(invocation, documents, options.dry_run) as watch,
    ):
        tally = run_sync(chosen, origin, wish, watch)
    return _report(tally, documents, invocation)


def deliver(
    invocation: Invocation, options: DeliverOptions, ways: Mapping[str, Transport], write: Write | None = None
) -> int:
    """Deliver what is chosen, tell what came of it, and give the exit status; JSON goes to `write`."""
    if options.dry_run:
        from mirrortools.cli.outlook import report
        from mirrortools.outlook import foresee

        invocation.when_stopped = "nothing was changed"
        return report(
            foresee(
                options.choice.of(invocation.config), invocation.config, _checked(options.edges, invocation.config)
            ),
            options.as_json,
        )
    from mirrortools.dispatch import deliver as run_deliver

    invocation.when_stopped = _GOES_ON.format("sent")
    wish = Wish(edges=_checked(options.edges, invocation.config), looks=not options.choice.every)
    chosen = options.choice.of(invocation.config)
    documents = _Documents(chosen, write or sys.stdout.write) if options.as_json else None
    with (
        _origin(invocation, ways) as origin,
        _watch(invocation, documents, dry_run=False) as watch,
    ):
        tally = run_deliver(chosen, origin, wish, watch)
    return _report(tally, documents, invocation)


def _print(text: str) -> None:
    """A line for whoever reads along, now."""
    print(text, flush=True)


def _checked(edges: Sequence[str], config: Config) -> tuple[str, ...] | None:
    return tuple(config.edge(name).name for name in edges) or None


@contextmanager
def _origin(invocation: Invocation, ways: Mapping[str, Transport]) -> Iterator[Origin]:
    config = invocation.config
    budget = Budget(config.root / "state" / "budget", config.request_budget)
    clients = Clients(*proxies(invocation.environ), budget)
    state = State(config.root)
    try:
        yield Origin(config, Store(config.root), Tree(config.root), state, clients, ways)
    finally:
        state.close()
        clients.close()


class _Documents:
    """Outcomes for machines, kept as text until the end: of thousands of repositories that is little."""

    def __init__(self, chosen: Sequence[RepositoryConfig], write: Write) -> None:
        self._write = write
        self._texts = dict.fromkeys((known.repo for known in chosen), "")
        self._last: Outcome | None = None

    def add(self, outcome: Outcome) -> None:
        """One more; the last one may still hear of an error."""
        self._write_last()
        self._last = outcome

    def end(self, error: MirrorError | None) -> None:
        """Print them in the order of the configuration; an error behind the last repository is told with that."""
        if self._last:
            self._last = replace(self._last, error=self._last.error or error)
        self._write_last()
        separator = "[\n"
        for text in self._texts.values():  # never all of it twice in memory
            self._write(separator + text)
            separator = ",\n"
        self._write("\n]\n")
        print(end="", flush=True)

    def _write_last(self) -> None:
        if self._last:
            # A line each: to set it out over many takes longer than to see that nothing changed.
            self._texts[self._last.repo] = json.dumps(as_document(self._last), ensure_ascii=False)


@contextmanager
def _watch(invocation: Invocation, documents: _Documents | None, dry_run: bool) -> Iterator[Watch]:
    """Bars on a terminal, lines elsewhere; the outcomes themselves come at the end when they are JSON."""
    tell: Callable[[Outcome], None] = _tell_plan if dry_run else _tell
    if documents or invocation.quiet:
        tell = documents.add if documents else _keep_quiet
    every = documents is not None or invocation.verbose
    watch = Lines(tell, _say, every)
    if sys.stderr and sys.stderr.isatty() and not invocation.quiet:
        from mirrortools.cli.bars import Bars  # rich takes its time to load, and timers have no terminal

        watch = Bars(tell, every)
    with watch:
        yield watch


def _report(tally: Tally, documents: _Documents | None, invocation: Invocation) -> int:
    """Print what machines asked for, complain, and give the exit status: that of the first error."""
    if documents:
        documents.end(tally.error)
    if tally.remarkable or tally.error:
        _complain(tally, invocation)
    if tally.repositories > 1 and not documents and not invocation.quiet:
        counted = count(tally.repositories, "repository/repositories")
        _print(f"{counted}: {tally.changed} changed, {tally.failed} failed")
    if (tally.repositories > 1 or tally.failed) and tally.edges and not documents and not invocation.quiet:
        from mirrortools.cli.edgetable import edge_table

        for line in edge_table(tally.edges.values()):
            _print(line)
    return next((error.exit_status for error in tally.errors), 0)


def _complain(tally: Tally, invocation: Invocation) -> None:
    """Say what went wrong, or should be known, and what to do."""
    from mirrortools.cli.complaints import complaints, next_steps

    for outcome in tally.remarkable:
        for note in outcome.notes:
            log.warning("mirrortool: %s", note)
    for text in complaints(tally.errors):
        log.error("mirrortool: %s", text)
    for line in next_steps(tally.remarkable, invocation.config, time.time()):
        log.warning("mirrortool: %s", line)


def _say(line: str) -> None:
    log.info("mirrortool: %s", line)


def _keep_quiet(_outcome: Outcome) -> None:
    """Errors come at the end."""


def _tell(outcome: Outcome) -> None:
    if outcome.publication or outcome.refs:
        refs = ", ".join(f"{short_ref(name)} {commit[:12]}" for name, commit in sorted(outcome.served_refs.items()))
        _print(f"{outcome.repo}: {refs or 'pinned commits only'}: {_pulled(outcome)} ({span(outcome.duration_s)})")
    for delivery in outcome.deliveries:
        _print(f"  edge {delivery.edge}: {_delivered(delivery)}")


def _pulled(outcome: Outcome) -> str:
    if outcome.error and not outcome.changed:
        return "FAILED, stays as it was"
    if not outcome.plan:
        return "up to date, nothing fetched"
    plan, brought = outcome.plan, outcome.brought
    text = f"published; fetched {size(brought.fetched_bytes + plan.plain_bytes)}, {_reused(plan)}"
    if brought.reused_bytes:
        text += f", took {size(brought.reused_bytes)} of unchanged segments from the revision before"
    if brought.resumed_bytes:
        text += f", resumed {size(brought.resumed_bytes)} from an earlier run"
    if len(brought.from_source) > 1:
        parts = [f"{size(received)} from {source}" for source, received in brought.from_source.items()]
        text += f" ({', '.join(parts)})"
    return text


def _reused(plan: Plan) -> str:
    whole = plan.fetch_bytes + plan.reuse_bytes
    percent = 100 * plan.reuse_bytes // whole if whole else 0
    share = f" ({percent} % saved)" if percent else ""
    return f"reused {size(plan.reuse_bytes)}{share}"


def _delivered(delivery: Delivery) -> str:
    if isinstance(delivery.error, Locked):
        return "busy, another delivery is at work"
    if delivery.error:
        return "FAILED"
    if not delivery.changed and not delivery.blobs:
        return "up to date, nothing sent"
    done = "published" if delivery.changed else "what it had lost was brought again"
    text = f"{done}; {count(delivery.blobs, 'blob')}, sent {size(delivery.bytes_sent)}"
    if delivery.bytes_relayed:
        text += f", {size(delivery.bytes_relayed)} came from {_named(delivery.feeders)}"
    if delivery.bytes_saved:
        text += f" for {size(delivery.bytes_planned + delivery.bytes_saved)}, the rest was in older files there"
    return f"{text} ({span(delivery.duration_s)})"


def _named(edges: Sequence[str]) -> str:
    if not edges:
        return "other edges"
    return f"edge {edges[0]}" if len(edges) == 1 else f"edges {', '.join(edges)}"


def _tell_plan(outcome: Outcome) -> None:
    if not outcome.plan:
        if not outcome.error:
            _print(f"{outcome.repo}: up to date, nothing to do")
        return
    plan = outcome.plan
    _print(f"{outcome.repo}: would fetch {count(len(plan.fetch), 'blob')}, {size(plan.fetch_bytes)}")
    for blob in plan.fetch:
        _print(f"  fetch  {size(blob.size):>10}  {outcome.names.get(blob, blob.digest)}")
    _print(f"  reuse  {size(plan.reuse_bytes):>10}  in {count(len(plan.reuse), 'blob')} that are here")
    _print(f"  drop   {size(plan.drop_bytes):>10}  in {count(len(plan.drop), 'blob')} of the revision before")


def as_document(outcome: Outcome) -> Mapping[str, Any]:
    """An outcome for machines: sizes in bytes, times in seconds.

    `fetched_bytes` is LFS content that came from sources, `plain_bytes` the size of new files that came with git,
    `reused_bytes` unchanged segments of older blobs.
    """
    plan, brought = outcome.plan, outcome.brought
    return {
        "repo": str(outcome.repo),
        "changed": outcome.changed,
        "refs": dict(outcome.served_refs),
        "plan": _plan_document(plan) if plan else None,
        "fetched_bytes": brought.fetched_bytes,
        "plain_bytes": plan.plain_bytes if plan else 0,
        "resumed_bytes": brought.resumed_bytes,
        "reused_bytes": brought.reused_bytes,
        "from_source": dict(brought.from_source),
        "duration_s": round(outcome.duration_s, 3),
        "ended_at": time.time(),
        "error": _error_document(outcome.error),
        "deliveries": [_delivery_document(delivery) for delivery in outcome.deliveries],
    }


def _plan_document(plan: Plan) -> Mapping[str, int]:
    return {
        "fetch_blobs": len(plan.fetch),
        "fetch_bytes": plan.fetch_bytes,
        "reuse_blobs": len(plan.reuse),
        "reuse_bytes": plan.reuse_bytes,
        "drop_blobs": len(plan.drop),
        "drop_bytes": plan.drop_bytes,
    }


def _delivery_document(delivery: Delivery) -> Mapping[str, Any]:
    return {
        "edge": delivery.edge,
        "changed": delivery.changed,
        "blobs": delivery.blobs,
        "planned_bytes": delivery.bytes_planned,
        "sent_bytes": delivery.bytes_sent,
        "saved_bytes": delivery.bytes_saved,
        "relayed_bytes": delivery.bytes_relayed,
        "relayed_from": list(delivery.feeders),
        "duration_s": round(delivery.duration_s, 3),
        "exit_status": delivery.error.exit_status if delivery.error else 0,
        "error": _error_document(delivery.error),
    }


def _error_document(error: MirrorError | None) -> Mapping[str, Any] | None:
    if error is None:
        return None
    return {"kind": type(error).__name__, "text": str(error), "exit_status": error.exit_status}
