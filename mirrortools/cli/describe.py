"""`mirrortool describe`: what metalinks say of pieces, hashed after the sync."""

from __future__ import annotations

import click

from mirrortools.cli import Invocation, exit_statuses
from mirrortools.cli.check import EXAMINING, status_of, told
from mirrortools.cli.choice import Choice, choosing
from mirrortools.describe import describe as run_describe
from mirrortools.errors import Locked, NoSpace


@click.command(epilog=exit_statuses(*EXAMINING, Locked, NoSpace))
@click.option("--edge", "edges", multiple=True, metavar="EDGE", help="Only this edge, and not this host; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; sizes in bytes.")
@choosing
def describe(invocation: Invocation, edges: tuple[str, ...], as_json: bool, choice: Choice) -> int:
    """Hash the pieces of large files that are new, here and on each edge, and write them into the metalinks.

    With them a client that fetches from several mirrors finds out which one sent wrong bytes, and fetches again only
    those. A sync does not wait for it: run it behind, as the generated units do. What is hashed stays hashed.
    """
    config = invocation.config
    repositories = choice.of(config)
    names = [config.edge(name).name for name in edges] or list(config.edges)
    invocation.when_stopped = "run it again, it goes on"
    return status_of(told(run_describe(repositories, config, names, here=not edges), as_json))
