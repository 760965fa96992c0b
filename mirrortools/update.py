"""What upstream has and is not served yet, of one repository: planned, fetched, verified and published."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mirrortools.cards import Cards
from mirrortools.commons import Commons
from mirrortools.desk import Told
from mirrortools.histories import Histories
from mirrortools.model import GitSnapshot, Manifest, Publication
from mirrortools.outcomes import Brought, Outcome
from mirrortools.plan import Plan, make_plan
from mirrortools.progress import Progress
from mirrortools.publish import GitRefs, Press
from mirrortools.pull import Pull
from mirrortools.resolve import Place, Target
from mirrortools.run import Origin
from mirrortools.upstreams import Upstream


@dataclass(frozen=True, slots=True)
class Update:
    """What is to be done until `target` is served; `held` is what is served until then.

    `manifests` are of all that will be served, `plan` says what comes and what is here.
    """

    origin: Origin
    place: Place
    upstream: Upstream
    target: Target
    held: Sequence[Manifest]
    manifests: Mapping[str, Manifest]
    plan: Plan

    @classmethod
    def planned(
        cls, origin: Origin, place: Place, upstream: Upstream, target: Target, held: Sequence[Manifest]
    ) -> Update:
        """Read what is to be served, and plan. Raises HostileTree, SourceMissing."""
        manifests = place.manifests(target)
        plan = make_plan(held, manifests.values(), origin.store.has)
        return cls(origin, place, upstream, target, held, manifests, plan)

    @property
    def prospect(self) -> Publication:
        """What will be published, as far as that is known before: without git's objects."""
        git, realm = GitSnapshot({}, {}, self.target.head), self.origin.tree.realm
        return Publication(self.place.repo, self.target.commits, self.manifests, git, realm=realm)

    def foreseen(self, notes: tuple[str, ...]) -> Outcome:
        """What it would come to."""
        pull = Pull(self.origin.config, self.place, self.upstream, self.origin.clients, self.plan, self.manifests)
        return Outcome(self.place.repo, plan=self.plan, names=pull.names, notes=notes, error=pull.lack_of_room())

    def fetch(self, commons: Commons, report: Callable[[int], None], told: Told) -> Brought:
        """Put every blob of the plan into the store; `report` is told how many bytes came, `told` how blobs grow.

        Raises UpstreamError, IntegrityError, NoSpace, StoreError.
        """
        here, progress = self.origin, Progress(report)
        shared = commons.stopped, commons.places, commons.standings
        what = self.plan, self.manifests, self.held
        here.tree.make()
        Pull(here.config, self.place, self.upstream, here.clients, *what, *shared, told).run(here.store, progress)
        return Brought.of(progress)

    def publish(self) -> Publication:
        """Show what was fetched, refs last. Raises StoreError, NoSpace, UpstreamError."""
        place, store, target = self.place, self.origin.store, self.target
        stage = self.origin.root / "state" / "stage"
        card = Cards.of(store, stage, self.held).card
        history = Histories.of(store, stage, place.mirror, self.held).history
        press = Press(place.repo, place.mirror, store, place.tree, stage, place.repository.mirrors, card, history)
        return press.publish(self.manifests, target.commits, GitRefs(target.oids, target.peeled, target.head))
