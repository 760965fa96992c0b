"""`mirrortool token`: who may come to what is private."""

from __future__ import annotations

import re
import time

import click

from mirrortools.cli import Invocation, exit_statuses, print_json
from mirrortools.config import Config
from mirrortools.config.quantities import parse_duration
from mirrortools.errors import ConfigError, StoreError
from mirrortools.passes import Passes, grant
from mirrortools.serve import worker_user
from mirrortools.text import count, moment

_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}\Z")


def _lifetime(_context: click.Context, _option: click.Parameter, text: str | None) -> int | None:
    try:
        return None if text is None else parse_duration(text)
    except ValueError as error:
        raise ConfigError(f"--expires: {error}") from error


@click.group(epilog=exit_statuses(ConfigError, StoreError))
def token() -> None:
    """Give out, list and revoke the tokens with which users read private repositories.

    Who may read which is in `readers` of the jobs. nginx goes by a change at once, without a reload.
    """


@token.command(epilog=exit_statuses(ConfigError, StoreError))
@click.argument("name")
@click.option("--expires", metavar="DURATION", callback=_lifetime, help="For how long it is good, such as 90d.")
@click.pass_obj
def add(invocation: Invocation, name: str, expires: int | None) -> None:
    """Make a token for the user NAME, and print it: it is told now, and never again.

    A user may have several. It works like one of the Hub: HF_TOKEN, `hf auth login --token`, git's password.
    """
    config = invocation.config
    _check_account(config)
    if not _USER.match(name):
        raise ConfigError(f"expected a name of letters, digits, '.', '_' and '-', got {name!r}")
    secret, made = Passes(config.root).add(name, int(time.time()), expires)
    grant(config, time.time())
    click.echo(secret)
    until = f"until {moment(made.expires_at)}" if made.expires_at else "until it is revoked"
    repos = [str(repository.repo) for repository in config.repositories() if name in repository.readers]
    reads = ", ".join(repos) or f"nothing: no job has {name} among its `readers`"
    click.echo(f"{made.id} is good {until}; {name} reads {reads}", err=True)
    _tell_of_edges(config, "know it after")


@token.command("list", epilog=exit_statuses(StoreError))
@click.option("--json", "as_json", is_flag=True, help="Print JSON; times in Unix seconds.")
@click.pass_obj
def list_(invocation: Invocation, as_json: bool) -> None:
    """Tell whose tokens there are, by their ids, and until when each is good."""
    now_s, passes = time.time(), Passes(invocation.config.root).all()
    if as_json:
        print_json(
            [
                {
                    "id": p.id,
                    "user": p.user,
                    "created_at": p.created_at,
                    "expires_at": p.expires_at,
                    "good": p.counts(now_s),
                }
                for p in passes
            ]
        )
        return
    for each in passes:
        until = f"until {moment(each.expires_at)}" if each.expires_at else "until it is revoked"
        state = f"good {until}" if each.counts(now_s) else f"expired {moment(each.expires_at)}"
        click.echo(f"{each.id}  {each.user}  made {moment(each.created_at)}  {state}")
    if not passes:
        click.echo("there are no tokens; `mirrortool token add NAME` makes one")


@token.command(epilog=exit_statuses(ConfigError, StoreError))
@click.argument("name")
@click.pass_obj
def revoke(invocation: Invocation, name: str) -> None:
    """Revoke all tokens of the user NAME, or the one with that id. Here it counts from the next request on."""
    config = invocation.config
    _check_account(config)
    revoked = Passes(config.root).revoke(name)
    if not revoked:
        raise ConfigError(f"no token has the user or id {name!r}; `mirrortool token list` tells them")
    grant(config, time.time())
    click.echo(f"revoked {count(len(revoked), 'token')}: {', '.join(f'{each.id} of {each.user}' for each in revoked)}")
    _tell_of_edges(config, "go by the old list until")


def _check_account(config: Config) -> None:
    """Refuse to write as root what a sync could not change afterwards. Raises ConfigError."""
    owner = worker_user(config.root)
    if owner not in ("", "root"):
        raise ConfigError(
            f"{config.root} belongs to {owner}; run this as that account: sudo -u {owner} mirrortool token …"
        )


def _tell_of_edges(config: Config, what: str) -> None:
    """Say which edges do not know yet, and what to run."""
    private = [repository for repository in config.repositories() if repository.private]
    if edges := sorted({edge for repository in private for edge in repository.edges}):
        jobs = " ".join(f"--job {job}" for job in dict.fromkeys(repository.job for repository in private))
        click.echo(f"Edges ({', '.join(edges)}) {what}: mirrortool deliver {jobs}", err=True)
