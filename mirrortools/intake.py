"""Blobs on their way into an edge's store: they arrive in a folder, are hashed there, and are adopted.

Only the standard library is used here, because the receiver runs this module on edges.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mirrortools.berth import Berth
from mirrortools.bounds import Bounds
from mirrortools.errors import ConfigError, EdgeRefused, Locked, NoSpace
from mirrortools.exchange import arrived_bytes
from mirrortools.files import make_folder
from mirrortools.inlet import Inlet
from mirrortools.locks import RepositoryLock, alone
from mirrortools.making import Made
from mirrortools.model import Blob
from mirrortools.store import Store, hash_file

if TYPE_CHECKING:
    from mirrortools.patch import Recipe

# What arrived of a delivery that nobody went on with is kept so long.
ABANDONED_S: Final = 7 * 86400
# More blobs than these that are no larger are made durable together.
_FEW_BLOBS: Final = 8
_SMALL_BYTES: Final = 256 << 10
# What is no more than this altogether is hashed before threads are loaded.
_QUICK_BYTES: Final = 8 << 20

Hashed = Callable[[Blob], str | None]
"""Gives the digest of a blob that was hashed while it came; None of all others."""


@dataclass(frozen=True, slots=True)
class Intake:
    """The blobs of one repository that arrive in a berth. Who changes anything here holds the berth's lock.

    `adopted` is told of each blob that came into the store.
    """

    berth: Berth
    store: Store
    bounds: Bounds
    adopted: Callable[[Blob], None]

    @property
    def root(self) -> Path:
        """The edge's root."""
        return self.berth.root

    @property
    def folder(self) -> Path:
        """The folder in which they arrive, whether it is there or not."""
        return self.berth.folder

    @property
    def name(self) -> Path:
        """The same folder, below the root."""
        return self.folder.relative_to(self.root)

    def make(self) -> Path:
        """The folder; it exists, and no symlink leads out of it. Raises EdgeRefused, OSError."""
        make_folder(self.folder)
        if self.folder.resolve() != self.root.resolve() / self.name:
            raise EdgeRefused(f"{self.folder}: a symlink leads away from it; make it a real folder")
        return self.folder

    def take_over(self, blobs: Collection[Blob], missing: Collection[Blob]) -> None:
        """Go on with what the repository's other berth has of `blobs`, when nobody is there, nor writes there still.

        Of one that is in both berths the longer part is kept. Raises EdgeRefused, OSError.
        """
        other = self.other
        if not os.path.lexists(other.folder):
            return
        with alone(other.berth) as is_alone:
            if is_alone:
                with contextlib.suppress(Locked), Inlet(other.berth).closed(wait_s=0):
                    self._take_over(other.make(), {blob.digest: blob for blob in blobs}, set(missing))

    def _take_over(self, folder: Path, blobs: Mapping[str, Blob], missing: Collection[Blob]) -> None:
        own = self.make()
        for path in folder.iterdir():
            if (blob := blobs.get(path.name)) is None:
                continue
            if blob in missing and (arrived_bytes(folder, blob) or 0) > (arrived_bytes(own, blob) or 0):
                _remove(own / path.name)
                path.rename(own / path.name)
            else:
                _remove(path)
        with contextlib.suppress(OSError):
            folder.rmdir()  # unless something else of it is left

    @property
    def other(self) -> Intake:
        """That of the repository's other berth."""
        return replace(self, berth=self.berth.other)

    def clear(self, missing: Sequence[Blob], now_s: float, caller: str) -> None:
        """Leave nothing in the folder but what arrived of the blobs that are `missing`.

        What others left goes too, when it is old, or when it stands in the way.
        """
        folder = self.make()
        self._drop_abandoned(0 if self.bounds.is_crowded(self.root, missing) else ABANDONED_S, now_s, caller)
        wanted = {blob.digest for blob in missing}
        for path in folder.iterdir():
            if path.name not in wanted:
                _remove(path)
        for blob in missing:
            if arrived_bytes(folder, blob) is None:
                _remove(folder / blob.digest)

    def _drop_abandoned(self, kept_s: float, now_s: float, caller: str) -> None:
        """Remove what deliveries of other repositories left behind, when nobody has gone on with it for so long.

        What nobody is at makes room: else two that broke off could stand in each other's way for ever.
        """
        for folder in self.folder.parent.iterdir():
            with contextlib.suppress(Locked, FileNotFoundError):  # another delivery may take one away meanwhile
                if folder != self.folder and now_s - _touched_at(folder) >= kept_s:
                    with _alone_in(self.root, folder.name, caller):
                        _remove(folder)

    def end(self) -> None:
        """Take the folder away: all that was to come is in the store."""
        shutil.rmtree(self.make())

    def take(self, contents: Sequence[tuple[Blob, bytes]]) -> None:
        """Take blobs that came in a request; like those that rsync brings they are hashed when adopted.

        Raises NoSpace.
        """
        if why := self.bounds.objection(self.root, sum(blob.size for blob, _ in contents)):
            raise NoSpace(why)
        folder = self.make()
        for blob, content in contents:
            _remove(folder / blob.digest)
            (folder / blob.digest).write_bytes(content)

    def patch(self, recipe: Recipe, made: Callable[[str], Callable[[Blob], Made | None]]) -> bool:
        """Make a blob out of one that is here and a file of new bytes, and adopt it; whether it hashed right.

        `made`, given the inlet's mark, gives one that was made while its new bytes came. What cannot be made is to be
        sent whole.
        """
        folder, blob = self.make(), recipe.blob
        with Inlet(self.berth).closed() as mark:
            found = made(mark)(blob)
            if found is None or _shape_problem(found.path, blob):
                found = self._made(recipe, folder)
            if found is None:
                return False
            if found.digest != blob.digest:
                _remove(found.path)
                return False
            self.store.verify_and_adopt(found.path, blob, found.digest)
        self.adopted(blob)
        return True

    def _made(self, recipe: Recipe, folder: Path) -> Made | None:
        """Make a blob; None when it cannot be made.

        The file is no blob's by its name, so that the next delivery does not go on from a part of it.
        """
        from mirrortools.patch import fill_from, patch

        blob, fresh = recipe.blob, recipe.fresh
        if not self.store.has(recipe.base) or (fresh.size and _shape_problem(folder / fresh.digest, fresh)):
            return None
        if blob.size > self.bounds.room_bytes(self.root):
            return None  # so that rsync finds the bound, and says it
        path, digest = folder / f"{blob.digest}.made", blob.new_hash()
        _remove(path)
        with ExitStack() as files:
            file = os.open(folder / fresh.digest, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC) if fresh.size else -1
            if fresh.size:
                files.callback(os.close, file)
            patch(self.store.path(recipe.base), partial(fill_from, file), path, recipe.steps, digest)
        return Made(path, digest.hexdigest())

    def adopt(self, blobs: Collection[Blob], hashed: Callable[[str], Hashed]) -> dict[Blob, str]:
        """Move what is right into the store; says what is wrong with the others.

        `hashed`, given the inlet's mark, gives what need not be hashed once more.
        """
        with Inlet(self.berth).closed() as mark:  # or who holds a file open could change it behind its hash
            return self._adopt_all(list(dict.fromkeys(blobs)), hashed(mark))

    def _adopt_all(self, blobs: Sequence[Blob], hashed: Hashed) -> dict[Blob, str]:
        folder = self.make()
        small = {blob for blob in blobs if blob.size <= _SMALL_BYTES}
        together = small if len(small) > _FEW_BLOBS else set()
        problems = _of_each(blobs, lambda blob: self._adopt_one(folder, blob, hashed, waits=blob in together))
        bad = {blob: problem for blob, problem in zip(blobs, problems, strict=True) if problem}
        self._adopt_together(folder, [blob for blob in together - bad.keys() if not self.store.has(blob)])
        return bad

    def _adopt_one(self, folder: Path, blob: Blob, hashed: Hashed, *, waits: bool) -> str | None:
        """Move one blob into the store; else say what is wrong with it, and it is gone from the folder.

        What was `hashed` while it came is not hashed once more. One that `waits` is hashed, and not moved yet.
        """
        path = folder / blob.digest
        if self.store.has(blob):
            path.unlink(missing_ok=True)
            return None
        problem = _shape_problem(path, blob)
        if problem is None:
            got = hashed(blob) or hash_file(path, blob.algorithm)
            if got != blob.digest:
                problem = f"{blob.digest}: expected {blob.algorithm} {blob.digest}, got {got}"
        if problem:
            _remove(path)
        elif not waits:
            self.store.verify_and_adopt(path, blob, blob.digest)
            self.adopted(blob)
        return problem

    def _adopt_together(self, folder: Path, blobs: Sequence[Blob]) -> None:
        """Move blobs that were hashed into the store, made durable all at once."""
        if blobs:
            self.store.adopt_all([(folder / blob.digest, blob) for blob in blobs])
        for blob in blobs:
            self.adopted(blob)


def _of_each(blobs: Sequence[Blob], act: Callable[[Blob], str | None]) -> list[str | None]:
    """What `act` gives, which hashes, on a thread per processor: hashlib lets go of the interpreter's lock."""
    if sum(blob.size for blob in blobs) <= _QUICK_BYTES:
        return [act(blob) for blob in blobs]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(os.cpu_count() or 1) as threads:
        return list(threads.map(act, blobs))


@contextlib.contextmanager
def _alone_in(root: Path, name: str, caller: str) -> Iterator[None]:
    """Hold the lock of the berth whose folder in incoming has this name; others are nobody's."""
    try:
        berth = Berth.named(root, name)
        lock = RepositoryLock(root, berth.repo, f"clearing up for {caller}", is_ahead=berth.is_ahead)
    except ConfigError:
        yield
        return
    try:
        yield
    finally:
        lock.close()


def _touched_at(folder: Path) -> float:
    """When anything last came into a folder, in Unix seconds."""
    inside = folder.iterdir() if folder.is_dir() and not folder.is_symlink() else ()
    times: list[float] = [path.lstat().st_mtime for path in (folder, *inside)]
    return max(times)


def _shape_problem(path: Path, blob: Blob) -> str | None:
    """Why a file in incoming cannot be the blob, before it is hashed.

    A symlink or a second hard link would let its maker change the blob after it was hashed.
    """
    try:
        status = path.lstat()
    except FileNotFoundError:
        return f"{blob.digest}: expected {blob.size} bytes, got nothing"
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        return f"{blob.digest}: expected a plain file, got mode {status.st_mode:o} with {status.st_nlink} names"
    if status.st_size != blob.size:
        return f"{blob.digest}: expected {blob.size} bytes, got {status.st_size}"
    return None


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
