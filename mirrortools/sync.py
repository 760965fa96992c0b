"""The line: upstream → resolve → manifest → plan → fetch+verify → publish → deliver → announce.

Most runs find nothing new. What only the others need is imported when it is needed: it takes longer to load than a
source takes to answer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mirrortools.announce import announce
from mirrortools.commons import Commons
from mirrortools.config import Config, RepositoryConfig
from mirrortools.errors import Locked, MirrorError, StoreError
from mirrortools.locks import in_turn
from mirrortools.model import Blob, GitSnapshot, Manifest, Publication, Realm, RepoId
from mirrortools.plan import Plan, make_plan, missing_revisions
from mirrortools.progress import Progress
from mirrortools.resolve import Place, Target
from mirrortools.state import Run, State
from mirrortools.store import Store
from mirrortools.tree import Tree
from mirrortools.upstreams import (
    Clients,
    GitMirror,
    RemoteRefs,
    Upstream,
    open_upstream,
)

if TYPE_CHECKING:
    from mirrortools.abreast import Enter
    from mirrortools.agreement import Agreed
    from mirrortools.ahead import Ahead
    from mirrortools.errand import Delivery
    from mirrortools.outgoing import EdgeTally
    from mirrortools.pool import EdgePool
    from mirrortools.readers import Access

_LIVE_S = 1.0


class Watch:
    """Who looks on; this one does not care. Called from several threads."""

    def begun(self, repositories: int) -> None:
        """A run over so many repositories begins."""

    def planned(self, repo: RepoId, plan: Plan) -> None:
        """A plan was made; nothing was fetched yet. It is made again for who had to wait."""

    def fetched(self, repo: RepoId, count: int) -> None:
        """`count` bytes came, or were on disk from an earlier run."""

    def delivered(self, edge: str, repo: RepoId, sent_bytes: int, planned_bytes: int) -> None:
        """An edge has been sent so much of what is planned."""

    def ended(self, outcome: Outcome) -> None:
        """A repository is done, or failed."""

    def in_step(self, repositories: int, outcomes: Iterable[Outcome]) -> None:
        """So many repositories needed nothing anywhere; who wants to know more takes their outcomes."""


class Origin(NamedTuple):
    """The host that syncs: its configuration and what lies below its root, of one realm."""

    config: Config
    store: Store
    tree: Tree
    state: State
    clients: Clients

    @property
    def root(self) -> Path:
        """The folder that everything is in."""
        return self.config.root

    def of(self, repository: RepositoryConfig) -> Origin:
        """The same host where a repository is served from."""
        if repository.realm is self.tree.realm:
            return self
        return self._replace(store=Store(self.root, repository.realm), tree=Tree(self.root, repository.realm))

    def place(self, repository: RepositoryConfig, only: tuple[str, ...] | None = None) -> Place:
        """Where one repository is resolved."""
        mirror = GitMirror(self.root / "state" / "git" / f"{repository.repo.path}.git")
        return Place(repository, mirror, self.tree, only)


class Wish(NamedTuple):
    """What a run shall do.

    `only` limits it to these revisions, `edges` limits whom to deliver to; None means what is configured. `looks` has
    edges look at what they show, where they may go by their notes else.
    """

    only: tuple[str, ...] | None = None
    edges: tuple[str, ...] | None = None
    dry_run: bool = False
    looks: bool = False

    def edges_of(self, repository: RepositoryConfig) -> list[str]:
        """The edges to bring a repository to."""
        return [name for name in repository.edges if self.edges is None or name in self.edges]

    def siblings_of(self, repository: RepositoryConfig) -> list[str]:
        """The edges that are to have a repository, and are not brought it in this run."""
        return [name for name in repository.edges if self.edges is not None and name not in self.edges]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run did for one repository.

    `publication` is what is served now, or just its `refs`, where it was not read; `plan` is None when nothing was new;
    `names` tells the file of a blob.
    """

    repo: RepoId
    changed: bool = False
    publication: Publication | None = None
    plan: Plan | None = None
    names: Mapping[Blob, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    progress: Progress = field(default_factory=Progress)
    deliveries: tuple[Delivery, ...] = ()
    duration_s: float = 0.0
    error: MirrorError | None = None
    refs: Mapping[str, str] = field(default_factory=dict)

    @property
    def served_refs(self) -> Mapping[str, str]:
        """The full names of the refs that are served now, and their commits."""
        return self.publication.refs if self.publication else self.refs

    @property
    def errors(self) -> list[MirrorError]:
        """What went wrong, at the source or at edges."""
        found = [self.error, *(delivery.error for delivery in self.deliveries)]
        return [error for error in found if error]

    @property
    def is_remarkable(self) -> bool:
        """Whether anything happened, here or at an edge."""
        return self.changed or self.plan is not None or bool(self.errors or self.notes or self.sent_bytes)

    @property
    def sent_bytes(self) -> int:
        """What left this host for all edges."""
        return sum(delivery.bytes_sent for delivery in self.deliveries)


@dataclass(frozen=True, slots=True)
class Call:
    """What all repositories of one run share."""

    origin: Origin
    wish: Wish
    watch: Watch
    pool: EdgePool | None
    commons: Commons

    def of(self, repository: RepositoryConfig) -> Call:
        """The same run, where a repository is served from."""
        return replace(self, origin=self.origin.of(repository))

    def published(self, repository: RepositoryConfig) -> Publication | None:
        """What is served of a repository. Raises StoreError."""
        return self.origin.place(repository).published()

    def delivers(self, repository: RepositoryConfig) -> bool:
        """Whether a repository is brought to any edge."""
        return self.pool is not None and bool(self.wish.edges_of(repository))

    def stop(self) -> None:
        """Break off whatever is under way, in any thread."""
        self.commons.stopped.set()
        self.origin.clients.break_off()
        if self.pool:
            self.pool.abort()


@dataclass(slots=True)
class Tally:
    """What a run came to: of very many repositories only those are kept of which something is to be said.

    `error` is what went wrong behind the last repository.
    """

    repositories: int = 0
    changed: int = 0
    failed: int = 0
    remarkable: list[Outcome] = field(default_factory=list)
    edges: dict[str, EdgeTally] = field(default_factory=dict)
    error: MirrorError | None = None

    def add(self, outcome: Outcome) -> None:
        """Count one that has ended."""
        for delivery in outcome.deliveries:
            from mirrortools.outgoing import EdgeTally

            self.edges.setdefault(delivery.edge, EdgeTally(delivery.edge)).add(delivery)
        self.repositories += 1
        self.changed += outcome.changed
        self.failed += bool(outcome.errors)
        if outcome.errors or outcome.notes:
            self.remarkable.append(replace(outcome, publication=None, plan=None, names={}))

    def add_in_step(self, repositories: int, edges: Iterable[str]) -> None:
        """Count so many that needed nothing at any of these edges."""
        from mirrortools.outgoing import EdgeTally

        self.repositories += repositories
        for edge in edges:
            self.edges.setdefault(edge, EdgeTally(edge)).repositories += repositories

    @property
    def errors(self) -> list[MirrorError]:
        """All that went wrong."""
        found = [error for outcome in self.remarkable for error in outcome.errors]
        return [*found, self.error] if self.error else found


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
        _pool(origin, repositories, wish) as pool,
        closing(_outcomes(repositories, Call(origin, wish, watch, pool, _commons(origin, wish)))) as ended,
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


def deliver(repositories: Sequence[RepositoryConfig], origin: Origin, wish: Wish, watch: Watch) -> Tally:
    """Deliver what is published, without asking any source."""
    tally = Tally()
    watch.begun(len(repositories))
    with _pool(origin, repositories, wish) as pool:
        run = Call(origin, wish, watch, pool, _commons(origin, wish))
        done = _pass_by(repositories, run, pool, tally) if pool and not wish.looks else set()
        rest = [repository for repository in repositories if repository.repo not in done]
        for repository in _delivery_order(rest, origin, wish):
            call = run.of(repository)
            outcome = Outcome(repository.repo)
            with _ahead(repository, call) as ahead:
                outcome = _deliver(repository, outcome, call, ahead) if ahead else outcome
            tally.add(outcome)
            watch.ended(outcome)
    return tally


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


def _commons(origin: Origin, wish: Wish) -> Commons:
    """What all repositories of a run share."""
    return Commons(origin.state, origin.config.max_parallel, in_spite=wish.looks)


def _delivery_order(repositories: Sequence[RepositoryConfig], origin: Origin, wish: Wish) -> Sequence[RepositoryConfig]:
    """As configured; hot ones first, then the newest, when an edge has a quota that may not be enough for all."""
    edges = {name for repository in repositories for name in wish.edges_of(repository)}
    if all(origin.config.edge(name).quota_bytes is None for name in edges):
        return repositories
    published = {known.repo: origin.state.repository(str(known.repo)).published_at or 0.0 for known in repositories}
    return sorted(repositories, key=lambda known: (not known.hot, -published[known.repo]))


@contextmanager
def _pool(origin: Origin, repositories: Sequence[RepositoryConfig], wish: Wish) -> Iterator[EdgePool | None]:
    """The edges, or None when nothing is to be delivered to any."""
    if wish.dry_run or not any(wish.edges_of(repository) for repository in repositories):
        yield None
        return
    from mirrortools.transports import called, limited, transport_to

    config = origin.config
    public = [repository for repository in repositories if repository.realm is Realm.PUBLIC]
    needed = sorted({name for repository in public for name in wish.edges_of(repository)})
    limit, state = config.delivery_limit_bytes_s, origin.root / "state"
    transports = [(name, transport_to(limited(config.edge(name), limit), state)) for name in needed]
    with called(transports) as early:
        from mirrortools.pool import EdgePool, Scope, Ways  # which takes its time to load

        rates = origin.state.rates()
        scope = Scope.of(repositories, config, _access(config), believes=not wish.looks)
        with EdgePool(scope, Ways(limit, rates, early)) as pool:
            yield pool
            origin.state.keep_rates({edge: rate for edge, rate in pool.rates.items() if rates.get(edge) != rate})


def _access(config: Config) -> Callable[[str], Access] | None:
    """Who may read on an edge; None when nothing is private."""
    if not config.has_private:
        return None
    from mirrortools.passes import edge_access

    return lambda edge: edge_access(config, edge, time.time())


def _announce(origin: Origin, *, news: bool) -> MirrorError | None:
    """Tell the public what is served; gives what went wrong."""
    try:
        if news or not origin.tree.has_index:
            origin.tree.publish_index()
        announce(origin.config, origin.state, [*origin.tree.repositories()], origin.tree.refs, time.time())
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


@contextmanager
def _ahead(repository: RepositoryConfig, call: Call) -> Iterator[Ahead | None]:
    """What brings a repository to its edges, the parts that go while it is fetched with it; None: it has none."""
    if call.pool is None or not call.delivers(repository):
        yield None
        return
    from mirrortools.ahead import Ahead
    from mirrortools.outgoing import Outgoing

    outgoing = Outgoing(call.origin.state, call.watch.delivered)
    edges, siblings = call.wish.edges_of(repository), call.wish.siblings_of(repository)
    with Ahead(call.pool, call.origin.root, edges, outgoing, siblings) as ahead:
        yield ahead


def _work_on(repository: RepositoryConfig, enter: Enter, call: Call, ahead: Ahead | None) -> Outcome | None:
    started_at = time.time()
    outcome = _take_turn(repository, enter, call, ahead)
    if outcome is None:
        return None
    try:
        end = {} if isinstance(outcome.error, Locked) else _end(outcome)
        if end and ahead:  # which may take long
            call.origin.state.update(str(outcome.repo), **end)
            outcome, end = _deliver(repository, outcome, call, ahead), {}
        outcome = replace(outcome, duration_s=time.time() - started_at)
        call.origin.state.add_run(_history(outcome, started_at), **end)
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
        from mirrortools.pull import Pull

        manifests = place.manifests(news.target)
        plan = make_plan(news.held, manifests.values(), call.origin.store.has)
        call.watch.planned(place.repo, plan)
        pull = Pull(call.origin.config, place, upstream, call.origin.clients, plan, manifests)
        return Outcome(place.repo, plan=plan, names=pull.names, notes=news.notes, error=pull.lack_of_room())
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
    live = _Live(place.repo, origin, call.watch)
    live.begin()
    place.mirror.clear_up()
    upstream = open_upstream(repository.source, place.repo, place.mirror, origin.clients)
    ask = partial(call.commons.ask, repository.source.url)
    news = _look_and_mend(place, upstream, call, ask, live.lacking)
    if news.target is None:
        live.nothing_lacks()
        return Outcome(place.repo, publication=news.served, notes=news.notes, error=news.missing)
    from mirrortools.cards import Cards
    from mirrortools.desk import tell_nobody
    from mirrortools.histories import Histories
    from mirrortools.publish import GitRefs, Press
    from mirrortools.pull import Pull

    target = news.target
    manifests = place.manifests(target)
    plan = make_plan(news.held, manifests.values(), origin.store.has)
    call.watch.planned(place.repo, plan)
    if not enter(plan.fetch_bytes):
        return None
    shared = call.commons.stopped, call.commons.places, call.commons.standings
    progress = Progress(live.fetched)
    live.expect(plan.fetch_bytes)
    origin.tree.make()
    git, realm = GitSnapshot({}, {}, target.head), origin.tree.realm
    prospect = Publication(place.repo, target.commits, manifests, git, realm=realm)
    with ahead.fetching(prospect, plan.fetch) if ahead else nullcontext(tell_nobody) as told:
        pull = Pull(origin.config, place, upstream, origin.clients, plan, manifests, news.held, *shared, told)
        pull.run(origin.store, progress)
    stage = origin.root / "state" / "stage"
    card = Cards.of(origin.store, stage, news.held).card
    history = Histories.of(origin.store, stage, place.mirror, news.held).history
    press = Press(place.repo, place.mirror, origin.store, origin.tree, stage, repository.mirrors, card, history)
    publication = press.publish(manifests, target.commits, GitRefs(target.oids, target.peeled, target.head))
    live.published(place.rules)
    return Outcome(place.repo, True, publication, plan, progress=progress, notes=news.notes, error=news.missing)


def _is_whole(place: Place, served: Publication | None, origin: Origin) -> bool:
    """Whether what is served follows the rules of today and has every blob in its place."""
    rules = origin.state.repository(str(place.repo)).rules
    return served is not None and rules == place.rules and not origin.store.missing(served.blobs)


def _deliver(repository: RepositoryConfig, outcome: Outcome, call: Call, ahead: Ahead) -> Outcome:
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


class _Live:
    """Writes how far a running sync is into the state, once a second at most, and passes it on."""

    def __init__(self, repo: RepoId, origin: Origin, watch: Watch) -> None:
        self.origin = origin
        self._repo = repo
        self._watch = watch
        self._done_bytes = 0
        self._written_s = time.monotonic()
        self._lock = threading.Lock()

    def _note(self, **values: float | str | None) -> None:
        self.origin.state.update(str(self._repo), **values)

    def begin(self) -> None:
        """The source is being asked."""
        self._note(status="pre-syncing", done_bytes=None, total_bytes=None)

    def lacking(self) -> None:
        """Upstream has something that is not served here."""
        known = self.origin.state.repository(str(self._repo)).lacking_since
        self._note(lacking_since=known or time.time())

    def expect(self, total_bytes: int) -> None:
        """So much is to come."""
        self._note(status="syncing", done_bytes=0, total_bytes=total_bytes)

    def fetched(self, count: int) -> None:
        """More bytes are here."""
        self._watch.fetched(self._repo, count)
        with self._lock:
            self._done_bytes += count
            if time.monotonic() - self._written_s < _LIVE_S:
                return
            self._written_s = time.monotonic()
        self._note(done_bytes=self._done_bytes)

    def nothing_lacks(self) -> None:
        """What upstream has is served here; it may have gone back to that."""
        if self.origin.state.repository(str(self._repo)).lacking_since is not None:
            self._note(lacking_since=None)

    def published(self, rules: str) -> None:
        """All that upstream has is served here, by these rules."""
        self._note(rules=rules, published_at=time.time(), lacking_since=None, done_bytes=None, total_bytes=None)


def _end(outcome: Outcome) -> dict[str, float | str | None]:
    """What the state keeps of a repository when it was brought in, or was not."""
    error = outcome.error
    if error:
        return {"status": "failed", "error": str(error), "error_status": error.exit_status}
    return {"status": "success", "error": None, "error_status": None, "checked_at": time.time()}


def _history(outcome: Outcome, started_at: float) -> Run:
    errors = "\n".join(str(error) for error in outcome.errors)
    return Run(
        repo=str(outcome.repo),
        started_at=started_at,
        ended_at=time.time(),
        status="failed" if errors else "success",
        changed=outcome.changed,
        fetched_bytes=outcome.progress.fetched_bytes,
        reused_bytes=outcome.plan.reuse_bytes if outcome.plan else 0,
        resumed_bytes=outcome.progress.resumed_bytes,
        delivered_bytes=outcome.sent_bytes,
        error=errors or None,
    )
