"""Pull the same bytes from the same server with mirrortool and with its peers, and report who took what."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bench import environments
from bench.case import PROJECT
from bench.machine import machine, versions
from bench.report import Heading, report
from bench.rounds import Entry, Rounds
from bench.site import Site
from bench.works import Work, works

RESULTS = PROJECT / "bench" / "RESULTS.md"
QUICK = 1 / 32
PYTHON_PEERS = ("olah",)


def main() -> int:
    """Run the chosen works; 0 when every competitor that could run got the right bytes."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench/pull: told to end"))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    options = _options()
    chosen = [_limited(work, options.only) for work in works(options.scale) if _is_chosen(work, options)]
    if options.list:
        for work in works(options.scale):
            print(f"{work.name}: {work.title}\n    {', '.join(c.name for c in work.competitors)}")
        return 0
    if not chosen:
        raise SystemExit("bench/pull: no such work; --list names them")
    for name in PYTHON_PEERS:
        if any(competitor.name == name for work in chosen for competitor in work.competitors):
            environments.make(name)
    heading = _heading(options)
    results = _run(chosen, options, heading)
    text = report(heading, results)
    options.output.write_text(text)
    print(f"{text}\nwrote {options.output}")
    return 1 if any(entry.problem for _, entries in results for entry in entries) else 0


def _run(chosen: Sequence[Work], options: argparse.Namespace, heading: Heading) -> list[tuple[Work, list[Entry]]]:
    """All works. What is done lies in the folder's RESULTS.md, should the run be broken off."""
    options.folder.mkdir(parents=True, exist_ok=True)
    rounds = Rounds(options.folder / "targets", options.rounds, _say)
    results = []
    with Site(options.folder / "site") as site:
        for work in chosen:
            _say(f"{work.name}: {work.title}")
            results.append((work, rounds.run(work, site)))
            (options.folder / "RESULTS.md").write_text(report(heading, results))
    return results


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/pull", description=__doc__)
    parser.add_argument("--work", action="append", default=[], help="only this one; repeatable")
    parser.add_argument("--only", default="", help="only these competitors, with commas between")
    parser.add_argument("--rounds", type=int, default=3, help="how often each competitor runs (3)")
    parser.add_argument("--quick", action="store_true", help="at a small scale, without touching RESULTS.md")
    parser.add_argument("--scale", type=float, help="multiply sizes and counts by this (BENCH_SCALE, or 1)")
    parser.add_argument("--list", action="store_true", help="name the works and the competitors")
    parser.add_argument("--folder", type=Path, default=PROJECT / ".cache" / "bench", help="where everything lies")
    parser.add_argument("--output", type=Path, help="the report (bench/RESULTS.md when everything ran at full size)")
    options = parser.parse_args()
    if options.scale is None:
        options.scale = QUICK if options.quick else float(os.environ.get("BENCH_SCALE", "1"))
    options.only = [name for name in options.only.split(",") if name]
    known = {competitor.name for work in works(1) for competitor in work.competitors}
    if unknown := sorted({*options.only} - known):
        parser.error(f"no competitor is called {', '.join(unknown)}; --list names them all")
    whole = not options.work and not options.only and options.scale == 1
    options.folder = options.folder.absolute()
    options.output = options.output or (RESULTS if whole else options.folder / "RESULTS.md")
    return options


def _is_chosen(work: Work, options: argparse.Namespace) -> bool:
    if options.work:
        return work.name in options.work
    return not work.only_on_request


def _limited(work: Work, only: Sequence[str]) -> Work:
    kept = tuple(c for c in work.competitors if not only or c.name in only)
    return replace(work, competitors=kept)


def _heading(options: argparse.Namespace) -> Heading:
    command = shlex.join(["bench/pull", *sys.argv[1:]])
    date = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    return Heading(command, date, options.rounds, machine(options.folder), versions())


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
