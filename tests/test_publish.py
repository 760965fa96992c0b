"""Git's packs in the store: added to, made one again, made anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.worked import REPO, Worked


@pytest.fixture
def upstream(tmp_path: Path) -> Worked:
    """One with a commit."""
    made = Worked(tmp_path)
    made.commit(a_txt="one")
    return made


def test_packs_are_added_and_after_many_are_one_again(upstream: Worked, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each publication adds what is new; a clone never meets hundreds of packs."""
    monkeypatch.setattr("mirrortools.publish.MOST_PACKS", 3)
    counts = []
    for number in range(5):
        upstream.commit(a_txt=str(number))
        upstream.publish(upstream.place())
        counts.append(len(upstream.tree.git(REPO).packs) // 2)  # type: ignore[union-attr]

    assert counts == [1, 2, 3, 1, 2]


def test_a_pack_that_was_lost_is_made_anew(upstream: Worked) -> None:
    """Everything in one pack, whatever the last snapshot says."""
    upstream.publish(upstream.place())
    first = upstream.tree.git(REPO)
    assert first is not None
    for blob in first.packs.values():
        upstream.store.path(blob).unlink()
    upstream.publish(upstream.place())
    again = upstream.tree.git(REPO)

    assert again is not None
    assert upstream.store.missing(again.packs.values()) == []
    assert list((upstream.root / "stage").iterdir()) == []
