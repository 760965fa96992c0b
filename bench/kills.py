"""Kill `mirrortool sync` at random moments until it ends, and count at the server what was fetched in all.

What is in flight at a kill, and may be fetched again: the segments that were begun and are not in the journal, and
what stood in socket buffers. A segment that the journal names is never asked for again.
"""

from __future__ import annotations

import random
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from bench.answers import Answer, most_buffered_bytes
from bench.case import Case, DidNotRun, Step, WrongBytes, one_line
from bench.competitors import Ours
from bench.content import MIB, Content
from bench.measure import running
from bench.record import Finding, Section, Stamp
from bench.site import Site
from mirrortools.segments import SEGMENT_BYTES, Segments, read_journal

NAME = "kills"
TRIALS = 50
SIZE_BYTES = 256 * MIB
_LEAST_TRIALS, _LEAST_BYTES = 3, 64 * MIB
_MOST_KILLS = 10
_MOST_ESCAPES = 20
_WHOLE_RUNS = 3
_LOOK_S = 0.002
_TIMEOUT_S = 300
# Writers are held when so many segments wait for their hash; what is hashed is journaled (mirrortools.partial).
_WAITING_SEGMENTS = 3


@dataclass(frozen=True, slots=True)
class Moment:
    """When to kill: so long after the start, or after the blob has begun to come."""

    after_s: float
    since_begun: bool = False


@dataclass(frozen=True, slots=True)
class Lasted:
    """How long a sync takes that nobody kills: in all, and from the moment that the blob has begun to come."""

    whole_s: float
    begun_s: float


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended: by a kill or by itself, after so long, and so long after the blob had begun to come."""

    killed: bool
    took_s: float
    begun_s: float


@dataclass(frozen=True, slots=True)
class Life:
    """One start of `mirrortool sync`, to its end or to its kill, and what the server counted of the blob meanwhile.

    `before` and `after` are the segments that the journal named when it began and when it was dead.
    """

    ended: Ended
    before: frozenset[int]
    after: frozenset[int]
    answers: Sequence[Answer]
    segments: Segments

    @property
    def killed(self) -> bool:
        return self.ended.killed

    @property
    def sent_bytes(self) -> int:
        return sum(answer.sent_bytes for answer in self.answers)

    @property
    def lost_bytes(self) -> int:
        """What was sent, and is in no segment that this life has journaled: in flight when it was killed."""
        return self.sent_bytes - sum(_length(self.segments, index) for index in self.after - self.before)

    @property
    def was_hit(self) -> bool:
        """Whether the kill came while the blob was on its way."""
        return self.killed and bool(self.answers) and len(self.after) < self.segments.count

    @property
    def under_way(self) -> int:
        """How many requests had begun to be answered, and had a segment that is not journaled."""
        return sum(bool(a.sent_bytes) and not self._asked(a) <= self.after for a in self.answers)

    @property
    def most_in_flight_bytes(self) -> int:
        """What may be in flight at the kill: for each request under way a segment and the socket buffers."""
        if not self.under_way:
            return 0
        begun = (self.under_way + _WAITING_SEGMENTS) * self.segments.length
        return begun + self.under_way * most_buffered_bytes()

    @property
    def fetched_again(self) -> frozenset[int]:
        """Segments that were asked for although the journal named them before."""
        return frozenset(index for answer in self.answers for index in self._asked(answer) & self.before)

    def _asked(self, answer: Answer) -> frozenset[int]:
        """The segments of which an answer was to bring something."""
        stop = self.segments.size if answer.stop is None else answer.stop
        return frozenset(range(self.segments.index(answer.start), self.segments.index(stop - 1) + 1))


@dataclass(frozen=True, slots=True)
class Trial:
    """The lives that one sync took; the last one ended by itself, with the right bytes."""

    lives: Sequence[Life]

    @property
    def kills(self) -> int:
        return sum(life.killed for life in self.lives)

    @property
    def hits(self) -> int:
        return sum(life.was_hit for life in self.lives)

    @property
    def ratio(self) -> float:
        """The bytes of the blob that the server sent in all, by its size."""
        return sum(life.sent_bytes for life in self.lives) / self.lives[0].segments.size

    @property
    def bound(self) -> float:
        """What the ratio may be: 1, and what may have been in flight at each kill."""
        return 1 + sum(life.most_in_flight_bytes for life in self.lives if life.killed) / self.lives[0].segments.size

    @property
    def problem(self) -> str:
        """What is not as it has to be; empty when nothing."""
        for number, life in enumerate(self.lives, 1):
            if life.fetched_again:
                return f"life {number} asked again for the journaled segments {sorted(life.fetched_again)}"
            if life.killed and life.lost_bytes > life.most_in_flight_bytes:
                return f"life {number} lost {life.lost_bytes} bytes, more than {life.most_in_flight_bytes} in flight"
            if not life.killed and life.lost_bytes:
                return f"life {number} was not killed and fetched {life.lost_bytes} bytes too many"
        return "" if self.ratio <= self.bound else f"{self.ratio:.3f} is more than {self.bound:.3f}"


@dataclass(frozen=True, slots=True)
class Kills:
    """The work: a blob of `content`, killed in so many trials at moments that `seed` chooses."""

    content: Content
    trials: int
    seed: int

    @property
    def title(self) -> str:
        return f"One blob of {self.content.size_bytes // MIB} MiB, killed at random moments, {self.trials} trials"


@dataclass(slots=True)
class KillsResult:
    """What became of it; `problems` names every trial that was not as it has to be."""

    work: Kills
    trials: list[Trial] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    lasted: Lasted = Lasted(0.0, 0.0)
    took_s: float = 0.0


def kills(scale: float, trials: int | None, seed: int | None) -> Kills:
    """The work at a scale; a seed is chosen unless one is given."""
    size_bytes = max(_LEAST_BYTES, round(SIZE_BYTES * scale / MIB) * MIB)
    count = max(_LEAST_TRIALS, round(TRIALS * min(scale, 1))) if trials is None else trials
    return Kills(Content(1, size_bytes), count, random.randrange(1 << 32) if seed is None else seed)


@dataclass(frozen=True, slots=True)
class Killer:
    """Runs the trials in `folder`."""

    folder: Path
    site: Site
    tell: Callable[[str], None]

    def run(self, work: Kills) -> KillsResult:
        """All trials. What fails is a problem of the result, and ends it when the program itself failed."""
        began_s, result = time.monotonic(), KillsResult(work)
        self.site.publish(work.content)
        case = self.site.case("plain", work.content)
        chance = random.Random(work.seed)
        try:
            result.lasted = self._lasted(case)
            for number in range(1, work.trials + 1):
                trial = self._killed(case, chance, result.lasted)
                result.trials.append(trial)
                result.problems += [f"trial {number}: {trial.problem}"] if trial.problem else []
                self.tell(f"    trial {number:3} {trial.ratio:8.3f} after {trial.hits} hits of {trial.kills} kills")
        except (DidNotRun, WrongBytes) as error:
            result.problems.append(f"trial {len(result.trials) + 1}: {error}")
        result.took_s = time.monotonic() - began_s
        return result

    def _lasted(self, case: Case) -> Lasted:
        """The medians of three syncs that nobody kills."""
        self.site.warm(case)
        trials = [self._lives(case, lambda: None) for _ in range(_WHOLE_RUNS)]
        if problem := next((trial.problem for trial in trials if trial.problem), ""):
            raise WrongBytes(problem)
        ends = [trial.lives[0].ended for trial in trials]
        return Lasted(statistics.median(e.took_s for e in ends), statistics.median(e.begun_s for e in ends))

    def _killed(self, case: Case, chance: random.Random, lasted: Lasted) -> Trial:
        """A trial with one kill at least: a sync that ended before its moment is none. Raises DidNotRun."""
        for _ in range(_MOST_ESCAPES):
            trial = self._lives(case, lambda: _choose(chance, lasted))
            if trial.kills or trial.problem:
                return trial
        raise DidNotRun(f"{_MOST_ESCAPES} syncs in succession ended before they were to be killed")

    def _lives(self, case: Case, moment: Callable[[], Moment | None]) -> Trial:
        """Start, kill and start again until a sync ends by itself, and look at what it brought."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        ours = Ours()
        step = ours.step(case, self.folder)
        lives: list[Life] = []
        while not lives or lives[-1].killed:
            lives.append(self._life(case, step, moment() if len(lives) < _MOST_KILLS else None))
        ours.check(case, self.folder, (self.folder / "stdout").read_text())
        shutil.rmtree(self.folder)
        return Trial(lives)

    def _life(self, case: Case, step: Step, moment: Moment | None) -> Life:
        ((digest, size),) = case.files.values()
        segments, blob = Segments(size), f"{digest[:2]}/{digest[2:4]}/{digest}"
        before, position = self._journaled(digest, segments), self.site.log_position()
        ended = run_and_kill(step, self.folder, moment, self._journal(digest))
        self.site.settle()
        answers = [a for a in self.site.answers_since(position) if a.path.endswith(f"/sha256/{blob}")]
        return Life(ended, before, self._journaled(digest, segments), answers, segments)

    def _journal(self, digest: str) -> Path:
        return self.folder / "root" / "state" / "partial" / f"{digest}.journal"

    def _journaled(self, digest: str, segments: Segments) -> frozenset[int]:
        """The segments that the next run will find: all when the blob is in the store."""
        blobs = self.folder / "root" / "public" / "blobs" / "sha256"
        if (blobs / digest[:2] / digest[2:4] / digest).exists():
            return frozenset(range(segments.count))
        journal = self._journal(digest)
        return frozenset(read_journal(journal.read_text(), segments)) if journal.exists() else frozenset()


def _choose(chance: random.Random, lasted: Lasted) -> Moment:
    """Every second moment lies in the whole of a sync, every other one where the blob comes."""
    if chance.random() < 0.5:
        return Moment(chance.uniform(0, lasted.whole_s))
    return Moment(chance.uniform(0, lasted.begun_s), since_begun=True)


def run_and_kill(step: Step, folder: Path, moment: Moment | None, journal: Path) -> Ended:
    """Run a step, and kill its process group at a moment if it did not end before. Raises DidNotRun.

    The blob has begun to come when its journal is there, and is another file than before: each run writes it anew.
    """
    old = _inode(journal)
    with running(step, folder / "stdout", folder / "stderr") as child:
        ended = _watch(child, moment, lambda: _inode(journal) not in (0, old))
    if child.returncode == 0 or ended.killed:
        return ended
    raise DidNotRun(f"{step.command[0]} ended with {child.returncode}: {(folder / 'stderr').read_text()[-2000:]}")


def _watch(child: subprocess.Popen[bytes], moment: Moment | None, has_begun: Callable[[], bool]) -> Ended:
    """Wait for the moment, or for the child's own end."""
    began_s = time.monotonic()
    begun_s: float | None = None
    while True:
        with suppress(subprocess.TimeoutExpired):
            child.wait(_LOOK_S)
        now_s = time.monotonic() - began_s
        if begun_s is None and has_begun():
            begun_s = now_s
        since_begun_s = 0.0 if begun_s is None else now_s - begun_s
        if child.returncode is not None:
            return Ended(False, now_s, since_begun_s)
        if moment and (since_begun_s if moment.since_begun else now_s) > moment.after_s:
            return Ended(True, now_s, since_begun_s)
        if now_s > _TIMEOUT_S:
            raise DidNotRun(f"a sync took more than {_TIMEOUT_S} s")


def _inode(path: Path) -> int:
    with suppress(FileNotFoundError):
        return path.stat().st_ino
    return 0


def _length(segments: Segments, index: int) -> int:
    start, stop = segments.bounds(index)
    return stop - start


def section_of_kills(result: KillsResult, stamp: Stamp) -> Section:
    """The section of the report, and the number that is required."""
    return Section(report_kills(result), stamp, (_finding(result),))


def _finding(result: KillsResult) -> Finding:
    trials = result.trials
    within = sum(trial.ratio <= trial.bound for trial in trials)
    worst = f", worst {max(trial.ratio for trial in trials):.3f}" if trials else ""
    is_met = len(trials) == result.work.trials == within and not result.problems
    required = "sent / size ≤ 1 + in flight at the kills / size"
    return Finding(result.work.title, required, f"{within} of {result.work.trials} trials{worst}", is_met)


def report_kills(result: KillsResult) -> str:
    """The section as text."""
    work, trials = result.work, result.trials
    seeded = f"--work {NAME} --trials {work.trials} --seed {work.seed}"
    lines = [f"## {work.title}", "", f"`bench/pull {seeded}`; it took {result.took_s / 60:.1f} minutes", ""]
    lines += [_ABOUT]
    if trials:
        lines += [*_summary(trials, result.lasted), ""]
        lines += ["Each trial, as *ratio (hits/kills; bound)*:", "", "; ".join(map(_brief, trials)), ""]
    lines += [f"- **{one_line(problem)}**" for problem in result.problems]
    return "\n".join([*lines, ""])


_ABOUT = f"""\
`mirrortool sync` is killed (SIGKILL, the process group), started again, killed again, until it ends; what it brought
is then compared. Half of the moments are equally likely anywhere in the time that a whole sync takes, half of them
anywhere between the blob's beginning and the end. The ratio is the sum of `$body_bytes_sent` of the blob's requests in
nginx's log by the blob's size; nginx counts what it gave to the kernel.

*In flight* at a kill is what was sent and is in no segment that the journal names when the process is dead: segments
that a connection had begun, segments that were written and waited for their hash ({_WAITING_SEGMENTS} at most before
writers are held), and what stood in the socket buffers. The bound takes these at their largest, at each
kill: requests under way × (segment {SEGMENT_BYTES // MIB} MiB + the kernel's largest
`tcp_wmem` and `tcp_rmem`, here {most_buffered_bytes() // MIB} MiB) + waiting segments. A request was under way when the
server had sent some of it and a segment of its Range was not journaled.
"""


def _summary(trials: Sequence[Trial], lasted: Lasted) -> list[str]:
    ratios = [trial.ratio for trial in trials]
    lives = [life for trial in trials for life in trial.lives]
    lost = [life.lost_bytes / MIB for life in lives if life.was_hit]
    again = sum(len(life.fetched_again) for life in lives)
    within = sum(trial.ratio <= trial.bound for trial in trials)
    inside = sum(life.lost_bytes <= life.most_in_flight_bytes for life in lives if life.killed)
    kept = sum(len(life.before) for life in lives)
    rows = [
        ("sent by the server / size", f"median {statistics.median(ratios):.3f}, worst {max(ratios):.3f}"),
        ("kills, and those that hit a running transfer", f"{sum(t.kills for t in trials)}, {len(lost)}"),
        ("in flight at a kill that hit, MiB", _lost(lost)),
        (
            "connections under way at a kill that hit, most",
            str(max((e.under_way for e in lives if e.was_hit), default=0)),
        ),
        (
            "trials within 1 + (in flight at the kills) / size",
            f"{within} of {len(trials)}: {_verdict(within == len(trials))}",
        ),
        ("kills that lost no more than may be in flight", f"{inside} of {sum(t.kills for t in trials)}"),
        ("journaled segments asked for again", f"{again} of {kept} that a later run found: {_verdict(again == 0)}"),
        (
            "a sync that nobody kills, s",
            f"{lasted.whole_s:.2f}, {lasted.begun_s:.2f} of them from the blob's beginning",
        ),
    ]
    return ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]


def _lost(lost: Sequence[float]) -> str:
    return f"median {statistics.median(lost):.1f}, most {max(lost):.1f}" if lost else "none was hit"


def _verdict(is_met: bool) -> str:
    return "met" if is_met else "**not met**"


def _brief(trial: Trial) -> str:
    return f"{trial.ratio:.3f} ({trial.hits}/{trial.kills}; {trial.bound:.2f})"
