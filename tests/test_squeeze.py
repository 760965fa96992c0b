"""What is compressed on its way to an edge, and when."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path

import pytest

from mirrortools.squeeze import SLOW_BYTES_S, SMALL_BYTES, WORTH, Wire, ratio, worth_it
from mirrortools.store import Store
from tests.delivery import noise, put, sha256_blob

KIB = 1 << 10


def weights(count: int, form: str) -> bytes:
    """Numbers as a model has them: of 32 bits, or the upper 16 of those."""
    choose = random.Random(1)
    packed = struct.pack(f"<{count}f", *(choose.gauss(0, 0.02) for _ in range(count)))
    return packed if form == "fp32" else bytes(packed[i + j] for i in range(0, len(packed), 4) for j in (2, 3))


TEXT = json.dumps([{"id": number, "label": "a word"} for number in range(20_000)]).encode()


@pytest.mark.parametrize(
    ("content", "shrinks"),
    [(TEXT, True), (weights(200_000, "bf16"), True), (weights(200_000, "fp32"), False), (noise(500 * KIB), False)],
    ids=["text", "bf16", "fp32", "noise"],
)
def test_a_sample_tells_whether_content_shrinks(tmp_path: Path, content: bytes, shrinks: bool) -> None:
    """Texts and 16 bit weights do, 32 bit weights and what looks like chance hardly or not."""
    blob = sha256_blob(content)
    put(tmp_path, blob, content)

    assert (worth_it([blob], Store(tmp_path).served) == {blob}) == shrinks
    assert (ratio(Store(tmp_path).path(blob), blob.size) <= WORTH) == shrinks


def test_a_header_does_not_stand_for_the_whole(tmp_path: Path) -> None:
    """The sample is from the middle: safetensors begin with JSON."""
    content = TEXT + noise(3 << 20)
    (tmp_path / "model").write_bytes(content)

    assert ratio(tmp_path / "model", len(content)) > WORTH


def test_small_files_are_not_looked_at(tmp_path: Path) -> None:
    """They need not even be there; an empty one is no trouble."""
    (tmp_path / "empty").touch()

    assert len(worth_it([sha256_blob(b"x" * (SMALL_BYTES - 1))], tmp_path)) == 1
    assert ratio(tmp_path / "empty", 0) == 1.0


def test_a_way_is_slow_when_it_is_known_to_be() -> None:
    """By its limit, or by what was seen; a few bytes tell nothing, and a limit holds on a fast way too."""
    unknown, limited, seen, fast = Wire(), Wire(1_000_000), Wire(), Wire(1_000_000)
    unknown.took(1000, 10.0)
    seen.took(10 << 20, 10.0)
    fast.took(10 * SLOW_BYTES_S, 1.0)

    assert [wire.is_slow for wire in (unknown, limited, seen, fast)] == [False, True, True, True]
    seen.took(10 * SLOW_BYTES_S, 1.0)
    assert not seen.is_slow
