"""Fetching: whatever the sources do, the store gets the right bytes or none, and somebody says why."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Semaphore
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrortools import fetch as module
from mirrortools import flow
from mirrortools.desk import Desk, Progress
from mirrortools.errors import (
    AccessDenied,
    IntegrityError,
    MirrorError,
    NoSpace,
    RateLimited,
    SourceMissing,
    SourceUnavailable,
    StoreError,
    UpstreamError,
)
from mirrortools.fetch import SHORT_SPAN_S, SPAN_S, fetch, span_s
from mirrortools.files import make_folder
from mirrortools.model import Blob
from mirrortools.partial import Partial
from mirrortools.places import Party, Places, Terms, seated
from mirrortools.store import Store, hash_file
from mirrortools.taking import Interrupted
from tests.delivery import git_blob, noise, sha256_blob
from tests.fakes import Clock, FakeReader, FakeSource, Faults
from tests.strategies import trials

SEGMENT = 64


def desk_for(root: Path, sources: Sequence[FakeSource], workers: int = 3) -> Desk:
    """A desk with small segments and a clock that does not make anybody wait."""
    clock, state = Clock(), root / "state"
    return Desk(
        Store(root), state / "partial", state / "quarantine", tuple(sources), workers, SEGMENT, clock, clock.wait
    )


def bring(desk: Desk, *contents: bytes, progress: Progress | None = None) -> None:
    """Fetch blobs under the names f0, f1 and so on."""
    fetch({sha256_blob(content): f"f{i}" for i, content in enumerate(contents)}, desk, progress or Progress())


class SlowHash:
    """A hash that takes long, of something that a run is told to stop at once."""

    def __init__(self, stopped: threading.Event) -> None:
        self.updates = 0
        self._stopped = stopped

    def update(self, _data: memoryview) -> None:
        """Take a segment."""
        self._stopped.set()
        self.updates += 1
        time.sleep(0.05)

    def hexdigest(self) -> str:
        """Nothing that anybody asked for."""
        return ""


@dataclass(frozen=True, slots=True)
class SlowBlob(Blob):
    """A blob that takes long to hash."""

    hashing: SlowHash | None = None

    def new_hash(self) -> Any:
        """Its running hash."""
        return self.hashing


def stored(desk: Desk, content: bytes) -> bytes | None:
    """What the store has under the name of `content`."""
    path = desk.store.path(sha256_blob(content))
    return path.read_bytes() if path.exists() else None


def descriptors() -> int:
    """How many files this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def faults() -> st.SearchStrategy[Faults]:
    """Any mix of faults."""
    passing = st.sampled_from([SourceUnavailable("down"), RateLimited("slow down", 3.0)])
    return st.builds(
        Faults,
        wrong=st.booleans(),
        cut_after=st.none() | st.integers(0, 400),
        at_most=st.sampled_from([1 << 30, 100, 7]),
        missing=st.booleans(),
        rangeless=st.booleans(),
        misplaced=st.booleans(),
        changes_after=st.sampled_from([0, 0, 1, 2, 5]),
        refusals=st.lists(passing, max_size=2).map(tuple),
    )


@given(
    st.lists(st.integers(0, 1500), min_size=1, max_size=4, unique=True),
    st.lists(faults(), min_size=1, max_size=4),
    st.integers(1, 4),
)
@trials(150)
def test_the_store_gets_right_bytes_or_none(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], chosen: list[Faults], workers: int
) -> None:
    """With one honest source among any others all comes; without one nothing wrong does; bytes are counted."""
    contents = [noise(size, seed=size) for size in sizes]
    sources = [FakeSource(f"s{i}", contents, fault) for i, fault in enumerate(chosen)]
    desk = desk_for(tmp_path_factory.mktemp("fetch"), sources, workers)
    progress, before = Progress(), descriptors()
    try:
        bring(desk, *contents, progress=progress)
        failed = False
    except MirrorError:
        failed = True

    assert not (failed and any(fault.honest for fault in chosen))
    for content in contents:
        assert stored(desk, content) in ((None, content) if failed else (content,))
    assert progress.fetched_bytes == sum(source.sent_bytes for source in sources)
    assert descriptors() == before
    assert [source.open_readers for source in sources] == [0] * len(sources)


def test_everything_comes_once_in_few_requests(tmp_path: Path) -> None:
    """A request asks for a worker's share of what is left, and sixteen segments at most; none is asked for twice."""
    content = noise(SEGMENT * 40 + 5)
    source = FakeSource("s", [content])
    desk = desk_for(tmp_path, [source])
    bring(desk, content)

    assert stored(desk, content) == content
    ranges = sorted((start, stop) for _, start, stop in source.asked)
    assert [start for start, _ in ranges] == [0, *(stop for _, stop in ranges[:-1])]
    assert ranges[-1][1] == len(content)
    assert 8 * SEGMENT < max(stop - start for start, stop in ranges) <= 16 * SEGMENT
    assert list(desk.partial.iterdir()) == []
    assert desk.store.path(sha256_blob(content)).stat().st_mode & 0o777 == 0o444


def test_what_git_names_is_fetched_and_verified_by_that_name(tmp_path: Path) -> None:
    """Large ones in segments, many small ones at once; a source with other bytes is found out."""
    large, small = noise(SEGMENT * 20 + 5, 1), [noise(100 + i, 10 + i) for i in range(20)]
    sources = [FakeSource("liar", [large, *small], Faults(wrong=True)), FakeSource("honest", [large, *small])]
    desk = desk_for(tmp_path, sources)
    fetch({git_blob(content): "f" for content in (large, *small)}, desk, Progress())

    assert all(desk.store.path(git_blob(content)).read_bytes() == content for content in (large, *small))


def test_who_lied_about_one_blob_is_asked_last_for_the_others(tmp_path: Path) -> None:
    """Otherwise each of them would come twice."""
    contents = [noise(SEGMENT * 3, 100 + i) for i in range(7)]
    liar, honest = FakeSource("liar", contents, Faults(wrong=True)), FakeSource("honest", contents)
    terms = {name: Terms(name) for name in ("liar", "honest")}
    desk = replace(desk_for(tmp_path, [liar, honest], workers=1), terms=terms)
    bring(desk, *contents)

    assert all(stored(desk, content) == content for content in contents)
    assert liar.sent_bytes < 4 * SEGMENT * 3


def test_a_liar_is_found_out_though_another_source_gave_most(tmp_path: Path) -> None:
    """Bytes of two sources are mixed and wrong: each is then asked alone, until one is right."""
    content = noise(SEGMENT * 24)
    liar = FakeSource("liar", [content], Faults(wrong=True, cut_after=SEGMENT * 15))
    honest = FakeSource("honest", [content])
    desk = desk_for(tmp_path, [liar, honest], workers=1)
    bring(desk, content)

    assert stored(desk, content) == content
    assert hash_file(desk.quarantine / sha256_blob(content).digest, "sha256") != sha256_blob(content).digest


def test_a_source_that_is_asked_alone_and_fails_gives_way(tmp_path: Path) -> None:
    """After a mixture that was wrong, the first source breaks off for ever; the second one is tried."""
    content = noise(SEGMENT * 20)
    broken = FakeSource("broken", [content], Faults(wrong=True, cut_after=SEGMENT + 1, rangeless=True))
    honest = FakeSource("honest", [content])
    desk = desk_for(tmp_path, [broken, honest])
    bring(desk, content)

    assert stored(desk, content) == content


@pytest.mark.parametrize("changes_after", [1, 2])
def test_a_file_that_changes_between_segments_is_fetched_anew_where_it_was_another_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, changes_after: int
) -> None:
    """The wrong whole costs the segments of the earlier file again, and nothing of the later one."""
    content = noise(SEGMENT * 40)
    source = FakeSource("s", [content], Faults(changes_after=changes_after))
    before = [(0, SEGMENT * 16), (SEGMENT * 16, SEGMENT * 32)]
    bring(desk := desk_for(tmp_path, [source], workers=1), content)

    assert stored(desk, content) == content
    assert [(start, stop) for _, start, stop in source.asked[3:]] == before[:changes_after]
    assert "f0 changed while it was fetched" in caplog.text
    assert not desk.quarantine.exists()


def test_a_file_that_changes_in_name_alone_costs_nothing(tmp_path: Path) -> None:
    """Another ETag of the same bytes, as after a copy: the SHA-256 of the whole decides, and no byte comes twice."""
    content = noise(SEGMENT * 40)

    class Copied(FakeSource):
        def _answer(self, blob: Blob, start: int, stop: int, is_old: bool) -> FakeReader:
            return replace(FakeSource._answer(self, blob, start, stop, False), version=f"{start}")

    source = Copied("s", [content])
    bring(desk := desk_for(tmp_path, [source]), content)

    assert stored(desk, content) == content
    assert source.sent_bytes == len(content)


def test_a_file_that_is_another_one_with_every_answer_ends_with_wrong_bytes(tmp_path: Path) -> None:
    """It is tried anew once, and no more."""
    content = noise(SEGMENT * 40)

    class Restless(FakeSource):
        def _answer(self, blob: Blob, start: int, stop: int, is_old: bool) -> FakeReader:
            return replace(FakeSource._answer(self, blob, start, stop, True), version=f"{len(self.asked)}")

    source = Restless("s", [content])
    with pytest.raises(IntegrityError):
        bring(desk_for(tmp_path, [source]), content)

    assert source.sent_bytes <= 3 * len(content)


def test_what_was_hashed_is_not_written_again(tmp_path: Path) -> None:
    """A liar that cannot seek sends the whole blob over segments that another source gave and that are hashed."""
    content = noise(SEGMENT * 3 + 1)
    brief = FakeSource("brief", [content], Faults(cut_after=SEGMENT * 2))
    liar = FakeSource("liar", [content], Faults(wrong=True, rangeless=True))
    desk = desk_for(tmp_path, [brief, liar], workers=1)
    bring(desk, content)

    assert stored(desk, content) == content


def test_an_error_of_wrong_bytes_says_file_expected_got_source_and_where_they_are(tmp_path: Path) -> None:
    """Nothing of it is left in partial: the copy in quarantine is the only one."""
    content = noise(300)
    wrong = content[:150] + bytes([content[150] ^ 0xFF]) + content[151:]
    desk = desk_for(tmp_path, [FakeSource("https://a.example/m", [content], Faults(wrong=True))])
    with pytest.raises(IntegrityError) as caught:
        bring(desk, content)

    for said in ("f0", sha256_blob(content).digest, sha256_blob(wrong).digest, "https://a.example/m", "quarantine"):
        assert said in str(caught.value)
    assert list(desk.partial.iterdir()) == []
    assert (desk.quarantine / sha256_blob(content).digest).read_bytes() == wrong


def test_a_pointer_that_says_empty_and_is_not_ends(tmp_path: Path) -> None:
    """A hostile pointer of size 0 needs no byte from anybody and must not be tried for ever."""
    lie = Blob("sha256", "0" * 64, 0)
    desk = desk_for(tmp_path, [FakeSource("s", [])])
    with pytest.raises(IntegrityError, match="its pointer says that it is empty"):
        fetch({lie: "f"}, desk, Progress())

    assert not desk.store.has(lie)


def test_an_empty_file_needs_no_source(tmp_path: Path) -> None:
    """The empty blob is made here."""
    source = FakeSource("s", [])
    desk = desk_for(tmp_path, [source])
    bring(desk, b"")

    assert stored(desk, b"") == b""
    assert source.asked == []


def test_two_sizes_of_one_digest_do_not_disturb_each_other(tmp_path: Path) -> None:
    """A pointer with a wrong size fails on its own; the blob of the right size is whole."""
    content = noise(SEGMENT * 40)
    right = sha256_blob(content)
    desk = desk_for(tmp_path, [FakeSource("s", [content])], workers=4)
    with pytest.raises(MirrorError):
        fetch({Blob("sha256", right.digest, 700): "lie", right: "right"}, desk, Progress())

    assert stored(desk, content) == content


def test_a_source_that_is_down_for_one_blob_is_not_tried_for_a_thousand(tmp_path: Path) -> None:
    """After three blobs in a row that no source gave, a run ends and says why."""
    contents = [noise(10, seed) for seed in range(200)]
    down = FakeSource("s", [], Faults(refusals=(SourceUnavailable("s: refused"),) * 5000))
    desk = desk_for(tmp_path, [down], workers=1)
    with pytest.raises(SourceUnavailable, match="s: refused"):
        bring(desk, *contents)

    assert len(down.asked) <= 4 * (module.GIVE_UP_AFTER + 2)


def test_what_is_passed_on_is_fetched_in_short_spans() -> None:
    """Unless asking for the next one takes long; and they are never longer than others."""
    assert span_s(0.01, is_passed_on=False) == span_s(3.0, is_passed_on=False) == SPAN_S
    assert span_s(0.01, is_passed_on=True) == SHORT_SPAN_S
    assert SHORT_SPAN_S < span_s(0.05, is_passed_on=True) < SPAN_S
    assert span_s(3.0, is_passed_on=True) == SPAN_S


def test_the_spans_of_a_blob_that_failed_are_not_asked_for(tmp_path: Path) -> None:
    """One span is enough to know that a blob is missing."""
    content = noise(SEGMENT * 16 * 50)
    source = FakeSource("s", [content], Faults(missing=True))
    with pytest.raises(SourceMissing, match=r"^f0: s: has no"):
        bring(desk_for(tmp_path, [source], workers=1), content)

    assert len(source.asked) <= 3


def test_a_blob_that_is_missing_does_not_hold_the_others(tmp_path: Path) -> None:
    """What can be had is stored, and the error is told afterwards."""
    contents = [noise(100, seed) for seed in range(20)]
    desk = desk_for(tmp_path, [FakeSource("s", contents[1:])])
    with pytest.raises(SourceMissing):
        bring(desk, *contents)

    assert [stored(desk, content) for content in contents[1:]] == contents[1:]


def test_a_pause_that_a_source_asks_for_is_kept_by_all_workers(tmp_path: Path) -> None:
    """After a 429 nobody asks before the time has passed, although there is much to ask for."""
    contents = [noise(SEGMENT * 16 * 4, seed) for seed in range(4)]
    clock, asked_at = Clock(), list[float]()

    class Limited(FakeSource):
        def open(self, blob: Blob, start: int, stop: int):  # type: ignore[no-untyped-def]
            asked_at.append(clock.now)
            return super().open(blob, start, stop)

    source = Limited("s", contents, Faults(refusals=(RateLimited("s: 429", 60.0),)))
    desk = replace(desk_for(tmp_path, [source], workers=1), clock=clock, wait=clock.wait)
    bring(desk, *contents)

    assert [stored(desk, content) for content in contents] == contents
    assert not [moment for moment in asked_at if 1000.0 < moment < 1060.0]


def test_a_pause_that_is_too_long_ends_the_run_at_once(tmp_path: Path) -> None:
    """A source that wants to be left alone for an hour is asked once, not once for each blob."""
    contents = [noise(10, seed) for seed in range(50)]
    source = FakeSource("s", contents, Faults(refusals=(RateLimited("s: 429", 3600.0),) * 100))
    with pytest.raises(RateLimited) as caught:
        bring(desk_for(tmp_path, [source], workers=1), *contents)

    assert caught.value.retry_after_s > 3000
    assert len(source.asked) == 1


def test_a_source_that_cuts_every_answer_gets_there_as_long_as_segments_arrive(tmp_path: Path) -> None:
    """Rounds that bring something do not count as failed ones."""
    content = noise(SEGMENT * 64)
    source = FakeSource("s", [content], Faults(cut_after=SEGMENT + SEGMENT // 2))
    desk = desk_for(tmp_path, [source], workers=1)
    bring(desk, content)

    assert stored(desk, content) == content


def test_a_source_without_ranges_is_read_through_once(tmp_path: Path) -> None:
    """One worker reads it from the beginning; the others find their segments done."""
    content = noise(SEGMENT * 16 * 10)
    source = FakeSource("s", [content], Faults(rangeless=True))
    desk = desk_for(tmp_path, [source], workers=4)
    bring(desk, content)

    assert stored(desk, content) == content
    assert source.sent_bytes <= len(content) + SEGMENT * 16 * 4


def test_no_access_is_not_asked_for_again(tmp_path: Path) -> None:
    """A denial for one blob ends the run: it would meet all of them."""
    contents = [noise(10, seed) for seed in range(50)]
    source = FakeSource("s", contents, Faults(refusals=(AccessDenied("s: HTTP 401"),) * 100))
    with pytest.raises(AccessDenied):
        bring(desk_for(tmp_path, [source], workers=1), *contents)

    assert len(source.asked) <= 3


def test_another_process_that_fetches_the_same_blob_is_waited_for(tmp_path: Path) -> None:
    """Two jobs share weights: the second neither writes into the first one's file nor fetches anything."""
    content = noise(500)
    source = FakeSource("s", [content])
    desk = desk_for(tmp_path, [source])
    desk.partial.mkdir(parents=True)
    part = desk.partial / f"{sha256_blob(content).digest}.part"
    other = os.open(part, os.O_RDWR | os.O_CREAT)
    fcntl.flock(other, fcntl.LOCK_EX)
    waited: list[float] = []

    def wait(_event: threading.Event, seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:  # the other one is done: its file is in the store now
            os.write(other, content)
            desk.store.adopt(part, sha256_blob(content))
            os.close(other)

    bring(replace(desk, wait=wait), content)

    assert stored(desk, content) == content
    assert source.asked == []
    assert list(desk.partial.iterdir()) == []


def test_a_blob_that_another_process_gave_up_is_taken_over(tmp_path: Path) -> None:
    """When the other one ends without the blob, it is fetched here."""
    content = noise(500)
    desk = desk_for(tmp_path, [FakeSource("s", [content])])
    desk.partial.mkdir(parents=True)
    other = os.open(desk.partial / f"{sha256_blob(content).digest}.part", os.O_RDWR | os.O_CREAT)
    fcntl.flock(other, fcntl.LOCK_EX)
    bring(replace(desk, wait=lambda _event, _s: os.close(other)), content)

    assert stored(desk, content) == content


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_interruption_ends_the_workers_and_keeps_what_came(tmp_path: Path, kind: type[BaseException]) -> None:
    """Ctrl-C or SIGTERM in the middle: no thread and no file is left open, and finished segments stay."""
    content = noise(SEGMENT * 16 * 20)
    gate = threading.Event()
    source = FakeSource("s", [content], wait_before_bytes=gate)
    desk = desk_for(tmp_path, [source], workers=3)
    before = descriptors()

    def interrupt(_event: threading.Event, _seconds: float) -> None:
        raise kind

    # Another blob is in somebody else's hands, so that the coordinator looks around while workers wait for bytes.
    busy = noise(10)
    desk.partial.mkdir(parents=True)
    other = os.open(desk.partial / f"{sha256_blob(busy).digest}.part", os.O_RDWR | os.O_CREAT)
    fcntl.flock(other, fcntl.LOCK_EX)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module._Coordinator, "_settle_some", lambda _self: interrupt(gate, 0))
        with pytest.raises(kind):
            bring(desk, busy, content)
    os.close(other)

    assert source.broken_off.is_set()
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("fetch")] == []
    assert descriptors() == before
    assert (desk.partial / f"{sha256_blob(content).digest}.part").exists()
    assert not desk.store.has(sha256_blob(content))


def test_a_blob_that_fits_on_no_disk_leaves_no_file_open(tmp_path: Path) -> None:
    """When a partial file cannot be made large enough, that is told and the rest is not tried."""
    huge, small = Blob("sha256", "1" * 64, 1 << 62), noise(100)
    source = FakeSource("s", [small])
    before = descriptors()
    with pytest.raises((NoSpace, StoreError), match="partial"):
        fetch({huge: "huge", sha256_blob(small): "small"}, desk_for(tmp_path, [source]), Progress())

    assert descriptors() == before
    assert source.asked == []


def test_a_partial_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """A file where the folder must be: StoreError with the path."""
    (tmp_path / "state").write_text("a file")
    with pytest.raises(StoreError, match="state"):
        bring(desk_for(tmp_path, [FakeSource("s", [b"x"])]), b"x")


def test_progress_is_reported_from_all_threads_without_a_loss(tmp_path: Path) -> None:
    """The sum of what is reported is what came."""
    contents = [noise(2000, seed) for seed in range(8)]
    reported: list[int] = []
    progress = Progress(reported.append)
    bring(desk_for(tmp_path, [FakeSource("s", contents, Faults(at_most=7))], 8), *contents, progress=progress)

    assert sum(reported) == progress.fetched_bytes == 16000
    assert progress.from_source == {"s": 16000}


class Crowd:
    """Counts how many connections there are at a time, to several sources together."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self._lock = threading.Lock()

    def source(self, name: str, contents: Sequence[bytes]) -> FakeSource:
        """A source whose connections count."""
        crowd = self

        class Counted(FakeSource):
            @contextmanager
            def open(self, blob: Blob, start: int, stop: int) -> Iterator[FakeReader]:
                with crowd._lock:
                    crowd.now += 1
                    crowd.most = max(crowd.most, crowd.now)
                try:
                    with FakeSource.open(self, blob, start, stop) as reader:
                        yield reader
                finally:
                    with crowd._lock:
                        crowd.now -= 1

        return Counted(name, contents, Faults(at_most=16))


@pytest.mark.parametrize("sizes", [(SEGMENT * 40, SEGMENT * 25), (10, 20)])
def test_all_fetches_of_a_run_share_the_connections(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    """Three repositories with large blobs, or many small ones, at once: no more connections than the run may have."""
    crowd, places = Crowd(), Places(2)
    contents = [[noise(size, seed=size + 100 * number) for size in sizes * 5] for number in range(3)]
    desks = [
        replace(desk_for(tmp_path / f"{number}", [crowd.source(f"s{number}", some)], 8), places=places)
        for number, some in enumerate(contents)
    ]
    with ThreadPoolExecutor(3) as threads:
        for done in [threads.submit(bring, desk, *some) for desk, some in zip(desks, contents, strict=True)]:
            done.result()

    assert crowd.most <= 2
    for desk, some in zip(desks, contents, strict=True):
        assert [stored(desk, content) for content in some] == some


def test_a_source_has_a_limit_of_its_own_over_all_repositories(tmp_path: Path) -> None:
    """Its connections are one at a time, whoever asks it, also when it is asked because another one is down."""
    narrow, places = Crowd(), Places(8)
    contents = [[noise(SEGMENT * 30, seed=number)] for number in range(3)]
    down = FakeSource("down", [], Faults(refusals=(SourceUnavailable("down"),) * 1000))
    desks = [
        replace(
            desk_for(tmp_path / f"{number}", [down, narrow.source(f"s{number}", some)], 4),
            places=places,
            terms={f"s{number}": Terms("narrow", 1)},
        )
        for number, some in enumerate(contents)
    ]
    with ThreadPoolExecutor(3) as threads:
        for done in [threads.submit(bring, desk, *some) for desk, some in zip(desks, contents, strict=True)]:
            done.result()

    assert narrow.most == 1
    for desk, some in zip(desks, contents, strict=True):
        assert [stored(desk, content) for content in some] == some


def test_whoever_pauses_holds_no_place(tmp_path: Path) -> None:
    """While one source asks for patience, the only place is free for the blobs of another one."""
    places, clock, free = Places(1), Clock(), list[bool]()
    party = Party()

    def wait(event: threading.Event, seconds: float) -> None:
        with seated(places, party, Terms("other"), event) as is_seated:
            free.append(is_seated)
        clock.wait(event, seconds)

    source = FakeSource("s", [noise(300)], Faults(refusals=(RateLimited("s: 429", 60.0),)))
    desk = replace(desk_for(tmp_path, [source], 1), places=places, clock=clock, wait=wait)
    with places.joined(party):
        bring(desk, noise(300))

    assert free == [True]


class Slow(FakeSource):
    """A source whose bytes take time: `pace_s` seconds of the desk's clock for each piece of `at_most` bytes."""

    def at(self, clock: Clock, pace_s: float) -> Slow:
        """Let that time pass."""
        self.clock, self.pace_s = clock, pace_s
        return self

    def _answer(self, blob: Blob, start: int, stop: int, is_old: bool) -> FakeReader:
        reader = FakeSource._answer(self, blob, start, stop, is_old)
        source = self

        class Dripping(FakeReader):
            def readinto(self, buffer: memoryview) -> int:
                source.clock.wait(threading.Event(), source.pace_s)
                return FakeReader.readinto(self, buffer)

        return Dripping(reader.source, reader.content, reader.start, reader.version)


def slow_desk(root: Path, sources: Sequence[FakeSource], clock: Clock) -> Desk:
    """A desk with one connection, where every source should bring 100 bytes a second."""
    terms = {source.name: Terms(source.name, minimum_rate=100) for source in sources}
    return replace(desk_for(root, sources, workers=1), clock=clock, wait=clock.wait, terms=terms)


def test_a_source_that_stays_under_its_minimum_rate_is_left_for_another(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """After half a minute, in the middle of a blob, with what has come kept; that is told."""
    content, clock = noise(SEGMENT * 100), Clock()
    slow = Slow("slow", [content], Faults(at_most=16)).at(clock, 1.0)
    other = FakeSource("other", [content])
    bring(desk := slow_desk(tmp_path, [slow, other], clock), content)

    assert stored(desk, content) == content
    assert 30 * 16 <= slow.sent_bytes <= 32 * 16
    assert slow.sent_bytes + other.sent_bytes <= len(content) + SEGMENT
    said = "slow: f0: brought 16 B/s for 30 s, less than its minimum_rate of 100 B/s"
    assert f"{said}; for 30 s the other sources are asked before it" in caplog.text


@pytest.mark.parametrize("refusal", [SourceMissing("other: has none"), SourceUnavailable("other: down")])
def test_a_slow_source_is_better_than_none(tmp_path: Path, refusal: UpstreamError) -> None:
    """When the other one does not have the blob, or is down, the slow one goes on, and is not left for it again."""
    content, clock = noise(SEGMENT * 30), Clock()
    slow = Slow("slow", [content], Faults(at_most=16)).at(clock, 1.0)
    other = FakeSource("other", [content], Faults(refusals=(refusal,) * 1000))
    bring(desk := slow_desk(tmp_path, [slow, other], clock), content)

    assert stored(desk, content) == content
    assert len(other.asked) <= 8
    assert slow.sent_bytes <= len(content) + SEGMENT * (len(other.asked) + 1)


def test_a_slow_source_without_another_is_not_left(tmp_path: Path) -> None:
    """Nothing is asked for twice."""
    content, clock = noise(SEGMENT * 30), Clock()
    slow = Slow("slow", [content], Faults(at_most=16)).at(clock, 1.0)
    bring(desk := slow_desk(tmp_path, [slow], clock), content)

    assert stored(desk, content) == content
    assert slow.sent_bytes == len(content)


class Stuck(FakeSource):
    """A source whose first answer gives `first_bytes` and then nothing, until it is cancelled."""

    def hanging_after(self, first_bytes: int) -> Stuck:
        """Say how many."""
        self.first_bytes, self.is_first, self.hangs = first_bytes, Semaphore(1), threading.Event()
        return self

    def _answer(self, blob: Blob, start: int, stop: int, is_old: bool) -> FakeReader:
        reader = FakeSource._answer(self, blob, start, stop, is_old)
        if not self.is_first.acquire(blocking=False):
            return reader

        class Hanging(FakeReader):
            def readinto(self, buffer: memoryview) -> int:
                left = self.source.first_bytes - self.source_gave
                if left <= 0:
                    self.source.hangs.set()
                    self.source.cancelled.wait(20)
                    raise SourceUnavailable("woken")
                count = FakeReader.readinto(self, buffer[:left])
                self.source_gave += count
                return count

            source_gave = 0

        return Hanging(reader.source, reader.content, reader.start, reader.version)


@pytest.mark.parametrize("first_bytes", [0, 1, 300_000, (1 << 20) + 5, (6 << 20) - 1])
def test_a_connection_that_hangs_near_the_end_holds_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first_bytes: int
) -> None:
    """What it has not begun goes to the others; the segment that it is at is read on from where it stopped."""
    monkeypatch.setattr(flow, "_STALLED_S", 0.3)
    content = noise(12 << 20)
    source = Stuck("s", [content]).hanging_after(first_bytes)
    state = tmp_path / "state"
    desk = Desk(Store(tmp_path), state / "partial", state / "quarantine", (source,), 2, 1 << 20)
    progress = Progress()
    bring(desk, content, progress=progress)

    assert stored(desk, content) == content
    assert source.cancelled.is_set() or not source.hangs.is_set()
    assert source.hangs.is_set() or first_bytes > 1 << 20
    assert progress.fetched_bytes == source.sent_bytes <= len(content) + (1 << 20)
    assert source.open_readers == 0


class Steady(FakeSource):
    """A source whose connections bring a piece of `at_most` bytes every `pace_s` seconds, each for itself."""

    pace_s = 0.01

    def _answer(self, blob: Blob, start: int, stop: int, is_old: bool) -> FakeReader:
        reader = FakeSource._answer(self, blob, start, stop, is_old)
        pace_s = self.pace_s

        class Paced(FakeReader):
            def readinto(self, buffer: memoryview) -> int:
                time.sleep(pace_s)
                return FakeReader.readinto(self, buffer)

        return Paced(reader.source, reader.content, reader.start, reader.version)


def pair(root: Path, content: bytes, together: bool, wrong: bool = False) -> tuple[Desk, FakeSource, FakeSource]:
    """Two sources that are limited each for itself, and a desk whose second one may be used with the first one."""
    first = Steady("first", [content], Faults(at_most=4096))
    second = Steady("second", [content], Faults(at_most=4096, wrong=wrong))
    state = root / "state"
    terms = {"second": Terms("second", together=together)}
    desk = Desk(Store(root), state / "partial", state / "quarantine", (first, second), 4, 8192, terms=terms)
    return desk, first, second


@pytest.mark.parametrize("together", [True, False])
def test_a_second_source_is_asked_beside_the_first_one_when_it_may_be(tmp_path: Path, together: bool) -> None:
    """Otherwise it waits for a failure."""
    content = noise(4 << 20)
    desk, first, second = pair(tmp_path, content, together)
    bring(desk, content)

    assert stored(desk, content) == content
    assert first.sent_bytes > 0
    assert bool(second.asked) == together


class Sluggish(Steady):
    """One that brings a fiftieth of that."""

    pace_s = 0.5


def several(root: Path, content: bytes, workers: int | None, *kinds: type[FakeSource]) -> Desk:
    """A desk with sources that are limited each for itself, s0 and so on, which share the load."""
    sources = tuple(kind(f"s{i}", [content], Faults(at_most=4096)) for i, kind in enumerate(kinds))
    terms = {source.name: Terms(source.name, together=True, shares_load=True) for source in sources}
    state = root / "state"
    return Desk(Store(root), state / "partial", state / "quarantine", sources, workers, 8192, terms=terms)


def test_four_sources_bring_a_blob_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the first four brings something, beside as many connections to the first as pay; a fifth one waits."""
    monkeypatch.setattr("mirrortools.pace._BESIDE_WINDOW_S", 0.05)
    content, progress = noise(6 << 20), Progress()
    bring(desk := several(tmp_path, content, None, *[Steady] * 5), content, progress=progress)

    assert stored(desk, content) == content
    assert progress.from_source.keys() == {"s0", "s1", "s2", "s3"}
    assert progress.fetched_bytes <= len(content) * 1.1


def test_a_slow_one_of_several_holds_up_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It brings what it can, and what it is at when the others are done, they take from it."""
    monkeypatch.setattr("mirrortools.pace._BESIDE_WINDOW_S", 0.05)
    content, progress = noise(1 << 20), Progress()
    bring(desk := several(tmp_path, content, 3, Steady, Sluggish, Steady), content, progress=progress)

    assert stored(desk, content) == content
    assert {"s0", "s2"} <= progress.from_source.keys()
    assert progress.from_source.get("s1", 0) < len(content) / 20


class Liar(Steady):
    """One whose every byte is wrong."""

    def _answer(self, blob: Blob, start: int, stop: int, is_old: bool) -> FakeReader:
        reader = Steady._answer(self, blob, start, stop, is_old)
        reader.content = memoryview(bytes(byte ^ 0xFF for byte in reader.content))
        return reader


@pytest.mark.parametrize("place", [0, 3])
def test_one_of_several_that_is_wrong_is_cut_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, place: int
) -> None:
    """Wherever it stands among them, the blob comes right, and it is named."""
    monkeypatch.setattr("mirrortools.pace._BESIDE_WINDOW_S", 0.05)
    content, kinds = noise(1 << 20), [Liar if number == place else Steady for number in range(4)]
    desk = several(tmp_path, content, 4, *kinds)
    bring(desk, content)

    assert stored(desk, content) == content
    assert f"s{place}: gave wrong bytes of f0" in caplog.text


def test_of_three_that_gave_parts_the_one_that_was_wrong_is_found(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Part after part comes again from the one that gave most, least first, until the whole is right."""
    content = noise(SEGMENT * 24)
    few = FakeSource("few", [content], Faults(cut_after=SEGMENT * 7))
    liar = FakeSource("liar", [content], Faults(cut_after=SEGMENT * 8, wrong=True))
    honest, progress = FakeSource("honest", [content]), Progress()
    bring(desk := desk_for(tmp_path, [few, liar, honest], 1), content, progress=progress)

    assert stored(desk, content) == content
    assert "liar: gave wrong bytes of f0, which came right from honest" in caplog.text
    assert progress.from_source == {"few": SEGMENT * 7, "liar": SEGMENT * 8, "honest": SEGMENT * 24}
    assert not desk.quarantine.exists()


def test_wrong_bytes_are_charged_to_the_one_that_gave_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of two sources that gave parts, the part of one is fetched again; that shows who was wrong."""
    content = noise(SEGMENT * 24)
    brief = FakeSource("brief", [content], Faults(cut_after=SEGMENT * 10))
    liar = FakeSource("liar", [content], Faults(wrong=True))
    honest = FakeSource("honest", [content])

    half = FakeSource("half", [content], Faults(cut_after=SEGMENT * 12))
    bring(desk := desk_for(tmp_path / "few", [half, liar], 1), content)
    assert stored(desk, content) == content
    assert "liar: gave wrong bytes of f0, which came right from half" in caplog.text
    assert not desk.quarantine.exists()

    bring(desk := desk_for(tmp_path / "many", [brief, liar, honest], 1), content)
    assert stored(desk, content) == content
    assert "liar: gave wrong bytes of f0, kept aside in " in caplog.text


def test_a_run_that_is_told_to_stop_does_not_wait_for_what_is_hashed(tmp_path: Path) -> None:
    """Though all has come, and nobody is at work but the thread that hashes; the next run goes on from there."""
    content = noise(SEGMENT * 400)
    source = FakeSource("s", [content])
    desk = desk_for(tmp_path, [source])
    hashing = SlowHash(desk.stopped)
    known = sha256_blob(content)
    make_folder(desk.partial)
    growing = Partial(desk.partial, known, SEGMENT)
    for index in range(400):
        growing.write(index * SEGMENT, memoryview(content)[index * SEGMENT : (index + 1) * SEGMENT])
        growing.finish_segment(index)
    growing.close()
    with pytest.raises(Interrupted):
        fetch({SlowBlob(known.algorithm, known.digest, known.size, hashing): "f"}, desk, Progress())
    progress = Progress()
    bring(desk_for(tmp_path, [source]), content, progress=progress)

    assert hashing.updates < 300
    assert progress.resumed_bytes == len(content)
    assert source.asked == []
