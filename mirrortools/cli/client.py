"""`mirrortool client`: let this user or this machine fetch from a mirror, and undo that."""

from __future__ import annotations

import click

from mirrortools.cli import exit_statuses
from mirrortools.client import run, script_for
from mirrortools.errors import StoreError

_system = click.option("--system", is_flag=True, help="For all users of this machine, as root.")


@click.group(epilog=exit_statuses(StoreError))
def client() -> None:
    """Let clients on this host fetch from a mirror instead of huggingface.co, or undo that.

    Whoever has no mirrortool does the same by: curl -fsS https://mirror.example/.mirror/setup.sh | sh
    """


@client.command(epilog=exit_statuses(StoreError))
@click.argument("url", metavar="URL")
@_system
@click.option("--print", "only_print", is_flag=True, help="Say what would be written, and where; write nothing.")
def setup(url: str, system: bool, only_print: bool) -> None:
    """Write HF_ENDPOINT and git's url.insteadOf for the mirror at URL, such as https://mirror.example.

    Files that are there get marked lines, which `undo` takes out again.
    """
    words = [*(["--system"] if system else []), "print" if only_print else "setup"]
    click.echo(run(script_for(url), *words), nl=False)


@client.command(epilog=exit_statuses(StoreError))
@_system
def undo(system: bool) -> None:
    """Take back what `setup` or the mirror's setup.sh wrote, byte for byte."""
    words = [*(["--system"] if system else []), "undo"]
    click.echo(run(script_for("https://any.invalid"), *words), nl=False)
