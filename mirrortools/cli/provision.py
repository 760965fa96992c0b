"""`mirrortool edge provision | deprovision | rotate-key`: make a host an edge, and undo that."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from mirrortools.cli import Invocation, exit_statuses
from mirrortools.errors import ConfigError, EdgeRefused, EdgeUnreachable, ServeError, StoreError
from mirrortools.text import size

if TYPE_CHECKING:
    from mirrortools.config import EdgeConfig
    from mirrortools.provision import Administrator, HostKeys, Setting
    from mirrortools.provision.plan import Plan

_KINDS: Final = (EdgeUnreachable, EdgeRefused, ServeError, StoreError)
_DECLINED: Final = 1


def _connecting(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say how to log in; the command gets `login`, a function of its keyword arguments."""
    options = (
        click.argument("name", metavar="NAME"),
        click.option("--as", "user", metavar="USER", help="Who logs in; sudo is used where it is not root."),
        click.option(
            "--identity",
            type=click.Path(path_type=Path, dir_okay=False, exists=True),
            help="The private key to log in with; else ssh-agent's, and those of ssh's configuration.",
        ),
        click.option(
            "--host-key",
            "host_keys",
            multiple=True,
            metavar="KEY",
            help="The host's key, SHA256:… or ssh-ed25519 AAAA…, when it is not in known_hosts yet; repeatable.",
        ),
        click.option("--yes", is_flag=True, help="Do not ask."),
        click.pass_obj,
    )

    def connecting(invocation: Any, user: str | None, identity: Path | None, **rest: Any) -> Any:
        from mirrortools.provision import Administrator, HostKeys

        given = tuple(rest.pop("host_keys"))
        login = Administrator(user, identity), HostKeys(given, _ask_about_key if _may_ask() else None)
        return command(invocation, login=login, **rest)

    wrapped: Callable[..., Any] = functools.wraps(command)(connecting)
    for decorate in reversed(options):
        wrapped = decorate(wrapped)
    return wrapped


def _setting(invocation: Invocation, name: str) -> Setting:
    """What is configured for an edge; no key is in it yet."""
    from mirrortools.provision import Setting, signer_of

    config = invocation.config
    return Setting(config.edge(name), signer_of(config.root), ())


def _identity_file(invocation: Invocation, name: str) -> Path:
    config = invocation.config
    path = config.edge(name).identity_file
    if path is None:
        raise ConfigError(
            f"{config.path}: the edge {name} has no identity_file; a provisioned edge has a push key of its own: "
            "name a file, which is made when it is not there"
        )
    return path


@click.command(epilog=exit_statuses(*_KINDS))
@_connecting
@click.option("--install", is_flag=True, help="Install Debian packages that are not there, without asking.")
@click.option("--rsyncd/--no-rsyncd", default=None, help="Serve the mirror by rsync too, port 873: yes at first.")
@click.option("--server-name", metavar="HOST", help="nginx's server_name: every name at first.")
@click.option("--dry-run", is_flag=True, help="Show the plan, and do nothing.")
def provision(
    invocation: Invocation,
    name: str,
    login: tuple[Administrator, HostKeys],
    yes: bool,
    install: bool,
    rsyncd: bool | None,
    server_name: str | None,
    dry_run: bool,
) -> int:
    """Make a Debian host the edge NAME: account, folders, receiver, push key, nginx, rsyncd, log rotation.

    The plan is shown first. What is there already is left alone: a second run finds nothing to do. Host keys are
    asked for, or given, and never accepted blindly.
    """
    from mirrortools.provision import Provisioner, connect, prove, push_key

    setting = replace(_setting(invocation, name), rsyncd=rsyncd, server_name=server_name)
    key = push_key(_identity_file(invocation, name), invocation.config.root)
    setting = replace(setting, push_keys=(key,))
    with connect(setting.edge, *login) as connection:
        provisioner = Provisioner(setting, connection)
        plan = provisioner.plan()
        _show(plan, setting.edge)
        if dry_run:
            return 0
        if plan.steps:
            if not _agreed(plan, yes=yes, install=install):
                return _DECLINED
            provisioner.do(plan, _tell)
    answer = prove(setting.edge)
    click.echo(
        f"edge {name}: {setting.edge.user}@{setting.edge.host} is ready: receiver {answer['receiver']}, "
        f"rsync {answer['rsync']}, room for {size(int(answer['free_bytes']))}"
    )
    if plan.steps:
        click.echo(f"Next: mirrortool deliver --all --edge {name}")
    return 0


@click.command(epilog=exit_statuses(*_KINDS))
@_connecting
@click.option("--purge", is_flag=True, help="Remove what the edge serves, and the account, too.")
def deprovision(
    invocation: Invocation, name: str, login: tuple[Administrator, HostKeys], yes: bool, purge: bool
) -> int:
    """Take away from the host of the edge NAME what `provision` put there; what it serves stays, without --purge."""
    from mirrortools.provision import Provisioner, connect

    setting = _setting(invocation, name)
    with connect(setting.edge, *login) as connection:
        provisioner = Provisioner(setting, connection)
        plan = provisioner.removal(purge=purge)
        _show(plan, setting.edge)
        if plan.steps:
            if not _agreed(plan, yes=yes, install=False):
                return _DECLINED
            provisioner.do(plan, _tell)
            click.echo(f"Now remove the edge {name} from {invocation.config.path}")
    return 0


@click.command("rotate-key", epilog=exit_statuses(*_KINDS))
@_connecting
def rotate_key(invocation: Invocation, name: str, login: tuple[Administrator, HostKeys], yes: bool) -> int:
    """Give the edge NAME a new push key: it is let in and proved before the old one is taken out."""
    from mirrortools.provision import connect, rotate

    setting, path = _setting(invocation, name), _identity_file(invocation, name)
    click.echo(f"a new push key for the edge {name} takes the place of {path}")
    if not yes and not _confirmed("Change the key?"):
        return _DECLINED
    with connect(setting.edge, *login) as connection:
        rotate(setting, path, connection, _tell)
    click.echo(f"edge {name}: the old key is out")
    return 0


def _show(plan: Plan, edge: EdgeConfig) -> None:
    if not plan.steps:
        click.echo(f"edge {edge.name}: nothing to do on {edge.host}")
    else:
        click.echo(f"edge {edge.name}: to do on {edge.host}:")
    for line in plan.lines():
        click.echo(line)


def _agreed(plan: Plan, *, yes: bool, install: bool) -> bool:
    if plan.packages and not install and not _confirmed(_about_packages(plan.packages), "--install"):
        return False
    return yes or _confirmed("Do that?")


def _about_packages(packages: Sequence[str]) -> str:
    return f"Install the packages {' '.join(packages)}?"


def _confirmed(question: str, option: str = "--yes") -> bool:
    """Ask on a terminal. Raises ConfigError elsewhere."""
    if not _may_ask():
        raise ConfigError(f"{question} There is no terminal to ask on; say {option}")
    agreed = click.confirm(question, default=False)
    if not agreed:
        click.echo("nothing was changed")
    return agreed


def _may_ask() -> bool:
    return sys.stdin.isatty()


def _ask_about_key(text: str) -> bool:
    click.echo(text)
    return click.confirm("Is that what the host's own console says?", default=False)


def _tell(text: str) -> None:
    click.echo(f"· {text}")
