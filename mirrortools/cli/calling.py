"""Runs that go to edges: those are called while the rest of the program is loaded, which takes less than a login."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mirrortools.cli import Invocation
from mirrortools.cli.brief import DeliverOptions, SyncOptions

if TYPE_CHECKING:
    from mirrortools.config import Config
    from mirrortools.transports import Transport


def run(
    invocation: Invocation, options: SyncOptions | DeliverOptions, write: Callable[[str], object] | None = None
) -> int:
    """Do what `mirrortool sync` or `mirrortool deliver` was asked for; gives the exit status. JSON goes to `write`."""
    with _calling(invocation.config, options) as ways:
        from mirrortools.cli import syncing

        if isinstance(options, SyncOptions):
            return syncing.sync(invocation, options, ways, write)
        return syncing.deliver(invocation, options, ways, write)


@contextmanager
def _calling(config: Config, options: SyncOptions | DeliverOptions) -> Iterator[Mapping[str, Transport]]:
    """Ways to the edges that public repositories will be brought to, by their names; all are called now."""
    names = _edges(config, options)
    if not names:
        yield {}
        return
    from mirrortools.transports import called, limited, transport_to

    limit, state = config.delivery_limit_bytes_s, config.root / "state"
    with called([(name, transport_to(limited(config.edge(name), limit), state)) for name in names]) as ways:
        yield ways


def _edges(config: Config, options: SyncOptions | DeliverOptions) -> list[str]:
    chosen = options.choice.of(config)
    if options.dry_run or (isinstance(options, SyncOptions) and options.no_deliver):
        return []
    names = {name for repository in chosen if not repository.private for name in repository.edges}
    return sorted(names.intersection(options.edges) if options.edges else names)
