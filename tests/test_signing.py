"""The signing key, and statements by it, with the real ssh-keygen."""

from __future__ import annotations

import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mirrortools.errors import IntegrityError, StoreError
from mirrortools.signatures import KEYS, STATEMENTS, check_signature, fingerprint, names_signer, sign
from mirrortools.signing import Signer
from mirrortools.statements import LIFETIME_S
from mirrortools.tree import Tree
from tests.delivery import REPO, publication

FILES = {"README.md": b"# tiny\n"}


class Clock:
    """A time that a test sets."""

    now_s = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now_s


def test_the_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    """Two processes that need it first at the same time find the same one."""
    with ThreadPoolExecutor(4) as threads:
        shown = publication(tmp_path, FILES)
        signed = list(threads.map(lambda _: Signer(tmp_path).signed(shown), range(4)))
    key = Signer(tmp_path).key

    assert len(set(signed)) == 1
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700


def test_who_asks_for_the_key_first_makes_it_for_all(tmp_path: Path) -> None:
    """Runs that begin together make one key, not each its own, and none finds a file in its way."""
    with ThreadPoolExecutor(8) as threads:
        signers = set(threads.map(lambda _: Signer(tmp_path).signer, range(8)))

    assert len(signers) == 1


def test_anyone_can_check_a_statement_with_openssh_alone(tmp_path: Path) -> None:
    """What lies in the public tree, and the public key, are enough for `ssh-keygen -Y verify`."""
    signer = Signer(tmp_path)
    signer.signed(publication(tmp_path, FILES))
    signed = Tree(tmp_path).statement(REPO)
    assert signed
    (tmp_path / "signers").write_text(f"origin {signer.signer}\n")
    (tmp_path / "sig").write_text(signed.signature)
    words = ["-Y", "verify", "-f", f"{tmp_path}/signers", "-I", "origin", "-n", STATEMENTS, "-s", f"{tmp_path}/sig"]
    done = subprocess.run(["ssh-keygen", *words], input=signed.text.encode(), capture_output=True)

    assert done.returncode == 0
    assert fingerprint(signer.signer).encode() in done.stdout


def test_a_statement_serves_until_something_changes_or_half_its_life_is_over(tmp_path: Path) -> None:
    """The same publication has the same statement; numbers grow."""
    clock = Clock()
    signer, shown = Signer(tmp_path, clock), publication(tmp_path, FILES)
    first = signer.signed(shown)
    clock.now_s += LIFETIME_S / 2 - 1
    same = Signer(tmp_path, clock).signed(shown)
    clock.now_s += 1
    renewed = signer.signed(shown)
    changed = signer.signed(publication(tmp_path, {"README.md": b"# newer\n"}))

    assert same == first
    assert first.statement.serial < renewed.statement.serial < changed.statement.serial
    assert renewed.statement.expires_at == clock.now_s + LIFETIME_S


def test_a_tree_without_its_statement_gets_one_with_a_later_number(tmp_path: Path) -> None:
    """A root whose record was lost or damaged does not begin at one again: edges would refuse it."""
    clock = Clock()
    signer, shown = Signer(tmp_path, clock), publication(tmp_path, FILES)
    first = signer.signed(shown)
    (tmp_path / "public" / REPO.path / "meta" / "statement.json").write_bytes(b"{")
    clock.now_s += 1

    assert signer.signed(shown).statement.serial > first.statement.serial


@pytest.mark.parametrize("share", ["", "a-share"])
def test_what_the_former_key_signed_is_signed_by_the_new_one(tmp_path: Path, share: str) -> None:
    """The same statement, word for word, so that edges that have it need not be sent it again."""
    signer, shown = Signer(tmp_path), publication(tmp_path, FILES)
    former = signer.signed(shown, 0, share)
    signer.change_key()
    signed = signer.signed(shown, 0, share)

    assert signed.text == former.text
    check_signature(signer.signer, STATEMENTS, signed.text, signed.signature)
    assert Signer(tmp_path).signed(shown, 0, share) == signed


def test_a_signature_tells_whose_it_is(tmp_path: Path) -> None:
    """Whatever else stands in its place tells nothing."""
    signer, other = Signer(tmp_path / "a"), Signer(tmp_path / "b")
    key = signer.signer
    signature = sign(signer.key, STATEMENTS, "text")

    assert names_signer(signature, key)
    assert not names_signer(signature, other.signer)
    assert not any(names_signer(wrong, key) for wrong in ("", "x", signature[:100], signature.upper(), f"a\n{key}\nb"))


def test_a_signature_is_for_one_purpose_and_one_text(tmp_path: Path) -> None:
    """What was signed as a statement cannot be used as an introduction, nor for another text, nor by another key."""
    signer, other = Signer(tmp_path / "a"), Signer(tmp_path / "b")
    key = signer.signer
    signature = sign(signer.key, STATEMENTS, "text")
    check_signature(key, STATEMENTS, "text", signature)
    for signed_by, namespace, text, proof in [
        (key, KEYS, "text", signature),
        (key, STATEMENTS, "text\n", signature),
        (other.signer, STATEMENTS, "text", signature),
        (key, STATEMENTS, "text", ""),
    ]:
        with pytest.raises(IntegrityError, match="not signed by SHA256:"):
            check_signature(signed_by, namespace, text, proof)


def test_a_new_key_is_introduced_by_the_former_one_alone(tmp_path: Path) -> None:
    """Whoever knew another key gets no introduction."""
    signer = Signer(tmp_path)
    former = signer.signer
    assert signer.introduce(former) is None
    signer.change_key()
    introduction = signer.introduce(former)

    assert signer.signer != former
    assert introduction
    check_signature(former, KEYS, signer.signer, introduction)
    assert signer.introduce(signer.signer) is None


def test_a_key_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """The message says which file."""
    signer = Signer(tmp_path)
    signer.key.parent.mkdir(parents=True)
    signer.key.write_text("not a key")
    signer.key.chmod(0o600)

    with pytest.raises(StoreError, match="keys/signing: cannot be read as a key"):
        _ = signer.signer
