"""Blobs that are made in incoming, and adopted when they hash right."""

from __future__ import annotations

from pathlib import Path

import pytest

from mirrortools.berth import Berth
from mirrortools.bounds import Bounds
from mirrortools.inlet import Inlet
from mirrortools.intake import Intake
from mirrortools.making import Made
from mirrortools.model import Blob
from mirrortools.patch import Recipe
from mirrortools.store import Store
from tests.delivery import REPO, noise, put, sha256_blob

OLDER, FRESH = noise(100_000, 1), noise(5000, 2)
NEWER = FRESH + OLDER
BLOB, BASE, NEW = sha256_blob(NEWER), sha256_blob(OLDER), sha256_blob(FRESH)
RECIPE = Recipe(BLOB, BASE, NEW, [(True, 0, len(FRESH)), (False, 0, len(OLDER))])


@pytest.fixture
def intake(tmp_path: Path) -> Intake:
    """The older blob is in the store, and the new bytes have arrived."""
    put(tmp_path, BASE, OLDER)
    found = Intake(Berth(tmp_path, REPO), Store(tmp_path), Bounds(), lambda _: None)
    (found.make() / NEW.digest).write_bytes(FRESH)
    return found


def beforehand(intake: Intake, content: bytes, digest: str = BLOB.digest) -> Made:
    """A file that was made while bytes came, and what that is said to hash to."""
    path = intake.folder / "beforehand.made"
    path.write_bytes(content)
    return Made(path, digest)


def adopted(intake: Intake) -> bytes | None:
    path = intake.store.path(BLOB)
    return path.read_bytes() if path.exists() else None


def test_a_blob_is_made_of_what_arrived(intake: Intake) -> None:
    """When it was not made before."""
    assert intake.patch(RECIPE, lambda _: lambda _: None)
    assert adopted(intake) == NEWER


def test_what_was_made_while_it_came_is_not_made_again(intake: Intake) -> None:
    """Its bytes are taken as they were hashed then, for the inlet's mark of now."""
    made = beforehand(intake, NEWER)
    (intake.folder / NEW.digest).unlink()
    asked: list[tuple[str, Blob]] = []
    with Inlet(intake.berth).closed() as mark:
        """As it is."""

    assert intake.patch(RECIPE, lambda mark: lambda blob: asked.append((mark, blob)) or made)
    assert adopted(intake) == NEWER
    assert asked == [(mark, BLOB)]


def test_what_is_not_there_as_it_was_made_is_made_again(intake: Intake) -> None:
    """Such as a file that somebody cut short."""
    made = beforehand(intake, NEWER[:-1])

    assert intake.patch(RECIPE, lambda _: lambda _: made)
    assert adopted(intake) == NEWER


def test_what_hashes_wrong_is_removed(intake: Intake) -> None:
    """It is to be sent whole."""
    made = beforehand(intake, bytes(len(NEWER)), sha256_blob(bytes(len(NEWER))).digest)

    assert not intake.patch(RECIPE, lambda _: lambda _: made)
    assert (adopted(intake), made.path.exists()) == (None, False)


def test_a_part_of_what_is_made_is_not_taken_for_the_blob(intake: Intake) -> None:
    """A kill in the middle leaves nothing that the next delivery would go on from."""
    (intake.folder / f"{BLOB.digest}.made").write_bytes(NEWER[:1000])
    intake.clear([BLOB, NEW], 0.0, "a test")

    assert [path.name for path in intake.folder.iterdir()] == [NEW.digest]
