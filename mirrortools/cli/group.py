"""The group of all commands, with click: help, options that all share, and the nearest name to a wrong one."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click

from mirrortools import __version__
from mirrortools.cli import Invocation, exit_statuses, reader_went_away, set_up_logging
from mirrortools.errors import ConfigError, MirrorError

_PACKAGE: Final = "mirrortools.cli"
# name: (module of this package, attribute, what the list of commands says)
COMMANDS: Final[Mapping[str, tuple[str, str, str]]] = {
    "init": ("init", "init", "Write a commented configuration to start from."),
    "config": ("config", "config", "Check, show and describe the configuration."),
    "sync": ("sync", "sync", "Pull what changed, verify it, publish it, deliver it."),
    "deliver": ("sync", "deliver", "Bring what is published to the edges."),
    "status": ("status", "status", "Tell what is mirrored where, and how old it is."),
    "check": ("check", "check", "Hash what is served again, here or on edges, and repair it."),
    "describe": ("describe", "describe", "Hash what metalinks say of pieces, here and on edges."),
    "edge": ("edge", "edge", "Provision, list and audit edges, change keys."),
    "nginx": ("nginx", "nginx", "Print or install the configuration of nginx."),
    "rsyncd": ("rsyncd", "rsyncd", "Print or install the configuration of rsyncd."),
    "get": ("get", "get", "Download a repository from a mirror, without any configuration."),
    "token": ("token", "token", "Give out and revoke tokens for what is private."),
    "client": ("client", "client", "Let clients on this host use a mirror, or undo that."),
    "serve": ("serve", "serve", "Serve the mirror in the foreground."),
    "systemd": ("systemd", "systemd", "Print or install service and timer units."),
}


def act(invocation: Invocation) -> int:
    """Do what a command line says; gives its exit status. Raises MirrorError, KeyboardInterrupt."""
    try:
        result = mirrortool.main(list(invocation.arguments), "mirrortool", standalone_mode=False, obj=invocation)
    except click.ClickException as error:
        raise ConfigError(_usage(error)) from error
    except click.Abort as error:
        raise KeyboardInterrupt from error
    return result if isinstance(result, int) else 0


def _usage(error: click.ClickException) -> str:
    context = error.ctx if isinstance(error, click.UsageError) else None
    hint = f"\nTry `{context.command_path} --help`." if context else ""
    return error.format_message() + hint


class LazyGroup(click.Group):
    """A group whose commands are modules that are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of COMMANDS whose module is installed, in that order, then what was added by hand."""
        return [*filter(_is_installed, COMMANDS), *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of one command."""
        if not _is_installed(cmd_name):
            return super().get_command(ctx, cmd_name)
        module, attribute, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(f"{_PACKAGE}.{module}"), attribute)
        _share_options(command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            names = [name for name in self.list_commands(ctx) if name in COMMANDS]
            formatter.write_dl([(name, COMMANDS[name][2]) for name in names])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command. Raises click.UsageError that names the nearest one."""
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            from mirrortools.config import did_you_mean

            hint = did_you_mean(args[0], self.list_commands(ctx))
            raise click.UsageError(f"there is no command {args[0]!r}{hint}", ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a reader that went away (`| head`) ends it quietly."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            ctx.exit(reader_went_away())
        return result


def _is_installed(name: str) -> bool:
    """Whether there is a module for a command."""
    from importlib.util import find_spec

    return name in COMMANDS and find_spec(f"{_PACKAGE}.{COMMANDS[name][0]}") is not None


def _share_options(command: click.Command) -> None:
    """Let a command, and the commands below it, take the options that all share; once."""
    if not any(option.name == "quiet" for option in command.params):
        command.params += _shared_options()
    for below in command.commands.values() if isinstance(command, click.Group) else ():
        _share_options(below)


def _all_kinds(kind: type[MirrorError] = MirrorError) -> list[type[MirrorError]]:
    below = [found for child in kind.__subclasses__() for found in _all_kinds(child)]
    return below or [kind]


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=exit_statuses(*_all_kinds()),
)
@click.version_option(__version__, prog_name="mirrortool", message="%(prog)s %(version)s")
@click.pass_obj
def mirrortool(invocation: Invocation) -> None:
    """Keep mirrors of AI-model repositories: pull, verify, publish, deliver."""
    set_up_logging(invocation)


def _note(context: click.Context, option: click.Parameter, value: Any) -> None:
    """Keep what an option said; one that is not there changes nothing of what stood before the command."""
    if value and option.name:
        setattr(context.obj, option.name, value)
        set_up_logging(context.obj)


def _shared_options() -> list[click.Parameter]:
    """What may stand before the command, and after it."""
    return [
        click.Option(
            ["--config", "config_path"],
            type=click.Path(path_type=Path, dir_okay=False),
            metavar="FILE",
            help="The main file; else $MIRRORTOOL_CONFIG, else /etc/mirrortools/mirrortool.yaml. "
            "The jobs are conf.d/*.yaml beside it.",
            expose_value=False,
            callback=_note,
        ),
        _flag("-v", "--verbose", "Say more, and show where an error came from."),
        _flag("-q", "--quiet", "Say nothing but warnings and errors."),
    ]


def _flag(short: str, long: str, text: str) -> click.Option:
    return click.Option([short, long], is_flag=True, help=text, expose_value=False, callback=_note)


mirrortool.params[:0] = _shared_options()
