"""The edges of one run: all are served at once, a thread for each, and one that fails does not hold the others.

Those that have all of a repository wait, and are called to feed those that lack much; so may be edges that the run does
not go to.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from mirrortools.agreement import Agreed, Meeting
from mirrortools.config import Config, EdgeConfig, RepositoryConfig
from mirrortools.deliver import EdgeSession
from mirrortools.errand import Delivery, Meter, Progress, no_progress
from mirrortools.errors import EdgeRefused, EdgeUnreachable, MirrorError
from mirrortools.here import Here
from mirrortools.lending import Candidate
from mirrortools.model import Publication, Realm, RepoId
from mirrortools.readers import Access
from mirrortools.said import Agenda, Said
from mirrortools.share import share_name
from mirrortools.throttle import Throttle
from mirrortools.together import Together
from mirrortools.transports import Transport, limited, transport_to

if TYPE_CHECKING:
    from mirrortools.fanout import FanOut
    from mirrortools.inflow import Inflow

_log = logging.getLogger("mirrortools.sync")


class Scope(NamedTuple):
    """What deliveries of a run are about: `edges`, by their names, and what lies below `root` for them.

    `repos` are the public repositories that will be delivered. Edges that this host `believes` may answer by their
    notes, and of the repositories that are `noted` it goes by its own, too. `access` tells who may read on an edge what
    is private.
    """

    edges: Mapping[str, EdgeConfig]
    root: Path
    repos: Sequence[RepoId] = ()
    noted: Sequence[RepositoryConfig] = ()
    believes: bool = False
    access: Callable[[str], Access] | None = None

    @classmethod
    def of(
        cls,
        repositories: Sequence[RepositoryConfig],
        config: Config,
        access: Callable[[str], Access] | None = None,
        *,
        believes: bool = False,
    ) -> Scope:
        """All edges that are configured, for these repositories."""
        repos = [known.repo for known in repositories if known.realm is Realm.PUBLIC]
        return cls(config.edges, config.root, repos, repositories if believes else (), believes, access)


class Ways(NamedTuple):
    """How bytes get to edges: `limit_bytes_s` to all together; `rates` are what edges took, in bytes a second, in
    earlier runs; `called` are ways to edges that were called already, by their names.
    """

    limit_bytes_s: int | None = None
    rates: Mapping[str, float] = MappingProxyType({})
    called: Mapping[str, Transport] = MappingProxyType({})


_NEW_WAYS: Final = Ways()


class EdgePool:
    """The edges of one run. Use it as a context manager.

    What is private goes by conversations of its own, which tell of nothing but the repository that is delivered, and to
    edges that may have it.

    Several threads may deliver different repositories at once; each edge takes them one after the other. `rates` are
    what edges took, in bytes a second: at first those of earlier runs.
    """

    def __init__(self, scope: Scope, ways: Ways = _NEW_WAYS) -> None:
        self._scope, self._ways = scope, ways
        self._total = Throttle(ways.limit_bytes_s)
        self.rates = dict(ways.rates)
        self._here = {
            Realm.PUBLIC: Here.of(scope.root),
            Realm.PRIVATE: Here.of(scope.root, Realm.PRIVATE, scope.access),
        }
        now_s = time.time()
        self._said = {realm: Said(scope.root, here, scope.noted, now_s) for realm, here in self._here.items()}
        self._sessions = {(name, Realm.PUBLIC): self._session_of_run(edge) for name, edge in scope.edges.items()}
        for name, edge in scope.edges.items():
            if edge.private:
                self._sessions[name, Realm.PRIVATE] = self._session_of_run(edge, Realm.PRIVATE)
        self._further: set[EdgeSession] = set()

    def session(self, edge: str, realm: Realm = Realm.PUBLIC) -> EdgeSession:
        """The run's session with one edge. Raises EdgeRefused when it is not for what is private."""
        if (edge, realm) not in self._sessions:
            raise EdgeRefused(f"edge {edge}: is not for what is private; its entry does not say `private: true`")
        return self._sessions[edge, realm]

    def further_session(self, edge: str, publication: Publication) -> EdgeSession:
        """One more session with an edge, for one repository, beside the run's; `end_further` it."""
        realm = publication.realm
        session = self._session_with(self.session(edge, realm).edge, [publication.repo], realm)
        self._further.add(session)
        return session

    def end_further(self, session: EdgeSession) -> None:
        """End such a session."""
        self._further.discard(session)
        session.close()

    def _session_of_run(self, edge: EdgeConfig, realm: Realm = Realm.PUBLIC) -> EdgeSession:
        said, is_public = self._said[realm], realm is Realm.PUBLIC
        agenda = partial(said.agenda, edge) if said.is_about_any else None
        way = self._ways.called.get(edge.name) if is_public else None
        return self._session_with(edge, self._scope.repos if is_public else (), realm, agenda, way)

    def _session_with(
        self,
        edge: EdgeConfig,
        repos: Iterable[RepoId],
        realm: Realm,
        agenda: Callable[[], Agenda] | None = None,
        way: Transport | None = None,
    ) -> EdgeSession:
        transport = way or transport_to(limited(edge, self._ways.limit_bytes_s), self._scope.root / "state")
        return EdgeSession(edge, transport, self._here[realm], repos, believes=self._scope.believes, agenda=agenda)

    def agree(
        self,
        repositories: Iterable[RepositoryConfig],
        edges_of: Callable[[RepositoryConfig], Sequence[str]],
        published: Callable[[RepositoryConfig], Publication | None],
    ) -> Iterator[Agreed]:
        """Those of the run's repositories that edges show as they are, by the notes of both sides; none by a look."""
        return Meeting(self._said, self._sessions, self._scope.edges, edges_of, published).agree(repositories)

    def fan_out(self, inflow: Inflow) -> FanOut:
        """Where edges meet that are brought what comes in here."""
        from mirrortools.fanout import FanOut

        return FanOut(self.rates, self._total, inflow)

    def deliver(
        self,
        publication: Publication,
        edges: Sequence[str],
        progress: Progress = no_progress,
        choose: Callable[[str], EdgeSession] | None = None,
        siblings: Iterable[str] = (),
    ) -> list[Delivery]:
        """Bring a repository to `edges`, all at once; give what came of each, in their order.

        `choose` gives the session with an edge, when that is not the run's; it may take its time. `siblings` are edges
        that are to have the repository and get nothing now: they may be called to help, and may fail.
        """
        deliveries = self._shown(publication, edges)
        rest = [name for name in edges if name not in deliveries]
        if rest:
            may_draw = self._may_draw(rest, publication.realm)
            helpers = self._helpers(publication, deliveries, siblings) if may_draw else []
            is_alone = len(edges) == 1
            together = Together(self.rates, self._total, len(rest), is_alone=is_alone, is_helped=bool(helpers))
            with closing(together), self._helping(publication, helpers, together):
                deliveries |= self._bring(publication, rest, progress, choose, together)
        return [deliveries[name] for name in edges]

    def _shown(self, publication: Publication, edges: Sequence[str]) -> dict[str, Delivery]:
        """The edges that have noted that they show a publication: there is nothing to do, and nothing to ask."""
        repo, said, known = publication.repo, self._said[publication.realm], dict[str, str]()

        def say(edge: EdgeConfig) -> str:
            name = share_name(edge)
            if name not in known:
                known[name] = said.say(publication, edge)
            return known[name]

        shown: dict[str, Delivery] = {}
        with suppress(MirrorError):  # what is wrong here is told for each edge
            for name in edges:
                session = self._sessions.get((name, publication.realm))
                if session and session.is_shown(repo, say):
                    shown[name] = Meter(name, repo, no_progress).delivery(changed=False, error=None)
        return shown

    def _bring(
        self,
        publication: Publication,
        edges: Sequence[str],
        progress: Progress,
        choose: Callable[[str], EdgeSession] | None,
        together: Together,
    ) -> dict[str, Delivery]:
        """Bring a repository to `edges` that do not show it; each may be called to help the others then."""
        choose = choose or (lambda name: self.session(name, publication.realm))

        def bring(name: str) -> Delivery:
            try:
                session = choose(name)
                delivery = session.deliver(publication, progress, together)
            finally:
                together.lending.one_done()
            candidate = Candidate(name, session.share(publication), session.edge.region)
            if not delivery.error and session.can_relay and not together.can_feed(candidate):
                self._help(candidate, publication, together, {})
            return delivery

        def bring_again(name: str) -> Delivery:
            session = choose(name)
            session.forgive()
            return session.deliver(publication, progress, together)

        deliveries = self._all_at_once(edges, bring)
        # Those that were cut off in the middle have one more try when others can feed them now.
        cut_off = [name for name, delivery in deliveries.items() if _was_cut_off(delivery)]
        if not all(delivery.error for delivery in deliveries.values()):
            for name, delivery in self._all_at_once(cut_off, bring_again).items():
                deliveries[name] = delivery.after(deliveries[name])
        self.rates.update(together.rates)
        return deliveries

    def _may_draw(self, rest: Iterable[str], realm: Realm) -> bool:
        """Whether any of these edges may have something to draw: for those that were lost nobody need wait."""
        sessions = [self._sessions.get((name, realm)) for name in rest]
        return any(session and not session.is_lost for session in sessions)

    def _helpers(self, publication: Publication, full: Iterable[str], siblings: Iterable[str]) -> list[Candidate]:
        """Those that may be called to feed: edges of the run that have all, and others that should."""
        sessions = self._sessions
        seen = [sessions[name, publication.realm] for name in full]
        unseen = [sessions[name, publication.realm] for name in siblings if (name, publication.realm) in sessions]
        able = [session for session in seen if session.can_relay]
        able += [session for session in unseen if session.edge.scheme == "ssh" and not session.is_lost]
        return [Candidate(s.edge.name, s.share(publication), s.edge.region, s in seen) for s in able]

    @contextmanager
    def _helping(self, publication: Publication, candidates: Sequence[Candidate], together: Together) -> Iterator[None]:
        """Have these wait for a call while the block delivers; a thread for each."""
        if not candidates:
            yield
            return
        called: dict[str, EdgeSession] = {}
        together.lending.offer(candidates)
        with ThreadPoolExecutor(len(candidates), "help") as threads:
            try:
                for candidate in candidates:
                    threads.submit(self._help, candidate, publication, together, called)
                yield
            finally:
                together.lending.end()
                for name, session in list(called.items()):
                    if not together.has_fed(name):
                        session.abort()  # it was called, and is not there yet

    def _help(
        self, candidate: Candidate, publication: Publication, together: Together, called: dict[str, EdgeSession]
    ) -> None:
        """Have an edge feed others when it is called to; what fails there this host does.

        In a session of its own, as its other repositories are not to wait.
        """
        if not together.lending.await_call(candidate):
            return
        further = called[candidate.name] = self.further_session(candidate.name, publication)
        try:
            if not together.lending.has_ended:
                further.lend(publication, together.fan_out())
        except MirrorError as error:
            _log.info("mirrortool: %s: edge %s did not feed others: %s", publication.repo, candidate.name, error)
        finally:
            together.fan_out().dismiss(candidate.name)
            self.end_further(further)

    def abort(self) -> None:
        """End whatever runs now for any edge, from any thread."""
        for here in self._here.values():
            here.deltas.stop()
        for session in self._all_sessions:
            session.abort()

    def close(self) -> None:
        """End the receivers, all at once."""
        sessions = self._all_sessions
        with ThreadPoolExecutor(max(1, len(sessions)), "end") as threads:
            list(threads.map(EdgeSession.close, sessions))
        for here in self._here.values():
            here.deltas.close()
        for said in self._said.values():
            said.keep()

    @property
    def _all_sessions(self) -> list[EdgeSession]:
        return [*self._sessions.values(), *self._further]

    def _all_at_once(self, edges: Sequence[str], act: Callable[[str], Delivery]) -> dict[str, Delivery]:
        """What came of each, in their order; a thread for each. All are ended when this one is."""
        if not edges:
            return {}
        with ThreadPoolExecutor(len(edges), "edge") as threads:
            work = {name: threads.submit(act, name) for name in edges}
            try:
                return {name: delivery.result() for name, delivery in work.items()}
            except BaseException:
                self.abort()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind and not issubclass(kind, Exception):
            self.abort()  # nobody wants to wait for edges that do not answer
        self.close()


def _was_cut_off(delivery: Delivery) -> bool:
    """Whether an edge was reached, told what it lacks, and was lost then."""
    return isinstance(delivery.error, EdgeUnreachable) and delivery.blobs > 0
