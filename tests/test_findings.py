"""What comparisons found: kept for later runs, believed when it is whole, and never more than there is room for."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from mirrortools.findings import Comparison, Findings
from mirrortools.model import Blob
from mirrortools.steps import Step
from tests.delivery import sha256_blob

OLDER, NEWER, OTHER = (sha256_blob(content) for content in (b"o" * 90, b"n" * 100, b"other" * 20))
STEPS = (Step(True, 0, 9), Step(False, 0, 90), Step(True, 99, 1))
FOUND = Comparison.of(NEWER.size, STEPS)


def kept(folder: Path) -> Path:
    """The one file that is kept."""
    [path] = folder.iterdir()
    return path


def doctored(data: bytes, **changes: object) -> bytes:
    """The same with other words, and the digest that belongs to them."""
    text = json.dumps(json.loads(data.partition(b"\n")[2]) | changes).encode()
    return sha256(text).hexdigest().encode() + b"\n" + text


def test_what_was_found_is_known_to_whoever_comes_later(tmp_path: Path) -> None:
    """Of that pair alone, in that direction; also that a delta does not pay."""
    vain = Comparison.of(OTHER.size, [Step(True, 0, OTHER.size)])
    Findings(tmp_path / "findings").keep(OLDER, NEWER, FOUND)
    Findings(tmp_path / "findings").keep(OLDER, OTHER, vain)
    findings = Findings(tmp_path / "findings")

    assert findings.known(OLDER, NEWER) == FOUND
    assert findings.known(OLDER, OTHER) == vain
    assert findings.known(NEWER, OLDER) is None
    assert (FOUND.pays, FOUND.new_bytes, FOUND.shifted, vain.pays, vain.steps) == (True, 10, True, False, ())


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data.replace(b"90", b"91"),
        lambda data: b"\xff" * len(data),
        lambda data: doctored(data, steps=[[0, 0, 90], [1, 90, 9]]),
        lambda data: doctored(data, steps=[[0, 1, 90], [1, 90, 10]]),
        lambda data: doctored(data, steps=[[0, -1, 90], [1, 90, 10]]),
        lambda data: doctored(data, steps=[[0, 0, 90], [1, 0, 10]]),
        lambda data: doctored(data, steps=[[0, 0, 90], [0, 0, 0], [1, 90, 10]]),
        lambda data: doctored(data, steps=None),
        lambda data: doctored(data, newer=["sha256", OTHER.digest, OTHER.size]),
        lambda data: doctored(data, older=["sha256", OLDER.digest, OLDER.size + 1]),
    ],
)
def test_what_is_damaged_is_not_believed(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    """A part, other bytes, steps that do not make up the blob out of bytes that there are, other blobs."""
    findings = Findings(tmp_path)
    findings.keep(OLDER, NEWER, FOUND)
    path = kept(tmp_path)
    path.write_bytes(damage(path.read_bytes()))

    assert findings.known(OLDER, NEWER) is None
    findings.keep(OLDER, NEWER, FOUND)
    assert findings.known(OLDER, NEWER) == FOUND


def test_what_somebody_made_another_blob_by_is_forgotten(tmp_path: Path) -> None:
    """Twice is fine."""
    findings = Findings(tmp_path)
    findings.keep(OLDER, NEWER, FOUND)
    findings.forget(OLDER, NEWER)
    findings.forget(OLDER, NEWER)

    assert findings.known(OLDER, NEWER) is None


def test_what_was_not_asked_for_longest_goes(tmp_path: Path) -> None:
    """By number, and by size; what a killed run or another format left goes in its turn."""
    blobs = [Blob("sha256", f"{number:064x}", 100) for number in range(4)]
    (tmp_path / "left").write_bytes(b"by a killed run")
    os.utime(tmp_path / "left", (0, 0))
    findings = Findings(tmp_path, most_files=3)
    for number, blob in enumerate(blobs[:3]):
        findings.keep(OLDER, blob, FOUND)
        os.utime(next(path for path in tmp_path.iterdir() if blob.digest in path.name), (number + 1, number + 1))
    assert findings.known(OLDER, blobs[0])
    findings.keep(OLDER, blobs[3], FOUND)

    assert [findings.known(OLDER, blob) is not None for blob in blobs] == [True, False, True, True]
    assert not (tmp_path / "left").exists()
    Findings(tmp_path, most_bytes=1).keep(OLDER, NEWER, FOUND)
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_can_be_written_nothing_is_known(tmp_path: Path) -> None:
    """A comparison is made again then, and nobody is stopped."""
    (tmp_path / "findings").write_text("a file is in its place")
    findings = Findings(tmp_path / "findings")
    findings.keep(OLDER, NEWER, FOUND)

    assert findings.known(OLDER, NEWER) is None
