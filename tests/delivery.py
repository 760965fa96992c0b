"""What the tests of deliveries share: publications with content, and edges to bring them to."""

from __future__ import annotations

import hashlib
import random
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mirrortools.config import EdgeConfig
from mirrortools.errand import Delivery, Progress, no_progress
from mirrortools.files import make_folder
from mirrortools.here import Here
from mirrortools.model import Blob, Entry, GitSnapshot, Manifest, Publication, RepoId, Revision
from mirrortools.pool import EdgePool, Scope
from mirrortools.seals import SEAL, sealed_text
from mirrortools.signing import Signer
from mirrortools.store import Store
from mirrortools.transports import installed_receiver, receiver_archive
from mirrortools.transports.archive import packed
from tests.servers.sshd import Sshd

REPO = RepoId.parse("acme/tiny")
# Where no relay is reached, so that all bytes go through ssh.
NOWHERE = "255.255.255.255"
# A login, the receiver for an edge that does not keep it yet, a conversation, and what ssh adds to bulk.
TALK_BYTES = len(packed(receiver_archive())) + (40 << 10)


def noise(size_bytes: int, seed: int = 0) -> bytes:
    """Bytes that do not compress, always the same for a seed."""
    return random.Random(seed).randbytes(size_bytes)


def sha256_blob(content: bytes) -> Blob:
    """The name of content as git-LFS gives it."""
    return Blob("sha256", hashlib.sha256(content).hexdigest(), len(content))


def git_blob(content: bytes) -> Blob:
    """The name of content as git gives it."""
    return Blob("git", hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest(), len(content))


def put(root: Path, blob: Blob, content: bytes) -> None:
    """Adopt content into a root's store."""
    incoming = root / "state" / "test-content"
    make_folder(incoming.parent)
    incoming.write_bytes(content)
    Store(root).verify_and_adopt(incoming, blob)


def publication(root: Path, files: Mapping[str, bytes], repo: RepoId = REPO) -> Publication:
    """A repository whose `main` has `files`, with their blobs in the store of `root`.

    Names that end in .safetensors are LFS files, the others git's own.
    """
    commit = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
    entries = {}
    for path, content in files.items():
        lfs = path.endswith(".safetensors")
        blob = sha256_blob(content) if lfs else git_blob(content)
        put(root, blob, content)
        entries[path] = Entry(blob, git_blob(content).digest, 130 if lfs else None)
    pack = noise(700, seed=int(commit[:8], 16))
    put(root, sha256_blob(pack), pack)
    git = GitSnapshot({f"pack-{commit}.pack": sha256_blob(pack)}, {"refs/heads/main": commit}, "refs/heads/main")
    manifest = Manifest(Revision(repo, commit), entries, 1_700_000_000, "Update")
    return Publication(repo, {"refs/heads/main": commit}, {commit: manifest}, git)


def sealed(signer: Signer, challenge: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """A request with the origin's signature, for the conversation with that challenge."""
    return {**request, SEAL: signer.seal(sealed_text(request, challenge))}


def here(origin: Path) -> Here:
    """What deliveries from a root are made of."""
    return Here.of(origin)


def served_files(root: Path, shown: Publication) -> dict[str, bytes]:
    """Path → content of what a root serves as `main`."""
    folder = root / "public" / shown.repo.path / "refs" / "main"
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def ssh_edge(sshd: Sshd, root: Path, name: str = "bj1", **more: Any) -> EdgeConfig:
    """An edge behind a test's sshd."""
    plain = EdgeConfig(name, sshd.url(quote(str(root))), None, sshd.identity_file, sshd.known_hosts, "127.0.0.1:80")
    return replace(plain, **more)


def local_edge(root: Path, name: str = "disk1", **more: Any) -> EdgeConfig:
    """An edge that is a folder of this host."""
    return replace(EdgeConfig(name, f"file://{quote(str(root))}", None, None, None, "127.0.0.1:80"), **more)


def bound_edge(sshd: Sshd, root: Path, name: str = "bj1", *words: str, **more: Any) -> EdgeConfig:
    """An edge whose key is bound to an installed receiver with these words, as provisioning binds it."""
    receiver = root.with_name(f"{name}-receiver.pyz")
    receiver.write_bytes(installed_receiver())
    command = shlex.join(["python3", "-I", str(receiver), f"--edge={name}", *words, str(root)]).replace('"', '\\"')
    sshd.authorize(f'restrict,command="{command}"')
    return ssh_edge(sshd, root, name, **more)


def run(edge: EdgeConfig, origin: Path, shown: Publication, progress: Progress = no_progress) -> Delivery:
    """One run with one edge and one repository."""
    with EdgePool(Scope({edge.name: edge}, origin)) as pool:
        [delivery] = pool.deliver(shown, [edge.name], progress)
    return delivery


@contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[Path]:
    """A file system of its own with little room and 2000 inodes, mounted at `folder`."""
    folder.mkdir(parents=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size_bytes},nr_inodes=2000", "tmpfs", str(folder)], check=True
    )
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
