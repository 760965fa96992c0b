"""What was measured until now, kept as JSON beside the report that is written from it.

Each work has its own place: a run replaces those that it did, and leaves the others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.rounds import Entry, Sample
from bench.works import Work, works


@dataclass(frozen=True, slots=True)
class Stamp:
    """When a work was measured, by which command, and which commit of ours."""

    date: str = ""
    command: str = ""
    commit: str = ""


@dataclass(frozen=True, slots=True)
class Heading:
    """The machine and the programs of the last run."""

    date: str
    machine: Mapping[str, str]
    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a work at a scale, and how long all of it took, with what is not measured."""

    work: Work
    entries: Sequence[Entry]
    took_s: float = 0.0
    stamp: Stamp = Stamp()
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Finding:
    """A number that is required, and what was measured, of a work that is not measured in rounds."""

    what: str
    required: str
    measured: str
    is_met: bool


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the report that is text."""

    text: str
    stamp: Stamp = Stamp()
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class Record:
    """All of it: works by name, and sections by name."""

    heading: Heading
    results: Mapping[str, Result] = field(default_factory=dict)
    sections: Mapping[str, Section] = field(default_factory=dict)

    def with_result(self, result: Result) -> Record:
        """The same with a work measured anew."""
        return replace(self, results={**self.results, result.work.name: result})

    def with_section(self, name: str, section: Section) -> Record:
        """The same with a section written anew."""
        return replace(self, sections={**self.sections, name: section})

    def save(self, output: Path) -> None:
        """Write it beside the report `output`; a reader sees the old or the new one."""
        document = {
            "heading": asdict(self.heading),
            "works": {name: _result_document(result) for name, result in self.results.items()},
            "sections": {name: asdict(section) for name, section in self.sections.items()},
        }
        path = _beside(output)
        beside = path.with_name(f".{path.name}.new")
        beside.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
        beside.replace(path)


def _beside(output: Path) -> Path:
    return output.with_suffix(".json")


def load_record(output: Path, heading: Heading) -> Record:
    """What earlier runs left beside the report `output`, under a new heading; nothing when there is no such file.

    Works and competitors that do not exist any more are left out: nothing can be held against them.
    """
    path = _beside(output)
    if not path.exists():
        return Record(heading)
    document = json.loads(path.read_text())
    results = [_result(name, found) for name, found in document["works"].items()]
    sections = {name: _section(found) for name, found in document["sections"].items()}
    return Record(heading, {result.work.name: result for result in results if result}, sections)


def _result_document(result: Result) -> dict[str, Any]:
    return {
        "stamp": asdict(result.stamp),
        "scale": result.scale,
        "took_s": result.took_s,
        "competitors": {
            entry.competitor.name: {"problem": entry.problem, "runs": [asdict(sample) for sample in entry.samples]}
            for entry in result.entries
        },
    }


def _result(name: str, document: Mapping[str, Any]) -> Result | None:
    scale = float(document["scale"])
    work = next((work for work in works(scale) if work.name == name), None)
    if work is None:
        return None
    kept = document["competitors"]
    entries = [
        Entry(competitor, [Sample(**run) for run in found["runs"]], found["problem"])
        for competitor in work.competitors
        if (found := kept.get(competitor.name))
    ]
    return Result(work, entries, document["took_s"], Stamp(**document["stamp"]), scale)


def _section(document: Mapping[str, Any]) -> Section:
    findings = tuple(Finding(**finding) for finding in document["findings"])
    return Section(document["text"], Stamp(**document["stamp"]), findings)
