"""Reading past the page cache gives the same bytes as reading through it."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mirrortools.spring import BLOCK_BYTES, MARGIN_BYTES, Spring
from tests.delivery import noise, small_disk

CONTENT = noise(300_000)
COUNT = 100_000
PLACES = [0, 1, BLOCK_BYTES, 2 * BLOCK_BYTES - 1, len(CONTENT) - COUNT, len(CONTENT) - 10, len(CONTENT), 400_000]


@pytest.fixture(params=["disk", "memory"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[int]:
    """An open file of a disk, or of a file system that knows nothing of direct reading (or does it its own way)."""
    with small_disk(tmp_path / "small", 1 << 20) as memory:
        path = (tmp_path if request.param == "disk" else memory) / "file"
        path.write_bytes(CONTENT)
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        yield descriptor
        os.close(descriptor)


@pytest.mark.parametrize("is_cached", [True, False])
@pytest.mark.parametrize("offset", PLACES)
def test_any_place_can_be_read(file: int, offset: int, is_cached: bool) -> None:
    """At any offset, up to the file's end; what lies in the cache, and what does not."""
    if not is_cached:
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    buffer = memoryview(mmap.mmap(-1, COUNT + MARGIN_BYTES))
    with closing(Spring(file)) as spring:
        found = bytes(spring.read(buffer, offset, COUNT))

    assert found == CONTENT[offset : offset + COUNT]


def test_a_closed_one_still_reads_by_the_file_that_is_the_callers(file: int) -> None:
    """Closing twice is fine."""
    spring = Spring(file)
    spring.close()
    spring.close()

    assert spring.read(memoryview(mmap.mmap(-1, COUNT + MARGIN_BYTES)), 5, 10) == CONTENT[5:15]
