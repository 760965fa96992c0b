"""What is required of us, held against what was measured: ratios round by round, their median decides."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from bench.content import MIB
from bench.rounds import Entry, Sample
from bench.works import OURS_CARELESS, Target, Work
from mirrortools.config.schema import DEFAULT_REQUESTS
from mirrortools.upstreams.budget import WINDOW_S

MANY = 10_000
_MOST_GROWTH = 1.1


@dataclass(frozen=True, slots=True)
class Comparison:
    """Our time in theirs, in each round; `most` is what the median may be."""

    ratios: tuple[float, ...]
    most: float | None = None

    @property
    def is_met(self) -> bool | None:
        """None when nothing is required."""
        return None if self.most is None else statistics.median(self.ratios) <= self.most

    def __str__(self) -> str:
        """The median and the spread, as people say it: what is slower in `its time`, what is faster `faster`."""
        faster = statistics.median(self.ratios) < 1
        shown = [1 / ratio for ratio in self.ratios] if faster else self.ratios
        return f"{spread(shown)}× {'faster' if faster else 'its time'}"

    @property
    def verdict(self) -> str:
        """The same with `met` or `not met` when something is required."""
        return str(self) if self.is_met is None else f"{self}: {met(self.is_met)}"


@dataclass(frozen=True, slots=True)
class Row:
    """Ours against one competitor: with nothing fsynced on either side, and durable on both."""

    against: str
    target: Target | None
    careless: Comparison | None
    durable: Comparison | None

    @property
    def required(self) -> str:
        return self.target.text if self.target else ""

    @property
    def comparisons(self) -> list[Comparison]:
        return [found for found in (self.careless, self.durable) if found]


def rows(work: Work, entries: Sequence[Entry]) -> Iterator[Row]:
    """A row for each competitor that ran. Another kind of ours is held against ours without fsync alone."""
    ours, careless = entry_of(entries, "ours"), entry_of(entries, OURS_CARELESS) or entry_of(entries, "ours")
    targets = {target.against: target for target in work.targets}
    for entry in entries:
        if entry is ours or entry is careless or not entry.samples:
            continue
        target = targets.get(entry.competitor.name)
        most = target.most if target else None
        durable = None if entry.competitor.role == "ours" else _compare(ours, entry, lambda s: s.durable_s, most)
        yield Row(entry.competitor.name, target, _compare(careless, entry, lambda s: s.wall_s, most), durable)


def _compare(
    ours: Entry | None, theirs: Entry, time: Callable[[Sample], float], most: float | None
) -> Comparison | None:
    if ours is None or not ours.samples:
        return None
    pairs = zip(ours.samples, theirs.samples, strict=False)
    return Comparison(tuple(time(our) / time(their) for our, their in pairs), most)


def peak_bytes(entries: Sequence[Entry]) -> int:
    """The most memory that ours took in any run; 0 when it did not run."""
    return max((sample.peak_bytes for sample in samples_of(entries, "ours")), default=0)


@dataclass(frozen=True, slots=True)
class Cost:
    """What finding nothing new costs in one of so many repositories: seconds, and questions to the server."""

    repositories: int
    each_s: float
    questions: float
    alone_s: float | None

    @property
    def windows(self) -> int:
        """How many windows of the default budget very many repositories take."""
        return math.ceil(MANY * self.questions / DEFAULT_REQUESTS)

    @property
    def budget_hours(self) -> float:
        """How long very many repositories take within the default budget."""
        return self.windows * WINDOW_S / 3600


def cost(work: Work, entries: Sequence[Entry]) -> Cost | None:
    """The cost in a work in which nothing is new; None of other works, and when ours did not run."""
    ours, alone = samples_of(entries, "ours"), samples_of(entries, "ls-remote")
    if not work.copies or not ours:
        return None
    return Cost(
        work.copies,
        median(ours, lambda s: s.wall_s) / work.copies,
        median(ours, lambda s: s.requests) / work.copies,
        median(alone, lambda s: s.wall_s) / work.copies if alone else None,
    )


@dataclass(frozen=True, slots=True)
class Growth:
    """How the cost of each repository grows from few to many."""

    fewer: Cost
    more: Cost

    @property
    def ratio(self) -> float:
        return self.more.each_s / self.fewer.each_s

    @property
    def is_met(self) -> bool:
        return self.ratio <= _MOST_GROWTH

    def __str__(self) -> str:
        return (
            f"each of {self.more.repositories:,} costs {self.ratio:.2f}× what each of {self.fewer.repositories:,} costs"
        )


def growth(costs: Sequence[Cost]) -> Growth | None:
    """Between the two largest numbers of repositories, where the start of the program counts little."""
    return Growth(*sorted(costs, key=lambda found: found.repositories)[-2:]) if len(costs) > 1 else None


def entry_of(entries: Sequence[Entry], name: str) -> Entry | None:
    """The entry of a competitor."""
    return next((entry for entry in entries if entry.competitor.name == name), None)


def samples_of(entries: Sequence[Entry], name: str) -> list[Sample]:
    """A competitor's runs; none when it did not compete."""
    entry = entry_of(entries, name)
    return entry.samples if entry else []


def median(samples: Sequence[Sample], value: Callable[[Sample], float]) -> float:
    """The median of a value of several runs."""
    return statistics.median(value(sample) for sample in samples)


def spread(values: Sequence[float]) -> str:
    """`2.00 (1.50–2.50)`: the median, the least and the most."""
    middle = f"{statistics.median(values):.2f}"
    return f"{middle} ({min(values):.2f}–{max(values):.2f})" if len(values) > 1 else middle


def met(is_met: bool) -> str:
    """The verdict in a word."""
    return "met" if is_met else "**not met**"


def mib(count: int) -> str:
    """Bytes in MiB."""
    return f"{count / MIB:.0f} MiB"
