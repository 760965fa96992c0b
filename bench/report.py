"""What was measured, as Markdown."""

from __future__ import annotations

import shlex
import statistics
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from bench.case import one_line
from bench.content import MIB
from bench.glance import glance
from bench.machine import commit, machine, versions
from bench.record import Heading, Record, Result, Section, Stamp
from bench.rounds import Entry, Sample
from bench.verdicts import MANY, Cost, cost, growth, median, met, mib, peak_bytes, rows, spread
from bench.works import Work, works
from mirrortools.config.schema import DEFAULT_REQUESTS

NOTES = Path(__file__).with_name("notes")


def report(record: Record) -> str:
    """The whole document: what is required in one table, then each work."""
    order = [work.name for work in works()]
    results = sorted(
        record.results.values(), key=lambda r: order.index(r.work.name) if r.work.name in order else len(order)
    )
    parts = [_top(record.heading), _glance(record), *map(_result, results), _growth(results)]
    parts += map(_text, record.sections.values())
    return "\n".join(part for part in parts if part)


def write(record: Record, output: Path) -> None:
    """Write the report to `output`, and what it is made of beside it."""
    record.save(output)
    output.write_text(report(record))


def heading_now(folder: Path) -> Heading:
    """The machine, the file system of `folder` and the programs of this run."""
    return Heading(_now(), machine(folder), versions())


def stamp_now(program: str) -> Stamp:
    """What stands above everything that this run measures."""
    return Stamp(_now(), shlex.join([program, *sys.argv[1:]]), commit())


def heading_table(heading: Heading) -> list[str]:
    """The machine and the programs, as a table without a head."""
    return [
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in heading.machine.items()),
        f"| Versions | {', '.join(f'{name} {value}' for name, value in heading.versions.items())} |",
    ]


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())


def _top(heading: Heading) -> str:
    lines = [
        "# Pulling: mirrortool and its peers",
        "",
        f"Written by `bench/pull`, last on {heading.date}; each work says when and with which commit it was measured.",
        "How it is measured: [README.md](README.md).",
        "",
        *heading_table(heading),
        "",
        "Times are medians in seconds, with the fastest and slowest run in brackets; *each run* lists them all, in the",
        "order of the rounds, as the time + that of the `sync -f` of the target. *Durable* is both together, for those",
        "who do not fsync by themselves. CPU is user and system time of all the competitor's",
        "processes; server CPU is nginx's meanwhile, other CPU that of everything else on the machine: much means",
        "that the run was disturbed. Peak memory is that of the largest process, and that of all together (sampled).",
        "",
    ]
    return "\n".join(lines)


def _glance(record: Record) -> str:
    """Ratios are medians of the rounds', with the spread."""
    head, *cells = glance(record)
    lines = ["## What is required, in one glance", "", *table(head, cells), ""]
    lines += ["*In part*: one of the two comparisons is met. Ratios are taken in each round, then their median.", ""]
    return "\n".join(lines)


def _measured(stamp: Stamp, took_s: float) -> str:
    """How a work was measured."""
    minutes = f"with all that is not measured it took {took_s / 60:.1f} minutes"
    return f"`{stamp.command}` on {stamp.date}, {stamp.commit}; {minutes}"


def _result(result: Result) -> str:
    work, entries = result.work, result.entries
    lines = [f"## {work.title}", "", _measured(result.stamp, result.took_s), ""]
    lines += table(_HEAD, [_cells(entry) for entry in entries if entry.samples], numbers=True)
    lines += ["", *(f"- `{entry.competitor.name}`: {entry.competitor.about}" for entry in entries)]
    lines += [f"- `{e.competitor.name}` did not run: {one_line(e.problem)}" for e in entries if e.problem]
    verdicts = list(_verdicts(work, entries))
    if verdicts:
        lines += ["", *table(_VERDICT_HEAD, verdicts)]
    lines += ["", *_budget(cost(work, entries)), *note(work.name)]
    return "\n".join(lines)


def _text(section: Section) -> str:
    return section.text


_HEAD = [
    "competitor",
    "runs",
    "time",
    "each run",
    "durable",
    "own duration",
    "CPU",
    "server CPU",
    "other CPU",
    "peak MiB",
    "all MiB",
    "requests",
]


def _cells(entry: Entry) -> list[str]:
    samples = entry.samples
    engine = [sample.engine_s for sample in samples if sample.engine_s is not None]
    return [
        entry.competitor.name,
        str(len(samples)),
        spread([sample.wall_s for sample in samples]),
        " · ".join(_each(sample) for sample in samples),
        spread([s.durable_s for s in samples]) if entry.competitor.durable is False else "as it is",
        f"{statistics.median(engine):.2f}" if engine else "",
        f"{median(samples, lambda s: s.cpu_s):.2f}",
        f"{median(samples, lambda s: s.server_cpu_s):.2f}",
        f"{median(samples, lambda s: s.others_cpu_s):.2f}",
        f"{median(samples, lambda s: s.peak_bytes / MIB):.0f}",
        f"{median(samples, lambda s: s.tree_bytes / MIB):.0f}",
        f"{median(samples, lambda s: s.requests):.0f}",
    ]


def _each(sample: Sample) -> str:
    """The time of one run, and that of the `sync -f` behind it."""
    return f"{sample.wall_s:.2f}" + (f"+{sample.sync_s:.2f}" if sample.sync_s else "")


_VERDICT_HEAD = ["against", "required", "nothing fsynced on either side", "durable on both sides"]


def _verdicts(work: Work, entries: Sequence[Entry]) -> Iterator[list[str]]:
    """A row for each competitor, with the required ratio where there is one, and a row for the memory."""
    for row in rows(work, entries):
        shown = [comparison.verdict if comparison else "" for comparison in (row.careless, row.durable)]
        yield [row.against, row.required, *shown]
    if peak := peak_bytes(entries):
        allowed = work.memory_target_bytes
        yield ["memory, most of any run", f"≤ {mib(allowed)}", "", f"{mib(peak)}: {met(peak <= allowed)}"]


def note(work: str) -> list[str]:
    """What limits us in a work, written by hand after a profile."""
    path = NOTES / f"{work}.md"
    return [path.read_text().rstrip(), ""] if path.exists() else []


def _budget(found: Cost | None) -> list[str]:
    """What looking for changes takes of the budget that users have."""
    if found is None:
        return []
    return [
        f"Ours asked {found.questions:.2f} questions a repository (requests counted at the server by the number of",
        f"repositories). Of the default `request_budget`, {DEFAULT_REQUESTS} in 5 minutes, {MANY:,} repositories take",
        f"{found.windows} windows: {found.budget_hours:.1f} hours. **This bench lifts the budget** to time the work",
        "itself; who keeps to the default waits for that long.",
        "",
    ]


def _growth(results: Sequence[Result]) -> str:
    """How the cost of finding nothing new grows with the number of repositories."""
    costs = [found for r in results if r.work.road == "plain" and (found := cost(r.work, r.entries))]
    grown = growth(costs)
    if grown is None:
        return ""
    head = ["repositories", "ours, ms each", "ls-remote alone, ms each", "our requests each"]
    lines = ["## Nothing changed, by number of repositories", "", *table(head, map(_cost_cells, costs), numbers=True)]
    return "\n".join([*lines, "", f"Required: linear. In fact {grown}: {met(grown.is_met)}.", ""])


def _cost_cells(found: Cost) -> list[str]:
    alone = f"{1000 * found.alone_s:.2f}" if found.alone_s is not None else ""
    return [f"{found.repositories:,}", f"{1000 * found.each_s:.2f}", alone, f"{found.questions:.2f}"]


def table(head: Sequence[str], cells: Iterable[Sequence[str]], *, numbers: bool = False) -> list[str]:
    """A table; `numbers` stand at the right, behind a first column of names."""
    others = "---:" if numbers else "---"
    return [_row(head), _row(["---", *[others] * (len(head) - 1)]), *map(_row, cells)]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
