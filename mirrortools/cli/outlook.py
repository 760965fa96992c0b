"""`mirrortool deliver --dry-run`: what would go to each edge, file by file, and why."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

import click

from mirrortools.cli import print_json
from mirrortools.cli.complaints import complaints
from mirrortools.foresight import Foresight, leaves_once
from mirrortools.text import count, size

log = logging.getLogger("mirrortools.deliver")


def report(foresights: Iterable[Foresight], as_json: bool) -> int:
    """Tell them, and give the exit status: that of the first error."""
    told: list[Foresight] = []
    for _, of_repository in groupby(foresights, key=lambda foresight: foresight.repo):
        several = []
        for foresight in of_repository:
            several.append(foresight)
            if not as_json and foresight.error is None:
                _tell(foresight)
        if not as_json:
            _tell_together(several)
        told += several
    if as_json:
        print_json([_document(foresight) for foresight in told])
    errors = [foresight.error for foresight in told if foresight.error]
    for text in complaints(errors):
        log.error("mirrortool: %s", text)
    return next((error.exit_status for error in errors), 0)


def _tell(foresight: Foresight) -> None:
    head = f"{foresight.repo} to edge {foresight.edge}"
    if not foresight.items:
        click.echo(f"{head}: holds all {count(foresight.held_blobs, 'blob')}, {size(foresight.held_bytes)}")
        return
    click.echo(
        f"{head}: would send {size(foresight.send_bytes())} for {size(foresight.lacking_bytes)}: "
        f"whole {size(foresight.send_bytes('whole', 'rest'))}, as deltas {size(foresight.send_bytes('delta'))}; "
        f"holds {size(foresight.held_bytes)}"
    )
    if foresight.route:
        feeder = f"edge {foresight.route.feeder}" if foresight.route.feeder else "this host"
        click.echo(f"  from   {feeder} ({foresight.route.why})")
    for item in foresight.items:
        click.echo(
            f"  {item.how:5}  {size(item.send_bytes):>10} of {size(item.blob.size):>10}  {item.path}  ({item.reason})"
        )


def _tell_together(several: Sequence[Foresight]) -> None:
    """What leaves this host in all, when that is less than what all of them get."""
    takers = [foresight for foresight in several if foresight.items]
    all_bytes, once_bytes = sum(taker.send_bytes() for taker in takers), leaves_once(takers)
    if once_bytes < all_bytes:
        click.echo(
            f"{takers[0].repo} to {count(len(takers), 'edge')}: {size(once_bytes)} of {size(all_bytes)} would leave "
            "this host; edges pass on the rest to each other"
        )


def _document(foresight: Foresight) -> dict[str, Any]:
    error = foresight.error
    return {
        "repo": str(foresight.repo),
        "edge": foresight.edge,
        "send_bytes": foresight.send_bytes(),
        "whole_bytes": foresight.send_bytes("whole", "rest"),
        "delta_bytes": foresight.send_bytes("delta"),
        "lacking_bytes": foresight.lacking_bytes,
        "held_bytes": foresight.held_bytes,
        "from": foresight.route.feeder if foresight.route else None,
        "why": foresight.route.why if foresight.route else None,
        "files": [
            {"path": i.path, "how": i.how, "send_bytes": i.send_bytes, "size_bytes": i.blob.size, "reason": i.reason}
            for i in foresight.items
        ],
        "relays": foresight.relays,
        "error": str(error) if error else None,
        "exit_status": error.exit_status if error else 0,
    }
