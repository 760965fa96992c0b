"""`mirrortool serve`: nginx in the foreground, on the origin's root."""

from __future__ import annotations

from dataclasses import replace

import click

from mirrortools.cli import Invocation, exit_statuses
from mirrortools.errors import ServeError
from mirrortools.serve import Site, Standalone, abilities, find_nginx, find_njs_module, run, worker_user


@click.command(epilog=exit_statuses(ServeError))
@click.option("--listen", metavar="ADDRESS", help="Instead of the configured one, such as 127.0.0.1:8080.")
@click.pass_obj
def serve(invocation: Invocation, listen: str | None) -> None:
    """Serve the mirror with an nginx of its own until it is told to stop (Ctrl-C, SIGTERM).

    Its configuration, access log and temporary files are in <root>/state/nginx.
    """
    config = invocation.config
    place = Standalone(config.root / "state" / "nginx", find_njs_module(), worker_user(config.root))
    address = listen or config.listen
    click.echo(f"serving {config.root} on {address}", err=True)
    site = Site(config.root, (address,), place=place, metalinks=config.has_metalinks, private=config.has_private)
    run(replace(site, tls=config.tls, git_socket=config.git_socket, abilities=abilities(find_nginx())))
