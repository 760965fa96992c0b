"""Blobs that this host is still fetching."""

from __future__ import annotations

from pathlib import Path

from mirrortools.inflow import Inflow
from tests.delivery import noise, sha256_blob

FIRST, SECOND = (sha256_blob(noise(1000, seed)) for seed in (1, 2))


def test_what_is_here_is_known(tmp_path: Path) -> None:
    """It grows until all is there; blobs that nobody waits for do not matter."""
    inflow = Inflow([FIRST, SECOND], lambda blob: [tmp_path / blob.digest])
    inflow.grown(FIRST, 400)
    inflow.grown(sha256_blob(b"another"), 7)

    assert (inflow.stock.have(FIRST.digest), inflow.stock.have(SECOND.digest), inflow.coming_bytes) == (400, 0, 1600)

    inflow.end()

    assert [inflow.stock.have(blob.digest) for blob in (FIRST, SECOND)] == [1000, 1000]
    assert inflow.coming_bytes == 0


def test_what_was_told_stays_told() -> None:
    """Segments that are fetched anew, and news that overtake each other, take nothing back."""
    inflow = Inflow([FIRST])
    for ready_bytes in (600, 200, 0, 500):
        inflow.grown(FIRST, ready_bytes)

    assert inflow.stock.have(FIRST.digest) == 600
    assert inflow.coming_bytes == 400
