"""`mirrortool systemd`: print or install units."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any

import click

from mirrortools.access import Account
from mirrortools.cli import Invocation, exit_statuses
from mirrortools.config import did_you_mean
from mirrortools.errors import ConfigError, StoreError
from mirrortools.units import (
    ACCOUNT_FILE,
    Installed,
    UnitSettings,
    install_units,
    obstacles,
    preparations,
    render_units,
)


def _settings(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that both commands have."""
    user = click.option("--user", default="mirrortool", show_default=True, help="The account of the units.")
    executable = click.option(
        "--executable",
        type=click.Path(path_type=Path, dir_okay=False),
        default=_own_path,
        help="Where mirrortool lies, when not where this one does.",
    )
    return user(executable(command))


def _own_path() -> Path:
    """The program that runs, when it is `mirrortool`; else the one in PATH; else where a package puts it."""
    own = Path(sys.argv[0]).absolute()
    if own.name == "mirrortool":
        return own
    return Path(shutil.which("mirrortool") or UnitSettings().executable)


@click.group(epilog=exit_statuses(StoreError))
def systemd() -> None:
    """Print or install service and timer units: one timer per job, run as an account of its own.

    Run other commands as that account too: runuser -u mirrortool -- mirrortool sync --all

    On hosts without systemd, a line in /etc/cron.d/mirrortools does the work of the timers:

    \b
    17 * * * *  mirrortool  /usr/bin/mirrortool -q sync --all
    """  # noqa: D301  (click's mark for lines that are not to be filled needs the escape)


@systemd.command("print", epilog=exit_statuses())
@click.argument("name", metavar="[FILE]", required=False)
@_settings
@click.pass_obj
def print_(invocation: Invocation, name: str | None, user: str, executable: Path) -> None:
    """Print the units, or the one called FILE, such as mirrortool-sync@.timer."""
    files = render_units(UnitSettings.of(invocation.config, executable, user))
    if name is None:
        click.echo("\n".join(f"# /{path}\n{text}" for path, text in files.items()), nl=False)
        return
    by_name = {PurePath(path).name: text for path, text in files.items()}
    if name not in by_name:
        raise ConfigError(f"there is no unit {name!r}{did_you_mean(name, by_name)}")
    click.echo(by_name[name], nl=False)


@systemd.command(epilog=exit_statuses(StoreError))
@click.option(
    "--prefix",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("/"),
    show_default=True,
    help="Write below this folder, for images and packages.",
)
@_settings
@click.pass_obj
def install(invocation: Invocation, prefix: Path, user: str, executable: Path) -> None:
    """Write the units to /etc/systemd/system, with each job's sync_interval; run it again after a change."""
    settings = UnitSettings.of(invocation.config, executable, user)
    installed = install_units(settings, prefix)
    _tell(installed)
    on_this_host = prefix == Path("/")
    commands = _for_this_host(settings) if on_this_host else _for_another_host(settings, installed)
    if installed.written:
        commands.append(_start(settings))
    if commands:
        click.echo("\n  ".join(["Next, as root:", *commands]))
    if on_this_host:
        _warn(settings)


def _tell(installed: Installed) -> None:
    for path in installed.written:
        click.echo(f"wrote {path}")
    if installed.unchanged:
        click.echo(f"{len(installed.unchanged)} files were right already")
    for folder in installed.left_over:
        timer = folder.name.removesuffix(".d")
        click.echo(f"the job of {timer} is gone: systemctl disable --now {timer} && rm -r {folder}")


def _for_this_host(settings: UnitSettings) -> list[str]:
    return preparations(settings, Account.named(settings.user))


def _for_another_host(settings: UnitSettings, installed: Installed) -> list[str]:
    """What the units need there, of which nothing is known."""
    if not any(str(path).endswith(ACCOUNT_FILE) for path in installed.written):
        return []
    folders = (settings.root, *settings.local_edges)
    owner = f"-o {settings.user} -g {settings.user}"
    return ["systemd-sysusers", *(f"install -d {owner} {folder}" for folder in folders)]


def _start(settings: UnitSettings) -> str:
    timers = " ".join(f"mirrortool-sync@{job}.timer" for job in settings.intervals_s)
    return "systemctl daemon-reload" + (f" && systemctl enable --now {timers}" if timers else "")


def _warn(settings: UnitSettings) -> None:
    for path, closed in obstacles(settings, Account.named(settings.user)).items():
        where = "it" if closed == path else str(closed)
        click.echo(f"{path}: the account {settings.user} cannot read this: {where} is closed to it", err=True)
