"""The line: upstream → resolve → manifest → plan → fetch+verify → publish → deliver → announce.

Most runs find nothing new. What only the others need is imported when it is needed: it takes longer to load than a
source takes to answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from mirrortools.announce import announce
from mirrortools.config import RepositoryConfig
from mirrortools.errors import Locked, MirrorError, StoreError
from mirrortools.locks import in_turn
from mirrortools.model import Manifest, Publication
from mirrortools.outcomes import Outcome, Tally, Watch
from mirrortools.plan import missing_revisions
from mirrortools.resolve import Place, Target
from mirrortools.run import Call, Live, Origin, Wish
from mirrortools.upstreams import RemoteRefs, Upstream, open_upstream

if TYPE_CHECKING:
    from mirrortools.abreast import Enter
    from mirrortools.ahead import Ahead
    from mirrortools.pool import EdgePool


def sync(repositories: Sequence[RepositoryConfig], origin: Origin, wish: Wish, watch: Watch) -> Tally:
    """Sync and deliver repositories; what fails is told in its outcome and holds no other.

    Several are looked at side by side, hot ones first; who goes first of those with something to fetch: see `order`.
    """
    tally = Tally()
    watch.begun(len(repositories))
    if origin.config.has_private and not wish.dry_run:
        from mirrortools.passes import grant

        grant(origin.config, time.time())  # in front of all that it is about
    with (
        _pool(repositories, origin, wish) as pool,
        closing(_outcomes(repositories, Call.begin(origin, wish, watch, pool))) as ended,
    ):
        for outcome in ended:
            tally.add(outcome)
            watch.ended(outcome)
    place = {known.repo: number for number, known in enumerate(repositories)}
    tally.remarkable.sort(key=lambda outcome: place[outcome.repo])
    if not wish.dry_run:
        tally.error = _announce(origin, news=tally.changed > 0)
    return tally


def _outcomes(repositories: Sequence[RepositoryConfig], call: Call) -> Generator[Outcome, None, None]:
    """What came of each repository, as they end; one alone needs no threads beside."""
    if len(repositories) == 1:
        alone = _sync_and_deliver(repositories[0], _enter_at_once, call)
        yield from [alone] if alone else []
        return
    from mirrortools.abreast import abreast
    from mirrortools.order import look_order

    checked_at = call.origin.state.checked_at()
    order = look_order(repositories, lambda known: known.hot, lambda known: checked_at.get(str(known.repo), 0.0))
    with closing(
        abreast(order, lambda item, enter: _sync_and_deliver(item, enter, call), lambda known: known.hot, call.stop)
    ) as ended:
        yield from ended


def _enter_at_once(_size_bytes: int) -> bool:
    """Nobody else is there."""
    return True


def _pool(
    repositories: Sequence[RepositoryConfig], origin: Origin, wish: Wish
) -> AbstractContextManager[EdgePool | None]:
    """The edges, or None when nothing is to be delivered to any."""
    if not wish.delivers(repositories):
        return nullcontext()
    from mirrortools.dispatch import pool_of

    return pool_of(repositories, origin, wish)


def _announce(origin: Origin, *, news: bool) -> MirrorError | None:
    """Tell the public what is served; gives what went wrong."""
    try:
        has_news = news or not origin.tree.has_index
        listed = origin.tree.publish_index() if has_news else origin.tree.listed()
        announce(origin.config, origin.state, listed, time.time())
    except MirrorError as error:
        return error
    return None


def _sync_and_deliver(repository: RepositoryConfig, enter: Enter, call: Call) -> Outcome | None:
    """All that is to be done for a repository; None when it has to wait for its turn to fetch."""
    call = call.of(repository)
    if call.wish.dry_run:
        return _foresee(repository, call)
    with _ahead(repository, call) as ahead:
        return _work_on(repository, enter, call, ahead)


def _ahead(repository: RepositoryConfig, call: Call) -> AbstractContextManager[Ahead | None]:
    """What brings a repository to its edges, the parts that go while it is fetched with it; None: it has none."""
    if call.pool is None or not call.wish.edges_of(repository):
        return nullcontext()
    from mirrortools.dispatch import ahead_of

    return ahead_of(repository, call, call.pool)


def _work_on(repository: RepositoryConfig, enter: Enter, call: Call, ahead: Ahead | None) -> Outcome | None:
    started_at = time.time()
    outcome = _take_turn(repository, enter, call, ahead)
    if outcome is None:
        return None
    try:
        end = {} if isinstance(outcome.error, Locked) else outcome.end()
        if end and ahead:  # which may take long
            from mirrortools.dispatch import bring_to_edges

            call.origin.state.update(str(outcome.repo), **end)
            outcome, end = bring_to_edges(repository, outcome, call, ahead), {}
        outcome = replace(outcome, duration_s=time.time() - started_at)
        call.origin.state.add_run(outcome.run(started_at), **end)
    except MirrorError as error:
        return replace(outcome, error=outcome.error or error)
    return outcome


def _take_turn(repository: RepositoryConfig, enter: Enter, call: Call, ahead: Ahead | None) -> Outcome | None:
    """Bring a repository in; whoever came by while that was going on wanted all that is configured."""
    all_of_it = replace(call, wish=call.wish._replace(only=None))
    acts = (lambda: _bring_in(repository, enter, call, ahead), lambda: _bring_in(repository, enter, all_of_it, ahead))
    try:
        return in_turn(call.origin.root, repository.repo, "mirrortool sync", *acts)
    except MirrorError as error:
        return Outcome(repository.repo, error=error)


def _foresee(repository: RepositoryConfig, call: Call) -> Outcome:
    """What a sync would do. It takes no lock and leaves the state alone, so that it is in nobody's way."""
    place = call.origin.place(repository, call.wish.only)
    try:
        upstream = open_upstream(repository.source, place.repo, place.mirror, call.origin.clients)
        news = _look(place, upstream, call)
        if news.target is None:
            return Outcome(place.repo, publication=news.served)
        from mirrortools.update import Update

        update = Update.planned(call.origin, place, upstream, news.target, news.held)
        call.watch.planned(place.repo, update.plan)
        return update.foreseen(news.notes)
    except MirrorError as error:
        return Outcome(place.repo, error=error)


class News(NamedTuple):
    """What is served, and what upstream wants served instead: None when that is the same.

    `notes` are for the operator; `missing` says which revisions are configured by name and are not there.
    """

    served: Publication | None
    target: Target | None
    notes: tuple[str, ...] = ()
    missing: MirrorError | None = None

    @property
    def held(self) -> list[Manifest]:
        """The manifests of what is served."""
        return list(self.served.manifests.values()) if self.served else []


Ask = Callable[[Callable[[], RemoteRefs]], RemoteRefs]
"""Puts the question for its refs to a source."""


def _look(
    place: Place, upstream: Upstream, call: Call, ask: Ask | None = None, lacking: Callable[[], None] = lambda: None
) -> News:
    """Ask the source for its refs, and when they tell news, for git's objects; `lacking` is called in between."""
    origin, patient = call.origin, call.commons.patient
    remote = (ask or patient)(upstream.refs)
    wanted = place.select(remote)
    served, notes = place.published(), tuple(place.notes(wanted, remote))
    missing = missing_revisions(place.repo, wanted.missing, remote.oids) if wanted.missing else None
    if place.serves(wanted, remote) and _is_whole(place, served, origin):
        return News(served, None, notes, missing)
    lacking()
    patient(lambda: upstream.bring(wanted.refs, wanted.commits))
    target = patient(lambda: place.resolve(wanted, remote))
    place.refuse_moved_back(target)
    return News(served, target, notes, missing)


def _look_and_mend(place: Place, upstream: Upstream, call: Call, ask: Ask, lacking: Callable[[], None]) -> News:
    """Look; when records in the tree are damaged, put them away and look again: a plain sync must get over it."""
    try:
        return _look(place, upstream, call, ask, lacking)
    except StoreError:
        if not call.origin.tree.mend(place.repo):
            raise
    return _look(place, upstream, call, ask, lacking)


def _bring_in(repository: RepositoryConfig, enter: Enter, call: Call, ahead: Ahead | None) -> Outcome | None:
    """From the source to the published tree, for one repository; None when it is not its turn to fetch."""
    origin, place = call.origin, call.origin.place(repository, call.wish.only)
    origin.tree.refuse_elsewhere(place.repo)
    live = Live(place.repo, origin.state, call.watch)
    live.begin()
    place.mirror.clear_up()
    upstream = open_upstream(repository.source, place.repo, place.mirror, origin.clients)
    ask = partial(call.commons.ask, repository.source.url)
    news = _look_and_mend(place, upstream, call, ask, live.lacking)
    if news.target is None:
        live.nothing_lacks()
        return Outcome(place.repo, publication=news.served, notes=news.notes, error=news.missing)
    from mirrortools.desk import tell_nobody
    from mirrortools.update import Update

    update = Update.planned(origin, place, upstream, news.target, news.held)
    call.watch.planned(place.repo, update.plan)
    if not enter(update.plan.fetch_bytes):
        return None
    live.expect(update.plan.fetch_bytes)
    with ahead.fetching(update.prospect, update.plan.fetch) if ahead else nullcontext(tell_nobody) as told:
        brought = update.fetch(call.commons, live.fetched, told)
    publication = update.publish()
    live.published(place.rules)
    return Outcome(place.repo, True, publication, update.plan, brought=brought, notes=news.notes, error=news.missing)


def _is_whole(place: Place, served: Publication | None, origin: Origin) -> bool:
    """Whether what is served follows the rules of today and has every blob in its place."""
    rules = origin.state.repository(str(place.repo)).rules
    return served is not None and rules == place.rules and not origin.store.missing(served.blobs)
