"""One delivery to many edges: what they lack leaves this host once, and goes from edge to edge.

Each edge is served by a thread of its own (its errand), which joins when it knows what the edge lacks, has the edge
draw from whom `chain` says, and hears how far it is. An edge that has all is called to feed those that lack much. What
the origin feeds goes out in threads of this module, to the edge's port or, where that cannot be reached, through ssh.
Edges hash what comes this way: nobody is trusted.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from mirrortools.chain import (
    NOBODY,
    ORIGIN,
    READY_BYTES,
    Chain,
    Member,
    falls_behind,
    gains_apart,
    is_faster,
    takes_long,
)
from mirrortools.config import EdgeConfig
from mirrortools.errors import EdgeRefused, MirrorError
from mirrortools.feeding import Link, feed, read_some
from mirrortools.frames import frame, read_frame
from mirrortools.inflow import Inflow
from mirrortools.lending import Lending, Need
from mirrortools.model import Blob, RepoId
from mirrortools.passport import calling, new_passport
from mirrortools.relay import call, wants_of
from mirrortools.throttle import Throttle
from mirrortools.transports import Session

LOOK_MS: Final = 200
# An edge is asked again and again how far it is; one that does not answer for so long is given up.
SILENT_S: Final = 20.0
# Who is called to feed has to come within that time; until then those that have nothing yet wait for it.
_CALLED_S: Final = 5.0
_PING_S: Final = 60.0
# How long rates are taken over.
WINDOW_S: Final = 0.8
# Less than that goes through ssh at once: nobody waits for a port that may be closed.
_DIRECT_BYTES: Final = 8 << 20
_CONNECT_S: Final = 1.5
_BROKEN: Final = (OSError, ValueError, KeyError, TypeError, MirrorError)
_log = logging.getLogger("mirrortools.edges")

Told = Callable[[int], None]
"""Told how many bytes an edge has got of what it lacked."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """What is brought to one edge: `lacking` with how much of each is there; here each is at `Blob.path` below one of
    `sources`. `begun` is all of the repository that the edge has besides, or will have by what is brought. `recipes`
    tell which blobs it makes of what is brought. When they are `lost`, this host has none of them.
    """

    edge: EdgeConfig
    repo: RepoId
    lacking: Mapping[Blob, int]
    begun: frozenset[Blob]
    sources: Sequence[Path]
    recipes: Sequence[Mapping[str, Any]] = ()
    lost: bool = False

    @property
    def bytes_planned(self) -> int:
        """How much has to come."""
        return sum(blob.size - have for blob, have in self.lacking.items())


@dataclass(frozen=True, slots=True)
class Brought:
    """How an edge got what it lacked: `sent_bytes` of it by this host, the rest from `feeders`, other edges."""

    sent_bytes: int
    feeders: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Order:
    """From whom an edge is to take. A later order has another number."""

    number: int
    feeder: str


@dataclass(slots=True)
class _Standing:
    """What is known of an edge that takes part: where it listens, how much it lacks, how fast it takes."""

    member: Member
    parcel: Parcel
    session: Session
    addresses: Sequence[tuple[str, int]]
    pipe: str
    lacking_bytes: int
    order: Order = Order(0, NOBODY)
    sent_bytes: int = 0
    rate_bytes_s: float = 0.0
    best_bytes_s: float = 0.0
    heard_s: float = 0.0
    stranded_s: float | None = None
    samples: deque[tuple[float, int]] = field(default_factory=deque)
    feeders: dict[str, None] = field(default_factory=dict)

    def hear(self, lacking_bytes: int) -> None:
        """Know how far it is."""
        before, self.lacking_bytes = self.lacking_bytes, lacking_bytes
        if before == self.parcel.bytes_planned > lacking_bytes:
            _log.debug("edge %s: the first bytes are there", self.member.name)
        if before and not lacking_bytes:
            _log.debug("edge %s: the last bytes are there", self.member.name)

    def add_sample(self, now_s: float) -> float | None:
        """Look at what was heard; gives the rate when it was seen for long enough under one order."""
        lacking_bytes = self.lacking_bytes
        self.samples.append((now_s, lacking_bytes))
        while len(self.samples) > 1 and self.samples[1][0] <= now_s - WINDOW_S:
            self.samples.popleft()
        began_s, lacked = self.samples[0]
        if now_s - began_s < WINDOW_S:
            return None
        self.rate_bytes_s = (lacked - lacking_bytes) / (now_s - began_s)
        self.best_bytes_s = max(self.best_bytes_s, self.rate_bytes_s)
        return self.rate_bytes_s


class FanOut:
    """Where the errands of one delivery meet. Use it as a context manager. Thread-safe.

    `rates` are what edges took in earlier deliveries, in bytes a second; `total` limits all that leaves this host.
    `inflow` are blobs that this host is still fetching itself. In `lending` edges wait that can feed others.
    """

    def __init__(
        self,
        rates: Mapping[str, float] | None = None,
        total: Throttle | None = None,
        inflow: Inflow | None = None,
        lending: Lending | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rates = dict(rates or {})
        self._total = total or Throttle(None)
        self._clock = clock
        self._lock = threading.RLock()
        self._chain = Chain()
        self._known: dict[str, _Standing] = {}
        self._inflow = inflow or Inflow()
        self._stock = self._inflow.stock
        self._lending = lending or Lending(0)
        self._due_s: dict[str, float] = {}
        self._numbers = 0
        self._links: set[Link] = set()

    def bring(self, parcel: Parcel, session: Session, told: Told) -> Brought | None:
        """Have an edge get what it lacks; gives from whom it came, or None when it could not get all.

        Raises EdgeUnreachable, EdgeRefused, NoSpace.
        """
        known = self._join(parcel, session)
        try:
            self._follow(known, told)
        except BaseException:
            self._leave(known.member.name)
            raise
        if known.lacking_bytes:
            self._leave(known.member.name)  # what comes by another way cannot be passed on
            return None
        return Brought(known.sent_bytes, tuple(known.feeders))

    def lend(self, parcel: Parcel, session: Session) -> None:
        """Have an edge that lacks nothing feed others, until the delivery has ended.

        Raises EdgeUnreachable, EdgeRefused, NoSpace.
        """
        self._join(parcel, session)
        while not self._lending.wait_end(_PING_S):
            session.ask({"ask": "ping"})

    def dismiss(self, name: str) -> None:
        """Have nobody draw any more from an edge that was called to feed."""
        self._leave(name)

    def offers(self, name: str) -> frozenset[str]:
        """The digests of what an edge that takes part, or did, can pass on; none of one that does not."""
        return self._known[name].member.offers if name in self._known else frozenset()

    @property
    def called(self) -> tuple[str, ...]:
        """The edges that were called to feed others."""
        return self._lending.called

    def close(self) -> None:
        """End what this host feeds."""
        self._stock.end()
        with self._lock:
            for link in self._links:
                link.close()

    @property
    def rates(self) -> dict[str, float]:
        """The most that each edge took, in bytes a second, of those that took for long enough to tell."""
        with self._lock:
            return {name: known.best_bytes_s for name, known in self._known.items() if known.best_bytes_s}

    @cached_property
    def _passport(self) -> str:
        return new_passport()

    def _join(self, parcel: Parcel, session: Session) -> _Standing:
        for blob in () if parcel.lost else parcel.lacking:
            if not self._stock.knows(blob.digest):
                self._stock.put(blob.digest, blob.size, *(source / blob.path for source in parcel.sources))
        with self._lock:
            passport = self._passport
        answer = session.ask(_relay_request(parcel, passport))
        try:
            addresses, pipe = _addresses(parcel.edge, answer), str(answer["pipe"])
        except (KeyError, TypeError, ValueError) as error:
            raise EdgeRefused(f"edge {parcel.edge.name}: an answer that makes no sense: {error!r}") from error
        name = parcel.edge.name
        wants = frozenset(blob.digest for blob in parcel.lacking)
        offers = wants | {blob.digest for blob in parcel.begun}
        member = Member(name, wants, offers, self._rates.get(name, 0.0), parcel.edge.region, parcel.lost)
        known = _Standing(member, parcel, session, addresses, pipe, parcel.bytes_planned)
        known.heard_s = self._clock()
        with self._lock:
            self._known[name] = known
            self._chain = self._chain.with_member(member, {n: k.lacking_bytes for n, k in self._known.items()})
            self._call_lenders()
            self._arrange()
        return known

    def _leave(self, name: str) -> None:
        with self._lock:
            self._known.pop(name, None)
            self._chain = self._chain.without(name)
            self._call_lenders()
            self._arrange()

    def _arrange(self) -> None:
        """Give a new order to each edge that has another feeder now, and one that is there."""
        for name, feeder in self._chain.feeders().items():
            known = self._known.get(name)
            if known:
                known.stranded_s = (known.stranded_s or self._clock()) if feeder == NOBODY else None
            if known and feeder != known.order.feeder and (feeder == ORIGIN or feeder in self._known):
                self._give_order(known, feeder)

    def _call_lenders(self) -> None:
        """Have edges come that have all, when nobody of its own region would feed one that lacks much.

        An edge of another region is called when nobody but this host would feed it.
        """
        feeders, needy = self._chain.feeders(), dict[str, list[_Standing]]()
        for name, feeder in feeders.items():
            taker = self._known.get(name)
            if taker and taker.lacking_bytes and not self._is_fed_near(taker.member, feeder):
                needy.setdefault(taker.member.region, []).append(taker)
        for region, takers in needy.items():
            is_apart = region in self._chain.apart
            fed_here = [t for t in takers if t.parcel.lost or (feeders[t.member.name] == ORIGIN and not is_apart)]
            if not self._call_lender(takers, region):
                self._call_lender(fed_here, None)

    def _is_fed_near(self, taker: Member, feeder: str) -> bool:
        """Whether an edge has a feeder of its region or one that lends, or lacks one for a while only."""
        if feeder == ORIGIN:
            return taker.lends or taker.name == self._chain.trial
        return any(m.name == feeder and (m.region == taker.region or m.lends) for m in self._chain.order)

    def _call_lender(self, takers: Sequence[_Standing], region: str | None) -> bool:
        """Call an edge of a region, or of any, that is worth it; whether there was one."""
        needs = [Need(taker.member.wants, taker.lacking_bytes, taker.parcel.lost) for taker in takers]
        found = self._lending.call(needs, self._rates, region)
        if found:
            self._due_s[found.name] = self._clock() + _CALLED_S
            lender = Member(found.name, frozenset(), found.offers, region=found.region)
            self._chain = self._chain.with_member(lender, {})
        return found is not None

    def _look_for_lenders(self) -> None:
        """Wait no longer for those that were called and do not come; call some that were not there before."""
        for member in self._chain.order:
            if member.name not in self._known and self._clock() > self._due_s.get(member.name, 0.0):
                self._chain = self._chain.without(member.name)
        self._call_lenders()
        self._arrange()

    def _give_order(self, known: _Standing, feeder: str) -> None:
        self._numbers += 1
        known.order = Order(self._numbers, feeder)
        known.samples.clear()
        _log.debug("edge %s: is to draw from %s", known.member.name, feeder or "this host")

    def _follow(self, known: _Standing, told: Told) -> None:
        """Have an edge do what it is ordered to, until it lacks nothing or nobody can feed it."""
        number = 0
        while known.lacking_bytes and not self._is_given_up(known):
            order = known.order
            if order.number != number:
                number = order.number
                self._carry_out(known, order)
            answer = known.session.ask({"ask": "flow", "repo": known.parcel.repo.path, "wait_ms": LOOK_MS})
            try:
                lacking, state = int(answer["lacking"]), str(answer["state"])
                number_heard = int(answer["number"])
            except (KeyError, TypeError, ValueError) as error:
                raise EdgeRefused(f"edge {known.member.name}: an answer that makes no sense: {error!r}") from error
            self._hear(known, lacking, number_heard, state)
            told(known.parcel.bytes_planned - lacking)

    def _is_given_up(self, known: _Standing) -> bool:
        """Whether not even the origin's own link to an edge came about, or this host sends nothing more.

        An edge that needs another one waits as long as one may still come.
        """
        if known.stranded_s is not None:
            return self._lending.is_exhausted or self._clock() - known.stranded_s > _CALLED_S
        is_cut = known.order.feeder == ORIGIN and (ORIGIN, known.member.name) in self._chain.cut
        return is_cut or self._stock.ended

    def _carry_out(self, known: _Standing, order: Order) -> None:
        request: dict[str, Any] = {"ask": "draw", "repo": known.parcel.repo.path, "number": order.number}
        feeder = self._known.get(order.feeder)
        if order.feeder == ORIGIN:
            known.session.ask({**request, "from": [], "limit": None})
            threading.Thread(target=self._feed, args=(known, order), name="feed", daemon=True).start()
        elif feeder:  # else it has just left, and there is another order
            limit = known.parcel.edge.rate_limit_bytes_s
            known.session.ask({**request, "from": [list(place) for place in feeder.addresses], "limit": limit})

    def _hear(self, known: _Standing, lacking_bytes: int, number: int, state: str) -> None:
        """Know how far an edge is and how its link stands; draw conclusions."""
        with self._lock:
            known.heard_s = self._clock()
            self._abort_silent()
            self._look_for_lenders()
            before_bytes = known.lacking_bytes
            known.hear(lacking_bytes)
            if number != known.order.number:
                return
            if lacking_bytes < before_bytes and known.order.feeder != ORIGIN:
                known.feeders[known.order.feeder] = None
            rate = known.add_sample(known.heard_s)
            if state in ("refused", "broken"):
                self._keep_apart_if_refused(known, state)
                self._cut(known, known.order)
            elif rate is not None and known.stranded_s is None:
                self._judge(known, rate)

    def _abort_silent(self) -> None:
        """End the session of an edge that lacks something and has not answered for long: it is not there any more."""
        for known in self._known.values():
            if known.lacking_bytes and self._clock() - known.heard_s > SILENT_S:
                known.session.abort()

    def _cut(self, known: _Standing, order: Order) -> None:
        """One that cannot draw from the other draws from somebody else."""
        with self._lock:
            if known.order == order:
                self._chain = self._chain.with_cut(order.feeder, known.member.name)
                self._arrange()

    def _keep_apart_if_refused(self, known: _Standing, state: str) -> None:
        """Do not try all edges of a region from another one: who cannot reach one of them can reach none, mostly."""
        feeder = self._known.get(known.order.feeder)
        if state == "refused" and feeder and feeder.member.region != known.member.region:
            self._chain = self._chain.with_apart(known.member.region)

    def _judge(self, known: _Standing, rate: float) -> None:
        """Move an edge to the end when it takes less than it could."""
        feeder = self._known.get(known.order.feeder)
        if feeder and feeder.member.lends:
            feeder.rate_bytes_s = rate
        if feeder is None or feeder.member.lends:
            self._judge_first(known, rate)
        elif falls_behind(rate, feeder.rate_bytes_s, known.lacking_bytes - feeder.lacking_bytes):
            if feeder.member.region != known.member.region and gains_apart(rate, self._fed_here_bytes_s()):
                self._chain = self._chain.with_apart(known.member.region)
            elif not self._chain.is_last(known.member.name):
                self._chain = self._chain.with_held_up(feeder.member.name, known.member.name)
            self._arrange()

    def _fed_here_bytes_s(self) -> list[float]:
        """What those take that this host feeds."""
        return [known.rate_bytes_s for known in self._known.values() if known.order.feeder == ORIGIN]

    def _judge_first(self, known: _Standing, rate: float) -> None:
        """Nobody stands before the first edge of a region to compare it with: when it takes long, try another one.

        The first may also be one that lends, and is judged by who draws from it.
        """
        chain, line = self._chain, self._chain.line(known.member.region)
        if known.member.name == chain.trial and chain.first in self._known:
            self._chain = chain.after_trial(first_is_slow=is_faster(rate, self._known[chain.first].rate_bytes_s))
            self._arrange()
        elif (
            line[0].name in (known.member.name, known.order.feeder)
            and self._has_much_for(known)
            and takes_long(known.lacking_bytes, rate)
        ):
            self._chain = chain.with_trial(known.member.region)
            self._arrange()

    def _has_much_for(self, known: _Standing) -> bool:
        """Whether an edge lacks much that is here; else it waits for this host, which fetches."""
        return known.lacking_bytes - self._inflow.coming_bytes >= READY_BYTES

    def _feed(self, known: _Standing, order: Order) -> None:
        """Send an edge what it lacks, while it is ordered to take it from here."""
        throttles = (Throttle(known.parcel.edge.rate_limit_bytes_s), self._total)
        try:
            with self._link_to(known) as link:
                link.write(memoryview(frame({"feed": order.number})))
                words = read_frame(lambda count: read_some(link, count))
                for sent_bytes in feed(link, self._stock, wants_of(words or {}), throttles):
                    known.sent_bytes += sent_bytes
                    if known.order != order:
                        break
                else:
                    self._await_end(link)
        except _BROKEN:
            self._cut(known, order)

    def _await_end(self, link: Link) -> None:
        """Keep the link until the edge has taken all and ends it."""
        read_some(link, 1)

    @contextmanager
    def _link_to(self, known: _Standing) -> Iterator[Link]:
        """A link to the edge's port, or through ssh. Raises OSError, EdgeError."""
        link, release = self._direct(known) or _through_ssh(known)
        with self._lock:
            self._links.add(link)
        try:
            yield link
        finally:
            with self._lock:
                self._links.discard(link)
            release()

    def _direct(self, known: _Standing) -> tuple[Link, Callable[[], None]] | None:
        if known.lacking_bytes < _DIRECT_BYTES:
            return None
        try:
            link = call(known.addresses, calling(self._passport), _CONNECT_S)
        except OSError:
            return None
        return link, link.release


def _through_ssh(known: _Standing) -> tuple[Link, Callable[[], None]]:
    pipe = known.session.pipe(known.pipe)
    return pipe.link, pipe.close


def _relay_request(parcel: Parcel, passport: str) -> dict[str, Any]:
    return {
        "ask": "relay",
        "repo": parcel.repo.path,
        "blobs": [[blob.algorithm, blob.digest, blob.size] for blob in sorted(parcel.lacking)],
        "passport": passport,
        "ports": list(parcel.edge.relay_ports or ()),
        "limit": parcel.edge.rate_limit_bytes_s,
        "recipes": list(parcel.recipes),
    }


def _addresses(edge: EdgeConfig, answer: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Where other hosts may reach an edge's relay: as configured; else by the host of its URL, or where ssh came to."""
    port = int(answer["port"])
    if not 0 < port < 1 << 16:
        raise ValueError(f"port {port}")
    hosts = [edge.relay_host] if edge.relay_host else [edge.host, str(answer["address"])]
    return [(host, port) for host in dict.fromkeys(hosts) if host]
