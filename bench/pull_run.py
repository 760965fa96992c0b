"""Pull the same bytes from the same server with mirrortool and with its peers, and report who took what."""

from __future__ import annotations

import argparse
import compileall
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bench import environments
from bench.case import PROJECT
from bench.kills import NAME as KILLS
from bench.kills import Killer, Kills, kills, section_of_kills
from bench.record import Result, load_record
from bench.report import heading_now, stamp_now, write
from bench.rounds import Rounds
from bench.site import Site
from bench.works import Work, works

RESULTS = PROJECT / "bench" / "RESULTS.md"
QUICK = 1 / 32
PYTHON_PEERS = ("olah",)
_OUTPUT = "the report, in which what ran is replaced (bench/RESULTS.md when everything runs at full size)"


def main() -> int:
    """Run the chosen works; 0 when every competitor that could run got the right bytes."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench/pull: told to end"))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    options = _options()
    chosen = [_limited(work, options.only) for work in works(options.scale) if _is_chosen(work, options)]
    killing = kills(options.scale, options.trials, options.seed) if _is_killing(options) else None
    if options.list:
        _list(options)
        return 0
    if not chosen and not killing:
        raise SystemExit("bench/pull: no such work; --list names them")
    for name in PYTHON_PEERS:
        if any(competitor.name == name for work in chosen for competitor in work.competitors):
            environments.make(name)
    is_right = _run(chosen, killing, options)
    print(f"{options.output.read_text()}\nwrote {options.output}")
    return 0 if is_right else 1


def _run(chosen: Sequence[Work], killing: Kills | None, options: argparse.Namespace) -> bool:
    """All works; whether all is right. Each is written down when it is done, in the place of what it had before."""
    options.folder.mkdir(parents=True, exist_ok=True)
    compileall.compile_dir(PROJECT / "mirrortools", quiet=1)  # as every installation is, but an editable one
    stamp = stamp_now("bench/pull")
    record = load_record(options.output, heading_now(options.folder))
    rounds = Rounds(options.folder / "targets", options.rounds, _say)
    problems = []
    with Site(options.folder / "site") as site:
        for work in chosen:
            _say(f"{work.name}: {work.title}")
            began_s = time.monotonic()
            entries = rounds.run(work, site)
            record = record.with_result(Result(work, entries, time.monotonic() - began_s, stamp, options.scale))
            problems += [entry.problem for entry in entries if entry.problem]
            write(record, options.output)
        if killing:
            _say(f"{KILLS}: {killing.title}, seed {killing.seed}")
            killed = Killer(options.folder / "targets", site, _say).run(killing)
            record = record.with_section(KILLS, section_of_kills(killed, stamp))
            problems += killed.problems
            write(record, options.output)
    return not problems


def _list(options: argparse.Namespace) -> None:
    for work in works(options.scale):
        print(f"{work.name}: {work.title}\n    {', '.join(c.name for c in work.competitors)}")
    print(f"{KILLS}: {kills(options.scale, options.trials, 0).title}\n    ours")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/pull", description=__doc__)
    parser.add_argument("--work", action="append", default=[], help="only this one; repeatable")
    parser.add_argument("--only", default="", help="only these competitors, with commas between")
    parser.add_argument("--rounds", type=int, default=3, help="how often each competitor runs (3)")
    parser.add_argument("--trials", type=int, help="how many trials of the work kills (50 at full size)")
    parser.add_argument("--seed", type=int, help="what chooses the moments of the work kills; the report tells it")
    parser.add_argument("--quick", action="store_true", help="at a small scale, without touching RESULTS.md")
    parser.add_argument("--scale", type=float, help="multiply sizes and counts by this (BENCH_SCALE, or 1)")
    parser.add_argument("--list", action="store_true", help="name the works and the competitors")
    parser.add_argument("--folder", type=Path, default=PROJECT / ".cache" / "bench", help="where everything lies")
    parser.add_argument("--output", type=Path, help=_OUTPUT)
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


def _is_killing(options: argparse.Namespace) -> bool:
    """Whether the work `kills` is to be done, in which ours is alone."""
    return (not options.work or KILLS in options.work) and (not options.only or "ours" in options.only)


def _limited(work: Work, only: Sequence[str]) -> Work:
    kept = tuple(c for c in work.competitors if not only or c.name in only)
    return replace(work, competitors=kept)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
