"""Ed25519 signatures by OpenSSH's `ssh-keygen -Y` (its PROTOCOL.sshsig), which every host with sshd has.

Only the standard library is used here, because the receiver runs this module on edges.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from mirrortools.errors import IntegrityError, StoreError
from mirrortools.files import make_folder, sync_folder

STATEMENTS: Final = "mirrortools-statement"
KEYS: Final = "mirrortools-key"
REQUESTS: Final = "mirrortools-request"
_IDENTITY: Final = "origin"
_PUBLIC_KEY: Final = re.compile(r"ssh-ed25519 [A-Za-z0-9+/]{68}\Z")
_TIMEOUT_S: Final = 30


def check_public_key(text: str) -> str:
    """`text` when it is an Ed25519 public key as OpenSSH writes it, without a comment. Raises IntegrityError."""
    if not _PUBLIC_KEY.match(text):
        raise IntegrityError(f"not an Ed25519 public key: {text[:100]!r}")
    return text


def public_key(path: Path) -> str:
    """The public key of the private key in `path`, without its comment. Raises StoreError, IntegrityError."""
    status, out, said = _run(["-y", "-f", str(path)])
    if status:
        raise StoreError(f"{path}: cannot be read as a key: {said}")
    return check_public_key(" ".join(out.split()[:2]))


def make_key(path: Path) -> None:
    """Make a private key in `path`, for its owner alone, durably; the public one lies beside it. Raises StoreError."""
    make_folder(path.parent)
    path.parent.chmod(0o700)
    status, _, said = _run(["-q", "-t", "ed25519", "-N", "", "-C", "mirrortools", "-f", str(path)])
    if status:
        raise StoreError(f"{path}: cannot make a key: {said}")
    for made in (path, path.with_name(f"{path.name}.pub")):
        with made.open("rb") as file:
            os.fsync(file.fileno())
    sync_folder(path.parent)


def sign(path: Path, namespace: str, text: str) -> str:
    """The signature of `text` by the private key in `path`, for one purpose. Raises StoreError."""
    status, out, said = _run(["-q", "-Y", "sign", "-f", str(path), "-n", namespace], text)
    if status:
        raise StoreError(f"{path}: cannot sign: {said}")
    return out


def check_signature(signer: str, namespace: str, text: str, signature: str) -> None:
    """Refuse what the owner of the public key `signer` did not sign for this purpose. Raises IntegrityError."""
    line = f'{_IDENTITY} namespaces="{namespace}" {check_public_key(signer)}\n'
    with _in_memory(line) as signers, _in_memory(signature) as proof:
        names = [f"/proc/self/fd/{file}" for file in (signers, proof)]
        words = ["-q", "-Y", "verify", "-f", names[0], "-I", _IDENTITY, "-n", namespace, "-s", names[1]]
        status, _, said = _run(words, text, (signers, proof))
    if status:
        raise IntegrityError(f"not signed by {fingerprint(signer)}: {said}")


def names_signer(signature: str, signer: str) -> bool:
    """Whether a signature says that it was made with the key `signer`; whether it was, `check_signature` tells.

    The armoured form is base64 between two lines, the public key in it behind six bytes and a number (PROTOCOL.sshsig).
    """
    try:
        made = base64.b64decode("".join(signature.splitlines()[1:-1]), validate=True)
        key = base64.b64decode(signer.split()[1])
    except (ValueError, IndexError):
        return False
    return made.startswith(b"SSHSIG" + (1).to_bytes(4) + len(key).to_bytes(4) + key)


def fingerprint(signer: str) -> str:
    """A public key as `ssh-keygen -l` shows it."""
    digest = hashlib.sha256(base64.b64decode(signer.split()[1])).digest()
    return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"


@contextlib.contextmanager
def _in_memory(text: str) -> Iterator[int]:
    """The descriptor of a file with `text` that is on no disk."""
    file = os.memfd_create("mirrortools")
    try:
        os.write(file, text.encode())
        yield file
    finally:
        os.close(file)


def _run(words: Sequence[str], text: str = "", files: Sequence[int] = ()) -> tuple[int, str, str]:
    """Run ssh-keygen with `text` as its input: its exit status, what it printed, and why it failed."""
    try:
        done = subprocess.run(
            ["ssh-keygen", *words],
            input=text.encode(),
            capture_output=True,
            pass_fds=files,
            timeout=_TIMEOUT_S,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
        )
    except FileNotFoundError as error:
        raise StoreError("ssh-keygen is not installed (Debian: openssh-client); install it and run again") from error
    except subprocess.TimeoutExpired as error:
        raise StoreError(f"ssh-keygen did not end within {_TIMEOUT_S} s") from error
    said = " ".join(done.stderr.decode(errors="replace").split()) or f"ssh-keygen ended with status {done.returncode}"
    return done.returncode, done.stdout.decode(errors="replace"), said
