"""What is written past the page cache is the same as what is written through it, wherever it goes."""

from __future__ import annotations

import errno
import itertools
import mmap
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrortools.outlet import Outlet
from tests.delivery import noise
from tests.strategies import trials

PAGE = 4096
LENGTH = PAGE * 12 + 5


def in_pages(content: bytes) -> memoryview:
    """The content at the beginning of a page of memory, as the ring has it."""
    pages = memoryview(mmap.mmap(-1, max(len(content), 1)))
    pages[: len(content)] = content
    return pages[: len(content)]


@pytest.fixture(params=["disk", "memory"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[int]:
    """An open file on a disk, and on a file system in memory."""
    folder = tmp_path if request.param == "disk" else Path("/dev/shm")
    path = folder / f"outlet-{os.getpid()}"
    opened = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    yield opened
    os.close(opened)
    path.unlink()


@given(st.lists(st.integers(1, LENGTH - 1), max_size=5), st.randoms())
@trials(50)
def test_pieces_of_any_size_in_any_order_make_up_the_whole(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], chance: random.Random
) -> None:
    """What does not begin or end with a block is written as well."""
    content, edges = noise(LENGTH), sorted({0, *cuts, LENGTH})
    pieces = list(itertools.pairwise(edges))
    chance.shuffle(pieces)
    path = tmp_path_factory.mktemp("outlet") / "file"
    opened = os.open(path, os.O_RDWR | os.O_CREAT)
    outlet = Outlet(opened)
    for start, stop in pieces:
        outlet.write(start, in_pages(content[start:stop]))
    outlet.close()
    os.close(opened)

    assert path.read_bytes() == content


def test_a_file_is_written_where_it_cannot_be_written_directly(file: int) -> None:
    """Memory that is not aligned, for example, or a file system that knows no such thing."""
    outlet = Outlet(file)
    outlet.write(0, in_pages(noise(LENGTH))[1 : PAGE + 1])
    outlet.write(PAGE, in_pages(noise(LENGTH)))
    outlet.close()

    assert os.pread(file, LENGTH * 2, 0) == noise(LENGTH)[1 : PAGE + 1] + noise(LENGTH)


def test_a_full_disk_is_told() -> None:
    """As ENOSPC, which becomes an error of its own further up."""
    full = os.open("/dev/full", os.O_WRONLY)
    outlet = Outlet(full)
    with pytest.raises(OSError, match="No space") as caught:
        outlet.write(0, in_pages(noise(PAGE)))
    outlet.close()
    os.close(full)

    assert caught.value.errno == errno.ENOSPC


def test_closing_twice_closes_nobody_elses_file(tmp_path: Path) -> None:
    """The number of a closed descriptor may be another file's by then."""
    opened = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    outlet = Outlet(opened)
    outlet.close()
    with (tmp_path / "other").open("wb") as other:
        outlet.close()
        other.write(b"still open")
    os.close(opened)

    assert (tmp_path / "other").read_bytes() == b"still open"
