"""A repository made by hand: real git objects, LFS pointers and content, published by Store and Tree alone."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mirrortools.model import Blob, Entry, GitSnapshot, Manifest, Publication, RepoId, Revision, short_ref
from mirrortools.store import Store, hash_file
from mirrortools.tree import Tree
from tests.clients import Expected, Files
from tests.servers.author import run_git

LFS_SUFFIXES = (".safetensors", ".bin")
ATTRIBUTES = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES).encode()

ODD_NAMES: Files = {
    "with space/a b.bin": b"space" * 50,
    "a+b=c&d.json": b"{}",
    "100%41 #1.safetensors": b"percent and hash",
    "what?.json": b"question",
    "模型/权重.safetensors": "中文".encode() * 100,
    "semi;colon 'quote' \"double\" $dollar {brace}.json": b"nginx would mind",
    "deep/er/and/deeper/x.json": b"deep",
    ".hidden/.file": b"hidden",
}
FIRST: Files = {
    ".gitattributes": ATTRIBUTES,
    "README.md": b"# A model\n",
    "config.json": b'{"layers": 2}\n',
    "empty.json": b"",
    "model.safetensors": bytes(range(256)) * 4096,
    "twin.safetensors": bytes(range(256)) * 4096,
    **ODD_NAMES,
    **{f"shards/part-{number:03}.bin": f"part {number}".encode() * 30 for number in range(140)},
}
SECOND: Files = {**FIRST, "config.json": b'{"layers": 3}\n', "model.safetensors": b"\7" * (1 << 20)}
SMALL: Files = {"README.md": b"small\n", "data/train.bin": b"rows" * 1000, ".gitattributes": ATTRIBUTES}


def is_lfs(path: str) -> bool:
    return path.endswith(LFS_SUFFIXES)


def pointer(content: bytes) -> bytes:
    """The pointer that git holds in the place of LFS content (git-lfs's docs/spec.md)."""
    oid = hashlib.sha256(content).hexdigest()
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {len(content)}\n".encode()


@dataclass(frozen=True, slots=True)
class HandMade:
    """A git repository in `folder` whose commits are published into `root`."""

    root: Path
    folder: Path
    repo: RepoId

    def publish(self, history: Mapping[str, Files]) -> Expected:
        """Commit each revision (`refs/…` → files) on top of the one before, publish all; what clients must get."""
        self._git("init", "--quiet", "--initial-branch=main")
        commits = {ref: self._commit(ref, files) for ref, files in history.items()}
        manifests = {commits[ref]: self._manifest(commits[ref], files) for ref, files in history.items()}
        snapshot = self._snapshot()
        Tree(self.root).publish(Publication(self.repo, commits, manifests, snapshot))
        return Expected(
            self.repo,
            {short_ref(ref): commit for ref, commit in commits.items()},
            {short_ref(ref): files for ref, files in history.items()},
            frozenset(path for files in history.values() for path in files if is_lfs(path)),
        )

    def _git(self, *words: str) -> str:
        self.folder.mkdir(parents=True, exist_ok=True)
        return run_git("-C", str(self.folder), *words)

    def _commit(self, ref: str, files: Files) -> str:
        """Commit exactly `files`, LFS content as pointers, and let `ref` name the commit (tags are annotated)."""
        self._git("rm", "-rq", "--ignore-unmatch", ".")
        for path, content in files.items():
            (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / path).write_bytes(pointer(content) if is_lfs(path) else content)
        self._git("add", "--all")
        self._git("commit", "--quiet", "--allow-empty", "--message", ref)
        if ref.startswith("refs/tags/"):
            self._git("tag", "--annotate", "--force", "--message", ref, short_ref(ref))
        else:
            self._git("update-ref", ref, "HEAD")
        return self._git("rev-parse", "HEAD")

    def _manifest(self, commit: str, files: Files) -> Manifest:
        entries = {path: self._entry(path, content) for path, content in files.items()}
        return Manifest(Revision(self.repo, commit), entries, int(self._git("show", "-s", "--format=%ct", commit)))

    def _entry(self, path: str, content: bytes) -> Entry:
        in_git = pointer(content) if is_lfs(path) else content
        oid = hashlib.sha1(b"blob %d\0" % len(in_git) + in_git).hexdigest()
        if is_lfs(path):
            return Entry(self._store(content, "sha256"), oid, len(in_git))
        return Entry(self._store(content, "git"), oid)

    def _store(self, content: bytes, algorithm: str) -> Blob:
        incoming = self.root / "state" / "incoming"
        incoming.parent.mkdir(parents=True, exist_ok=True)
        incoming.write_bytes(content)
        blob = Blob(algorithm, hash_file(incoming, algorithm), len(content))
        Store(self.root).verify_and_adopt(incoming, blob)
        return blob

    def _snapshot(self) -> GitSnapshot:
        self._git("repack", "-adq")
        packs = self.folder / ".git" / "objects" / "pack"
        found = {path.name: path.read_bytes() for path in packs.iterdir() if path.suffix in (".pack", ".idx")}
        lines = self._git("for-each-ref", "--format=%(refname) %(objectname) %(*objectname)").splitlines()
        refs = {line.split()[0]: line.split()[1] for line in lines}
        peeled = {line.split()[0]: line.split()[2] for line in lines if len(line.split()) == 3}
        blobs = {name: self._store(content, "sha256") for name, content in found.items()}
        return GitSnapshot(blobs, refs, "refs/heads/main", peeled)
