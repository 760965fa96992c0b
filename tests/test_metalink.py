"""Metalinks of a published tree: what they say, and when they are written anew."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from mirrortools.errors import HostileTree
from mirrortools.model import Manifest, Publication
from mirrortools.pieces import write_pieces_of
from mirrortools.tree import Tree
from tests.delivery import noise, publication

MIRRORS = ("https://bj1.example", "http://sh1.example:8080/models")
LARGE, ODD = "model.safetensors", "模型/a b&\"<#%41'.safetensors"
FILES = {
    LARGE: noise(5 << 20, 1),
    ODD: noise(1 << 20, 2),
    "small.safetensors": b"few",
    "config.json": b"{}",
    # A folder that is called as the metalink of a file would be.
    "x.safetensors": noise(1 << 20, 3),
    "x.safetensors.meta4/y.safetensors": noise(1 << 20, 4),
}
NAMESPACE = {"": "urn:ietf:params:xml:ns:metalink"}


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """An empty tree."""
    return Tree(tmp_path)


@pytest.fixture
def shown(tmp_path: Path) -> Publication:
    """A revision that two mirrors have."""
    return replace(publication(tmp_path, FILES), mirrors=MIRRORS)


def only(shown: Publication) -> Manifest:
    (manifest,) = shown.manifests.values()
    return manifest


def meta(tree: Tree, shown: Publication) -> Path:
    return tree.served / shown.repo.path / "meta" / only(shown).revision.commit


def parsed(path: Path) -> dict[str, ElementTree.Element]:
    return {file.attrib["name"]: file for file in ElementTree.parse(path).getroot().iterfind("file", NAMESPACE)}


def text(file: ElementTree.Element, name: str) -> str | None:
    return file.findtext(name, namespaces=NAMESPACE)


def urls(file: ElementTree.Element) -> list[tuple[str, str | None]]:
    return [(url.attrib["priority"], url.text) for url in file.iterfind("url", NAMESPACE)]


def test_the_metalink_of_a_revision_has_every_file(tree: Tree, shown: Publication) -> None:
    """Each with its size, its SHA-256 and the mirrors in their order, at the commit."""
    tree.publish(shown)
    found = parsed(meta(tree, shown) / "revision.meta4")
    commit = only(shown).revision.commit

    assert list(found) == sorted(FILES)
    for path, content in FILES.items():
        assert text(found[path], "size") == str(len(content))
        assert text(found[path], "hash") == hashlib.sha256(content).hexdigest()
    assert urls(found["config.json"]) == [
        ("1", f"https://bj1.example/acme/tiny/resolve/{commit}/config.json"),
        ("2", f"http://sh1.example:8080/models/acme/tiny/resolve/{commit}/config.json"),
    ]
    assert urls(found[ODD])[0][1] == (
        f"https://bj1.example/acme/tiny/resolve/{commit}/%E6%A8%A1%E5%9E%8B/a%20b%26%22%3C%23%2541%27.safetensors"
    )


def test_larger_files_have_a_metalink_of_their_own(tree: Tree, shown: Publication) -> None:
    """It says what the revision's says; what a folder is in the way of is left to the revision's."""
    tree.publish(shown)
    files = meta(tree, shown) / "files"
    found = {path.relative_to(files).as_posix() for path in files.rglob("*.meta4") if path.is_file()}

    assert found == {f"{LARGE}.meta4", f"{ODD}.meta4", "x.safetensors.meta4"}
    assert list(parsed(files / f"{ODD}.meta4")) == [ODD]
    of_revision = parsed(meta(tree, shown) / "revision.meta4")[LARGE]
    assert ElementTree.tostring(parsed(files / f"{LARGE}.meta4")[LARGE]) == ElementTree.tostring(of_revision)


def test_pieces_come_when_they_are_known(tree: Tree, shown: Publication) -> None:
    """Publishing does not wait for them; once they were hashed, the metalinks are written anew."""
    tree.publish(shown)
    before = parsed(meta(tree, shown) / "revision.meta4")[LARGE].find("pieces", NAMESPACE)
    write_pieces_of(tree.served, only(shown).files[LARGE].blob)
    written = [tree.publish_metalinks(only(shown), MIRRORS) for _ in range(2)]
    pieces = parsed(meta(tree, shown) / "files" / f"{LARGE}.meta4")[LARGE].find("pieces", NAMESPACE)

    assert before is None
    assert written == [True, False]
    assert pieces is not None
    assert pieces.attrib == {"length": str(4 << 20), "type": "sha-256"}
    assert [piece.text for piece in pieces] == [
        hashlib.sha256(FILES[LARGE][: 4 << 20]).hexdigest(),
        hashlib.sha256(FILES[LARGE][4 << 20 :]).hexdigest(),
    ]


def test_other_mirrors_are_written_into_every_metalink(tree: Tree, shown: Publication) -> None:
    """A publication with other mirrors is another one; without any there are no metalinks."""
    tree.publish(shown)
    assert tree.publish(shown) is False
    assert tree.publish(replace(shown, mirrors=MIRRORS[1:])) is True
    assert str(urls(parsed(meta(tree, shown) / "files" / f"{LARGE}.meta4")[LARGE])[0][1]).startswith(MIRRORS[1])
    assert tree.mirrors(shown.repo) == MIRRORS[1:]
    tree.publish(replace(shown, mirrors=()))

    assert not (meta(tree, shown) / "revision.meta4").exists()
    assert list((meta(tree, shown) / "files").iterdir()) == []


def test_mirrors_are_part_of_what_is_signed(tree: Tree, shown: Publication) -> None:
    """They travel, read back, and change the digest of what was published."""
    tree.publish(shown)

    assert tree.publication(shown.repo) == shown
    assert Publication.from_json(shown.to_json(), lambda _: None) == shown
    assert replace(shown, mirrors=()).digests()["refs"] != shown.digests()["refs"]


@pytest.mark.parametrize("url", ["javascript:x", "https://", "https://a b", 'https://a"b', "https://a/?q", "ftp://a"])
def test_what_is_no_url_of_a_mirror_is_refused(shown: Publication, url: str) -> None:
    """A base URL has a host, and nothing that would end it."""
    with pytest.raises(HostileTree, match="URL of a mirror"):
        replace(shown, mirrors=(url,))
