"""What fits on an edge: pure decisions, with numbers in the words of refusal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrortools.errors import NoSpace
from mirrortools.room import Need, check_disk, check_quota
from tests.delivery import REPO, local_edge

GIB = 1 << 30
EDGE = local_edge(Path("/srv/edge"), "bj1")
sizes = st.integers(0, 1 << 40)


@given(sizes, sizes, sizes, sizes)
def test_a_delivery_that_would_fill_the_disk_is_refused(size: int, have: int, free: int, reserve: int) -> None:
    """What is there already is not counted; what is sent must fit beside the reserve, with room for links."""
    have = min(size, have)
    fits = size - have + 8192 <= free - reserve
    try:
        check_disk(replace(EDGE, min_free_bytes=reserve), Need(REPO, 1, size, have), free)
    except NoSpace as error:
        assert not fits
        assert error.needed_bytes == size - have + 8192  # noqa: PT017
    else:
        assert fits


@given(sizes, sizes, sizes)
def test_an_edge_never_goes_beyond_its_quota(size: int, used: int, quota: int) -> None:
    """What has arrived in part will be held too, so it counts."""
    fits = used + size + 8192 <= quota
    try:
        check_quota(replace(EDGE, quota_bytes=quota), Need(REPO, 1, size, size // 2), used)
    except NoSpace:
        assert not fits
    else:
        assert fits


def test_nothing_to_send_always_fits() -> None:
    """An edge that is over its quota, or full, may still be told that a ref has moved."""
    nothing = Need(REPO, 0, 0)
    check_quota(replace(EDGE, quota_bytes=1), nothing, 5 * GIB)
    check_disk(replace(EDGE, min_free_bytes=GIB), nothing, 0)
    check_quota(EDGE, Need(REPO, 1, 1 << 50), 5 * GIB)


def test_the_refusal_says_what_is_needed_and_what_there_is() -> None:
    """With the key to change."""
    with pytest.raises(NoSpace) as disk:
        check_disk(replace(EDGE, min_free_bytes=GIB), Need(REPO, 1, 10 * GIB), 8 * GIB)
    with pytest.raises(NoSpace) as quota:
        check_quota(replace(EDGE, quota_bytes=20 * GIB), Need(REPO, 1, 10 * GIB), 15 * GIB)

    assert "10.0 GiB are needed and 8.0 GiB are free in /srv/edge, of which 1.0 GiB must stay free" in str(disk.value)
    assert "acme/tiny is left out: its quota is 20.0 GiB, it holds 15.0 GiB, and 10.0 GiB more" in str(quota.value)
