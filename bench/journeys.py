"""The works of bench/deliver: what is brought to how many edges, by whom, what happens meanwhile, what is required."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from bench.content import GIB, KIB, MIB, Content, brief_size
from bench.deliveries import Carrier, Delta, Fetching, Login, Ours, Sample, Star, TreeSync, Trouble
from bench.farm import Farm, FetchingFarm
from bench.scenes import NOTHING, Before, InSync, Scene
from bench.verdicts import spread
from tests.servers.network import RATE_BITS

OURS: Final = Ours()
OURS_SSH: Final = Ours(
    "ours-ssh", "the same with all bytes through ssh: no relay can be reached", {"relay_host": "0.0.0.1"}
)
STAR: Final = Star()
AHEAD: Final = Fetching("ours", "`mirrortool sync`, which delivers while it fetches", [["sync"]])
AFTERWARDS: Final = Fetching(
    "ours-afterwards",
    "`mirrortool sync --no-deliver`, then `mirrortool deliver`",
    [["sync", "--no-deliver"], ["deliver"]],
)
FETCH: Final = Fetching(
    "fetch", "`mirrortool sync --no-deliver`, until the origin shows it", [["sync", "--no-deliver"]], delivers=False
)
OURS_ALL: Final = Ours("ours", "`mirrortool deliver --all`, as a timer runs it, until it has ended", options=())
OURS_FEWER: Final = replace(
    OURS_ALL, name="ours-fewer", about="the same with a tenth of the repositories in the configuration", fewer=10
)
OURS_TOLD: Final = replace(
    OURS_ALL, name="ours-told", about="all of them with `--json`, which tells of each at each edge", options=("--json",)
)


SIZE_BY_RATE: Final = "size/rate"
SIZE: Final = "size"


@dataclass(frozen=True, slots=True)
class Target:
    """What is required: our time in that of the carrier `against`, or in size/rate; or, against `size`, what the origin
    sent in the size of the content. It may be `most`.
    """

    against: str
    most: float

    @property
    def text(self) -> str:
        """The same for people."""
        if self.against == SIZE:
            return f"≤ {100 * self.most:.0f} % of the bytes"
        return f"≤ {self.most:.2f}×" if self.most >= 1 else f"≥ {1 / self.most:.2g}× faster"

    def shown(self, ratios: Sequence[float]) -> str:
        """What was measured, in the words of `text`."""
        if self.against == SIZE:
            return f"{spread([100 * ratio for ratio in ratios])} %"
        return f"{spread(ratios)}×" if self.most >= 1 else f"{spread([1 / ratio for ratio in ratios])}× faster"


@dataclass(frozen=True, slots=True)
class Journey:
    """One work. `rate_bits` is what each host may send and get in a second, 0: what the machine can.

    Edges have nothing, or what `scene` gives them. Time ends when the last edge has all, or with the process,
    `until_end`. `farm` are the hosts that it is on. What `follows` another run is done once before it is measured.
    """

    name: str
    title: str
    content: Content
    edges: int
    rate_bits: int
    carriers: tuple[Carrier, ...]
    targets: tuple[Target, ...]
    troubles: tuple[Trouble, ...] = ()
    scene: Scene = NOTHING
    until_end: bool = False
    follows: bool = False
    farm: type[Farm] = Farm

    @property
    def ideal_s(self) -> float:
        """Size by rate."""
        return self.content.total_bytes * 8 / self.rate_bits if self.rate_bits else 0.0

    def healthy_s(self, sample: Sample) -> float:
        """When the last of the edges that are not in trouble had all."""
        if self.until_end:
            return sample.wall_s
        in_trouble = {trouble.edge for trouble in self.troubles}
        return max(seconds for edge, seconds in sample.edges_s.items() if edge not in in_trouble)

    def ratios(self, target: Target, samples: Mapping[str, Sequence[Sample]]) -> list[float]:
        """Ours in what a target holds it against, round by round."""
        ours = samples.get(OURS.name, [])
        if target.against == SIZE:
            return [sample.sent_bytes / self.content.total_bytes for sample in ours]
        if target.against == SIZE_BY_RATE:
            return [self.healthy_s(sample) / self.ideal_s for sample in ours]
        pairs = zip(ours, samples.get(target.against, []), strict=False)
        return [self.healthy_s(our) / self.healthy_s(their) for our, their in pairs]


def _quarter(farm: Farm, edge: str) -> None:
    farm.network[edge].set_rate(RATE_BITS // 4)


def _unplug(farm: Farm, edge: str) -> None:
    farm.network[edge].unplug()


def _rate(most: float) -> tuple[Target, ...]:
    return (Target(SIZE_BY_RATE, most),)


def journeys(scale: float = 1.0) -> list[Journey]:
    """Every work; sizes are multiplied by `scale`."""
    return [*_to_many(scale), *_of_changes(scale)]


def _to_many(scale: float) -> list[Journey]:
    blob = Content(1, max(MIB, int(256 * scale) * MIB))
    large = Content(1, max(MIB, int(2 * GIB * scale) // MIB * MIB))
    third, first = (Trouble("e03", 0.0, _quarter),), (Trouble("e01", 0.0, _quarter),)
    six = Journey("six", "One blob to 6 edges", blob, 6, RATE_BITS, (OURS, STAR), _rate(1.15))
    slow, slow_first = "6 edges, e03 at a quarter: the other five", "6 edges, e01 at a quarter: the other five"
    dying = "6 edges, e03 is unplugged half-way: the other five"
    one = "One large blob to one edge, as fast as the machine can"
    alone = replace(six, carriers=(OURS,))
    return [
        six,
        replace(alone, name="sixteen", title="One blob to 16 edges", edges=16, targets=_rate(1.3)),
        replace(alone, name="quarter", title=slow, targets=_rate(1.25), troubles=third),
        replace(alone, name="quarter-first", title=slow_first, targets=_rate(1.25), troubles=first),
        replace(alone, name="dies", title=dying, targets=_rate(1.5), troubles=(Trouble("e03", 0.5, _unplug),)),
        Journey("one", one, large, 1, 0, (OURS, OURS_SSH, STAR), (Target(STAR.name, 1 / 1.3),)),
        Journey(
            "fetch-and-deliver",
            "One blob fetched from a source and delivered to 6 edges",
            blob,
            6,
            RATE_BITS,
            (AHEAD, FETCH, AFTERWARDS),
            (Target(FETCH.name, 1.25),),
            farm=FetchingFarm,
        ),
    ]


def _changed_to_many(scale: float) -> Journey:
    size = max(64 * MIB, int(512 * scale) * MIB)
    old = Content(1, size, "changed-six")
    return Journey(
        "changed-six",
        f"{brief_size(size)}, 5 % changed in place, to 6 edges",
        replace(old, runs=max(1, size // 20 // (4 * MIB))),
        6,
        RATE_BITS,
        (OURS, Delta()),
        (Target(SIZE, 0.06), Target("rsync-delta", 0.5)),
        scene=Before(old),
    )


def _of_changes(scale: float) -> list[Journey]:
    size = max(64 * MIB, int(2 * GIB * scale) // MIB * MIB)
    old = Content(1, size, "changed")
    new = replace(old, runs=max(1, size // 20 // (4 * MIB)))
    old_shifted = replace(old, topic="shifted")
    shifted = replace(new, topic="shifted", shift_bytes=1000)
    few = Content(1000, 8 * KIB, "hundred")
    delta, hundred = (OURS, Delta()), (OURS, TreeSync(), Login())
    sixth = Target(SIZE, 0.06)
    entries, repositories = int(1_000_000 * scale), int(10_000 * scale)
    return [
        Journey(
            "changed",
            f"{brief_size(size)}, 5 % changed in place, to one edge",
            new,
            1,
            0,
            delta,
            (sixth, Target("rsync-delta", 0.5)),
            scene=Before(old),
        ),
        Journey(
            "shifted",
            f"{brief_size(size)}, 5 % changed and 1,000 bytes put in front, to one edge",
            shifted,
            1,
            0,
            delta,
            (sixth, Target("rsync-delta", 1.0)),
            scene=Before(old_shifted),
        ),
        _changed_to_many(scale),
        Journey(
            "hundred",
            f"100 changed files in a tree of {entries:,} entries to one edge",
            replace(few, new_files=100),
            1,
            0,
            hundred,
            (Target("rsync-tree", 1 / 50), Target("ssh-login", 2.0)),
            scene=Before(few, ballast=entries),
        ),
        Journey(
            "unchanged",
            f"No change, {repositories:,} repositories, 20 edges",
            Content(10, KIB, "unchanged"),
            20,
            0,
            (OURS_ALL, OURS_FEWER, OURS_TOLD),
            (Target("ours-fewer", 2.0),),
            scene=InSync(repositories),
            until_end=True,
            follows=True,
        ),
    ]
