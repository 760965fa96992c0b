"""The options that say which repositories a command is about."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import click

from mirrortools.config import Config, RepositoryConfig
from mirrortools.errors import ConfigError
from mirrortools.model import RepoId


class Choice(NamedTuple):
    """Repositories by name, by job, or every one."""

    repos: tuple[str, ...] = ()
    jobs: tuple[str, ...] = ()
    every: bool = False

    def __bool__(self) -> bool:
        return bool(self.repos or self.jobs or self.every)

    def of(self, config: Config) -> list[RepositoryConfig]:
        """The chosen repositories, each once. Raises ConfigError when none is."""
        if not self:
            raise ConfigError("say what: --repo ORG/NAME, --job JOB or --all")
        chosen = [config.repository(RepoId.parse(name)) for name in self.repos]
        chosen += [repository for name in self.jobs for repository in config.job(name).repositories]
        if self.every:
            chosen += config.repositories()
        if not chosen:
            raise ConfigError(f"{config.path}: no repository is configured; write a job into conf.d/ beside it")
        return list({repository.repo: repository for repository in chosen}.values())


_OPTIONS: Final[tuple[Callable[[Any], Any], ...]] = (
    click.option("--repo", "repos", multiple=True, metavar="REPO", help="ORG/NAME or datasets/ORG/NAME; repeatable."),
    click.option("--job", "jobs", multiple=True, metavar="JOB", help="All of conf.d/JOB.yaml; repeatable."),
    click.option("--all", "every", is_flag=True, help="All that is configured."),
    click.pass_obj,
)


def choosing(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --repo, --job and --all; the command gets the invocation, and a `choice`."""

    def chosen(invocation: Any, repos: tuple[str, ...], jobs: tuple[str, ...], every: bool, **rest: Any) -> Any:
        return command(invocation, choice=Choice(repos, jobs, every), **rest)

    wrapped: Callable[..., Any] = functools.wraps(command)(chosen)
    for decorate in reversed(_OPTIONS):
        wrapped = decorate(wrapped)
    return wrapped
