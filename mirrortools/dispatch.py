"""From this host to its edges: what a run brings them, and how it is done with those that lack nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

from mirrortools.config import Config, RepositoryConfig
from mirrortools.errors import MirrorError, StoreError
from mirrortools.model import RepoId
from mirrortools.outcomes import Outcome, Tally, Watch
from mirrortools.run import Call, Origin, Wish

if TYPE_CHECKING:
    from mirrortools.agreement import Agreed
    from mirrortools.ahead import Ahead
    from mirrortools.pool import EdgePool
    from mirrortools.readers import Access
    from mirrortools.state import State


def deliver(repositories: Sequence[RepositoryConfig], origin: Origin, wish: Wish, watch: Watch) -> Tally:
    """Deliver what is published, without asking any source."""
    tally = Tally()
    watch.begun(len(repositories))
    with pool_of(repositories, origin, wish) if wish.delivers(repositories) else nullcontext() as pool:
        run = Call.begin(origin, wish, watch, pool)
        done = _pass_by(repositories, run, pool, tally) if pool and not wish.looks else set()
        rest = [repository for repository in repositories if repository.repo not in done]
        for repository in _delivery_order(rest, origin, wish):
            call = run.of(repository)
            outcome = Outcome(repository.repo)
            if pool and wish.edges_of(repository):
                with ahead_of(repository, call, pool) as ahead:
                    outcome = bring_to_edges(repository, outcome, call, ahead)
            tally.add(outcome)
            watch.ended(outcome)
    return tally


@contextmanager
def pool_of(repositories: Sequence[RepositoryConfig], origin: Origin, wish: Wish) -> Iterator[EdgePool]:
    """The edges of a run over these repositories."""
    from mirrortools.pool import EdgePool, Scope, Ways  # which takes its time to load

    config, rates = origin.config, origin.state.rates()
    scope = Scope.of(repositories, config, _access(config), believes=not wish.looks)
    with EdgePool(scope, Ways(config.delivery_limit_bytes_s, rates, origin.ways)) as pool:
        yield pool
        origin.state.keep_rates({edge: rate for edge, rate in pool.rates.items() if rates.get(edge) != rate})


def _access(config: Config) -> Callable[[str], Access] | None:
    """Who may read on an edge; None when nothing is private."""
    if not config.has_private:
        return None
    from mirrortools.passes import edge_access

    return lambda edge: edge_access(config, edge, time.time())


def ahead_of(repository: RepositoryConfig, call: Call, pool: EdgePool) -> Ahead:
    """What brings a repository to its edges, the parts that go while it is fetched with it."""
    from mirrortools.ahead import Ahead
    from mirrortools.outgoing import Outgoing

    outgoing = Outgoing(call.origin.state, call.watch.delivered)
    edges, siblings = call.wish.edges_of(repository), call.wish.siblings_of(repository)
    return Ahead(pool, call.origin.root, edges, outgoing, siblings)


def bring_to_edges(repository: RepositoryConfig, outcome: Outcome, call: Call, ahead: Ahead) -> Outcome:
    """Bring what is published to the repository's edges, even when the source failed: an edge may lack it."""
    try:
        publication = outcome.publication or call.published(repository)
    except MirrorError as error:
        return replace(outcome, error=outcome.error or error)
    if publication is None:
        nothing = StoreError(f"{repository.repo}: nothing is published yet; run `mirrortool sync` first")
        return replace(outcome, error=outcome.error or nothing)
    from mirrortools.outgoing import Outgoing

    deliveries = ahead.deliver(publication)
    Outgoing(call.origin.state, call.watch.delivered).note(publication, deliveries)
    return replace(outcome, publication=publication, deliveries=tuple(deliveries))


def _pass_by(repositories: Sequence[RepositoryConfig], call: Call, pool: EdgePool, tally: Tally) -> set[RepoId]:
    """Be done with the repositories that edges show as they are, by the notes of both sides; gives which those are."""
    done: set[RepoId] = set()
    for agreed in pool.agree(repositories, call.wish.edges_of, lambda known: call.of(known).published(known)):
        done |= {known.repo for known in agreed.repositories}
        _note_in_step(agreed, call.origin.state)
        outcomes = (_in_step(known, call.of(known), pool) for known in agreed.repositories)
        if agreed.lost:
            for outcome in outcomes:
                _end_without(outcome, call, tally)
        else:
            tally.add_in_step(len(agreed.repositories), agreed.edges)
            call.watch.in_step(len(agreed.repositories), outcomes)
    return done


def _note_in_step(agreed: Agreed, state: State) -> None:
    jobs: dict[str, list[str]] = {}
    for known in agreed.repositories:
        jobs.setdefault(known.job, []).append(str(known.repo))
    for edge, (job, repos) in product(agreed.edges, jobs.items()):
        state.in_step(edge, job, repos, time.time())


def _in_step(repository: RepositoryConfig, call: Call, pool: EdgePool) -> Outcome:
    """What came of a repository that edges show as it is, but for those that could not be reached."""
    from mirrortools.errand import Delivery

    repo, refs = repository.repo, dict[str, str]()
    with suppress(StoreError):  # nothing was to be read of it
        refs = call.origin.tree.refs(repo)
    failures = {edge: pool.session(edge, repository.realm).failure for edge in call.wish.edges_of(repository)}
    deliveries = [Delivery(edge, repo, False, 0, 0, 0, 0.0, failure) for edge, failure in failures.items()]
    return Outcome(repo, deliveries=tuple(deliveries), refs=refs)


def _end_without(outcome: Outcome, call: Call, tally: Tally) -> None:
    """Be done with a repository that some edges could not be asked about."""
    from mirrortools.outgoing import Outgoing

    lost = [delivery for delivery in outcome.deliveries if delivery.error]
    Outgoing(call.origin.state, call.watch.delivered).note(None, lost)
    tally.add(outcome)
    call.watch.ended(outcome)


def _delivery_order(repositories: Sequence[RepositoryConfig], origin: Origin, wish: Wish) -> Sequence[RepositoryConfig]:
    """As configured; hot ones first, then the newest, when an edge has a quota that may not be enough for all."""
    edges = {name for repository in repositories for name in wish.edges_of(repository)}
    if all(origin.config.edge(name).quota_bytes is None for name in edges):
        return repositories
    published = {known.repo: origin.state.repository(str(known.repo)).published_at or 0.0 for known in repositories}
    return sorted(repositories, key=lambda known: (not known.hot, -published[known.repo]))
