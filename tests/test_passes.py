"""The tokens that an origin gives out."""

from __future__ import annotations

import hashlib
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mirrortools.errors import StoreError
from mirrortools.passes import Passes, new_token


def test_a_token_looks_like_one_of_the_hub() -> None:
    """Clients and scanners for secrets know the form; no two are the same."""
    made = {new_token() for _ in range(100)}

    assert len(made) == 100
    assert all(re.fullmatch(r"hf_[A-Za-z0-9]{34}", token) for token in made)


def test_a_hash_alone_is_kept(tmp_path: Path) -> None:
    """The file has no token in it and is its owner's alone; the id is the beginning of the hash."""
    passes = Passes(tmp_path)
    token, made = passes.add("alice", 1000, 60)
    path = tmp_path / "state" / "tokens.json"

    assert passes.all() == [made]
    assert made.sha256 == hashlib.sha256(token.encode()).hexdigest()
    assert made.sha256.startswith(made.id)
    assert token not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [made.counts(now_s) for now_s in (1000, 1059.9, 1060)] == [True, True, False]


def test_revoking_by_user_or_id(tmp_path: Path) -> None:
    """A user's tokens go together, or one by its id; what nobody has revokes nothing."""
    passes = Passes(tmp_path)
    made = [passes.add(user, 1000, None)[1] for user in ("alice", "alice", "bob")]

    assert passes.revoke("carol") == []
    assert passes.revoke(made[0].id) == [made[0]]
    assert passes.revoke("alice") == [made[1]]
    assert passes.all() == [made[2]]


def test_none_is_lost_when_two_are_made_at_once(tmp_path: Path) -> None:
    """Whoever writes the file has read it under the same lock."""
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: Passes(tmp_path).add(f"user{number}", 1000, None), range(24)))

    assert len(Passes(tmp_path).all()) == 24


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    """It is not taken for an empty one, which would revoke everything."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "tokens.json").write_text('{"tokens": [{"user": "alice"}]}')

    with pytest.raises(StoreError, match=r"tokens\.json"):
        Passes(tmp_path).all()
