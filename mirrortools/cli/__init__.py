"""The command `mirrortool`: options → one call → print → exit status.

Here stand the group, what all commands share, and the one place that turns any failure into a line and a status.
Each command group is a module of this package that is imported when it is called, so that help stays quick.
"""

from __future__ import annotations

import gc
import importlib
import json
import logging
import os
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from mirrortools import __version__
from mirrortools.errors import ConfigError, MirrorError

if TYPE_CHECKING:
    from mirrortools.config import Config

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
_PRIORITIES: Final = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3}
_BROKEN_PIPE_STATUS: Final = 128 + signal.SIGPIPE


@dataclass
class Invocation:
    """What the options that all commands share said; commands get it by `click.pass_obj`.

    `arguments` are the whole command line, `umask` is the caller's. A command sets `when_stopped` to what an operator
    who stops it should know.
    """

    environ: Mapping[str, str]
    arguments: Sequence[str] = ()
    umask: int = 0o022
    config_path: Path | None = None
    verbose: bool = False
    quiet: bool = False
    when_stopped: str = ""

    @cached_property
    def config(self) -> Config:
        """The configuration, read when a command first asks for it. Raises ConfigError."""
        from mirrortools.config import load

        return load(self.config_path, self.environ)


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
        command: click.Command = getattr(importlib.import_module(f"{__name__}.{module}"), attribute)
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
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(_BROKEN_PIPE_STATUS)
        return result


def _is_installed(name: str) -> bool:
    """Whether there is a module for a command."""
    from importlib.util import find_spec

    return name in COMMANDS and find_spec(f"{__name__}.{COMMANDS[name][0]}") is not None


def _share_options(command: click.Command) -> None:
    """Let a command, and the commands below it, take the options that all share; once."""
    if not any(option.name == "quiet" for option in command.params):
        command.params += _shared_options()
    for below in command.commands.values() if isinstance(command, click.Group) else ():
        _share_options(below)


def exit_statuses(*kinds: type[MirrorError]) -> str:
    """The epilog of a command that can end with `kinds`, besides success, a bug and a bad configuration."""
    lines = ["\b", "Exit status:", "  0  done and durable"]
    every: set[type[MirrorError]] = {MirrorError, ConfigError, *kinds}
    for kind in sorted(every, key=lambda kind: kind.exit_status):
        sentence = (kind.__doc__ or "").partition("\n")[0].rstrip(".")
        text = "anything else, such as a bug" if kind is MirrorError else sentence[:1].lower() + sentence[1:]
        lines.append(f"{kind.exit_status:3}  {text}")
    signals = (signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")
    return "\n".join([*lines, *(f"{128 + number:3}  stopped by {name}" for number, name in signals)])


def _all_kinds(kind: type[MirrorError] = MirrorError) -> list[type[MirrorError]]:
    below = [found for child in kind.__subclasses__() for found in _all_kinds(child)]
    return below or [kind]


def print_json(document: Any) -> None:
    """Write a result for machines to stdout."""
    click.echo(json.dumps(document, ensure_ascii=False, indent=2))


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=exit_statuses(*_all_kinds()),
)
@click.version_option(__version__, prog_name="mirrortool", message="%(prog)s %(version)s")
@click.pass_obj
def mirrortool(invocation: Invocation) -> None:
    """Keep mirrors of AI-model repositories: pull, verify, publish, deliver."""
    _set_up_logging(invocation)


def _note(context: click.Context, option: click.Parameter, value: Any) -> None:
    """Keep what an option said; one that is not there changes nothing of what stood before the command."""
    if value and option.name:
        setattr(context.obj, option.name, value)
        _set_up_logging(context.obj)


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


def _set_up_logging(invocation: Invocation) -> None:
    level = logging.DEBUG if invocation.verbose else logging.WARNING if invocation.quiet else logging.INFO
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(for_journal=_is_journal(invocation.environ)))
    logger = logging.getLogger("mirrortools")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(level)


class _Formatter(logging.Formatter):
    """Plain lines, details with the seconds since the start; for journald each with its priority (sd-daemon(3))."""

    def __init__(self, *, for_journal: bool) -> None:
        super().__init__("%(message)s")
        self._for_journal = for_journal

    def format(self, record: logging.LogRecord) -> str:
        """One record as text."""
        text = super().format(record)
        if record.levelno <= logging.DEBUG:
            text = f"{record.relativeCreated / 1000:.3f} s: {text}"
        return _with_priority(text, record.levelno) if self._for_journal else text


def _with_priority(text: str, level: int) -> str:
    return "\n".join(f"<{_PRIORITIES.get(level, 6)}>{line}" for line in text.splitlines())


def _is_journal(environ: Mapping[str, str]) -> bool:
    """Whether stderr goes to journald: JOURNAL_STREAM names its device and inode (systemd.exec(5))."""
    try:
        info = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError, AttributeError):
        return False  # stderr is closed, or is no file, as in tests
    return environ.get("JOURNAL_STREAM") == f"{info.st_dev}:{info.st_ino}"


def run(arguments: Sequence[str], environ: Mapping[str, str], umask: int = 0o022) -> int:
    """Run one command line and give its exit status; whatever fails becomes a line on stderr."""
    invocation = Invocation(environ, arguments, umask)
    try:
        result = mirrortool.main(list(arguments), "mirrortool", standalone_mode=False, obj=invocation)
        return result if isinstance(result, int) else 0
    except MirrorError as error:
        _complain(invocation, str(error))
        return error.exit_status
    except click.ClickException as error:
        _complain(invocation, _usage(error))
        return ConfigError.exit_status
    except (click.Abort, KeyboardInterrupt):
        return _stopped(invocation, signal.SIGINT)
    except _Terminated:
        return _stopped(invocation, signal.SIGTERM)
    except OSError as error:
        from mirrortools.access import reason

        _complain(invocation, f"{error.filename or 'operating system'}: {reason(error)}")
        return MirrorError.exit_status
    except Exception as error:
        _complain(invocation, _bug(error))
        return MirrorError.exit_status


def _complain(invocation: Invocation, text: str) -> None:
    if invocation.verbose and sys.exc_info()[0] is not None:
        text = f"{traceback.format_exc().rstrip()}\nmirrortool: {text}"
    else:
        text = f"mirrortool: {text}"
    journal = _is_journal(invocation.environ)
    click.echo(_with_priority(text, logging.ERROR) if journal else text, err=True)


def _usage(error: click.ClickException) -> str:
    context = error.ctx if isinstance(error, click.UsageError) else None
    hint = f"\nTry `{context.command_path} --help`." if context else ""
    return error.format_message() + hint


def _bug(error: Exception) -> str:
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(place.filename).name}:{place.lineno}"
    return (
        f"this is a bug in mirrortool {__version__}: {type(error).__name__}: {error} ({where}); "
        "run it again with -v for the traceback, and report that"
    )


def _stopped(invocation: Invocation, number: signal.Signals) -> int:
    """Say that a signal ended the command, which is done with letting go, and give the status."""
    more = f"; {invocation.when_stopped}" if invocation.when_stopped else ""
    _complain(invocation, f"stopped ({number.name}){more}")
    return 128 + number


class _Terminated(SystemExit):
    """SIGTERM came."""


def _terminate(number: int, _: object) -> NoReturn:
    raise _Terminated(128 + number)


def main() -> NoReturn:
    """Be the command `mirrortool`."""
    # SIGTERM unwinds like an exception, so that children and locks are let go of.
    signal.signal(signal.SIGTERM, _terminate)
    # nginx runs as somebody else and must be able to read what is published, whatever the caller's umask.
    umask = os.umask(0o022)
    status = run(sys.argv[1:], os.environ, umask)
    # Else the interpreter looks through all that was imported for cycles, though it goes with the process anyway;
    # that takes longer than most answers of a source.
    gc.freeze()
    sys.exit(status)
