"""What was served, kept as JSON beside the report that is written from it. A run replaces the contests that it held."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.case import one_line
from bench.contests import ABOUT, Contest, Outcome, Scale, Target, contests
from bench.load import Rate
from bench.record import Heading, Stamp
from bench.report import heading_table, table
from bench.verdicts import met, spread


@dataclass(frozen=True, slots=True)
class Held:
    """A contest that was held."""

    contest: Contest
    outcomes: Mapping[str, Outcome]
    stamp: Stamp

    def shares(self, host: str) -> list[float]:
        """What a host reached of what the one reached that it is held against, round by round."""
        theirs = self.outcomes[self.contest.target.against].rates
        return [our.per_s / their.per_s for our, their in zip(self.outcomes[host].rates, theirs, strict=False)]

    @property
    def is_met(self) -> bool:
        """Whether what is required was reached, in the median of the rounds."""
        shares = self.shares(self.contest.target.host)
        return bool(shares) and statistics.median(shares) >= self.contest.target.least


@dataclass(frozen=True, slots=True)
class ServeRecord:
    """All contests by name."""

    heading: Heading
    held: Mapping[str, Held] = field(default_factory=dict)

    def with_held(self, held: Held) -> ServeRecord:
        """The same with a contest held anew."""
        return replace(self, held={**self.held, held.contest.name: held})

    def write(self, output: Path) -> None:
        """Write the report, and what it is made of beside it; a reader sees the old or the new one."""
        document = {
            "heading": asdict(self.heading),
            "contests": {
                name: {
                    "contest": asdict(held.contest),
                    "stamp": asdict(held.stamp),
                    "outcomes": {n: asdict(o) for n, o in held.outcomes.items()},
                }
                for name, held in self.held.items()
            },
        }
        for path, text in (
            (output.with_suffix(".json"), json.dumps(document, indent=1, ensure_ascii=False) + "\n"),
            (output, serve_report(self)),
        ):
            beside = path.with_name(f".{path.name}.new")
            beside.write_text(text)
            beside.replace(path)


def load_serve_record(output: Path, heading: Heading) -> ServeRecord:
    """What earlier runs left beside `output`, under a new heading. Contests that do not exist any more are left out."""
    path = output.with_suffix(".json")
    if not path.exists():
        return ServeRecord(heading)
    known = [contest.name for contest in contests(Scale())]
    found = json.loads(path.read_text())["contests"]
    return ServeRecord(heading, {name: _held(found[name]) for name in known if name in found})


def _held(document: Mapping[str, Any]) -> Held:
    contest = {**document["contest"], "target": Target(**document["contest"]["target"])}
    outcomes = {
        name: Outcome([Rate(**rate) for rate in outcome["rates"]], outcome["problem"])
        for name, outcome in document["outcomes"].items()
    }
    return Held(Contest(**contest), outcomes, Stamp(**document["stamp"]))


def serve_report(record: ServeRecord) -> str:
    """The whole document: what is required in one table, then each contest."""
    held = [record.held[contest.name] for contest in contests(Scale()) if contest.name in record.held]
    lines = [
        "# Serving: nginx with the Hub's protocol, without it, and olah",
        "",
        f"Written by `bench/serve`, last on {record.heading.date}; how it is measured: [README.md](README.md).",
        "",
        *heading_table(record.heading),
        "",
        "## What is required, in one glance",
        "",
        *table(["asked for", "host", "required", "measured", ""], [_glance(each) for each in held]),
        "",
        "Shares are taken in each round, then their median, with the least and the most in brackets.",
        "",
        *(f"- `{name}`: {text}" for name, text in ABOUT.items()),
        "",
    ]
    for each in held:
        lines += _section(each)
    return "\n".join(lines)


def _glance(held: Held) -> list[str]:
    target = held.contest.target
    shares = held.shares(target.host)
    shown = f"{spread(shares)} of {target.against}" if shares else "not measured"
    required = f"≥ {target.least:.2f} of {target.against}"
    return [held.contest.title, target.host, required, shown, met(held.is_met) if shares else ""]


def _section(held: Held) -> list[str]:
    contest = held.contest
    head = ["host", "rounds", contest.unit, f"of {contest.target.against}", "server CPU, µs each"]
    return [
        f"## {contest.title[0].upper()}{contest.title[1:]}",
        "",
        f"`{held.stamp.command}` on {held.stamp.date}, {held.stamp.commit}",
        "",
        *table(head, list(_rows(held)), numbers=True),
        "",
        *(f"- `{name}` did not run: {one_line(o.problem)}" for name, o in held.outcomes.items() if o.problem),
        "",
    ]


def _rows(held: Held) -> Iterator[Sequence[str]]:
    for name, outcome in held.outcomes.items():
        if outcome.rates:
            rates = [rate.per_s for rate in outcome.rates]
            each = [rate.server_us for rate in outcome.rates]
            shares = held.shares(name)
            yield [name, str(len(rates)), _whole(rates), spread(shares) if shares else "", spread(each)]


def _whole(rates: Sequence[float]) -> str:
    return f"{statistics.median(rates):,.0f} ({min(rates):,.0f}–{max(rates):,.0f})"
