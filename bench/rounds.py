"""Rounds of a work: each competitor once, one after the other, then all again, because a machine's mood changes."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench.case import Case, Competitor, DidNotRun, WrongBytes
from bench.content import MIB
from bench.measure import machine_cpu_s, measure
from bench.site import Site, Spent
from bench.works import Work

# ext4 searches long for a free inode when very many were deleted in the last minutes (recently_deleted() in
# fs/ext4/ialloc.c), which would be charged to whoever comes next: trees of many files are deleted after all rounds.
_MANY_FILES = 1000


@dataclass(frozen=True, slots=True)
class Sample:
    """One run. `sync_s` is what `sync -f` took after it; `server_cpu_s` and `requests` are nginx's.

    `others_cpu_s` is what the rest of the machine did meanwhile: the kernel for us all, and who disturbed us.
    """

    wall_s: float
    sync_s: float
    cpu_s: float
    peak_bytes: int
    tree_bytes: int
    server_cpu_s: float
    requests: int
    others_cpu_s: float = 0.0
    engine_s: float | None = None

    @property
    def durable_s(self) -> float:
        return self.wall_s + self.sync_s


@dataclass(slots=True)
class Entry:
    """What became of one competitor in a work: a sample for each round, or why there is none."""

    competitor: Competitor
    samples: list[Sample] = field(default_factory=list)
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Rounds:
    """How a work is run: where the targets are made, how often, and whom to tell."""

    folder: Path
    count: int
    tell: Callable[[str], None]

    def run(self, work: Work, site: Site) -> list[Entry]:
        """All rounds of a work."""
        shutil.rmtree(self.folder, ignore_errors=True)
        case = self._case(work, site)
        empty_cache(self.folder.parent)
        entries = [Entry(competitor) for competitor in work.competitors]
        for number in range(self.count):
            for entry in entries:
                if not entry.problem and number < work.most_rounds.get(entry.competitor.name, self.count):
                    self._run_one(entry, case, site, number)
        shutil.rmtree(self.folder, ignore_errors=True)
        return entries

    def _case(self, work: Work, site: Site) -> Case:
        if work.copies:
            return site.many(work.road, site.publish_copies(work.content, work.copies))
        site.publish(work.content)
        return site.case(work.road, work.content)

    def _run_one(self, entry: Entry, case: Case, site: Site, number: int) -> None:
        competitor = entry.competitor
        folder = self.folder / (competitor.name if competitor.keeps else f"{competitor.name}-{number}")
        folder.mkdir(parents=True, exist_ok=True)
        try:
            sample = self._sample(competitor, case, folder, site)
        except (DidNotRun, WrongBytes) as error:
            entry.problem = str(error)
            self.tell(f"    {competitor.name:16} {error}")
            return
        finally:
            if not competitor.keeps and len(case.files) < _MANY_FILES:
                shutil.rmtree(folder, ignore_errors=True)
        entry.samples.append(sample)
        self.tell(f"    {competitor.name:16} {sample.wall_s:8.2f} s {sample.peak_bytes / MIB:8.0f} MiB")

    def _sample(self, competitor: Competitor, case: Case, folder: Path, site: Site) -> Sample:
        with competitor.ready(case, folder) as step:
            touch_memory(folder, case.total_bytes)
            site.warm(case)
            _flush(folder)
            before, busy_s = site.spent(), machine_cpu_s()
            usage = measure(step, folder)
            busy_s = machine_cpu_s() - busy_s
            sync_s = 0.0 if competitor.durable else _flush(folder)
            spent: Spent = site.spent() - before
            competitor.check(case, folder, usage.stdout)
        return Sample(
            wall_s=usage.wall_s,
            sync_s=sync_s,
            cpu_s=usage.cpu_s,
            peak_bytes=usage.peak_bytes,
            tree_bytes=usage.tree_bytes,
            server_cpu_s=spent.cpu_s,
            requests=spent.requests,
            others_cpu_s=max(0.0, busy_s - usage.cpu_s - spent.cpu_s),
            engine_s=competitor.engine_s(usage.stdout),
        )


def touch_memory(folder: Path, size_bytes: int) -> None:
    """Write and delete so much, twice over, so that the host has given us the memory before the clock runs."""
    piece = bytes(8 * MIB)
    path = folder / "touched"
    with path.open("wb", buffering=0) as file:
        for _ in range(2 * size_bytes // len(piece)):
            file.write(piece)
    path.unlink()


def empty_cache(folder: Path) -> None:
    """Let the kernel read what the server sends into large pieces of memory (drop_caches, compact_memory: proc(5)).

    What was written while memory was in pieces lies in small ones, and nginx then needs up to four times the processor
    time to send it, which is charged to everybody in the work, but not to everybody alike. Only root can do it.
    """
    _flush(folder)
    for name, word in (("drop_caches", "3"), ("compact_memory", "1")):
        with contextlib.suppress(OSError):
            Path(f"/proc/sys/vm/{name}").write_text(word)


def _flush(folder: Path) -> float:
    """Write everything in the folder's file system to the disk; the seconds that it took."""
    started_s = time.monotonic()
    subprocess.run(["sync", "-f", folder], check=True)
    return time.monotonic() - started_s
