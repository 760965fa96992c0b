"""Ask nginx as mirrortool configures it, the same nginx without the Hub's protocol, and olah; report who gives what."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
from pathlib import Path

from bench import environments
from bench.case import PROJECT
from bench.content import MIB
from bench.contests import OLAH, Contest, Field, Scale, contests, hold
from bench.report import heading_now, stamp_now
from bench.serve_report import Held, load_serve_record

RESULTS = PROJECT / "bench" / "SERVE.md"
QUICK = Scale(1.0, 16 * MIB, (1, 100))


def main() -> int:
    """Hold the chosen contests; 0 when every host that was asked answered well."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench/serve: told to end"))
    options = _options()
    scale = QUICK if options.quick else Scale()
    chosen = [contest for contest in contests(scale) if not options.work or contest.name in options.work]
    if options.list:
        for contest in contests(scale):
            print(f"{contest.name}: {contest.title}\n    {', '.join(contest.hosts)}")
        return 0
    if any(OLAH in contest.hosts for contest in chosen):
        environments.make(OLAH)
    options.folder.mkdir(parents=True)
    try:
        is_right = _run(chosen, scale, options)
    finally:
        shutil.rmtree(options.folder)
    print(f"{options.output.read_text()}\nwrote {options.output}")
    return 0 if is_right else 1


def _run(chosen: list[Contest], scale: Scale, options: argparse.Namespace) -> bool:
    stamp = stamp_now("bench/serve")
    record = load_serve_record(options.output, heading_now(options.folder))
    problems = []
    with Field(options.folder, scale) as field:
        for contest in chosen:
            _say(f"{contest.name}: {contest.title}")
            outcomes = hold(contest, field, options.rounds, _say)
            record = record.with_held(Held(contest, outcomes, stamp))
            record.write(options.output)
            problems += [outcome.problem for outcome in outcomes.values() if outcome.problem]
    return not problems


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/serve", description=__doc__)
    names = [contest.name for contest in contests(Scale())]
    parser.add_argument("--work", type=lambda text: text.split(","), help="only these, with commas between")
    parser.add_argument("--rounds", type=int, default=3, help="how often each host is asked (3)")
    parser.add_argument("--quick", action="store_true", help="at a small scale, without touching SERVE.md")
    parser.add_argument("--list", action="store_true", help="name the contests and the hosts")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/bench-serve"), help="a root that is made and removed")
    parser.add_argument("--output", type=Path, help="the report, in which what ran is replaced (bench/SERVE.md)")
    options = parser.parse_args()
    if unknown := sorted({*(options.work or ())} - {*names}):
        parser.error(f"no contest is called {', '.join(unknown)}; --list names them all")
    if options.folder.exists():
        parser.error(f"{options.folder} is there: another run works in it, or one was killed; remove it")
    quick = PROJECT / ".cache" / "bench" / "SERVE.md"
    options.output = options.output or (quick if options.quick else RESULTS)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    return options


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
