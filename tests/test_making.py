"""Blobs that are made while their new bytes still come."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirrortools.making import Making, Order
from mirrortools.model import Blob
from mirrortools.patch import Recipe
from mirrortools.stock import Stock
from tests.delivery import noise, sha256_blob

MIB = 1 << 20
OLDER, FRESH = noise(6 * MIB, 1), noise(3 * MIB, 2)
NEWER = FRESH[:MIB] + OLDER[5:] + FRESH[MIB:]
STEPS = [(True, 0, MIB), (False, 5, len(OLDER) - 5), (True, MIB, 2 * MIB)]
BLOB, BASE, NEW = sha256_blob(NEWER), sha256_blob(OLDER), sha256_blob(FRESH)


@pytest.fixture
def stock() -> Iterator[Stock]:
    """What comes; it ends with the test."""
    found = Stock()
    yield found
    found.end()


def making(folder: Path, stock: Stock, blob: Blob = BLOB, objection: str | None = None) -> Making:
    """Begin to make a blob of whose new bytes nothing is there."""
    (folder / "older").write_bytes(OLDER)
    stock.put(NEW.digest, 0, folder / NEW.digest)
    order = Order(Recipe(blob, BASE, NEW, STEPS), folder / "older")
    return Making(stock, folder, [order], lambda _: objection)


def come(folder: Path, stock: Stock, size_bytes: int) -> None:
    """Let so many of the new bytes be there, behind those that are."""
    with (folder / NEW.digest).open("ab") as file:
        file.write(FRESH[file.tell() : size_bytes])
    stock.grow(NEW.digest, size_bytes)


def test_a_blob_is_made_of_what_comes(tmp_path: Path, stock: Stock) -> None:
    """It waits for its bytes, and is there and hashed soon after the last."""
    making_it = making(tmp_path, stock)
    come(tmp_path, stock, MIB + 17)
    early = making_it.made(BLOB)
    come(tmp_path, stock, len(FRESH))
    made = making_it.made(BLOB)

    assert early is None
    assert made
    assert made.path.read_bytes() == NEWER
    assert made.digest == BLOB.digest == hashlib.sha256(NEWER).hexdigest()


def test_a_blob_of_which_nobody_knows_a_recipe_is_not_made(tmp_path: Path, stock: Stock) -> None:
    """Nobody waits for it."""
    assert making(tmp_path, stock).made(sha256_blob(b"another")) is None


@pytest.mark.parametrize("why", ["full", "no older one"])
def test_what_cannot_be_made_is_none(tmp_path: Path, stock: Stock, why: str) -> None:
    """Whoever asks makes it anew, or says why not."""
    making_it = making(tmp_path, stock, objection="the disk is full" if why == "full" else None)
    if why == "no older one":
        (tmp_path / "older").write_bytes(OLDER[:-1])
    come(tmp_path, stock, len(FRESH))

    assert making_it.made(BLOB) is None


def test_nothing_waits_for_bytes_that_come_no_more(tmp_path: Path, stock: Stock) -> None:
    """The end of the stock ends it."""
    making_it = making(tmp_path, stock)
    come(tmp_path, stock, MIB)
    making_it.end()
    stock.end()
    stock.grow(NEW.digest, len(FRESH))

    assert making_it.made(BLOB) is None
