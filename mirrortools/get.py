"""Bring a revision from mirrors into a user's folder: resolve → listing → look → fetch+verify → put in place.

It needs nothing but the folder: what grows lies in a hidden folder in it, which goes when all is in its place. Files
are put there when every one of them has come and was verified: what is there is the old revision, or the new one.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from mirrortools.desk import Desk, Progress
from mirrortools.errors import ConfigError, Locked, NoSpace, StoreError, UpstreamError
from mirrortools.fetch import fetch
from mirrortools.files import make_folder, move_files, sync_contents
from mirrortools.holding import NO_COMMIT, Kept, Record, find, read_record, write_record
from mirrortools.layouts import WORK, Layout
from mirrortools.model import Blob, Manifest, RepoId
from mirrortools.places import Terms
from mirrortools.plan import wants_path
from mirrortools.segmented import read_hashes, unchanged
from mirrortools.segments import Segments
from mirrortools.store import Store, write_error
from mirrortools.text import count, size
from mirrortools.upstreams import patient
from mirrortools.upstreams.http import HttpClient
from mirrortools.upstreams.hub import Hub

_log = logging.getLogger("mirrortools.get")
# Of what comes in a moment nobody would notice that it came from several hosts.
WORTH_ASKING_BYTES: Final = 8 << 20
_MOST_HOSTS: Final = 8
_MINIMUM_RATE: Final = 64 << 10
_MOST_NAMED: Final = 10


@dataclass(frozen=True, slots=True)
class Wish:
    """What is wanted. `again` has files hashed that look as they were left, `force` replaces what a user changed."""

    repo: RepoId
    revision: str = "main"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    again: bool = False
    force: bool = False
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Reach:
    """How hosts are asked: those that the user named, with a token; `hasty` for those that must not hold anybody up.

    `connections` is how many there may be to all hosts at once; None: as many as pay.
    """

    mirrors: tuple[str, ...]
    client: HttpClient
    hasty: HttpClient
    token: str = field(repr=False, default="")
    connections: int | None = None

    def hub(self, base: str, repo: RepoId, *, hasty: bool = False) -> Hub:
        """A repository on a host; hosts that were not named by the user see no token."""
        token = self.token if base in self.mirrors else ""
        return Hub(base, repo, self.hasty if hasty else self.client, token)


class Watch:
    """Who looks on; this one does not care. Called from several threads."""

    def planned(self, to_come_bytes: int) -> None:
        """So much is to come, or was left by an earlier run."""

    def came(self, count: int) -> None:
        """More is here."""


@dataclass(frozen=True, slots=True)
class View:
    """What of a revision is in its place and what is not, decided before anything is fetched.

    `right` has what is in its place, `lacking` what is to come to each place. `held` has files that are there by what
    they hold, `gone` the places of what the revision has no more, `changed` those of files that hold what nobody knows.
    """

    right: Mapping[str, Kept]
    lacking: Mapping[str, Blob]
    held: Mapping[Blob, Path]
    gone: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()

    def to_fetch(self, store: Store) -> list[Blob]:
        """The blobs that are nowhere yet, small ones first."""
        lacking = {blob for blob in self.lacking.values() if blob not in self.held and not store.has(blob)}
        return sorted(lacking, key=lambda blob: (blob.size, blob.digest))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was done, or would be. `folder` is where users find the files; `kept` were there already."""

    commit: str
    folder: Path
    files: int
    size_bytes: int
    fetch: tuple[Blob, ...] = ()
    kept: int = 0
    kept_bytes: int = 0
    removed: tuple[str, ...] = ()
    progress: Progress = field(default_factory=Progress)
    names: Mapping[Blob, str] = field(default_factory=dict)


def get(wish: Wish, reach: Reach, layout: Layout, watch: Watch) -> Outcome:
    """Bring a revision to its place. Raises UpstreamError, IntegrityError, NoSpace, Locked, StoreError, ConfigError."""
    try:
        hub, whole = patient(lambda: _ask(wish, reach))
        manifest = _chosen(whole, wish)
        record = _record(wish, layout)
        if wish.dry_run:
            return _Errand(wish, reach, layout, hub, manifest, record).foresee(whole)
        with _alone(layout.root / WORK):
            return _Errand(wish, reach, layout, hub, manifest, record).run(whole, watch)
    except OSError as error:
        raise write_error(Path(error.filename or layout.root), error) from error


def _ask(wish: Wish, reach: Reach) -> tuple[Hub, Manifest]:
    """The first of the named hosts that tells what the revision holds. Raises UpstreamError, that of the first one."""
    errors: list[UpstreamError] = []
    for base in reach.mirrors:
        hub = reach.hub(base, wish.repo)
        try:
            manifest = hub.manifest(hub.commit(wish.revision))
        except UpstreamError as error:
            errors.append(error)
            continue
        for failed in errors:
            _log.warning("mirrortool: %s; %s is asked instead", failed, base)
        return hub, manifest
    raise errors[0]


def _chosen(manifest: Manifest, wish: Wish) -> Manifest:
    """The files that are wanted. Raises ConfigError when that is none of some."""
    files = {path: entry for path, entry in manifest.files.items() if wants_path(path, wish.include, wish.exclude)}
    if manifest.files and not files:
        raise ConfigError(
            f"{wish.repo}: --include and --exclude leave none of its {count(len(manifest.files), 'file')}, "
            f"such as {min(manifest.files)}"
        )
    return replace(manifest, files=files)


def _record(wish: Wish, layout: Layout) -> Record:
    """What the folder holds. Raises ConfigError when that is another repository."""
    record = read_record(layout.root)
    if record and record.repo != wish.repo:
        if not wish.force:
            raise ConfigError(
                f"{layout.root}: holds {record.repo}; say another folder with --to, or --force to put "
                f"{wish.repo} there too"
            )
        record = None
    return record or Record(wish.repo, NO_COMMIT)


@contextlib.contextmanager
def _alone(work: Path) -> Iterator[None]:
    """Have the hidden folder for this process; what is left in it stays for the next one. Raises Locked."""
    descriptor = _lock(work)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            work.rmdir()  # when nothing is in it
        os.close(descriptor)


def _lock(work: Path) -> int:
    """Open and lock a folder, making it where need be. Raises Locked."""
    while True:
        make_folder(work)
        with contextlib.suppress(FileNotFoundError):  # another process has just ended, and removed it
            descriptor = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(descriptor), work.stat()):
                    return descriptor
            except BlockingIOError as error:
                os.close(descriptor)
                raise Locked(f"{work}: another `mirrortool get` is at work there; wait until it has ended") from error
            os.close(descriptor)


def look(manifest: Manifest, whole: Manifest, layout: Layout, record: Record, *, again: bool = False) -> View:
    """See what is in its place. `whole` has the files that are not wanted now, but not gone either. Raises OSError."""
    wanted = {layout.place(path, entry): entry.blob for path, entry in manifest.files.items()}
    right: dict[str, Kept] = {}
    held: dict[Blob, Path] = {}
    changed: list[str] = []
    for place, blob in wanted.items():
        found = find(layout.root / place, blob, record.files.get(place, ()), again=again)
        if found and found.content == blob:
            right[place] = Kept(blob, found.mtime_ns)
        if found and found.content:
            held.setdefault(found.content, layout.root / place)
        elif found:
            changed.append(place)
    gone = []
    if layout.is_users_own:
        for place in sorted(record.files.keys() - whole.files.keys()):
            found = find(layout.root / place, None, record.files[place], again=again)
            if found and found.content:
                held.setdefault(found.content, layout.root / place)
                gone.append(place)
    lacking = {place: blob for place, blob in wanted.items() if place not in right}
    return View(right, lacking, held, tuple(gone), tuple(changed))


class _Errand:
    """One `get` on its way."""

    def __init__(self, wish: Wish, reach: Reach, layout: Layout, hub: Hub, manifest: Manifest, record: Record) -> None:
        self._wish = wish
        self._reach = reach
        self._layout = layout
        self._hub = hub
        self._manifest = manifest
        self._record = record
        self._commit = manifest.revision.commit
        self._work = layout.root / WORK
        self._store = Store(self._work)
        self._names = {entry.blob: path for path, entry in manifest.files.items()}

    def foresee(self, whole: Manifest) -> Outcome:
        """What would be done; nothing is written."""
        view = self._look(whole)
        blobs = view.to_fetch(self._store)
        progress = Progress()
        for blob in blobs:
            progress.reused(self._would_reuse(blob))
        return self._outcome(view, blobs, progress, self._layout.root)

    def run(self, whole: Manifest, watch: Watch) -> Outcome:
        """Fetch what is lacking and put it in its place."""
        view = self._look(whole)
        blobs = view.to_fetch(self._store)
        left = {blob for blob in view.lacking.values() if self._store.has(blob)}
        watch.planned(sum(blob.size for blob in (*blobs, *left)))
        progress = Progress(watch.came)
        progress.resumed(sum(blob.size for blob in left))
        self._check_room(view, blobs)
        self._fetch(blobs, progress)
        self._put(view)
        folder = self._layout.finish(self._manifest, self._wish.revision)
        self._remember(view)
        shutil.rmtree(self._work)
        return self._outcome(view, blobs, progress, folder)

    def _look(self, whole: Manifest) -> View:
        view = look(self._manifest, whole, self._layout, self._record, again=self._wish.again)
        if view.changed and self._layout.is_users_own and not self._wish.force:
            named = ", ".join(view.changed[:_MOST_NAMED])
            more = f" and {len(view.changed) - _MOST_NAMED} more" if len(view.changed) > _MOST_NAMED else ""
            raise StoreError(
                f"{self._layout.root}: {named}{more}: changed by somebody, or never from {self._wish.repo}; nothing "
                "was fetched. Move away what you want to keep, or say --force to have it replaced"
            )
        for place in view.changed:
            _log.warning("mirrortool: %s: holds something else and is replaced", self._layout.root / place)
        return view

    def _outcome(self, view: View, blobs: Sequence[Blob], progress: Progress, folder: Path) -> Outcome:
        return Outcome(
            self._commit,
            folder,
            len(self._manifest.files),
            self._manifest.size_bytes,
            tuple(blobs),
            len(view.right),
            sum(kept.blob.size for kept in view.right.values()),
            view.gone,
            progress,
            self._names,
        )

    def _check_room(self, view: View, blobs: Sequence[Blob]) -> None:
        """Refuse before the first byte what would not fit. Raises NoSpace."""
        uses = Counter(view.lacking.values())
        copies = sum(blob.size * (times - 1 + (blob in view.held)) for blob, times in uses.items())
        begun = sum(_allocated(self._work / "partial" / f"{blob.digest}.part") for blob in blobs)
        needed = sum(blob.size for blob in blobs) + copies - begun
        disk = os.statvfs(self._work)
        free = disk.f_bavail * disk.f_frsize
        if needed > free:
            raise NoSpace(
                f"{self._layout.root}: {size(needed)} are to come, but only {size(free)} are free; make room, say "
                "another folder with --to, or choose files with --include and --exclude",
                needed,
            )

    def _fetch(self, blobs: Sequence[Blob], progress: Progress) -> None:
        hubs = self._hosts(sum(blob.size for blob in blobs), self._names[blobs[-1]]) if blobs else [self._hub]
        sources = tuple(hub.bytes(self._commit, self._names) for hub in hubs)
        desk = Desk(
            self._store,
            self._work / "partial",
            self._work / "quarantine",
            sources,
            self._reach.connections,
            older=self._older(blobs),
            terms={
                source.name: Terms(source.name, None, _MINIMUM_RATE, together=True, shares_load=True)
                for source in sources
            },
            remedy=f"{self._layout.root} stays as it was. Tell whoever runs that host, or name another one by --from",
        )
        fetch({blob: self._names[blob] for blob in blobs}, desk, progress)

    def _hosts(self, fetch_bytes: int, path: str) -> list[Hub]:
        """Whom to ask for content, the one that told of it first; others are looked for when it is worth that."""
        named = [base for base in self._reach.mirrors if base != self._hub.base]
        if fetch_bytes < WORTH_ASKING_BYTES:
            return [self._hub, *(self._reach.hub(base, self._wish.repo) for base in named)]
        found: list[str] = []
        try:
            found = self._hub.mirrors()
        except UpstreamError as error:
            _log.warning("mirrortool: %s; other hosts are not looked for", error)
        others = [*dict.fromkeys(base for base in (*named, *found) if base != self._hub.base)][:_MOST_HOSTS]
        ready = self._probe(others, path)
        quickest = sorted(ready, key=lambda base: (base not in named, ready[base]))
        return [self._hub, *(self._reach.hub(base, self._wish.repo) for base in quickest)]

    def _probe(self, bases: Sequence[str], path: str) -> dict[str, float]:
        """The hosts that have the commit, and how long each took to say so, in seconds; those without are told."""
        if not bases:
            return {}
        ready = {}
        with ThreadPoolExecutor(len(bases), "probe") as pool:
            try:
                answers = list(pool.map(lambda base: self._answer_s(base, path), bases))
            except BaseException:
                self._reach.hasty.break_off()
                raise
        for base, answer in zip(bases, answers, strict=True):
            if isinstance(answer, float):
                ready[base] = answer
            else:
                _log.warning("mirrortool: %s; that host is not used for %s", answer, self._commit[:12])
        return ready

    def _answer_s(self, base: str, path: str) -> float | UpstreamError:
        began_s = time.monotonic()
        try:
            self._reach.hub(base, self._wish.repo, hasty=True).probe(self._commit, path)
        except UpstreamError as error:
            return error
        return time.monotonic() - began_s

    def _older(self, blobs: Sequence[Blob]) -> dict[Blob, Path]:
        """For each blob a file in which some of its segments may be."""
        older = ((blob, self._layout.older(self._names[blob])) for blob in blobs)
        return {blob: path for blob, path in older if path}

    def _would_reuse(self, blob: Blob) -> int:
        """How many bytes of a blob would come from an older file."""
        older, segments = self._layout.older(self._names[blob]), Segments(blob.size)
        if older is None or segments.count < 2:
            return 0
        try:
            told = self._hub.bytes(self._commit, self._names).segment_hashes(blob)
        except UpstreamError:
            return 0
        hashes = read_hashes(told, segments)
        return sum(len(data) for _, data in unchanged(older, segments, hashes, range(segments.count))) if hashes else 0

    def _put(self, view: View) -> None:
        """Put everything in its place, after it was noted what may be there from then on."""
        staged = self._stage(view)
        coming = {
            place: [*self._record.files.get(place, ()), Kept(view.lacking[place], path.stat().st_mtime_ns)]
            for path, place in staged
        }
        write_record(self._layout.root, replace(self._record, files={**self._record.files, **coming}))
        for place in view.gone:
            self._remove(place)
        move_files([(path, f"{self._layout.root}/{place}") for path, place in staged])

    def _stage(self, view: View) -> list[tuple[Path, str]]:
        """A file for each place, durable: what came itself, and copies of it for further places.

        What came is not moved before all are ready: a run that is killed here finds it again.
        """
        stage = self._work / "stage"
        shutil.rmtree(stage, ignore_errors=True)
        make_folder(stage)
        uses = Counter(view.lacking.values())
        staged = []
        for number, (place, blob) in enumerate(view.lacking.items()):
            path = self._store.path(blob)
            uses[blob] -= 1
            if uses[blob] or not self._store.has(blob):
                copy = stage / str(number)
                shutil.copyfile(path if self._store.has(blob) else view.held[blob], copy)
                path = copy
            path.chmod(0o666 & ~_umask())
            staged.append((path, place))
        sync_contents([path for path, _ in staged])
        return staged

    def _remove(self, place: str) -> None:
        path = self._layout.root / place
        path.unlink(missing_ok=True)
        for folder in path.parents:
            if folder == self._layout.root or any(folder.iterdir()):
                return
            folder.rmdir()

    def _remember(self, view: View) -> None:
        """Keep the record of what is in its place now, and of what else was put there and stays."""
        root = self._layout.root
        stays = {place: kept for place, kept in self._record.files.items() if place not in view.gone}
        ours = {place: [kept] for place, kept in view.right.items()}
        new = {place: [Kept(blob, (root / place).stat().st_mtime_ns)] for place, blob in view.lacking.items()}
        write_record(root, Record(self._wish.repo, self._commit, {**stays, **ours, **new}))


def _allocated(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _umask() -> int:
    """The bits that new files lack; it can be read by setting it alone."""
    umask = os.umask(0o077)
    os.umask(umask)
    return umask
