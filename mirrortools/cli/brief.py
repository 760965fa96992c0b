"""Command lines of `mirrortool sync` and `mirrortool deliver` as timers and cron have them, read without click.

click takes longer to load than a source takes to answer. What is not exactly of this form, or asks for help, is left to
click, which knows what is wrong with it; a test holds that both read the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from mirrortools.cli import Invocation
from mirrortools.errors import ConfigError

if TYPE_CHECKING:
    from mirrortools.config import Config, RepositoryConfig

_SWITCHES: Final = ("--all", "--no-deliver", "--dry-run", "--json", "--quiet", "--verbose")
_SHORT: Final = {"-q": "--quiet", "-v": "--verbose"}
_WITH_VALUE: Final = ("--repo", "--job", "--edge", "--revision", "--config")
_OF_COMMANDS: Final = {
    "sync": (*_SWITCHES, *_WITH_VALUE),
    "deliver": tuple(name for name in (*_SWITCHES, *_WITH_VALUE) if name not in ("--no-deliver", "--revision")),
}
_BEFORE_THE_COMMAND: Final[tuple[str, ...]] = ("--config", "--quiet", "--verbose")


class Choice(NamedTuple):
    """Repositories by name, by job, or every one."""

    repos: tuple[str, ...] = ()
    jobs: tuple[str, ...] = ()
    every: bool = False

    def __bool__(self) -> bool:
        return bool(self.repos or self.jobs or self.every)

    def of(self, config: Config) -> list[RepositoryConfig]:
        """The chosen repositories, each once. Raises ConfigError when none is."""
        from mirrortools.model import RepoId

        if not self:
            raise ConfigError("say what: --repo ORG/NAME, --job JOB or --all")
        chosen = [config.repository(RepoId.parse(name)) for name in self.repos]
        chosen += [repository for name in self.jobs for repository in config.job(name).repositories]
        if self.every:
            chosen += config.repositories()
        if not chosen:
            raise ConfigError(f"{config.path}: no repository is configured; write a job into conf.d/ beside it")
        return list({repository.repo: repository for repository in chosen}.values())


class SyncOptions(NamedTuple):
    """What `mirrortool sync` is asked for: which repositories, `only` which revisions, to which `edges`; none: all."""

    choice: Choice
    only: tuple[str, ...] = ()
    edges: tuple[str, ...] = ()
    no_deliver: bool = False
    dry_run: bool = False
    as_json: bool = False


class DeliverOptions(NamedTuple):
    """What `mirrortool deliver` is asked for: which repositories, to which `edges`; none: all."""

    choice: Choice
    edges: tuple[str, ...] = ()
    dry_run: bool = False
    as_json: bool = False


def brief(invocation: Invocation) -> SyncOptions | DeliverOptions | None:
    """The options of a plain `sync` or `deliver`, with those that all commands share noted; None: it is click's."""
    read = _words(invocation.arguments)
    if read is None:
        return None
    command, found = read
    values: dict[str, list[str]] = {}
    for name, value in found:
        values.setdefault(name, []).append(value)
    if any(Path(path).is_dir() for path in values.get("--config", ())):
        return None
    if path := values.get("--config"):
        invocation.config_path = Path(path[-1])
    invocation.verbose, invocation.quiet = "--verbose" in values, "--quiet" in values
    repos, jobs, only, edges = (tuple(values.get(f"--{name}", ())) for name in ("repo", "job", "revision", "edge"))
    choice, dry_run, as_json = Choice(repos, jobs, "--all" in values), "--dry-run" in values, "--json" in values
    if command == "deliver":
        return DeliverOptions(choice, edges, dry_run, as_json)
    return SyncOptions(choice, only, edges, "--no-deliver" in values, dry_run, as_json)


def _words(arguments: Sequence[str]) -> tuple[str, list[tuple[str, str]]] | None:
    """The command, and each option with its value, a switch with none; None when there is anything else."""
    found: list[tuple[str, str]] = []
    rest, command, allowed = iter(arguments), "", _BEFORE_THE_COMMAND
    for word in rest:
        if word in _OF_COMMANDS and not command:
            command, allowed = word, _OF_COMMANDS[word]
        elif (option := _option(word, rest)) and option[0] in allowed:
            found.append(option)
        else:
            return None
    return (command, found) if command else None


def _option(word: str, rest: Iterator[str]) -> tuple[str, str] | None:
    """An option with its value, which may be the next word; None when it is none that is known here."""
    name, equals, value = word.partition("=")
    if name in _WITH_VALUE:
        value = value if equals else next(rest, "")
        return (name, value) if value and not value.startswith("-") else None
    name = _SHORT.get(word, word)
    return (name, "") if name in _SWITCHES else None
