"""Small blobs by the hundred: what is right is adopted, whatever is wrong is left to others."""

from __future__ import annotations

from pathlib import Path

import pytest

from mirrortools.bulk import Bulk
from mirrortools.errors import AccessDenied, RateLimited, SourceMissing, SourceUnavailable, UpstreamError
from mirrortools.store import Store
from tests.delivery import noise, sha256_blob
from tests.fakes import FakeSource, Faults

WORKERS = 3
CONTENTS = [noise(100 + number, seed=number) for number in range(300)]


def fetch(root: Path, source: FakeSource) -> tuple[int, int]:
    """How many of CONTENTS are in the store afterwards, and how many bytes came."""
    store, counted = Store(root), [0]

    def count(_name: str, size: int) -> None:
        counted[0] += size

    folder = root / "state" / "partial"
    folder.mkdir(parents=True)
    blobs = [sha256_blob(content) for content in CONTENTS]
    Bulk(source, store, folder, WORKERS, count).fetch(blobs)
    assert list(folder.iterdir()) == []
    held = [blob for blob in blobs if store.has(blob)]
    for blob in held:
        assert sha256_blob(store.path(blob).read_bytes()) == blob
        assert store.path(blob).stat().st_mode & 0o777 == 0o444
    return len(held), counted[0]


def test_all_come_from_an_honest_source(tmp_path: Path) -> None:
    """Each is asked for once, and all bytes are counted."""
    source = FakeSource("s", CONTENTS)

    assert fetch(tmp_path, source) == (len(CONTENTS), sum(map(len, CONTENTS)))
    assert len(source.asked) == len(CONTENTS)


def test_wrong_bytes_are_not_adopted(tmp_path: Path) -> None:
    """Nothing is raised either: the careful way tells."""
    assert fetch(tmp_path, FakeSource("s", CONTENTS, Faults(wrong=True)))[0] == 0


def test_a_blob_that_is_missing_costs_its_group(tmp_path: Path) -> None:
    """The other groups come."""
    source = FakeSource("s", CONTENTS, Faults(refusals=(SourceMissing("no"),)))

    assert fetch(tmp_path, source)[0] == len(CONTENTS) - 100


@pytest.mark.parametrize("trouble", [RateLimited("slow down", 9.0), AccessDenied("no"), SourceUnavailable("down")])
def test_a_source_in_trouble_is_left_alone_at_once(tmp_path: Path, trouble: UpstreamError) -> None:
    """It is not asked for the other groups, but for those that are under way."""
    source = FakeSource("s", CONTENTS, Faults(refusals=(trouble,) * 1000))

    assert fetch(tmp_path, source)[0] == 0
    assert len(source.asked) <= WORKERS


def test_what_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    """Its folder is not locked by anybody."""
    left = tmp_path / "state" / "partial" / "bulk.left"
    left.mkdir(parents=True)
    (left / "file").write_bytes(b"half")
    blob = sha256_blob(CONTENTS[0])
    Bulk(FakeSource("s", CONTENTS), Store(tmp_path), left.parent, 1, lambda _name, _size: None).fetch([blob])

    assert not left.exists()
