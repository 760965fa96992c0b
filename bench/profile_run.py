"""Run one sync of a work of bench/pull under a profiler, and say where the time goes."""

from __future__ import annotations

import argparse
import compileall
import os
import pstats
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from bench import environments
from bench.case import PROJECT, Case, Step
from bench.competitors import Ours, OursAgain
from bench.record import Section, load_record
from bench.report import heading_now, stamp_now, write
from bench.rounds import touch_memory
from bench.site import Site
from bench.works import Work, works

_RATE_HZ = 200
_TOP = 25
_CALLED = PROJECT / "bench" / "called.py"
_FRAME_IN_PROJECT = re.compile(r"\((?:mirrortools|bench)/")


def main() -> int:
    """Profile, print, and keep the whole profile in a file."""
    options = _options()
    work = next((work for work in works(options.scale) if work.name == options.work), None)
    if work is None:
        raise SystemExit(f"bench/profile: there is no work {options.work}; bench/pull --list names them")
    options.tool = options.tool or ("calls" if work.copies else "runs")
    folder = options.folder / "profiled"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    profile = options.folder / "profiles" / f"{work.name}-{options.tool}.txt"
    profile.parent.mkdir(exist_ok=True)
    compileall.compile_dir(PROJECT / "mirrortools", quiet=1)  # as every installation is, but an editable one
    with Site(options.folder / "site") as site:
        case = _case(work, site)
        with _ours(work, options).ready(case, folder) as step:
            touch_memory(folder, case.total_bytes)
            site.warm(case)
            took_s = _run(_profiled(step, options.tool, profile), step)
    shutil.rmtree(folder)
    print(f"{work.title}: {took_s:.2f} s under {options.tool}\n")
    summary = "\n".join(SUMMARIES[options.tool](profile))
    print(summary)
    print(f"\nThe whole profile: {profile}")
    if options.output:
        _keep(f"{work.title}, under {options.tool}: {took_s:.2f} s", summary, options)
    return 0


def _keep(title: str, summary: str, options: argparse.Namespace) -> None:
    """Put the summary into a report, in the place of what the same work and tool gave before."""
    stamp = stamp_now("bench/profile")
    lines = [f"## Where the time goes: {title}", "", f"`{stamp.command}` on {stamp.date}, {stamp.commit}", ""]
    section = Section("\n".join([*lines, "```", summary.rstrip(), "```", ""]), stamp)
    record = load_record(options.output, heading_now(options.folder))
    write(record.with_section(f"profile {options.work} {options.tool}", section), options.output)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/profile", description=__doc__)
    parser.add_argument("--work", default="one-blob", help="a work of bench/pull (one-blob)")
    parser.add_argument(
        "--tool",
        choices=sorted(SUMMARIES),
        help="what to look at (runs; calls where nothing is new, which is over soon)",
    )
    parser.add_argument("--scale", type=float, default=float(os.environ.get("BENCH_SCALE", "1")))
    parser.add_argument("--no-fsync", action="store_true", help="with fsync switched off")
    parser.add_argument("--folder", type=Path, default=PROJECT / ".cache" / "bench", help="where everything lies")
    parser.add_argument("--output", type=Path, help="a report of bench/pull that gets the summary as a section")
    return parser.parse_args()


def _case(work: Work, site: Site) -> Case:
    if work.copies:
        return site.many(work.road, site.publish_copies(work.content, work.copies))
    site.publish(work.content)
    return site.case(work.road, work.content)


def _ours(work: Work, options: argparse.Namespace) -> Ours | OursAgain:
    return OursAgain() if work.copies else Ours(fsync=not options.no_fsync)


def _profiled(step: Step, tool: str, profile: Path) -> list[str]:
    """The step's command under a profiler that writes to `profile`."""
    command = [sys.executable, *(str(word) for word in step.command)]
    if tool == "strace":
        return ["strace", "-f", "-c", "-w", "-o", str(profile), *command]
    if tool == "calls":
        return [sys.executable, str(_CALLED), str(profile), *command[2:]]
    if tool == "imports":
        script = f'exec "$@" 2>{profile}'
        return ["sh", "-c", script, "sh", command[0], "-X", "importtime", *command[1:]]
    py_spy = str(environments.make("profile") / "bin" / "py-spy")
    words = ["record", "--rate", str(_RATE_HZ), "--format", "raw", "--threads", "--nonblocking"]
    words += ["--idle"] if tool == "waits" else []
    return [py_spy, *words, "--output", str(profile), "--", *command]


def _run(command: Sequence[str], step: Step) -> float:
    started_s = time.monotonic()
    done = subprocess.run(command, env=dict(step.env), capture_output=True, text=True, check=False)
    took_s = time.monotonic() - started_s
    if done.returncode:
        raise SystemExit(f"bench/profile: {command[0]} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return took_s


def _sampled(profile: Path) -> Iterator[str]:
    """Seconds of each thread, then of each function by itself, then of our functions with all they called."""
    threads: Counter[str] = Counter()
    alone: Counter[str] = Counter()
    whole: Counter[str] = Counter()
    for line in profile.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        thread, *frames = stack.split(";")
        threads[_thread_name(thread)] += int(count)
        alone[frames[-1] if frames else thread] += int(count)
        for frame in {frame for frame in frames if _FRAME_IN_PROJECT.search(frame)}:
            whole[frame] += int(count)
    yield from _table("thread, s", threads)
    yield from _table("function by itself, s", alone)
    yield from _table("our function with all that it called, s", whole)


def _thread_name(shown: str) -> str:
    """`fetch_3` of `thread (0x7F…): fetch_3`; threads without a name are `other`."""
    return shown.partition("): ")[2].strip('"') or "other"


def _table(title: str, counts: Counter[str]) -> Iterator[str]:
    yield title
    yield from (f"  {count / _RATE_HZ:8.2f}  {name}" for name, count in counts.most_common(_TOP))
    yield ""


def _first_lines(profile: Path) -> Iterator[str]:
    yield from profile.read_text().splitlines()[:_TOP]


def _slowest_imports(profile: Path) -> Iterator[str]:
    """Lines of -X importtime with the most time of their own."""
    found = re.findall(r"import time:\s+(\d+) \|\s+(\d+) \| (.*)", profile.read_text())
    own = sorted(((int(alone), int(whole), name.strip()) for alone, whole, name in found), reverse=True)
    yield f"{sum(alone for alone, _, _ in own) / 1e6:.3f} s in {len(own)} modules; ms alone, ms with what it imports"
    yield from (f"  {alone / 1000:8.1f} {whole / 1000:8.1f}  {name}" for alone, whole, name in own[:_TOP])


def _called(profile: Path) -> Iterator[str]:
    """Own time by module, then our functions with all that they called; cProfile makes both longer."""
    calls = pstats.Stats(str(profile)).stats  # type: ignore[attr-defined]
    alone: Counter[str] = Counter()
    whole: Counter[str] = Counter()
    for (file, line, name), (_, _, own_s, all_s, _) in calls.items():
        place = _module(file) if file != "~" else name
        alone[place] += round(own_s * 1e6)
        if file.startswith(f"{PROJECT}/mirrortools/"):
            whole[f"{place}:{line} {name}"] = round(all_s * 1e6)
    yield f"{sum(alone.values()) / 1000:.1f} ms under cProfile, which takes a half and more of that"
    yield "ms by itself, module or built-in function"
    yield from (f"  {us / 1000:8.1f}  {name}" for name, us in alone.most_common(_TOP))
    yield "ms with all that it called, our function (a module is its loading)"
    yield from (f"  {us / 1000:8.1f}  {name}" for name, us in whole.most_common(_TOP))


def _module(file: str) -> str:
    """A file's place in what it belongs to: `mirrortools/sync.py`, `click/core.py`, `logging/__init__.py`."""
    for top in (f"{PROJECT}/", "site-packages/", f"python{sys.version_info[0]}.{sys.version_info[1]}/"):
        before, found, rest = file.partition(top)
        if found and (before == "" or not top.startswith("/")):
            return rest
    return file


SUMMARIES: Mapping[str, Callable[[Path], Iterator[str]]] = {
    "runs": _sampled,
    "waits": _sampled,
    "strace": _first_lines,
    "imports": _slowest_imports,
    "calls": _called,
}


if __name__ == "__main__":
    sys.exit(main())
