"""A growing blob: resumed after anything, in one process's hands, and never written again once hashed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrortools.model import Blob
from mirrortools.outlet import Outlet
from mirrortools.partial import Partial
from mirrortools.ring import Ring
from mirrortools.segments import Span
from tests.delivery import noise, sha256_blob
from tests.strategies import trials

SEGMENT = 64
CONTENT = noise(SEGMENT * 9 + 5)
BLOB = sha256_blob(CONTENT)


def write(growing: Partial, index: int, content: bytes = CONTENT) -> None:
    """Write one segment as a worker does."""
    start, stop = growing.segments.bounds(index)
    assert growing.claim(index)
    growing.write(start, memoryview(content)[start:stop])
    growing.finish_segment(index)
    growing.release(index)
    growing.advance()


def written(growing: Partial, index: int) -> None:
    """Write one segment as a worker does whose blob nobody hashes at the moment."""
    start, stop = growing.segments.bounds(index)
    growing.write(start, memoryview(CONTENT)[start:stop])
    growing.finish_segment(index)


def held(growing: Partial, index: int) -> None:
    """Receive one segment into memory as a worker does."""
    start, stop = growing.segments.bounds(index)
    assert growing.claim(index)
    room = growing.room(index)
    assert room is not None
    room[:] = CONTENT[start:stop]
    growing.hold(index, room)
    growing.release(index)


class FullDisk(Outlet):
    """A disk that has no room any more."""

    def write(self, offset: int, data: memoryview) -> None:
        """Raise what a full disk raises."""
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), f"{offset}+{len(data)}")


@given(st.lists(st.sampled_from(["hash", "write"]), max_size=20), st.booleans())
@trials(50)
def test_segments_pass_from_memory_to_hash_and_disk_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, order: list[str], broken_off: bool
) -> None:
    """A segment counts when it was hashed and is on disk; the rest is seen to when the blob is closed."""
    ring = Ring(count=4, size_bytes=SEGMENT)
    folder = tmp_path_factory.mktemp("partial")
    growing = Partial(folder, BLOB, SEGMENT, ring)
    index = waiting = 0
    for act in order:
        if waiting < 3 and index < 10:
            held(growing, index)
            index, waiting = index + 1, waiting + 1
        if act == "hash":
            growing.advance()
        for each in range(index if act == "write" else 0):
            growing.store(each)
        waiting = index - len(growing.done)
    if broken_off:
        growing.stop_hashing()
    growing.close()
    again = Partial(folder, BLOB, SEGMENT, ring)
    kept, free = set(again.done), [ring.take(0), ring.take(0)]
    again.close()

    assert kept == set(range(index))
    assert None not in free


def test_a_digest_waits_for_the_disk(tmp_path: Path) -> None:
    """What was hashed in memory is on disk before the blob gets its name."""
    small = sha256_blob(CONTENT[:SEGMENT])
    growing = Partial(tmp_path, small, SEGMENT, Ring(size_bytes=SEGMENT))
    held(growing, 0)
    growing.advance()
    later = threading.Timer(0.05, growing.store, [0])
    later.start()
    digest, content = growing.digest(), growing.path.read_bytes()
    later.join()
    growing.close()

    assert digest == small.digest
    assert content == CONTENT[:SEGMENT]


def test_trouble_with_the_disk_is_told_and_what_it_lost_is_not_believed(tmp_path: Path) -> None:
    """Neither in this run, nor in the next one."""
    ring = Ring(size_bytes=SEGMENT)
    growing = Partial(tmp_path, BLOB, SEGMENT, ring)
    held(growing, 0)
    growing.store(0)
    growing._outlet = FullDisk(growing._file)
    held(growing, 1)
    growing.advance()
    growing.store(1)
    with pytest.raises(OSError, match="No space"):
        held(growing, 2)
    with pytest.raises(OSError, match="No space"):
        growing.digest()
    growing.close()
    again = Partial(tmp_path, BLOB, SEGMENT, ring)
    kept, free = set(again.done), [ring.take(0), ring.take(0)]
    again.close()

    assert kept == {0}
    assert None not in free


def test_a_segment_that_did_not_come_whole_gives_its_memory_back(tmp_path: Path) -> None:
    """Another one can be received there."""
    ring = Ring(count=1, size_bytes=SEGMENT, filled_at_once=1)
    growing = Partial(tmp_path, BLOB, SEGMENT, ring)
    room = growing.room(0)
    refused = growing.room(0)
    assert room is not None
    growing.give_up(room)

    assert refused is None
    assert growing.room(0) is not None
    growing.close()


def test_only_what_is_hashed_soon_is_received_into_memory(tmp_path: Path) -> None:
    """There is little of it: what comes out of turn, or is too long for it, is written as it comes."""
    growing = Partial(tmp_path, BLOB, SEGMENT, Ring(size_bytes=SEGMENT))
    other = Partial(tmp_path, sha256_blob(CONTENT[1:]), SEGMENT, Ring(size_bytes=SEGMENT - 1))

    assert growing.room(1) is None
    assert other.room(0) is None
    assert growing.room(0) is not None
    growing.close()
    other.close()


def test_what_is_written_whole_and_waits_for_its_hash_is_kept_when_it_is_closed(tmp_path: Path) -> None:
    """An interruption costs only what was in the middle of being written."""
    growing = Partial(tmp_path, BLOB, SEGMENT)
    written(growing, 0)
    written(growing, 1)
    waited = set(growing.done)
    growing.close()
    again = Partial(tmp_path, BLOB, SEGMENT)
    kept = set(again.done)
    again.close()

    assert (waited, kept) == (set(), {0, 1})


def test_what_an_earlier_run_left_holds_no_writer(tmp_path: Path) -> None:
    """Hashing it may take minutes: meanwhile writers hash what they write, and nothing waits for its turn."""
    growing = Partial(tmp_path, BLOB, SEGMENT)
    for index in range(6):
        write(growing, index)
    growing.close()
    again = Partial(tmp_path, BLOB, SEGMENT)
    for index in (6, 7, 8):
        written(again, index)
    done = set(again.done)
    again.advance()
    written(again, 9)
    digest = again.digest()
    again.close()

    assert done == set(range(9))
    assert digest == BLOB.digest


def test_hashing_ends_when_nobody_wants_it_any_more(tmp_path: Path) -> None:
    """Ctrl-C does not wait until a hundred gigabytes of an earlier run are hashed."""
    growing = Partial(tmp_path, BLOB, SEGMENT)
    for index in range(10):
        write(growing, index)
    growing.close()
    again = Partial(tmp_path, BLOB, SEGMENT)
    again.stop_hashing()
    again.advance()
    digest = again.digest()
    again.close()

    assert digest == hashlib.sha256(b"").hexdigest()


def test_who_reads_what_an_earlier_run_left_can_be_told_to_stop(tmp_path: Path) -> None:
    """Of a large blob that takes minutes; nothing is forgotten of what was not read again."""
    growing = Partial(tmp_path, BLOB, SEGMENT)
    for index in range(5):
        write(growing, index)
    growing.close()
    read = list[int]()

    def stop() -> None:
        read.append(len(read))
        if len(read) == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        Partial(tmp_path, BLOB, SEGMENT, before_each=stop)
    again = Partial(tmp_path, BLOB, SEGMENT)
    again.close()

    assert sorted(again.done) == [0, 1, 2, 3, 4]


def test_who_waits_for_the_disk_is_told_that_nobody_wants_the_digest(tmp_path: Path) -> None:
    """A run that is broken off cancels what was to be stored later: whoever waits for that would wait for ever."""
    growing = Partial(tmp_path, BLOB, SEGMENT, Ring(size_bytes=SEGMENT))
    held(growing, 0)
    growing.advance()
    waiting = threading.Thread(target=growing.digest, daemon=True)
    waiting.start()
    later = threading.Timer(0.05, growing.stop_hashing)
    later.start()
    later.join()
    waiting.join(timeout=20)
    growing.close()

    assert not waiting.is_alive()


@given(st.permutations(range(10)), st.integers(0, 10))
@trials(50)
def test_segments_in_any_order_with_a_break_anywhere(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], stop: int
) -> None:
    """What was finished before the break is there after it; the digest is the whole's."""
    folder = tmp_path_factory.mktemp("partial")
    growing = Partial(folder, BLOB, SEGMENT)
    for index in order[:stop]:
        write(growing, index)
    growing.close()
    growing = Partial(folder, BLOB, SEGMENT)
    resumed = set(growing.done)
    for index in order[stop:]:
        write(growing, index)
    growing.close()

    assert resumed == set(order[:stop])
    assert growing.complete
    assert growing.path.read_bytes() == CONTENT


def test_the_digest_is_that_of_the_content(tmp_path: Path) -> None:
    """However much was hashed on the way."""
    growing = Partial(tmp_path, BLOB, SEGMENT)
    for index in (1, 0, 2, 9, 8, 7, 6, 5, 4, 3):
        write(growing, index)

    assert growing.digest() == growing.digest() == BLOB.digest
    assert growing.missing() == []
    growing.close()


@pytest.mark.parametrize("damage", ["byte", "shorter", "longer", "gone", "no journal", "garbage journal", "half line"])
def test_whatever_the_disk_lost_is_fetched_again_and_only_that(tmp_path: Path, damage: str) -> None:
    """Every segment that is believed to be there is there."""
    growing = Partial(tmp_path, BLOB, SEGMENT)
    for index in range(5):
        write(growing, index)
    growing.close()
    part, journal = growing.path, growing.journal
    content = part.read_bytes()
    {
        "byte": lambda: part.write_bytes(content[:70] + b"\0" + content[71:]),
        "shorter": lambda: os.truncate(part, SEGMENT * 2 + 1),
        "longer": lambda: part.write_bytes(content + b"more"),
        "gone": part.unlink,
        "no journal": journal.unlink,
        "garbage journal": lambda: journal.write_bytes(b"\xff\x00garbage\n"),
        "half line": lambda: os.truncate(journal, journal.stat().st_size - 3),
    }[damage]()
    believed = {
        "byte": {0, 2, 3, 4},
        "shorter": {0, 1},
        "longer": {0, 1, 2, 3, 4},
        "gone": set(),
        "no journal": set(),
        "garbage journal": set(),
        "half line": {0, 1, 2, 3},
    }[damage]
    again = Partial(tmp_path, BLOB, SEGMENT)

    assert set(again.done) == believed
    assert again.resumed_bytes == len(believed) * SEGMENT
    assert part.stat().st_size == BLOB.size
    again.close()


def test_damage_while_it_grows_is_found_and_forgotten(tmp_path: Path) -> None:
    """Segments that no longer hash to what was written are dropped; none means that wrong bytes came."""
    growing = Partial(tmp_path, BLOB, SEGMENT)
    for index in range(10):
        write(growing, index)
    before = growing.forget_damage()
    with growing.path.open("r+b") as file:
        file.seek(SEGMENT * 3)
        file.write(b"rot")

    assert before == 0
    assert growing.forget_damage() == 1
    assert growing.missing() == [Span(3, 4)]
    write(growing, 3)
    assert growing.digest() == BLOB.digest
    growing.close()


def test_a_segment_is_claimed_by_one_worker_and_never_once_it_is_done(tmp_path: Path) -> None:
    """What is done may have been hashed: nobody may write there again."""
    growing = Partial(tmp_path, BLOB, SEGMENT)

    assert growing.claim(0)
    assert not growing.claim(0)
    growing.release(0)
    write(growing, 0)
    assert not growing.claim(0)
    assert growing.lacks(Span(0, 3)) == [1, 2]
    growing.close()


def test_another_process_is_kept_out_until_it_is_closed(tmp_path: Path) -> None:
    """Two jobs that share a blob would write into the file that one of them has verified."""
    growing = Partial(tmp_path, BLOB, SEGMENT)
    script = (
        "import sys; from pathlib import Path; from mirrortools.partial import Partial; "
        "from mirrortools.model import Blob; Partial(Path(sys.argv[1]), Blob('sha256', sys.argv[2], int(sys.argv[3])))"
    )
    command = [sys.executable, "-c", script, str(tmp_path), BLOB.digest, str(BLOB.size)]
    refused = subprocess.run(command, capture_output=True, text=True)
    with pytest.raises(BlockingIOError):
        Partial(tmp_path, BLOB, SEGMENT)
    growing.close()

    assert "BlockingIOError" in refused.stderr
    assert subprocess.run(command, capture_output=True).returncode == 0


def test_closing_twice_closes_nobody_elses_file(tmp_path: Path) -> None:
    """The number of a closed descriptor may be another file's by then."""
    growing = Partial(tmp_path, BLOB, SEGMENT)
    growing.close()
    with (tmp_path / "other").open("wb") as other:
        growing.close()
        other.write(b"still open")

    assert (tmp_path / "other").read_bytes() == b"still open"


def test_moving_away_leaves_an_empty_beginning(tmp_path: Path) -> None:
    """The wrong content is where it was put; nothing of it is believed afterwards."""
    growing = Partial(tmp_path, BLOB, SEGMENT)
    for index in range(10):
        write(growing, index)
    growing.move_away(tmp_path / "aside")
    growing.begin_again()

    assert (tmp_path / "aside").read_bytes() == CONTENT
    assert growing.done == {}
    for index in range(10):
        write(growing, index)
    assert growing.digest() == BLOB.digest
    growing.close()


def test_removing_leaves_nothing(tmp_path: Path) -> None:
    """Neither the file nor its journal."""
    Partial(tmp_path, BLOB, SEGMENT).remove()

    assert list(tmp_path.iterdir()) == []


def test_a_small_blob_has_no_journal(tmp_path: Path) -> None:
    """There is nothing to go on from; an empty one has no segment at all."""
    small, empty = Partial(tmp_path, sha256_blob(b"x"), SEGMENT), Partial(tmp_path, sha256_blob(b""), SEGMENT)

    assert not small.journal.exists()
    assert empty.complete
    assert empty.digest() == sha256_blob(b"").digest
    small.close()
    empty.close()


def test_what_may_be_passed_on_grows_from_the_start(tmp_path: Path) -> None:
    """Segments count when all before them are on disk and hashed, also those of an earlier run; lost ones do not."""
    with contextlib.closing(Partial(tmp_path, BLOB, SEGMENT)) as growing:
        ready = []
        for index in (1, 0, 3):
            write(growing, index)
            ready.append(growing.ready_bytes)
    with contextlib.closing(Partial(tmp_path, BLOB, SEGMENT)) as growing:
        resumed = growing.ready_bytes
        growing.forget([1])
        forgotten = growing.ready_bytes

    assert ready == [0, 2 * SEGMENT, 2 * SEGMENT]
    assert (resumed, forgotten) == (2 * SEGMENT, SEGMENT)


def test_what_an_earlier_release_left_is_gone_on_from(tmp_path: Path) -> None:
    """These two files are as 0.1.0 wrote them; the second segment was in flight when it was upgraded."""
    blob = Blob("sha256", "57ab84bd80bbaae9f9f0f2125a7a09c5a9cb5751cd59fefef4bd730605e07981", 8292)
    (tmp_path / f"{blob.digest}.part").write_bytes(b"a" * 4096 + bytes(4196))
    (tmp_path / f"{blob.digest}.journal").write_text(
        "mirrortools-journal 1 8292 4096\n0 e594ed23b869217688a30670e919701e\n1 e59"
    )
    growing = Partial(tmp_path, blob, 4096)

    assert growing.resumed_bytes == 4096
    assert growing.missing() == [Span(1, 3)]
    for index, content in ((1, b"b" * 4096), (2, b"c" * 100)):
        assert growing.claim(index)
        growing.write(4096 * index, memoryview(content))
        growing.finish_segment(index)
    assert growing.digest() == blob.digest
    growing.close()
