"""What was measured, as Markdown."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.case import PROJECT
from bench.content import MIB
from bench.rounds import Entry, Sample
from bench.works import OURS_CARELESS, SEGMENT_HASHES, Target, Work
from mirrortools.config.schema import DEFAULT_REQUESTS
from mirrortools.upstreams.budget import WINDOW_S

NOTES = Path(__file__).with_name("notes")
_MOST_GROWTH = 1.1
_MANY = 10_000


@dataclass(frozen=True, slots=True)
class Heading:
    """What stands above the tables."""

    command: str
    date: str
    rounds: int
    machine: Mapping[str, str]
    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a work, and how long all of it took, with what is not measured."""

    work: Work
    entries: Sequence[Entry]
    took_s: float = 0.0


def report(heading: Heading, results: Sequence[Result], sections: Sequence[str] = ()) -> str:
    """The whole document; `sections` are those of works that are not measured in rounds."""
    parts = [_top(heading), *map(_section, results), _growth(results), *sections, _missing(results)]
    return "\n".join(part for part in parts if part)


def _top(heading: Heading) -> str:
    lines = [
        "# Pulling: mirrortool and its peers",
        "",
        f"Written by `{heading.command}` on {heading.date}. How it is measured: [README.md](README.md).",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in heading.machine.items()),
        f"| Versions | {', '.join(f'{name} {value}' for name, value in heading.versions.items())} |",
        f"| Rounds | {heading.rounds}, interleaved; fewer for what is slow (the column says how many) |",
        "",
        "Times are medians in seconds, with the fastest and slowest run in brackets; *each run* lists them all, in the",
        "order of the rounds, as the time + that of the `sync -f` of the target. *Durable* is both together, for those",
        "who do not fsync by themselves. CPU is user and system time of all the competitor's",
        "processes; server CPU is nginx's meanwhile, other CPU that of everything else on the machine: much means",
        "that the run was disturbed. Peak memory is that of the largest process, and that of all together (sampled).",
        "",
    ]
    return "\n".join(lines)


def _section(result: Result) -> str:
    work, entries = result.work, result.entries
    command = f"`bench/pull --work {work.name}`; with all that is not measured it took {result.took_s / 60:.1f} minutes"
    lines = [f"## {work.title}", "", command, ""]
    lines += [_row(_HEAD), _row(["---", *["---:"] * (len(_HEAD) - 1)])]
    lines += [_row(_cells(entry)) for entry in entries if entry.samples]
    lines += ["", *(f"- `{entry.competitor.name}`: {entry.competitor.about}" for entry in entries)]
    lines += [f"- `{e.competitor.name}` did not run: {_one_line(e.problem)}" for e in entries if e.problem]
    verdicts = list(_verdicts(work, entries))
    if verdicts:
        lines += ["", _row(_VERDICT_HEAD), _row(["---"] * len(_VERDICT_HEAD)), *map(_row, verdicts)]
    lines += ["", *_budget(work, entries), *_note(work)]
    return "\n".join(lines)


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
        _spread([sample.wall_s for sample in samples]),
        " · ".join(_each(sample) for sample in samples),
        _spread([s.durable_s for s in samples]) if entry.competitor.durable is False else "as it is",
        f"{statistics.median(engine):.2f}" if engine else "",
        f"{_median(samples, lambda s: s.cpu_s):.2f}",
        f"{_median(samples, lambda s: s.server_cpu_s):.2f}",
        f"{_median(samples, lambda s: s.others_cpu_s):.2f}",
        f"{_median(samples, lambda s: s.peak_bytes / MIB):.0f}",
        f"{_median(samples, lambda s: s.tree_bytes / MIB):.0f}",
        f"{_median(samples, lambda s: s.requests):.0f}",
    ]


def _each(sample: Sample) -> str:
    """The time of one run, and that of the `sync -f` behind it."""
    return f"{sample.wall_s:.2f}" + (f"+{sample.sync_s:.2f}" if sample.sync_s else "")


_VERDICT_HEAD = ["against", "required", "nothing fsynced on either side", "durable on both sides"]


def _verdicts(work: Work, entries: Sequence[Entry]) -> Iterator[list[str]]:
    """A row for each competitor, with the required ratio where there is one, and a row for the memory."""
    by_name = {entry.competitor.name: entry for entry in entries}
    ours = by_name.get("ours")
    careless = by_name.get(OURS_CARELESS, ours)
    targets = {target.against: target for target in work.targets}
    for entry in entries:
        if entry is ours or entry is careless or not entry.samples:
            continue
        target = targets.get(entry.competitor.name)
        cells = [_against(careless, entry, _wall, target), _against(ours, entry, _durable, target)]
        yield [entry.competitor.name, target.text if target else "", *cells]
    if ours and ours.samples:
        peak = max(sample.peak_bytes for sample in ours.samples)
        met = _verdict(peak <= work.memory_target_bytes)
        yield [
            "memory, most of any run",
            f"≤ {work.memory_target_bytes / MIB:.0f} MiB",
            "",
            f"{peak / MIB:.0f} MiB: {met}",
        ]


def _against(ours: Entry | None, theirs: Entry, time: Callable[[Sample], float], target: Target | None) -> str:
    """The median of the rounds' ratios, its spread, and whether it is what was required."""
    if ours is None or not ours.samples:
        return ""
    ratios = [time(our) / time(their) for our, their in zip(ours.samples, theirs.samples, strict=False)]
    text = _as_people_say(ratios)
    return f"{text}: {_verdict(statistics.median(ratios) <= target.most)}" if target else text


def _wall(sample: Sample) -> float:
    return sample.wall_s


def _durable(sample: Sample) -> float:
    return sample.durable_s


def _as_people_say(ratios: Sequence[float]) -> str:
    """The median and the spread of our time in theirs."""
    faster = statistics.median(ratios) < 1
    return f"{_spread([1 / ratio for ratio in ratios] if faster else ratios)}× {'faster' if faster else 'its time'}"


def _verdict(is_met: bool) -> str:
    return "met" if is_met else "**not met**"


def _note(work: Work) -> list[str]:
    """What limits us, written by hand after a profile."""
    path = NOTES / f"{work.name}.md"
    return [path.read_text().rstrip(), ""] if path.exists() else []


def _budget(work: Work, entries: Sequence[Entry]) -> list[str]:
    """What looking for changes takes of the budget that users have."""
    ours = _samples_of(entries, "ours")
    if not work.copies or not ours:
        return []
    questions = _median(ours, lambda s: s.requests) / work.copies
    windows = math.ceil(_MANY * questions / DEFAULT_REQUESTS)
    return [
        f"Ours asked {questions:.2f} questions a repository (requests counted at the server by the number of",
        f"repositories). Of the default `request_budget`, {DEFAULT_REQUESTS} in 5 minutes, {_MANY:,} repositories take",
        f"{windows} windows: {windows * WINDOW_S / 3600:.1f} hours. **This bench lifts the budget** to time the work",
        "itself; who keeps to the default waits for that long.",
        "",
    ]


def _growth(results: Sequence[Result]) -> str:
    """How the cost of finding nothing new grows with the number of repositories."""
    rows, costs = [], []
    for result in results:
        work = result.work
        ours, alone = (_samples_of(result.entries, name) for name in ("ours", "ls-remote"))
        if work.copies and work.road == "plain" and ours:
            each_ms = 1000 * _median(ours, _wall) / work.copies
            alone_ms = f"{1000 * _median(alone, _wall) / work.copies:.2f}" if alone else ""
            requests = _median(ours, lambda s: s.requests) / work.copies
            rows.append([f"{work.copies:,}", f"{each_ms:.2f}", alone_ms, f"{requests:.2f}"])
            costs.append((work.copies, each_ms))
    if len(rows) < 2:
        return ""
    head = ["repositories", "ours, ms each", "ls-remote alone, ms each", "our requests each"]
    lines = [
        "## Nothing changed, by number of repositories",
        "",
        _row(head),
        _row(["---:"] * len(head)),
        *map(_row, rows),
    ]
    return "\n".join([*lines, "", _linear(*costs[-2:]), ""])


def _linear(fewer: tuple[int, float], more: tuple[int, float]) -> str:
    """Whether each repository costs as much among many as among few."""
    ratio = more[1] / fewer[1]
    met = _verdict(ratio <= _MOST_GROWTH)
    return f"Required: linear. Each of {more[0]:,} costs {ratio:.2f}× what each of {fewer[0]:,} costs: {met}."


def _missing(results: Sequence[Result]) -> str:
    if any(result.work.name == SEGMENT_HASHES for result in results):
        return ""
    lines = [
        "## Not measured",
        "",
        "- Segment hashes on against off (required ≤ 1.15×): there is no option to switch them.",
    ]
    return "\n".join([*lines, ""])


def _samples_of(entries: Sequence[Entry], name: str) -> list[Sample]:
    return next((entry.samples for entry in entries if entry.competitor.name == name), [])


def _median(samples: Sequence[Sample], value: Callable[[Sample], float]) -> float:
    return statistics.median(value(sample) for sample in samples)


def _spread(values: Sequence[float]) -> str:
    middle = f"{statistics.median(values):.2f}"
    return f"{middle} ({min(values):.2f}–{max(values):.2f})" if len(values) > 1 else middle


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _one_line(text: str) -> str:
    return " ".join(text.replace(f"{PROJECT}/", "").split())[-400:].replace("|", "/")
