"""`mirrortool sync` and `mirrortool deliver`: the main job, as click sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from mirrortools.cli import Invocation, calling, exit_statuses
from mirrortools.cli.brief import DeliverOptions, SyncOptions
from mirrortools.cli.choice import Choice, choosing
from mirrortools.errors import (
    AccessDenied,
    EdgeRefused,
    EdgeUnreachable,
    HostileTree,
    IntegrityError,
    Locked,
    NoSpace,
    RateLimited,
    RefMovedBack,
    SourceMissing,
    SourceUnavailable,
    StoreError,
)

_EDGE_KINDS = (EdgeUnreachable, EdgeRefused, IntegrityError, NoSpace, Locked, StoreError)
_SOURCE_KINDS = (SourceUnavailable, SourceMissing, AccessDenied, RateLimited, HostileTree, RefMovedBack)


def _delivering(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that both commands have."""
    edge = click.option("--edge", "edges", multiple=True, metavar="EDGE", help="Deliver to this edge only; repeatable.")
    return edge(click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")(command))


@click.command(epilog=exit_statuses(*_SOURCE_KINDS, *_EDGE_KINDS))
@click.option("--revision", "only", multiple=True, metavar="REV", help="Only this ref or commit; repeatable.")
@click.option("--no-deliver", is_flag=True, help="Publish here, leave the edges as they are.")
@click.option("--dry-run", is_flag=True, help="Tell what would be fetched; fetch and publish nothing.")
@_delivering
@choosing
def sync(
    invocation: Invocation,
    only: tuple[str, ...],
    no_deliver: bool,
    dry_run: bool,
    as_json: bool,
    edges: tuple[str, ...],
    choice: Choice,
) -> int:
    """Pull what changed, verify it, publish it here, and deliver it to the edges.

    Only what is not here yet is fetched, and a run that was broken off goes on where it stopped. Old revisions stay
    served until the new ones are complete. With --repo edges look whether every blob is in its place; with --job or
    --all they may go by what they saw in the last day.
    """
    return calling.run(invocation, SyncOptions(choice, only, edges, no_deliver, dry_run, as_json))


@click.command(epilog=exit_statuses(*_EDGE_KINDS))
@click.option("--dry-run", is_flag=True, help="Ask the edges, and tell what would go to each of them, and why.")
@_delivering
@choosing
def deliver(
    invocation: Invocation, as_json: bool, edges: tuple[str, ...], choice: Choice, dry_run: bool = False
) -> int:
    """Bring what is published here to the edges, without asking any source.

    Each edge says what it has; what it lacks is sent, hashed there, and published there. With --repo or --job edges
    look whether every blob is in its place; with --all, as in a sync, they may go by what they saw in the last day.
    """
    return calling.run(invocation, DeliverOptions(choice, edges, dry_run, as_json))
