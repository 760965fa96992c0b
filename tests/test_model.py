"""JSON that is made piece by piece: the same as when it is made at once, without being in memory at once."""

from __future__ import annotations

import hashlib
import json
import tracemalloc
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrortools import hubapi
from mirrortools.model import Blob, Entry, Items, Manifest, RepoId, Revision, json_pieces
from tests.strategies import manifests, trials

MANY = 10_000


def compact(document: object) -> str:
    return json.dumps(document, separators=(",", ":"))


def digest_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def large_manifest() -> Manifest:
    """A revision with so many files that its JSON takes megabytes."""
    files = {
        f"part-{number % 10}/file-{number:06}.bin": Entry(
            Blob("sha256", digest_of(str(number)), number), digest_of(str(number))[:40], 130
        )
        for number in range(MANY)
    }
    return Manifest(Revision(RepoId("models", "org/large"), "a" * 40), files, 1_700_000_000, "title")


@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 600])
def test_iterators_become_lists_and_objects(count: int) -> None:
    """Whatever the number of elements, alone or inside of an object."""
    numbers = list(range(count))
    named = {f"n{number}": [number] for number in numbers}
    mixed = {"first": 1, "list": iter(numbers), "object": Items(iter(named.items())), "last": {"a": None}}
    whole = compact({"first": 1, "list": numbers, "object": named, "last": {"a": None}})

    assert "".join(json_pieces(iter(numbers))) == compact(numbers)
    assert "".join(json_pieces(Items(iter(named.items())))) == compact(named)
    assert "".join(json_pieces(mixed)) == whole


@pytest.mark.parametrize("document", [{}, [], None, "text", {"a": []}, [1, {"b": 2}]])
def test_what_holds_no_iterator_is_plain_json(document: object) -> None:
    """Nothing special happens to it."""
    assert "".join(json_pieces(document)) == compact(document)


@given(value=manifests())
@trials(50)
def test_a_manifest_in_pieces_is_the_manifest(value: Manifest) -> None:
    """Its text is that of `to_json`, it reads back, and its digest is that of the sorted document, as edges know it."""
    text = "".join(value.json_pieces())
    as_edges_hash_it = json.dumps(value.to_json(), ensure_ascii=False, sort_keys=True, separators=(",", ":"))

    assert text == compact(value.to_json())
    assert Manifest.from_json(json.loads(text)) == value
    assert value.digest() == digest_of(as_edges_hash_it)


@given(names=st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map("/".join))
@trials(50)
def test_listings_go_through_folders_in_order(names: str) -> None:
    """A folder comes before what is in it, and what is in it before what comes after the folder."""
    blob = Blob("git", "1" * 40, 1)
    paths = [f"{names}/{last}" for last in ("x", "y")] + ["z"]
    value = Manifest(
        Revision(RepoId("models", "org/name"), "a" * 40), {path: Entry(blob, "1" * 40) for path in paths}, 0
    )
    root = next(listing for listing in hubapi.listings(value) if not listing.folder)
    listed = [document["path"] for document in root.recursive or ()]
    folders = ["/".join(names.split("/")[: depth + 1]) for depth in range(names.count("/") + 1)]

    assert listed == [*folders, *paths]


def test_large_documents_are_never_in_memory() -> None:
    """What is held while they are made is a small part of them, and does not grow with them."""
    value = large_manifest()

    def answers() -> Iterable[Iterable[str]]:
        yield value.json_pieces()
        yield json_pieces(hubapi.info(value, blobs=True))
        for listing in hubapi.listings(value):
            yield json_pieces(listing.flat)
            yield json_pieces(listing.recursive)

    tracemalloc.start()
    try:
        made_bytes = sum(len(piece) for pieces in answers() for piece in pieces)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert made_bytes > 600 * MANY
    assert peak_bytes < 150 * MANY
