"""All blobs, once each, read-only, under the name that they hash to.

Only the standard library is used here, because the receiver runs this module on edges.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from mirrortools.errors import IntegrityError, NoSpace, StoreError
from mirrortools.files import make_folder, move_files, sync_contents, sync_folder
from mirrortools.model import Blob, Realm, new_hash

CHUNK_BYTES = 1 << 20
READ_ONLY = 0o444


class Store:
    """The blobs of one realm, below `<root>/public` or `<root>/private`, at `Blob.path`, mode 0444.

    What both realms have lies there twice, and never as one file with two names: a link count would tell whoever reads
    the one what the other has (ADR 18). A blob enters by `adopt` alone, after its content was hashed, so its presence
    is the proof.
    """

    def __init__(self, root: Path, realm: Realm = Realm.PUBLIC) -> None:
        self.served = root / realm.value

    def path(self, blob: Blob) -> Path:
        """Where `blob` lies, or would lie."""
        return self.served / blob.path

    def has(self, blob: Blob) -> bool:
        """Whether `blob` was adopted and still has its size."""
        try:
            return os.stat(f"{self.served}/{blob.path}").st_size == blob.size  # noqa: PTH116  (of very many)
        except FileNotFoundError:
            return False

    def used_bytes(self) -> int:
        """The size of all blobs that are here. It walks through them all."""
        kinds = (self.served / "blobs" / kind for kind in ("sha256", "git"))
        return sum(
            os.lstat(f"{top}/{name}").st_size for kind in kinds for top, _, names in os.walk(kind) for name in names
        )

    def missing(self, blobs: Iterable[Blob]) -> list[Blob]:
        """The blobs that are not here, in a stable order."""
        return sorted(blob for blob in set(blobs) if not self.has(blob))

    def adopt(self, source: Path, blob: Blob) -> None:
        """Move a file that was hashed and fsynced by the caller under its name, durably.

        `source` must be on the store's file system. Raises StoreError.
        """
        target = self.path(blob)
        try:
            make_folder(target.parent)
            source.chmod(READ_ONLY)
            source.replace(target)
            sync_folder(target.parent)
        except OSError as error:
            raise write_error(target, error) from error

    def adopt_all(self, written: Sequence[tuple[str | Path, Blob]]) -> None:
        """Adopt many small files that the caller hashed; their contents are made durable here, all at once.

        Raises StoreError, NoSpace.
        """
        try:
            for path, _ in written:
                if stat.S_IMODE(os.stat(path).st_mode) != READ_ONLY:  # noqa: PTH116  (tens of thousands of them)
                    os.chmod(path, READ_ONLY)  # noqa: PTH101
            sync_contents([path for path, _ in written])
            move_files([(path, f"{self.served}/{blob.path}") for path, blob in written])
        except OSError as error:
            raise write_error(self.served, error) from error

    def verify_and_adopt(self, source: Path, blob: Blob, digest: str | None = None) -> None:
        """Hash `source`, fsync it and adopt it. Raises IntegrityError (and leaves `source`), StoreError.

        `digest` is its hash, when the caller took it while it was written.
        """
        got = digest or hash_file(source, blob.algorithm)
        if got != blob.digest:
            raise IntegrityError(f"{source.name}: expected {blob.algorithm} {blob.digest}, got {got}")
        descriptor = os.open(source, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self.adopt(source, blob)

    def adopt_made(self, content: bytes, stage: Path) -> Blob:
        """Adopt content that was made here, by way of the folder `stage`; its blob. Raises StoreError, NoSpace."""
        import hashlib
        import tempfile

        blob = Blob("sha256", hashlib.sha256(content).hexdigest(), len(content))
        try:
            make_folder(stage)
            with tempfile.TemporaryDirectory(prefix="made.", dir=stage) as folder:
                written = Path(folder) / blob.digest
                written.write_bytes(content)
                self.verify_and_adopt(written, blob)
        except OSError as error:
            raise write_error(stage, error) from error
        return blob


def hash_file(path: Path, algorithm: str, before_each: Callable[[], None] = lambda: None) -> str:
    """The digest of a file's content as `Blob.algorithm` defines it, in hexadecimal.

    `before_each` piece that is read is called, and may raise.
    """
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        digest = new_hash(algorithm, size)
        buffer = bytearray(CHUNK_BYTES)
        view = memoryview(buffer)
        while count := file.readinto(buffer):
            before_each()
            digest.update(view[:count])
    return digest.hexdigest()


def write_error(path: Path, error: OSError) -> NoSpace | StoreError:
    """What to raise when writing `path` failed with `error`."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(f"{path}: {error.strerror}; free some space (or a larger disk quota), then run it again")
    from mirrortools.access import reason

    return StoreError(f"{path}: {reason(error)}")
