"""Bring the same bytes to edges with mirrortool and with rsync, and report how long it took."""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.case import PROJECT, DidNotRun, WrongBytes, one_line
from bench.content import MIB
from bench.deliveries import Carrier, Sample, run, touch
from bench.journeys import Journey, Target, journeys
from bench.report import note, stamp_now
from bench.verdicts import met, spread

RESULTS = PROJECT / "bench" / "DELIVER.md"
QUICK = 1 / 8


@dataclass(slots=True)
class Entry:
    """What became of one carrier in a work."""

    samples: list[Sample] = field(default_factory=list)
    problem: str = ""


def main() -> int:
    """Run the chosen works; 0 when every carrier got the right bytes everywhere."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench/deliver: told to end"))
    options = _options()
    known = journeys(options.scale)
    if options.list:
        for journey in known:
            print(f"{journey.name}: {journey.title}\n    {', '.join(c.name for c in journey.carriers)}")
        return 0
    chosen = [_limited(journey, options.only) for journey in known if not options.work or journey.name in options.work]
    if not chosen:
        raise SystemExit("bench/deliver: no such work; --list names them")
    record = _load(options.output)
    problems = []
    for journey in chosen:
        entries = _measure(journey, options)
        problems += [entry.problem for entry in entries.values() if entry.problem]
        record[journey.name] = _document(entries, options.scale)
        _save(record, options.output)
    print(f"{options.output.read_text()}\nwrote {options.output}")
    return 1 if problems else 0


def _limited(journey: Journey, only: Sequence[str]) -> Journey:
    return replace(journey, carriers=tuple(c for c in journey.carriers if not only or c.name in only))


def _measure(journey: Journey, options: argparse.Namespace) -> dict[str, Entry]:
    """Rounds in which each carrier runs once, one after the other."""
    _say(f"{journey.name}: {journey.title}")
    entries = {carrier.name: Entry() for carrier in journey.carriers}
    for _ in range(options.rounds):
        for carrier in journey.carriers:
            if not entries[carrier.name].problem:
                _run_one(journey, carrier, entries[carrier.name], options.folder)
    return entries


def _run_one(journey: Journey, carrier: Carrier, entry: Entry, folder: Path) -> None:
    """One run, on hosts that are made for it, so that nothing is left of what was done to others."""
    try:
        with (
            journey.farm(folder, journey.edges, journey.rate_bits) as farm,
            journey.scene.set_up(farm, journey.content) as published,
        ):
            touch(published.size_bytes * journey.edges, folder)
            farm.warm(published)
            if journey.follows:
                run(farm, carrier, published, farm.edges)
            sample = run(farm, carrier, published, farm.edges, journey.troubles, journey.ideal_s)
    except (DidNotRun, WrongBytes) as error:
        entry.problem = one_line(str(error))
        _say(f"    {carrier.name:12} {entry.problem}")
        return
    entry.samples.append(sample)
    _say(f"    {carrier.name:12} {journey.healthy_s(sample):8.2f} s")


def _document(entries: Mapping[str, Entry], scale: float) -> dict[str, Any]:
    return {
        "stamp": asdict(stamp_now("bench/deliver")),
        "scale": scale,
        "carriers": {name: asdict(entry) for name, entry in entries.items()},
    }


def _load(output: Path) -> dict[str, Any]:
    path = output.with_suffix(".json")
    return dict(json.loads(path.read_text())) if path.exists() else {}


def _save(record: Mapping[str, Any], output: Path) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    output.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    output.write_text(_report(record))


def _report(record: Mapping[str, Any]) -> str:
    """What is required in one table, then each work."""
    glance, sections = [], []
    for name in [journey.name for journey in journeys()]:
        if name not in record:
            continue
        found = record[name]
        journey = next(journey for journey in journeys(found["scale"]) if journey.name == name)
        samples = {carrier: [Sample(**s) for s in e["samples"]] for carrier, e in found["carriers"].items()}
        glance += [_glance_row(journey, target, journey.ratios(target, samples)) for target in journey.targets]
        sections += _section(journey, found, samples)
    head = ["| work | against | required | measured | |", "|---|---|---|---|---|"]
    return "\n".join([_TOP, *head, *glance, "", *sections])


def _glance_row(journey: Journey, target: Target, ratios: Sequence[float]) -> str:
    row = f"| {journey.title} | {target.against} | {target.text} |"
    if not ratios:
        return f"{row} not measured | |"
    return f"{row} {target.shown(ratios)} | {met(statistics.median(ratios) <= target.most)} |"


def _section(journey: Journey, found: Mapping[str, Any], samples: Mapping[str, Sequence[Sample]]) -> list[str]:
    stamp = found["stamp"]
    ideal = f" Size/rate is {journey.ideal_s:.2f} s." if journey.ideal_s else ""
    lines = [f"## {journey.title}", "", f"`{stamp['command']}` on {stamp['date']}, {stamp['commit']}.{ideal}", ""]
    sent = "× size" if _has_size(journey) else "MiB"
    lines += [
        f"| carrier | edges had all after, s | each run | those in trouble | process ended | origin sent, {sent} |"
    ]
    lines += ["|---|---:|---|---|---:|---:|"]
    for carrier in journey.carriers:
        if runs := samples.get(carrier.name):
            lines.append(_row(journey, carrier.name, runs))
    lines += ["", *(f"- `{carrier.name}`: {carrier.about}" for carrier in journey.carriers)]
    lines += [f"- `{name}` failed: {e['problem']}" for name, e in found["carriers"].items() if e["problem"]]
    return [*lines, "", *note(journey.name)]


def _has_size(journey: Journey) -> bool:
    """Whether what is sent can be told as a share of what there is: not where hardly anything is."""
    return journey.content.total_bytes >= MIB


def _row(journey: Journey, name: str, runs: Sequence[Sample]) -> str:
    size = journey.content.total_bytes if _has_size(journey) else MIB
    in_trouble = [
        f"{trouble.edge} {sample.edges_s[trouble.edge]:.1f}"
        if trouble.edge in sample.edges_s
        else f"{trouble.edge} not"
        for sample in runs
        for trouble in journey.troubles
    ]
    cells = [
        name,
        spread([journey.healthy_s(sample) for sample in runs]),
        " · ".join(f"{journey.healthy_s(sample):.2f}" for sample in runs),
        " · ".join(in_trouble),
        spread([sample.wall_s for sample in runs]),
        spread([sample.sent_bytes / size for sample in runs]),
    ]
    return f"| {' | '.join(cells)} |"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/deliver", description=__doc__)
    parser.add_argument("--work", action="append", default=[], help="only this one; repeatable")
    parser.add_argument("--only", default="", help="only these carriers, with commas between")
    parser.add_argument("--rounds", type=int, default=3, help="how often each carrier runs (3)")
    parser.add_argument("--quick", action="store_true", help="at 1/8 of the size")
    parser.add_argument("--scale", type=float, help="multiply sizes by this (1)")
    parser.add_argument("--list", action="store_true", help="name the works and the carriers")
    parser.add_argument("--folder", type=Path, default=PROJECT / ".cache" / "bench" / "deliver", help="for all files")
    parser.add_argument("--output", type=Path, help="the report (bench/DELIVER.md at full size)")
    options = parser.parse_args()
    options.scale = options.scale or (QUICK if options.quick else 1.0)
    options.only = [name for name in options.only.split(",") if name]
    options.folder = options.folder.absolute()
    options.output = options.output or (RESULTS if options.scale == 1 else options.folder / "DELIVER.md")
    return options


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


_TOP = """\
# Delivering: mirrortool and rsync

Written by `bench/deliver`; each work says when and with which commit it was measured. Each host is a network namespace
with a bandwidth (htb, both ways) and an sshd of its own; all share the processors of one machine. Time is from the
start of the process on the origin until an edge has all: for ours, until it shows the revision, whose blobs it has
hashed. After each run every blob on every edge is hashed.
"""


if __name__ == "__main__":
    sys.exit(main())
