"""Writing so that readers never see a half: beside, fsync, rename, fsync the folder.

Only the standard library is used here, because the receiver runs this module on edges.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import json
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ctypes

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_WRITE = 2
_MANY = 32
_ROOM_BYTES = 64 << 10


def is_full(folder: Path) -> bool:
    """Whether a disk has no room for the little that programs need, which some of them call another error."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize < _ROOM_BYTES


@functools.cache
def _libc() -> ctypes.CDLL:
    """What Python has no name for; loaded by those who write much, which most runs do not."""
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


def _failure(path: str | Path) -> OSError:
    """The error of the C library's last call."""
    import ctypes

    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), str(path))


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable (fsync(2) on a directory)."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_contents(paths: Sequence[str | Path]) -> None:
    """Make files or folders of one file system durable; many of them by one syncfs(2)."""
    if len(paths) > _MANY:
        _sync_file_system(paths[0])
        return
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _sync_file_system(path: str | Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if _libc().syncfs(descriptor) != 0:
            raise _failure(path)
    finally:
        os.close(descriptor)


def are_same(one: memoryview, other: memoryview) -> bool:
    """Whether as many bytes, which can be written to, are the same; without the interpreter's lock (memcmp(3))."""
    import ctypes

    places = [ctypes.addressof(ctypes.c_char.from_buffer(view)) for view in (one, other)]
    return not _libc().memcmp(*map(ctypes.c_void_p, places), ctypes.c_size_t(len(one)))


def start_writing(descriptor: int, start: int, stop: int) -> None:
    """Let the disk begin with bytes of an open file, so that a later fsync has less to wait for.

    A hint (sync_file_range(2)); where the file system cannot do it, nothing happens.
    """
    import ctypes

    _libc().sync_file_range(descriptor, ctypes.c_int64(start), ctypes.c_int64(stop - start), _WRITE)


def make_folder(folder: Path) -> None:
    """Create `folder` and its parents, durably; fine when it exists."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold other processes that want the same folder for themselves, as long as the block lasts. Raises OSError."""
    make_folder(folder)
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def write_file(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Replace `path` by a file with `data`, durably; a reader sees the old or the new one."""
    write_pieces(path, [data], mode)


def write_pieces(path: Path, pieces: Iterable[bytes], mode: int = 0o644) -> None:
    """Replace `path` by a file that consists of `pieces`, as `write_file` does; they are never whole in memory."""
    replace_file(path, pieces, mode)
    sync_folder(path.parent)


def replace_file(path: Path, pieces: Iterable[bytes], mode: int = 0o644) -> None:
    """Replace `path` by a file that consists of `pieces`; after a power cut it may be the former one, never a half."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.writelines(pieces)
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def line_up(path: Path, lines: Iterable[str]) -> None:
    """Add lines to the end of a file, durably, and those of one call together, however many write."""
    make_folder(path.parent)
    is_new = not path.exists()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        os.write(descriptor, "".join(f"{line}\n" for line in lines).encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if is_new:
        sync_folder(path.parent)


def write_json(path: Path, document: Any) -> None:
    """Replace `path` by `document` as compact JSON, durably."""
    write_file(path, json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode())


def move_file(source: Path, target: Path) -> None:
    """Rename a file whose content is already durable to its final name, durably."""
    make_folder(target.parent)
    source.replace(target)
    sync_folder(target.parent)


def move_files(moves: Sequence[tuple[str | Path, str]]) -> None:
    """Rename files whose content is already durable to their final names, durable together."""
    folders = sorted({target.rpartition("/")[0] for _, target in moves})
    for folder in folders:
        if len(folders) > _MANY:
            _make_quickly(folder)
        else:
            make_folder(Path(folder))
    for source, target in moves:
        os.replace(source, target)  # noqa: PTH105  (tens of thousands of them)
    sync_contents(folders)


def _make_quickly(folder: str) -> None:
    """Create a folder whose name is made durable later, by syncfs."""
    try:
        os.mkdir(folder)  # noqa: PTH102
    except FileExistsError:
        pass
    except FileNotFoundError:
        os.makedirs(folder, exist_ok=True)  # noqa: PTH103


def point_link(link: Path, target: str) -> None:
    """Make `link` a symlink to `target`, replacing another one atomically and durably."""
    beside = link.with_name(f".{link.name}.{os.getpid()}.new")
    beside.unlink(missing_ok=True)
    beside.symlink_to(target)
    beside.replace(link)
    sync_folder(link.parent)


def unlink_all(folder: Path, names: Collection[str]) -> None:
    """Take away what has these names in `folder`, durably."""
    for name in names:
        (folder / name).unlink()
    if names:
        sync_folder(folder)


def sync_tree(folder: Path) -> None:
    """Make everything at and below `folder` durable: files, then the folders with their names, deepest first."""
    sync_contents(list(_below(str(folder))))


def _below(folder: str) -> Iterator[str]:
    """Every file and folder below `folder`, and that itself last; symlinks have nothing to make durable."""
    with os.scandir(folder) as found:
        for entry in found:
            if entry.is_dir(follow_symlinks=False):
                yield from _below(entry.path)
            elif not entry.is_symlink():
                yield entry.path
    yield folder


def move_folder(source: Path, target: Path) -> None:
    """Put the complete folder `source` in the place of `target`; readers see the old or the new one.

    An existing `target` is swapped with renameat2(RENAME_EXCHANGE) and then removed.
    """
    make_folder(target.parent)
    sync_tree(source)
    if target.is_dir():
        _exchange(source, target)
        sync_folder(target.parent)
        import shutil

        shutil.rmtree(source)
    else:
        source.rename(target)
        sync_folder(target.parent)


def _exchange(first: Path, second: Path) -> None:
    import ctypes

    result = _libc().renameat2(
        _AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), ctypes.c_uint(_RENAME_EXCHANGE)
    )
    if result == 0:
        return
    failure = _failure(second)
    if failure.errno not in (errno.EINVAL, errno.ENOSYS):
        raise failure
    # A file system without RENAME_EXCHANGE (NFS): two renames, a moment of "not found" between them.
    aside = second.with_name(f".{second.name}.{os.getpid()}.old")
    second.rename(aside)
    first.rename(second)
    aside.rename(first)
