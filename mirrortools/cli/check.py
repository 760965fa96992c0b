"""`mirrortool check`: whether what is served is what its name says, here and on edges."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

import click

from mirrortools.audit import Subset
from mirrortools.check import Examination, Examined
from mirrortools.check import check as run_check
from mirrortools.cli import Invocation, exit_statuses, print_json
from mirrortools.cli.brief import DeliverOptions, SyncOptions
from mirrortools.cli.choice import Choice, choosing
from mirrortools.errors import EdgeRefused, EdgeUnreachable, IntegrityError, MirrorError, StoreError
from mirrortools.text import count, size, span

EXAMINING = (IntegrityError, StoreError, EdgeUnreachable, EdgeRefused)


def _subset(_context: click.Context, _option: click.Parameter, text: str) -> Subset:
    return Subset.parse(text)


@click.command(epilog=exit_statuses(*EXAMINING))
@click.option("--edge", "edges", multiple=True, metavar="EDGE", help="Examine this edge instead; repeatable.")
@click.option(
    "--subset", default="1/1", callback=_subset, metavar="N/T", help="Only the N-th of T equal parts of the blobs."
)
@click.option("--repair", is_flag=True, help="Take away what is bad, and bring it again.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print JSON, sizes in bytes; with --repair what was found and repaired."
)
@choosing
def check(
    invocation: Invocation,
    edges: tuple[str, ...],
    subset: Subset,
    repair: bool,
    as_json: bool,
    choice: Choice,
) -> int:
    """Hash every blob that is served, and compare every link with its manifest.

    An edge does this by itself and answers what is wrong there. A part N/T each night reads everything in T nights.
    With --repair, bad blobs go to state/quarantine, and a sync (here) or a delivery (an edge) brings them again.
    """
    repositories = choice.of(invocation.config)
    invocation.when_stopped = "nothing was changed" if not repair else "run it again; `mirrortool sync` brings the rest"
    found = _seen(run_check(repositories, invocation.config, Examination(subset, repair), edges), as_json)
    if repair:
        return _repair(invocation, edges, found, as_json)
    if as_json:
        print_json(_documents(found))
    return status_of(found)


def told(examinations: Iterable[Examined], as_json: bool) -> list[Examined]:
    """Tell each examination as it ends, or all of them at last as JSON; give them."""
    found = _seen(examinations, as_json)
    if as_json:
        print_json(_documents(found))
    return found


def _seen(examinations: Iterable[Examined], as_json: bool) -> list[Examined]:
    """The examinations, each told as it ends where people read along."""
    found, began_s = [], time.monotonic()
    for examined in examinations:
        found.append(examined)
        if not as_json:
            _tell(examined, time.monotonic() - began_s)
        began_s = time.monotonic()
    return found


def _tell(examined: Examined, duration_s: float) -> None:
    name = str(examined.repo) if examined.edge is None else f"{examined.repo}: edge {examined.edge}"
    if examined.failure:
        click.echo(f"{name}: not examined: {examined.failure}")
        return
    amount = f"{count(examined.blobs, 'blob')}, {size(examined.size_bytes)} read ({span(duration_s)})"
    click.echo(f"{name}: {'BAD' if examined.findings else 'in order'}: {amount}")
    for finding in examined.findings:
        click.echo(f"  {finding}")


def _documents(found: Iterable[Examined]) -> list[dict[str, Any]]:
    return [_document(examined) for examined in found]


def _document(examined: Examined) -> dict[str, Any]:
    return {
        "repo": str(examined.repo),
        "edge": examined.edge,
        "blobs": examined.blobs,
        "size_bytes": examined.size_bytes,
        "findings": list(examined.findings),
        "error": str(examined.failure) if examined.failure else None,
    }


def status_of(found: Sequence[Examined]) -> int:
    """The exit status: that of the first thing that is wrong, or 0."""
    errors: list[MirrorError] = [examined.error for examined in found if examined.error]
    return errors[0].exit_status if errors else 0


def _repair(invocation: Invocation, edges: tuple[str, ...], found: Sequence[Examined], as_json: bool) -> int:
    """Bring again what was taken away; the exit status: of that, else of what could not be examined."""
    bad = sorted({str(examined.repo) for examined in found if examined.findings})
    brought: list[str] = []
    try:
        status = _bring_again(invocation, edges, bad, brought if as_json else None) if bad else 0
    finally:
        if as_json:
            print_json({"found": _documents(found), "repaired": json.loads("".join(brought) or "[]")})
    return status or status_of([examined for examined in found if examined.failure])


def _bring_again(
    invocation: Invocation, edges: tuple[str, ...], repos: Sequence[str], document: list[str] | None
) -> int:
    """Do the sync or the delivery that an operator would do; its JSON goes into `document`, when there is one."""
    from mirrortools.cli.calling import run

    choice, as_json = Choice(tuple(repos)), document is not None
    write = sys.stdout.write if document is None else document.append
    options: SyncOptions | DeliverOptions = SyncOptions(choice, no_deliver=True, as_json=as_json)
    if edges:
        options = DeliverOptions(choice, edges, as_json=as_json)
    return run(invocation, options, write)
