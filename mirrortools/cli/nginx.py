"""`mirrortool nginx`: print or install the configuration of nginx."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import click

from mirrortools.cli import Invocation, exit_statuses
from mirrortools.config import Config
from mirrortools.errors import ServeError
from mirrortools.serve import (
    Installed,
    Site,
    Standalone,
    abilities,
    caveat,
    find_nginx,
    find_njs_module,
    install,
    render,
    worker_user,
    write_standalone,
)

_edge = click.option("--edge", metavar="NAME", help="For this edge: its root and the address it listens on.")
_name = click.option(
    "--name",
    default="",
    metavar="HOST",
    help="The server's name. Without one it answers for every name on its port.",
)
_prefix = click.option(
    "--prefix",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("/etc/nginx"),
    show_default=True,
    help="The folder of nginx's configuration.",
)


@click.group(epilog=exit_statuses(ServeError))
def nginx() -> None:
    """Print or install the configuration with which plain nginx serves the mirror."""


@nginx.command("print", epilog=exit_statuses(ServeError))
@click.argument("file", type=click.Choice(["mirrortools.conf", "hub.js"]), default="mirrortools.conf")
@_edge
@_name
@_prefix
@click.option(
    "--standalone",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write nginx.conf and hub.js for an nginx of its own to DIR; print the command that runs it.",
)
@click.pass_obj
def print_(
    invocation: Invocation, file: str, edge: str | None, name: str, prefix: Path, standalone: Path | None
) -> None:
    """Print one of the two files: mirrortools.conf for conf.d/, or the hub.js that it imports."""
    site = _site(invocation.config, edge, name)
    if standalone:
        place = Standalone(standalone.absolute(), find_njs_module(), worker_user(site.root))
        click.echo(shlex.join(write_standalone(replace(site, place=place))))
        return
    files = render(replace(site, place=Installed(prefix.absolute())))
    by_name = {Path(path).name: text for path, text in files.items()}
    click.echo(by_name[file], nl=False)


@nginx.command("install", epilog=exit_statuses(ServeError))
@_edge
@_name
@_prefix
@click.pass_obj
def install_(invocation: Invocation, edge: str | None, name: str, prefix: Path) -> None:
    """Write the configuration into nginx's folder and let nginx check it; if it refuses, nothing is changed."""
    site = replace(_site(invocation.config, edge, name), abilities=abilities(find_nginx()))
    changed = install(replace(site, place=Installed(prefix.absolute())))
    for path in changed:
        click.echo(f"wrote {path}")
    if told := caveat(site):
        click.echo(f"note: {told}", err=True)
    click.echo("Next: systemctl reload nginx" if changed else "nothing to change")


def _site(config: Config, edge: str | None, name: str) -> Site:
    """What the origin or an edge serves. Raises ConfigError, ServeError."""
    host = config if edge is None else config.edge(edge)
    private = config.has_private if edge is None else config.edge(edge).private
    site = Site(host.root, (host.listen,), name, metalinks=config.has_metalinks, private=private)
    return replace(site, tls=host.tls, git_socket=host.git_socket)
