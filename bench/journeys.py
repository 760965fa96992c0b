"""The works of bench/deliver: what is brought to how many edges, by whom, what happens meanwhile, what is required."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from bench.content import GIB, MIB, Content
from bench.deliveries import Carrier, Ours, Sample, Star, Trouble
from bench.farm import Farm
from tests.servers.network import RATE_BITS

OURS: Final = Ours()
OURS_SSH: Final = Ours(
    "ours-ssh", "the same with all bytes through ssh: no relay can be reached", {"relay_host": "0.0.0.1"}
)
STAR: Final = Star()


@dataclass(frozen=True, slots=True)
class Journey:
    """One work. `rate_bits` is what each host may send and get in a second, 0: what the machine can.

    `required` is the most of `measure`, which makes a number of one run of ours and of all runs of the peer, if any.
    """

    name: str
    title: str
    content: Content
    edges: int
    rate_bits: int
    carriers: tuple[Carrier, ...]
    required: float
    against: str = "size/rate"
    troubles: tuple[Trouble, ...] = ()

    @property
    def ideal_s(self) -> float:
        """Size by rate."""
        return self.content.total_bytes * 8 / self.rate_bits if self.rate_bits else 0.0

    def healthy_s(self, sample: Sample) -> float:
        """When the last of the edges that are not in trouble had all."""
        in_trouble = {trouble.edge for trouble in self.troubles}
        return max(seconds for edge, seconds in sample.edges_s.items() if edge not in in_trouble)

    def ratio(self, sample: Sample, peer: Sample | None) -> float:
        """What is required to be at most `required`."""
        return self.healthy_s(sample) / (self.healthy_s(peer) if peer else self.ideal_s)


def _quarter(farm: Farm, edge: str) -> None:
    farm.network[edge].set_rate(RATE_BITS // 4)


def _unplug(farm: Farm, edge: str) -> None:
    farm.network[edge].unplug()


def journeys(scale: float = 1.0) -> list[Journey]:
    """Every work; sizes are multiplied by `scale`."""
    blob = Content(1, max(MIB, int(256 * scale) * MIB))
    large = Content(1, max(MIB, int(2 * GIB * scale) // MIB * MIB))
    middle, first = (Trouble("e03", 0.0, _quarter),), (Trouble("e01", 0.0, _quarter),)
    return [
        Journey("six", "One blob to 6 edges", blob, 6, RATE_BITS, (OURS, STAR), 1.15),
        Journey("sixteen", "One blob to 16 edges", blob, 16, RATE_BITS, (OURS,), 1.3),
        Journey(
            "quarter", "6 edges, e03 at a quarter: the other five", blob, 6, RATE_BITS, (OURS,), 1.25, troubles=middle
        ),
        Journey(
            "quarter-first",
            "6 edges, e01 at a quarter: the other five",
            blob,
            6,
            RATE_BITS,
            (OURS,),
            1.25,
            troubles=first,
        ),
        Journey(
            "dies",
            "6 edges, e03 is unplugged half-way: the other five",
            blob,
            6,
            RATE_BITS,
            (OURS,),
            1.5,
            troubles=(Trouble("e03", 0.5, _unplug),),
        ),
        Journey(
            "one",
            "One large blob to one edge, as fast as the machine can",
            large,
            1,
            0,
            (OURS, OURS_SSH, STAR),
            1 / 1.3,
            STAR.name,
        ),
    ]
