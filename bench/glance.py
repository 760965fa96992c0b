"""Every number that is required of us, with what was measured, in one table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from bench.record import Finding, Record, Result
from bench.verdicts import MANY, Row, cost, growth, met, mib, peak_bytes, rows
from bench.works import Work, works

_NOT_MEASURED = "not measured"
_HEAD = ["work", "against", "required", "nothing fsynced on either side", "durable on both sides", ""]


def glance(record: Record) -> list[list[str]]:
    """The table, its head first. What was not measured has its row too."""
    found = list(_targets(record.results))
    found += _memory(list(record.results.values()))
    found += _linear(list(record.results.values()))
    found += [_finding(finding) for section in record.sections.values() for finding in section.findings]
    return [_HEAD, *found]


def _targets(results: Mapping[str, Result]) -> Iterator[list[str]]:
    """A row for each competitor that a work is held against."""
    for known in works():
        result = results.get(known.name)
        work = result.work if result else known
        measured = {row.against: row for row in rows(result.work, result.entries)} if result else {}
        for target in work.targets:
            yield [work.title, target.against, target.text, *_measured(measured.get(target.against))]


def _measured(row: Row | None) -> list[str]:
    if row is None or not row.comparisons:
        return [_NOT_MEASURED, "", ""]
    return [str(row.careless or ""), str(row.durable or ""), _together([bool(c.is_met) for c in row.comparisons])]


def _together(verdicts: Sequence[bool]) -> str:
    """One word for both comparisons."""
    return met(verdicts[0]) if len(set(verdicts)) == 1 else "**in part**"


def _memory(results: Sequence[Result]) -> Iterator[list[str]]:
    """The work that took the most memory, in what it may take."""
    peaks = [(peak_bytes(result.entries) / _allowed(result.work), result) for result in results]
    worst = max((peak for peak in peaks if peak[0]), key=lambda peak: peak[0], default=None)
    if worst is None:
        yield ["memory of the process, every work", "", "≤ 64 MiB", _NOT_MEASURED, "", ""]
        return
    share, result = worst
    shown = f"{mib(peak_bytes(result.entries))} ({result.work.name})"
    yield ["memory of the process, every work", "", f"≤ {mib(_allowed(result.work))}", "", shown, met(share <= 1)]


def _allowed(work: Work) -> int:
    return work.memory_target_bytes


def _linear(results: Sequence[Result]) -> Iterator[list[str]]:
    """How finding nothing new grows, and how long the default budget makes it."""
    costs = [found for r in results if r.work.road == "plain" and (found := cost(r.work, r.entries))]
    grown = growth(costs)
    verdict = met(grown.is_met) if grown else ""
    yield ["nothing changed in many repositories", "fewer of them", "linear", "", str(grown or _NOT_MEASURED), verdict]
    most = max(costs, key=lambda each: each.repositories, default=None)
    hours = f"{most.questions:.2f} questions each: {most.budget_hours:.1f} hours" if most else _NOT_MEASURED
    yield [f"{MANY:,} repositories", "the default budget", "within it", "", hours, ""]


def _finding(finding: Finding) -> list[str]:
    return [finding.what, "", finding.required, "", finding.measured, met(finding.is_met)]
