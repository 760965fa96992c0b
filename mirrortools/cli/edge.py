"""`mirrortool edge`: the hosts that serve a copy."""

from __future__ import annotations

import time

import click

from mirrortools.check import audit as run_audit
from mirrortools.cli import Invocation, exit_statuses, print_json
from mirrortools.cli.check import EXAMINING, status_of, told
from mirrortools.cli.choice import Choice, choosing
from mirrortools.cli.edgerecord import Record, ages, bytes_of, details_of
from mirrortools.cli.provision import deprovision, provision, rotate_key
from mirrortools.errors import StoreError
from mirrortools.signatures import fingerprint
from mirrortools.signing import Signer
from mirrortools.state import State


@click.group(epilog=exit_statuses(*EXAMINING))
def edge() -> None:
    """Provision, list and audit the hosts that serve a copy, and change keys."""


for command in (provision, deprovision, rotate_key):
    edge.add_command(command)


@edge.command("list", epilog=exit_statuses(StoreError))
@click.option("--history", type=click.IntRange(1, 1000), metavar="N", help="Show the last N deliveries to each, too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; times in Unix seconds, sizes in bytes.")
@click.pass_obj
def list_edges(invocation: Invocation, history: int | None, as_json: bool) -> None:
    """Tell which edges are configured, how many repositories each is to have, and what went there last.

    What goes to an edge at this moment is told with its rate and the time left.
    """
    config = invocation.config
    shares = {name: sum(name in repository.edges for repository in config.repositories()) for name in config.edges}
    state = State(config.root, reading=True)
    try:
        record = Record(state, time.time(), history or 0)
        known = {name: record.of_edge(name) for name in shares}
    finally:
        state.close()
    if as_json:
        edges = [(name, config.edge(name)) for name in shares]
        print_json([{"edge": n, "url": e.url, "http": e.http, "repositories": shares[n], **known[n]} for n, e in edges])
        return
    for name, repositories in shares.items():
        click.echo(f"{name}  {config.edge(name).url}  repositories: {repositories}")
        click.echo(f"  {known[name]['status']}; {ages(known[name])}{bytes_of(known[name])}")
        for line in details_of(known[name]):
            click.echo(f"    {line}")
    if not shares:
        click.echo(f"no edge is configured; `edges:` in {config.path} names them")


@edge.command(epilog=exit_statuses(*EXAMINING))
@click.option("--samples", default=32, show_default=True, type=click.IntRange(1, 10_000), help="Of each repository.")
@click.option("--edge", "edges", multiple=True, metavar="EDGE", help="This edge only; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; sizes in bytes.")
@choosing
def audit(invocation: Invocation, samples: int, edges: tuple[str, ...], as_json: bool, choice: Choice) -> int:
    """Have edges prove that they hold random ranges of what is delivered to them.

    Quick, however much there is: an edge reads the ranges alone, and cannot answer without them.
    """
    config = invocation.config
    names = [config.edge(name).name for name in edges] or list(config.edges)
    return status_of(told(run_audit(choice.of(config), config, names, samples), as_json))


@edge.command("change-key", epilog=exit_statuses(StoreError))
@click.pass_obj
def change_key(invocation: Invocation) -> None:
    """Make a new signing key; the former one introduces it to each edge at the next delivery.

    An edge that is not reached before the key changes once more has to be told by hand.
    """
    signer = Signer(invocation.config.root)
    former = signer.signer
    signer.change_key()
    click.echo(f"the signing key was {fingerprint(former)} and is {fingerprint(signer.signer)} now: {signer.key}")
    click.echo("Deliver to every edge now, so that each learns of it: mirrortool deliver --all")
