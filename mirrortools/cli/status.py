"""`mirrortool status`: what is mirrored where, how old it is, and what went wrong."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from mirrortools.cli import Invocation, exit_statuses, print_json
from mirrortools.cli.choice import Choice, choosing
from mirrortools.cli.edgerecord import Record, ages, bytes_of, details_of, lag_s
from mirrortools.config import RepositoryConfig
from mirrortools.errors import StoreError
from mirrortools.locks import owner_of
from mirrortools.model import short_ref
from mirrortools.state import RepositoryState, Run, State
from mirrortools.text import moment, size, span
from mirrortools.tree import Tree

log = logging.getLogger("mirrortools.status")
_RUNNING = ("pre-syncing", "syncing")
_INTERRUPTED = "broken off; the next sync goes on where it stopped"


@click.command(epilog=exit_statuses(StoreError))
@click.option(
    "--history",
    type=click.IntRange(1, 1000),
    metavar="N",
    help="Show the last N runs of each repository, and deliveries, too.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON; times in Unix seconds, sizes in bytes.")
@choosing
def status(invocation: Invocation, history: int | None, as_json: bool, choice: Choice) -> None:
    """Tell for each repository and edge: revision, lag, last success, bytes, error.

    Lag is how long upstream has had something that is not served here, or not on that edge. Without --repo or --job,
    all repositories are told. Sources that are left alone for a while, because they failed or asked for it, come last.
    """
    config = invocation.config
    repositories = choice.of(config) if choice else list(config.repositories())
    state, now = State(config.root, reading=True), time.time()
    if state.is_missing:
        log.warning("mirrortool: %s has no history yet: nothing was synced, or state/state.db was lost", config.root)
    try:
        record = Record(state, now, history or 0)
        documents = [_document(repository, record, config.root) for repository in repositories]
        troubles = [trouble for trouble in state.troubles(now) if trouble.until > now]
    finally:
        state.close()
    if as_json:
        sources = [trouble._asdict() for trouble in troubles]
        print_json({"now": now, "root": str(config.root), "repositories": documents, "sources": sources})
        return
    for document in documents:
        _tell(document)
    for trouble in troubles:
        click.echo(f"source {trouble.text}")
    if not documents:
        click.echo(f"nothing is mirrored yet: write a job into {config.path.parent}/conf.d/NAME.yaml")


def _document(repository: RepositoryConfig, record: Record, root: Path) -> dict[str, Any]:
    name, now = str(repository.repo), record.now
    known, owner = record.state.repository(name), owner_of(root, repository.repo)
    interrupted = known.status in _RUNNING and owner is None
    return {
        "repo": name,
        "job": repository.job,
        "status": "failed" if interrupted else known.status,
        "running": owner,
        "progress": _progress(known) if owner else None,
        "refs": Tree(root, repository.realm).refs(repository.repo),
        "lag_s": lag_s(known.lacking_since, None if known.status == "failed" else known.checked_at, now),
        "last_success": known.checked_at,
        "published_at": known.published_at,
        "error": _INTERRUPTED if interrupted else known.error,
        "edges": record.of_repository(name, repository.job, repository.edges),
        "runs": [run._asdict() for run in record.state.runs(name, record.history)] if record.history else [],
    }


def _progress(known: RepositoryState) -> Mapping[str, int] | None:
    if known.total_bytes is None:
        return None
    return {"done_bytes": known.done_bytes or 0, "total_bytes": known.total_bytes}


def _tell(document: Mapping[str, Any]) -> None:
    refs = ", ".join(f"{short_ref(name)} {commit[:12]}" for name, commit in sorted(document["refs"].items()))
    click.echo(f"{document['repo']}: {document['status']}; {refs or 'nothing published'}")
    click.echo(f"  {ages(document)}")
    if document["running"]:
        progress = document["progress"]
        done = f", {size(progress['done_bytes'])} of {size(progress['total_bytes'])}" if progress else ""
        click.echo(f"  running: {document['running']}{done}")
    if document["error"]:
        click.echo(f"  error: {document['error']}")
    for edge in document["edges"]:
        click.echo(f"  edge {edge['edge']}: {edge['status']}; {ages(edge)}{bytes_of(edge)}")
        for line in details_of(edge):
            click.echo(f"    {line}")
    for run in document["runs"]:
        click.echo(f"  run {_run(run)}")


def _run(run: Mapping[str, Any]) -> str:
    values = Run(**run)
    what = "changed" if values.changed else "nothing new"
    return (
        f"{moment(values.started_at)}: {values.status}, {what}, {span(values.ended_at - values.started_at)}, "
        f"fetched {size(values.fetched_bytes)}, sent {size(values.delivered_bytes)}"
    )
