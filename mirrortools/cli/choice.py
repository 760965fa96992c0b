"""The options that say which repositories a command is about."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final

import click

from mirrortools.cli.brief import Choice as Choice

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
