"""`mirrortool rsyncd`: print or install the configuration of rsyncd."""

from __future__ import annotations

from pathlib import Path

import click

from mirrortools.cli import Invocation, exit_statuses
from mirrortools.config import Config
from mirrortools.errors import ServeError, StoreError
from mirrortools.rsyncd import Modules, install, render
from mirrortools.serve import worker_user

_edge = click.option("--edge", metavar="NAME", help="For this edge: its root.")
_user = click.option("--user", metavar="ACCOUNT", help="As whom rsyncd reads; else the owner of the root, or nobody.")


@click.group(epilog=exit_statuses(ServeError, StoreError))
def rsyncd() -> None:
    """Print or install the configuration with which rsyncd serves the mirror.

    Modules: `mirror` is everything as it lies, for other mirrors; `models` and `datasets` have the files of each
    repository's default branch by its name, for users: rsync -aL rsync://HOST/models/ORG/NAME/ FOLDER/
    """


@rsyncd.command("print", epilog=exit_statuses(ServeError))
@_edge
@_user
@click.pass_obj
def print_(invocation: Invocation, edge: str | None, user: str | None) -> None:
    """Print the modules."""
    click.echo(render(_modules(invocation.config, edge, user)), nl=False)


@rsyncd.command("install", epilog=exit_statuses(ServeError, StoreError))
@_edge
@_user
@click.option(
    "--prefix",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("/etc"),
    show_default=True,
    help="The folder of rsyncd.conf.",
)
@click.pass_obj
def install_(invocation: Invocation, edge: str | None, user: str | None, prefix: Path) -> None:
    """Write rsyncd.d/mirrortools.conf, and an rsyncd.conf that includes it where there is none."""
    done = install(_modules(invocation.config, edge, user), prefix.absolute())
    for path in done.written:
        click.echo(f"wrote {path}")
    if not done.written:
        click.echo("nothing to change")
    if done.line:
        click.echo(f"Next: add this line to {prefix.absolute()}/rsyncd.conf, at its end: {done.line}")
    click.echo("rsyncd reads it when the next client connects; to start it: systemctl enable --now rsync")


def _modules(config: Config, edge: str | None, user: str | None) -> Modules:
    """What to show of the origin or of an edge. Raises ConfigError, ServeError."""
    root = config.edge(edge).root if edge else config.root
    private = config.edge(edge).private if edge else config.has_private
    owner = worker_user(root)
    return Modules(root, user or (owner if owner not in ("", "root") else "nobody"), private)
