"""What of a repository an edge is to have."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mirrortools.share import share_name, share_of
from mirrortools.signing import Signer
from tests.delivery import local_edge, publication

FILES = {"model.safetensors": b"weights", "model.bin": b"the same", "config.json": b"{}"}
EDGE = local_edge(Path("/srv/edge"))


def test_an_edge_without_rules_has_all_of_it(tmp_path: Path) -> None:
    """The very same publication, with the same statement."""
    shown = publication(tmp_path, FILES)

    assert share_of(shown, EDGE) is shown
    assert share_name(EDGE) == ""


def test_a_share_lists_what_the_rules_choose_and_says_that_it_is_one(tmp_path: Path) -> None:
    """Refs, commits and git are the same; a revision of which nothing is left out is not called filtered."""
    shown = publication(tmp_path, FILES)
    part = share_of(shown, replace(EDGE, exclude=("*.bin",)))
    all_of_it = share_of(shown, replace(EDGE, include=("*.bin", "*.json", "*.safetensors")))
    [manifest] = part.manifests.values()

    assert sorted(manifest.files) == ["config.json", "model.safetensors"]
    assert manifest.filtered
    assert (part.refs, part.git) == (shown.refs, shown.git)
    assert part.blobs < shown.blobs
    assert all_of_it.manifests == shown.manifests


def test_each_share_has_statements_of_its_own(tmp_path: Path) -> None:
    """Edges with other rules do not make each other's statements stale, nor that of the whole."""
    shown = publication(tmp_path, FILES)
    edge = replace(EDGE, exclude=("*.bin",))
    part, name = share_of(shown, edge), share_name(edge)
    signer = Signer(tmp_path)
    whole, share = signer.signed(shown), signer.signed(part, 0, name)

    assert (signer.signed(shown), Signer(tmp_path).signed(part, 0, name)) == (whole, share)
    assert whole.statement.parts != share.statement.parts
    assert name != share_name(replace(EDGE, exclude=("*.json",)))
    assert name == share_name(replace(edge, name="another"))
