"""Blobs that git itself holds: out of the mirror, into the store."""

from __future__ import annotations

from pathlib import Path

import pytest

from mirrortools.errors import StoreError
from mirrortools.model import Blob
from mirrortools.plain import adopt_plain
from tests.worked import Worked


@pytest.fixture
def upstream(tmp_path: Path) -> Worked:
    """One with a commit."""
    made = Worked(tmp_path)
    made.commit(a_txt="one")
    return made


def test_plain_blobs_are_adopted_and_nothing_is_left_behind(upstream: Worked) -> None:
    """One, many, and one that git does not have: the stage is empty afterwards."""
    upstream.commit(a_txt="a", b_txt="b", c_txt="c")
    upstream.look(upstream.place())
    blobs = [entry.blob for entry in upstream.mirror.entries(upstream.mirror.tree("main")).values()]
    adopt_plain(blobs[:1], upstream.mirror, upstream.store, upstream.root / "stage")
    adopt_plain(blobs, upstream.mirror, upstream.store, upstream.root / "stage")
    unknown = [Blob("git", "1" * 40, 5), Blob("git", "2" * 40, 5)]
    for missing in (unknown, unknown[:1]):
        with pytest.raises(StoreError, match="1111"):
            adopt_plain(missing, upstream.mirror, upstream.store, upstream.root / "stage")

    assert upstream.store.missing(blobs) == []
    assert list((upstream.root / "stage").iterdir()) == []
