"""The command `mirrortool`: options → one call → print → exit status.

Here stands what all commands share, and the one place that turns any failure into a line and a status. Each command
group is a module of this package that is imported when it is called, so that help stays quick; click, too, is imported
only where a command line needs it (`group`).
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from mirrortools import __version__
from mirrortools.errors import ConfigError, MirrorError

if TYPE_CHECKING:
    from mirrortools.config import Config

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


def print_json(document: Any) -> None:
    """Write a result for machines to stdout."""
    print(json.dumps(document, ensure_ascii=False, indent=2))


def set_up_logging(invocation: Invocation) -> None:
    """Have messages go to stderr, those that the options ask for."""
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
        return _act(invocation)
    except MirrorError as error:
        _complain(invocation, str(error))
        return error.exit_status
    except KeyboardInterrupt:
        return _stopped(invocation, signal.SIGINT)
    except _Terminated:
        return _stopped(invocation, signal.SIGTERM)
    except BrokenPipeError:
        return reader_went_away()
    except OSError as error:
        from mirrortools.access import reason

        _complain(invocation, f"{error.filename or 'operating system'}: {reason(error)}")
        return MirrorError.exit_status
    except Exception as error:
        _complain(invocation, _bug(error))
        return MirrorError.exit_status


def _act(invocation: Invocation) -> int:
    """Do what the command line says. A `sync` or `deliver` as timers have it is read without click."""
    from mirrortools.cli.brief import brief

    if options := brief(invocation):
        from mirrortools.cli.calling import run

        set_up_logging(invocation)
        status = run(invocation, options)
        print(end="", flush=True)
        return status
    from mirrortools.cli.group import act

    return act(invocation)


def reader_went_away() -> int:
    """Say no more to a reader that is gone (`| head`); the status for that."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return _BROKEN_PIPE_STATUS


def _complain(invocation: Invocation, text: str) -> None:
    if invocation.verbose and sys.exc_info()[0] is not None:
        text = f"{traceback.format_exc().rstrip()}\nmirrortool: {text}"
    else:
        text = f"mirrortool: {text}"
    _say(text, invocation.environ)


def _say(text: str, environ: Mapping[str, str]) -> None:
    journal = _is_journal(environ)
    print(_with_priority(text, logging.ERROR) if journal else text, file=sys.stderr, flush=True)


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
    from mirrortools.cli.stopping import end_when_told

    # SIGTERM unwinds like an exception, so that children and locks are let go of.
    signal.signal(signal.SIGTERM, _terminate)
    end_when_told(lambda text: _say(f"mirrortool: {text}", os.environ))
    # nginx runs as somebody else and must be able to read what is published, whatever the caller's umask.
    umask = os.umask(0o022)
    _end(run(sys.argv[1:], os.environ, umask))


def _end(status: int) -> NoReturn:
    """End the process with all that was said.

    At once, when nothing runs beside: the interpreter takes all that was imported apart, though it goes with the
    process anyway, and that takes longer than most answers of a source.
    """
    logging.shutdown()
    if threading.active_count() > 1:
        sys.exit(status)
    try:
        print(end="", flush=True)  # which knows what to do when stdout is closed
        print(end="", flush=True, file=sys.stderr)
    except OSError:
        status = status or MirrorError.exit_status
    os._exit(status)
