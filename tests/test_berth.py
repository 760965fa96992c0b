"""What a repository's two places on an edge are called."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrortools.berth import Berth
from mirrortools.errors import ConfigError
from mirrortools.model import KINDS, RepoId

ROOT = Path("/srv/mirror")


names = st.from_regex(r"[A-Za-z0-9_](\.?[A-Za-z0-9_]){0,5}(/[A-Za-z0-9_]{1,5})?", fullmatch=True)


@given(st.sampled_from(KINDS), names, st.booleans())
def test_a_berth_is_found_again_by_its_name(kind: str, name: str, is_ahead: bool) -> None:
    """And it shares nothing with the repository's other one."""
    berth = Berth(ROOT, RepoId(kind, name), is_ahead)

    assert Berth.named(ROOT, berth.name) == berth
    assert Berth.named(ROOT, berth.other.name) == berth.other != berth
    assert {berth.folder, berth.lock("lock")}.isdisjoint({berth.other.folder, berth.other.lock("lock")})
    assert berth.folder.parent == berth.other.folder.parent == ROOT / "state" / "incoming"


@pytest.mark.parametrize(
    "name",
    ["", "@ahead", "no repository", "acme%2Ftiny", "models%2Facme%2Ftiny@ahead@ahead", "models%2Facme%2Ftiny%40ahead"],
)
def test_other_names_are_nobodys(name: str) -> None:
    """There is one spelling of each."""
    with pytest.raises(ConfigError):
        Berth.named(ROOT, name)
