"""Making a blob out of an older one and new bytes."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from mirrortools.patch import PIECE_BYTES, Recipe, Step, fill_from, patch
from tests.delivery import noise, sha256_blob

OLDER, FRESH = noise(3 * PIECE_BYTES, 1), noise(PIECE_BYTES + 777, 2)


def made(folder: Path, steps: Sequence[Step]) -> tuple[bytes, str]:
    """What came of it, and the digest that was taken on the way."""
    (folder / "older").write_bytes(OLDER)
    (folder / "fresh").write_bytes(FRESH)
    digest = hashlib.sha256()
    with (folder / "fresh").open("rb") as fresh:
        patch(folder / "older", partial(fill_from, fresh.fileno()), folder / "made", steps, digest)
    return (folder / "made").read_bytes(), digest.hexdigest()


def expected(steps: Sequence[Step]) -> bytes:
    return b"".join((FRESH if is_new else OLDER)[offset : offset + length] for is_new, offset, length in steps)


WHOLE: list[Step] = [(False, 0, len(OLDER))]
CASES: list[list[Step]] = [
    [],
    WHOLE,
    [(True, 5, 10)],
    [(True, 0, 1000), *WHOLE],
    [(False, PIECE_BYTES, PIECE_BYTES), (True, 0, len(FRESH)), (False, 7, 2 * PIECE_BYTES + 1)],
    [(bool(n % 2), n * 1000, 999) for n in range(1000)],
]


@pytest.mark.parametrize("steps", CASES, ids=len)
def test_steps_make_up_the_blob_and_its_digest(tmp_path: Path, steps: list[Step]) -> None:
    """At any places and of any lengths; small ones share a piece, long ones take several."""
    content, digest = made(tmp_path, steps)

    assert content == expected(steps)
    assert digest == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    "steps",
    [[], [(False, 0, 9)], [(False, 0, 11)], [(False, -1, 10)], [(False, 1, 10)], [(True, 0, 10)], [(False, 0, 0)]],
)
def test_steps_that_do_not_make_up_the_blob_are_refused(steps: list[Step]) -> None:
    """Out of bounds, too few, too many, empty."""
    blob, fresh = sha256_blob(b"0123456789"), sha256_blob(b"abc")
    with pytest.raises(ValueError, match="bytes"):
        Recipe(blob, blob, fresh, steps)


def test_a_file_that_is_shorter_than_it_was_is_an_error(tmp_path: Path) -> None:
    """Not an endless loop, and not a blob with a gap."""
    with pytest.raises(OSError, match="shorter"):
        made(tmp_path, [(False, len(OLDER) - 5, 10)])


@pytest.fixture
def sharing_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system whose files can share blocks."""
    image, disk = tmp_path / "image", tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(320 << 20)
    subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", image], check=True)
    disk.mkdir()
    subprocess.run(["mount", "-o", "loop", image, disk], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", disk], check=True)


def test_what_is_the_same_takes_no_room_where_files_can_share_it(sharing_disk: Path) -> None:
    """On XFS and btrfs the blocks of the older blob are those of the new one."""
    steps: list[Step] = [*WHOLE, (True, 0, 100)]
    (sharing_disk / "older").write_bytes(OLDER)
    os.sync()
    before = os.statvfs(sharing_disk)
    content, _ = made(sharing_disk, steps)
    os.sync()
    after = os.statvfs(sharing_disk)

    assert content == expected(steps)
    assert (before.f_bfree - after.f_bfree) * before.f_frsize < len(FRESH) + PIECE_BYTES
