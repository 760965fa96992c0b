"""What comes to an edge lands in memory and in files, byte for byte, and what the disk does not take is known."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrortools.errors import NoSpace
from mirrortools.landing import Goods, Landing
from mirrortools.model import Blob
from mirrortools.stock import BLOCK_BYTES, BLOCKS, Reading, Recent, Stock
from tests.delivery import noise, sha256_blob, small_disk

MIB = 1 << 20
LARGE, SMALL = noise(11 * MIB + 4097, 1), noise(700, 2)


def key(blob: Blob) -> bytes:
    return bytes.fromhex(blob.digest)


def bring(landing: Landing, blob: Blob, content: bytes, offset: int, part_bytes: int) -> None:
    """Let a piece come, in parts."""
    landing.expect(key(blob), offset, len(content))
    while content:
        room = landing.room(min(part_bytes, len(content)))
        room[:] = content[: len(room)]
        landing.came(len(room))
        content = content[len(room) :]


def goods(folder: Path, contents: Mapping[bytes, int]) -> Goods:
    """Of each content so much is there."""
    folder.mkdir(parents=True, exist_ok=True)
    for content, have in contents.items():
        if have:
            (folder / sha256_blob(content).digest).write_bytes(content[:have])
    return Goods(folder, {sha256_blob(content): have for content, have in contents.items()}, lambda _: None)


@pytest.mark.parametrize("have", [0, 4096, 1001], ids=["all", "aligned", "unaligned"])
def test_what_came_lies_in_its_file(tmp_path: Path, have: int) -> None:
    """Whatever the parts are, whatever was there before, and when two blobs come in turn."""
    stock = Stock()
    landing = Landing(goods(tmp_path, {LARGE: have, SMALL: 0}), stock)
    blob, other = sha256_blob(LARGE), sha256_blob(SMALL)
    with closing(landing):
        bring(landing, blob, LARGE[have : 3 * MIB], have, 256 << 10)
        bring(landing, other, SMALL, 0, 100)
        bring(landing, blob, LARGE[3 * MIB :], 3 * MIB, 100_001)

    assert (tmp_path / blob.digest).read_bytes() == LARGE
    assert (tmp_path / other.digest).read_bytes() == SMALL
    assert (landing.lacking_bytes, stock.have(blob.digest)) == (0, len(LARGE))


def test_what_came_is_read_before_it_is_written(tmp_path: Path) -> None:
    """From memory; what has gone from there, from the file; after it settled, all of it lies in the file."""
    stock, blob = Stock(), sha256_blob(LARGE)
    landing = Landing(goods(tmp_path, {LARGE: 0}), stock)
    with closing(landing), closing(Reading(stock, blob.digest)) as reading:
        bring(landing, blob, LARGE[: 10 * MIB + 50], 0, 256 << 10)
        found = memoryview(bytearray(10 * MIB + 50))
        at = 0
        while at < len(found):
            at += reading.read_into(found[at:], at)
        before = (tmp_path / blob.digest).stat().st_size
        landing.settle()

        assert found == LARGE[: len(found)]
        assert before <= 10 * MIB
        assert (tmp_path / blob.digest).read_bytes() == LARGE[: len(found)]


def test_what_the_disk_did_not_take_is_lacking_still(tmp_path: Path) -> None:
    """A full disk: the file ends where it is right, what is lacking is told, and the hash of what came counts not."""
    with small_disk(tmp_path / "disk", 4 * MIB) as disk:
        stock, blob = Stock(), sha256_blob(LARGE)
        landing = Landing(goods(disk / "incoming", {LARGE: 0}), stock)
        with closing(landing), pytest.raises(OSError, match="No space"):
            bring(landing, blob, LARGE, 0, 256 << 10)
        landing.settle()
        kept = (disk / "incoming" / blob.digest).read_bytes()

        assert LARGE.startswith(kept)
        assert 2 * MIB < len(kept) <= 4 * MIB
        assert stock.have(blob.digest) == len(kept)
        assert landing.lacking_bytes == len(LARGE) - len(kept)
        assert landing.is_spoiled(blob)


def test_what_may_not_come_is_refused_in_time(tmp_path: Path) -> None:
    """What is in memory counts as if it were in the file."""
    folder, blob = tmp_path / "incoming", sha256_blob(LARGE)

    def objection(more_bytes: int) -> str | None:
        held = sum(path.stat().st_size for path in folder.iterdir())
        return "full" if held + more_bytes > 6 * MIB else None

    plain = goods(folder, {LARGE: 0})
    landing = Landing(Goods(folder, plain.lacking, plain.held, objection), Stock())
    with closing(landing), pytest.raises(NoSpace, match="full"):
        bring(landing, blob, LARGE, 0, 100_000)
    landing.settle()

    assert (folder / blob.digest).stat().st_size <= 6 * MIB


@given(st.lists(st.integers(1, 3 * BLOCK_BYTES), min_size=1, max_size=12), st.integers(0, 2 * BLOCK_BYTES))
def test_memory_gives_the_latest_bytes_and_never_others(counts: list[int], begin: int) -> None:
    """A ring of so many blocks: what it gives is right, and what came last is there."""
    content, recent = memoryview(CONTENT), Recent()
    recent.begin("a", begin)
    at = begin
    for count in counts:
        stop = at + count
        while at < stop:
            room = recent.room(stop - at)
            room[:] = content[at : at + len(room)]
            recent.add(len(room))
            at += len(room)
    view = memoryview(bytearray(BLOCK_BYTES))
    for offset in (begin, at - BLOCK_BYTES * BLOCKS, at - BLOCK_BYTES, at - 1, at):
        found = recent.copy("a", offset, view) if offset >= 0 else 0
        assert view[:found] == content[offset : offset + found]
        assert found == 0 or begin <= offset < at
    assert recent.copy("a", at - 1, view) == 1
    assert recent.copy("b", at - 1, view) == 0


CONTENT = os.urandom(40 * BLOCK_BYTES)
