"""Rolls: what differs is found, whatever it is, and nothing that came is taken for a roll when it is none."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrortools.roll import TOGETHER, Roll

SAID = {f"models/acme/m{number:04}": f"{number:064x}" for number in range(3 * TOGETHER + 5)}
PATHS = sorted(SAID)


def travelled(roll: Roll) -> Roll:
    """As it is at the other end."""
    return Roll.from_json(json.loads(json.dumps(roll.to_json())))


def test_a_roll_travels_as_it_is() -> None:
    """Also one of nothing."""
    for said in (SAID, {}, {PATHS[0]: "x"}):
        roll = travelled(Roll.of(said))

        assert list(roll.paths) == sorted(said)
        assert roll.differing(said) == []
        assert len(roll.digests) == -(-len(said) // TOGETHER)


CHANGES = st.dictionaries(st.sampled_from(PATHS), st.sampled_from([None, "0" * 64, "f" * 64]), max_size=6)


@given(changes=CHANGES)
def test_every_difference_is_in_a_part_that_is_named(changes: Mapping[str, str | None]) -> None:
    """And no part is named without one; what an edge shows besides is no difference."""
    shown = {path: changes.get(path, digest) for path, digest in {**SAID, "models/acme/other": "x"}.items()}
    numbers = travelled(Roll.of(SAID)).differing({path: digest for path, digest in shown.items() if digest})
    other = [path for path in PATHS if shown[path] != SAID[path]]

    assert numbers == sorted({PATHS.index(path) // TOGETHER for path in other})
    assert set(other) <= set(Roll.of(SAID).in_parts(numbers))


def names(data: bytes) -> str:
    return base64.b64encode(data).decode()


GOOD: Mapping[str, Any] = Roll.of(SAID).to_json()


@pytest.mark.parametrize(
    "document",
    [
        {},
        {**GOOD, "names": None},
        {**GOOD, "names": "?"},
        {**GOOD, "names": names(b"no names")},
        {**GOOD, "names": names(zlib.compress(b"models/a/b")[:-2])},
        {**GOOD, "names": names(zlib.compress(b"\xff"))},
        {**GOOD, "names": names(zlib.compress(bytes(70 << 20)))},
        {**GOOD, "names": names(zlib.compress(b"\n" * (1 << 20)))},
        {**GOOD, "digests": GOOD["digests"][1:]},
        {**GOOD, "digests": 17},
    ],
)
def test_what_is_no_roll_is_refused(document: Mapping[str, Any]) -> None:
    """Nor is anything expanded that becomes very much."""
    with pytest.raises((ValueError, KeyError, TypeError)):
        Roll.from_json(document)


@pytest.mark.parametrize("number", [-1, 4])
def test_a_part_that_is_not_there_is_refused(number: int) -> None:
    """An answer may name any number."""
    with pytest.raises(ValueError, match="there is no part"):
        list(Roll.of(SAID).in_parts([0, number]))
