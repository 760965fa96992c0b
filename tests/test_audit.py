"""Looking again at what lies in a root: bad blobs, wrong links, proofs of samples."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrortools.audit import Audit, Sample, Subset
from mirrortools.check import SAMPLE_BYTES, choose_samples
from mirrortools.errors import ConfigError
from mirrortools.model import Blob, Publication
from mirrortools.store import Store
from mirrortools.tree import Tree
from tests.delivery import noise, publication
from tests.strategies import few_blobs

FILES = {"model.safetensors": noise(5000), "sub/README.md": b"# tiny\n"}


@pytest.fixture
def shown(tmp_path: Path) -> Publication:
    """What a root serves."""
    made = publication(tmp_path, FILES)
    Tree(tmp_path).publish(made)
    return made


def rot(root: Path, blob: Blob, content: bytes) -> None:
    """Let a disk change a blob's bytes."""
    path = Store(root).path(blob)
    path.chmod(0o644)
    path.write_bytes(content)


def test_what_is_in_order_has_no_findings(tmp_path: Path, shown: Publication) -> None:
    """Every blob hashes to its name, every link leads to its blob."""
    audit = Audit(tmp_path)

    assert audit.bad_blobs(shown.blobs) == {}
    assert [audit.wrong_links(manifest) for manifest in shown.manifests.values()] == [[]]


class Interrupting(Blob):
    """A blob at which an operator presses Ctrl-C."""

    @property
    def path(self) -> str:
        raise KeyboardInterrupt


def test_who_breaks_off_does_not_wait_for_a_large_blob(tmp_path: Path) -> None:
    """Hashing this one would take many minutes."""
    large = Blob("sha256", "0" * 64, 1 << 40)
    path = Store(tmp_path).path(large)
    path.parent.mkdir(parents=True)
    path.touch()
    os.truncate(path, large.size)
    with pytest.raises(KeyboardInterrupt):
        Audit(tmp_path).bad_blobs([Interrupting("sha256", "1" * 64, 1), large])


def test_rot_and_loss_are_found_and_set_aside(tmp_path: Path, shown: Publication) -> None:
    """A flipped byte of the same size, a lost file: both are told; what was set aside is kept, and missing."""
    audit, store = Audit(tmp_path), Store(tmp_path)
    rotten, lost = sorted(shown.blobs, key=lambda blob: blob.size)[-2:]
    content = bytearray(store.path(rotten).read_bytes())
    content[100] ^= 1
    rot(tmp_path, rotten, bytes(content))
    store.path(lost).unlink()
    bad = audit.bad_blobs(shown.blobs)
    for blob in bad:
        audit.set_aside(blob)

    assert bad[lost] == "is not there"
    assert bad[rotten].startswith(f"expected {rotten.algorithm} {rotten.digest}, got ")
    assert bad.keys() == {lost, rotten}
    assert (tmp_path / "state" / "quarantine" / rotten.digest).read_bytes() == bytes(content)
    assert store.missing(shown.blobs) == sorted([lost, rotten])


@pytest.mark.parametrize("target", ["../../../../blobs/sha256/aa/bb/cc", "/etc/passwd", None])
def test_a_link_that_leads_elsewhere_is_found(tmp_path: Path, shown: Publication, target: str | None) -> None:
    """Another blob, another place, no link; once the record is forgotten, publishing makes the links again."""
    [manifest] = shown.manifests.values()
    link = tmp_path / "public" / shown.repo.path / "commits" / manifest.revision.commit / "sub" / "README.md"
    link.unlink()
    if target:
        link.symlink_to(target)
    audit = Audit(tmp_path)
    wrong = audit.wrong_links(manifest)
    audit.forget(manifest)
    Tree(tmp_path).publish(shown)

    assert wrong == ["sub/README.md"]
    assert audit.wrong_links(manifest) == []
    assert link.read_bytes() == FILES["sub/README.md"]


def test_a_proof_needs_the_bytes_and_the_nonce(tmp_path: Path, shown: Publication) -> None:
    """It is the hash of both; a lost blob, or one that became shorter, proves nothing."""
    blob = max(shown.blobs, key=lambda blob: blob.size)
    sample, audit = Sample(blob, 1000, 300), Audit(tmp_path)
    proved = audit.prove([sample], "n")
    rot(tmp_path, blob, b"short")
    short = audit.prove([sample], "n")
    Store(tmp_path).path(blob).unlink()

    assert proved == [hashlib.sha256(b"n" + FILES["model.safetensors"][1000:1300]).hexdigest()]
    assert short == audit.prove([sample], "n") == [None]


@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (0, 11), (5, 6), (11, 0), (3, -1)])
def test_a_sample_is_a_part_of_its_blob(offset: int, length: int) -> None:
    """Nobody can make an edge read elsewhere."""
    with pytest.raises(ValueError, match="not a part"):
        Sample(Blob("sha256", "a" * 64, 10), offset, length)


@given(st.lists(few_blobs(), unique=True), st.integers(1, 50))
def test_the_parts_together_are_everything_once(blobs: list[Blob], parts: int) -> None:
    """Each blob is in one part of t, whatever t is."""
    counts = [sum(Subset(number, parts).has(blob) for number in range(1, parts + 1)) for blob in blobs]

    assert counts == [1] * len(blobs)


@pytest.mark.parametrize("text", ["", "1", "0/3", "4/3", "1/0", "-1/3", "1/3/5", "a/b", "1/1000000000"])
def test_a_part_that_there_is_not_is_refused(text: str) -> None:
    """The message shows the form."""
    with pytest.raises(ConfigError, match="1/7"):
        Subset.parse(text)


@given(st.lists(few_blobs(), unique=True), st.integers(1, 40), st.integers())
def test_samples_lie_within_their_blobs(blobs: list[Blob], count: int, seed: int) -> None:
    """As many as asked for when there is a byte at all, none of an empty blob."""
    samples = choose_samples(blobs, count, Random(seed))

    assert len(samples) == (count if any(blob.size for blob in blobs) else 0)
    assert all(0 < sample.length <= SAMPLE_BYTES for sample in samples)
