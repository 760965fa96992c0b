"""bench/pull: every competitor really fetches the right bytes, and what it says of them is true."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from bench import environments
from bench.answers import Answer, children, read_answers
from bench.case import PROJECT, Case, Competitor, DidNotRun, Step, WrongBytes, check_files
from bench.competitors import Limit, OursWithoutSegments
from bench.content import KIB, MIB, Content
from bench.kills import Ended, Killer, Kills, KillsResult, Life, Trial, report_kills, section_of_kills
from bench.measure import measure
from bench.profile_run import _called
from bench.record import Finding, Heading, Record, Result, Section, Stamp, load_record
from bench.report import report, write
from bench.rounds import Entry, Rounds, Sample
from bench.site import Site
from bench.works import AGAIN, CARELESS, LS_REMOTE, NO_SEGMENTS, OURS, Target, Work, works
from mirrortools.segments import SEGMENT_BYTES, Segments

TWO = Content(2, 64 * KIB)
ONE = Content(1, 64 * KIB)
SINGLE = ("curl-openssl",)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("bench") / "site") as running:
        yield running


@pytest.fixture
def rounds(tmp_path: Path) -> Rounds:
    return Rounds(tmp_path / "targets", 1, lambda _text: None)


def everyone(road: str) -> list[Competitor]:
    """All who compete on a road, each once."""
    found = {c.name: c for work in works() if work.road == road and not work.copies for c in work.competitors}
    return list(found.values())


@pytest.mark.parametrize("road", ["plain", "tls", "limited"])
def test_every_competitor_fetches_every_byte(road: str, site: Site, rounds: Rounds) -> None:
    """Whoever competes on a road ends well, with the files that the server has: the rounds check each hash."""
    environments.make("olah")
    several = tuple(c for c in everyone(road) if c.name not in SINGLE)
    alone = tuple(c for c in everyone(road) if c.name in SINGLE)
    entries = rounds.run(Work("tiny", "Tiny", TWO, several, road=road), site)
    entries += rounds.run(Work("one", "One", ONE, alone, road=road), site)

    assert {entry.competitor.name: entry.problem for entry in entries if entry.problem} == {}
    assert all(len(entry.samples) == 1 for entry in entries)
    for entry in entries:
        (sample,) = entry.samples
        least = 0 if entry.competitor.name in ("openssl", "hashlib", "hashlib-2") else 1
        assert sample.requests >= least, entry.competitor.name


def test_nothing_changed_is_really_nothing(site: Site, rounds: Rounds) -> None:
    """The measured sync is the second one; it asks each repository once, where ls-remote asks twice."""
    work = Work("unchanged", "Unchanged", ONE, (AGAIN, LS_REMOTE), copies=3)
    ours, alone = replace(rounds, count=2).run(work, site)

    assert (ours.problem, alone.problem) == ("", "")
    assert [sample.requests for sample in ours.samples] == [3, 3]
    assert [sample.requests for sample in alone.samples] == [6, 6]


def test_wrong_bytes_are_seen(site: Site, tmp_path: Path) -> None:
    """A file that is missing, that is short, or that has one wrong bit, is not taken for the right one."""
    site.publish(ONE)
    case = site.case("plain", ONE)
    (path,) = case.files
    right = case.served(path).read_bytes()
    file = tmp_path / "file"
    for content in (right[:-1], right[:-1] + bytes([right[-1] ^ 1])):
        file.write_bytes(content)

        with pytest.raises(WrongBytes, match=path):
            check_files(case, {path: file})
    with pytest.raises(WrongBytes, match=path):
        check_files(case, {})
    file.write_bytes(right)
    check_files(case, {path: file})


def test_two_runs_do_not_share_a_folder(site: Site) -> None:
    """The second one is refused, and the first goes on."""
    with pytest.raises(SystemExit, match="another run works in"), Site(site.folder):
        pass
    site.publish(ONE)

    assert site.case("plain", ONE).total_bytes == ONE.total_bytes


def test_a_command_that_fails_did_not_run(tmp_path: Path) -> None:
    """Its complaint is the reason that the report gives."""
    with pytest.raises(DidNotRun, match=r"ended with 3: no luck"):
        measure(Step(["sh", "-c", "echo no luck >&2; exit 3"], {}), tmp_path)


def test_memory_is_that_of_the_command(tmp_path: Path) -> None:
    """The peak is the child's own: neither ours nor that of the shell before it."""
    usage = measure(Step(["sleep", "0"], {"PATH": "/usr/bin:/bin"}), tmp_path)

    assert usage.peak_bytes < 20 * 1024 * KIB


def sample(wall_s: float, sync_s: float = 0.0) -> Sample:
    return Sample(wall_s, sync_s, 1.0, 32 * 1024 * KIB, 0, 0.5, 2)


HEADING = Heading("today", {"Memory": "24 GiB"}, {"git": "2"})


def record_of(work: Work, entries: list[Entry], took_s: float = 0.0) -> Record:
    return Record(HEADING).with_result(Result(work, entries, took_s, Stamp("today", "bench/pull", "commit 1")))


def test_the_report_says_what_is_met() -> None:
    """Ratios are taken round by round; each comparison has its own verdict; problems are named."""
    fetch, pull = (next(c for c in everyone("plain") if c.name == f"git-lfs-{verb}") for verb in ("fetch", "pull"))
    targets = (Target("git-lfs-fetch", 1 / 4), Target("git-lfs-pull", 1 / 10))
    work = Work("one-blob", "One blob", ONE, (OURS, fetch, pull), targets)
    entries = [
        Entry(OURS, [sample(2.0), sample(1.0), sample(2.0)]),
        Entry(fetch, [sample(8.0, 2.0), sample(2.0, 2.0), sample(8.0, 2.0)]),
        Entry(pull, problem="no such host"),
    ]
    text = report(record_of(work, entries, 90.0))

    assert "| git-lfs-fetch | ≥ 4× faster | 4.00 (2.00–4.00)× faster: met | 5.00 (4.00–5.00)× faster: met |" in text
    assert "`git-lfs-pull` did not run: no such host" in text
    assert "| ≤ 64 MiB |  | 32 MiB: met |" in text


def test_the_report_lists_every_run_and_what_the_budget_allows() -> None:
    """No run is hidden behind a median; the budget makes looking at many slow, and that is told."""
    work = Work("unchanged-2", "Unchanged", ONE, (AGAIN, LS_REMOTE), copies=2)
    entries = [Entry(AGAIN, [sample(2.0), sample(1.0), sample(4.0)]), Entry(LS_REMOTE, [sample(1.5, 0.25)])]
    text = report(record_of(work, entries, 90.0))

    assert "| 2.00 (1.00–4.00) | 2.00 · 1.00 · 4.00 |" in text
    assert "| 1.50 | 1.50+0.25 |" in text
    assert "it took 1.5 minutes" in text
    assert "1.00 questions a repository" in text
    assert "20 windows: 1.7 hours" in text


def test_segment_hashes_are_held_against_the_same_without_them() -> None:
    """Another kind of ours is compared with fsync off on both sides, and there alone."""
    work = Work("one-blob", "One", ONE, (OURS, CARELESS, NO_SEGMENTS), (Target("ours-no-segments", 1.15),))
    entries = [Entry(OURS, [sample(9.0)]), Entry(CARELESS, [sample(1.1)]), Entry(NO_SEGMENTS, [sample(1.0, 7.0)])]

    assert "| ours-no-segments | ≤ 1.15× its time | 1.10× its time: met |  |" in report(record_of(work, entries))


def test_segment_hashes_are_really_off(site: Site, rounds: Rounds) -> None:
    """The stand-in is found where xxhash would be; real hashes are taken for a run that went wrong."""
    (off,) = rounds.run(Work("off", "Off", Content(1, 16 * MIB), (NO_SEGMENTS,)), site)
    (on,) = rounds.run(Work("on", "On", Content(1, 16 * MIB), (Pretending(),)), site)

    assert off.problem == ""
    assert "the stand-in was not used" in on.problem


class Pretending(OursWithoutSegments):
    """One that does as if it had no segment hashes."""

    @contextmanager
    def ready(self, case: Case, folder: Path) -> Iterator[Step]:
        yield self.ours.step(case, folder)


def test_what_is_required_stands_on_top() -> None:
    """A row for each number: measured and judged, or said not to be measured."""
    work = next(work for work in works() if work.name == "limited")
    aria2 = next(c for c in work.competitors if c.name == "aria2-x16")
    entries = [Entry(OURS, [sample(3.0)]), Entry(CARELESS, [sample(2.0)]), Entry(aria2, [sample(2.0, 0.5)])]
    killed = Section("## Kills", Stamp(), (Finding("killed", "≤ 1", "2 of 2", True),))
    text = report(record_of(work, entries).with_section("kills", killed))
    table = text.partition("## What is required")[2].partition("## One blob")[0]

    assert f"| {work.title} | aria2-x16 | not slower | 1.00× its time | 1.20× its time | **in part** |" in table
    assert "| One blob of 2 GiB | openssl | ≤ 1.25× its time | not measured |" in table
    assert "| memory of the process, every work |  | ≤ 64 MiB |  | 32 MiB (limited) | met |" in table
    assert "| killed |  | ≤ 1 |  | 2 of 2 | met |" in table


def test_looking_at_many_is_linear_or_not() -> None:
    """The two largest numbers of repositories are compared."""
    record = Record(HEADING)
    for copies, wall_s in ((1, 1.0), (100, 2.0), (1000, 30.0)):
        work = Work(f"unchanged-{copies}", "Unchanged", ONE, (AGAIN, LS_REMOTE), copies=copies)
        record = record.with_result(Result(work, [Entry(AGAIN, [sample(wall_s)])]))

    assert "each of 1,000 costs 1.50× what each of 100 costs: **not met**" in report(record)


def test_a_run_replaces_its_own_works_and_keeps_the_others(tmp_path: Path) -> None:
    """What an earlier run measured stays in the report, with its own command and commit."""
    one, medium = (next(work for work in works() if work.name == name) for name in ("one-blob", "many-medium"))
    earlier = Result(one, [Entry(OURS, [sample(2.0)])], 1.0, Stamp("yesterday", "bench/pull", "commit 1"))
    later = Result(medium, [Entry(OURS, [sample(3.0)], "no luck")], 1.0, Stamp("today", "bench/pull -x", "commit 2"))
    output = tmp_path / "RESULTS.md"
    write(Record(HEADING).with_result(earlier).with_section("kills", Section("## Kills")), output)
    write(load_record(output, HEADING).with_result(later), output)
    kept = load_record(output, HEADING)

    assert kept.results["one-blob"] == earlier
    assert kept.results["many-medium"] == later
    assert "`bench/pull` on yesterday, commit 1;" in output.read_text()
    assert "`bench/pull -x` on today, commit 2;" in output.read_text()
    assert "## Kills" in output.read_text()


def test_a_work_that_is_no_more_is_left_out(tmp_path: Path) -> None:
    """Its numbers could be held against nothing."""
    gone = Limit("gone", "A competitor of old")
    work = next(work for work in works() if work.name == "one-blob")
    entries = [Entry(OURS, [sample(2.0)]), Entry(gone, [sample(1.0)])]
    record = Record(HEADING).with_result(Result(work, entries))
    record.with_result(Result(Work("old", "Old", ONE, (OURS,)), [])).save(tmp_path / "RESULTS.md")
    kept = load_record(tmp_path / "RESULTS.md", HEADING)

    assert [entry.competitor.name for entry in kept.results["one-blob"].entries] == ["ours"]
    assert [*kept.results] == ["one-blob"]


def test_the_log_tells_what_was_asked_and_sent() -> None:
    """A Range counts when it was answered as one; a line of another form is not passed over."""
    lines = [
        '206 70 "bytes=100-199" "GET /blobs/a HTTP/1.1"\n',
        '200 900 "bytes=100-199" "GET /blobs/b HTTP/1.1"\n',
        '200 5 "-" "GET /x HTTP/1.1"\n',
        '400 0 "-" ""\n',
    ]

    assert read_answers(lines) == [
        Answer("/blobs/a", 206, 70, 100, 200),
        Answer("/blobs/b", 200, 900),
        Answer("/x", 200, 5),
        Answer("", 400, 0),
    ]
    with pytest.raises(ValueError, match="not a line"):
        read_answers(["something else\n"])


FOUR = Segments(4 * SEGMENT_BYTES)
KILLED, ENDED = Ended(True, 1.0, 0.5), Ended(False, 1.0, 0.5)


def life(ended: Ended, before: set[int], after: set[int], *answers: Answer) -> Life:
    return Life(ended, frozenset(before), frozenset(after), answers, FOUR)


def part(first: int, stop: int, sent_bytes: int | None = None) -> Answer:
    """An answer of the segments [first, stop), of which all was sent or so much."""
    asked = (stop - first) * SEGMENT_BYTES
    return Answer(
        "/blob", 206, asked if sent_bytes is None else sent_bytes, first * SEGMENT_BYTES, stop * SEGMENT_BYTES
    )


def test_what_was_in_flight_may_be_fetched_again() -> None:
    """A kill loses what was sent and not journaled, on each connection; the rest is fetched once."""
    killed = life(KILLED, set(), {0, 2}, part(0, 2, SEGMENT_BYTES + 1000), part(2, 4, SEGMENT_BYTES))
    trial = Trial([killed, life(ENDED, {0, 2}, {0, 1, 2, 3}, part(1, 2), part(3, 4))])

    assert (killed.lost_bytes, killed.under_way, killed.was_hit) == (1000, 2, True)
    assert trial.ratio == 1 + 1000 / FOUR.size <= trial.bound
    assert trial.problem == ""


@pytest.mark.parametrize(
    ("lives", "problem"),
    [
        ([life(KILLED, set(), {0}, part(0, 1)), life(ENDED, {0}, {0, 1, 2, 3}, part(0, 4))], "asked again for the"),
        ([life(KILLED, set(), set(), part(0, 4, 1 << 40))], "in flight"),
        ([life(KILLED, {0}, {0}, Answer("/blob", 206, 9, 0, 9))], "asked again for the journaled segments"),
        ([life(ENDED, set(), {0, 1, 2, 3}, part(0, 4), part(3, 4))], "bytes too many"),
    ],
)
def test_a_byte_too_many_is_seen(lives: list[Life], problem: str) -> None:
    """Journaled segments that are fetched again, more than was in flight, and waste without a kill are problems."""
    assert problem in Trial(lives).problem


def test_what_was_sent_is_counted_also_when_the_server_notices_late_that_its_client_is_gone(site: Site) -> None:
    """The kernel forgets a connection that is reset; the server logs what it has sent when it gets to it."""
    content = Content(1, 32 * MIB)
    site.publish(content)
    case = site.case("plain", content)
    ((digest, _),) = case.files.values()
    path, position = f"/blobs/sha256/{digest[:2]}/{digest[2:4]}/{digest}", site.log_position()
    workers = children(site._server.pid)
    with socket.create_connection(("127.0.0.1", urlsplit(site.url("plain")).port)) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert client.recv(1000)
        for worker in workers:
            os.kill(worker, signal.SIGSTOP)
    wakes = threading.Timer(0.3, lambda: [os.kill(worker, signal.SIGCONT) for worker in workers])
    wakes.start()
    site.settle()

    assert [each.path for each in site.answers_since(position)] == [path]
    wakes.join()


def test_kills_at_random_moments(site: Site, tmp_path: Path) -> None:
    """A sync that is killed and started again brings every byte, and none twice but what was in flight."""
    work = Kills(Content(1, 32 * MIB), trials=3, seed=7)
    result = Killer(tmp_path / "targets", site, lambda _text: None).run(work)

    assert result.problems == []
    assert len(result.trials) == 3
    assert all(trial.kills and 1 <= trial.ratio <= trial.bound for trial in result.trials)
    assert "`bench/pull --work kills --trials 3 --seed 7`" in report_kills(result)
    (finding,) = section_of_kills(result, Stamp()).findings
    assert finding.is_met
    assert finding.measured.startswith("3 of 3 trials")


def test_trials_that_were_not_made_are_not_met() -> None:
    """A run of kills that broke off has proven nothing."""
    (finding,) = section_of_kills(KillsResult(Kills(ONE, 3, 7), [], ["broke"]), Stamp()).findings

    assert not finding.is_met


def test_every_work_has_ours_and_whom_it_is_held_against() -> None:
    """A requirement against somebody who does not compete would never be seen."""
    for work in works():
        names = [competitor.name for competitor in work.competitors]

        assert names[0] == "ours"
        assert {target.against for target in work.targets} <= set(names)
        assert set(work.most_rounds) <= set(names)


def test_a_case_knows_one_repository_or_many() -> None:
    """Asking for the only repository of several is a mistake of the caller."""
    with pytest.raises(ValueError, match="too many"):
        _ = Case("http://127.0.0.1", ["a/b", "c/d"], Path("/nowhere")).repo


def test_a_run_that_is_over_soon_is_profiled_from_its_first_import_on(tmp_path: Path) -> None:
    """By module, and by function of ours with all that it called."""
    stats = tmp_path / "stats"
    done = subprocess.run(
        [sys.executable, PROJECT / "bench" / "called.py", stats, "--version"],
        capture_output=True,
        text=True,
        cwd=PROJECT,
    )
    lines = "\n".join(_called(stats))

    assert (done.returncode, done.stdout.split()[0]) == (0, "mirrortool"), done.stderr
    assert "mirrortools/cli/__init__.py:1 <module>" in lines
    assert str(PROJECT) not in lines
