"""What nginx and rsync serve: symlink trees, Hub API files and bare git repositories, published refs last.

The only module that knows the served shape. Everything it writes is below `<root>/public`, or, of private
repositories, in the same shape below `<root>/private`:

    <repo.path>/commits/<sha>/<path>      relative symlinks to blobs
    <repo.path>/meta/<sha>/…              manifest.json, info.json, info-blobs.json, brief.json, flat/…, recursive/…,
                                          SHA256SUMS, revision.meta4, files/<path>.meta4, page.html
                                          huge/<path>, an empty file for each that some clients refuse by its size
    <repo.path>/refs/<quoted ref>         symlink to ../commits/<sha>; replacing it is publication
    <repo.path>/meta/git.json, refs.json  what was published last
    <repo.path>/meta/statement.json       what the origin signed of it
    <repo.path>/meta/mirrors.json         where else it is served
    <repo.path>/meta/about.json           what the index says of it
    <repo.path>/meta[/<sha>]/rsync.list   what belongs to the repository, or to that revision, for rsync --files-from
    <repo.path>.git/                      a bare repository for dumb HTTP, its packs symlinks to blobs
    latest/<repo.path>                    symlink to the default branch's files, for rsyncd
    .mirror/index.html, style.css         the index of all repositories, and how pages look
    .mirror/setup.sh                      what clients run to use this mirror
    .mirror/changes/<day>                 what was published when: the time and an rsync.list a line

Only the standard library is used here, because the receiver runs this module on edges. What writes is imported when
there is something to write: most runs only look.
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mirrortools import hubapi
from mirrortools.errors import HostileTree, NoSpace, StoreError
from mirrortools.files import (
    line_up,
    make_folder,
    move_file,
    move_folder,
    point_link,
    sync_contents,
    sync_folder,
    write_file,
    write_pieces,
)
from mirrortools.model import (
    KINDS,
    Blob,
    GitSnapshot,
    Manifest,
    Publication,
    Realm,
    RepoId,
    Revision,
    check_full_ref,
    quote_ref,
)

if TYPE_CHECKING:
    from mirrortools.pages import About
    from mirrortools.revision import RevisionFiles
    from mirrortools.signposts import Signposts
    from mirrortools.statements import Signed

T = TypeVar("T")

LATEST = "latest"
INDEX = ".mirror/index.html"
CHANGES = ".mirror/changes"
# Names that URLs or the layout use for something else, as the first and as the last segment of a repository.
_RESERVED_FIRST = frozenset((*KINDS, "api", "blobs"))
_RESERVED_LAST = frozenset(
    ("auth-check", "commits", "meta", "raw", "refs", "resolve", "revision", "tree", "paths-info", "info")
)
_FOR_PUBLISHING = ("mirrortools.revision", "mirrortools.pages", "mirrortools.signposts", "html", "shutil", "tempfile")
_GIT_CONFIG = b"[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n"


def load_for_publishing() -> None:
    """Load what publishing needs besides, which runs that publish nothing do without.

    Whoever knows that it comes does it while there is time.
    """
    for name in _FOR_PUBLISHING:
        import_module(name)


class Tree:
    """The served tree of one root and realm. One writer per repository: the caller holds its lock."""

    def __init__(self, root: Path, realm: Realm = Realm.PUBLIC) -> None:
        self.realm = realm
        self.served = root / realm.value
        self.stage = root / "state" / "stage"

    def make(self) -> None:
        """Make the folder that everything is in. Of a private one it alone keeps others out.

        Its group may read: that is to be nginx's. Raises StoreError, NoSpace.
        """
        with _writing(self.served):
            if not self.served.is_dir():
                make_folder(self.served)
                self.served.chmod(0o750 if self.realm is Realm.PRIVATE else 0o755)

    def refuse_elsewhere(self, repo: RepoId) -> None:
        """Refuse a repository that the other realm serves: to move it is not for a sync to do. Raises StoreError."""
        other = self.served.with_name(self.realm.other.value)
        if not (other / repo.path / "meta" / "refs.json").exists():
            return
        why = (
            "whoever has read it keeps it, and its blobs lie among the public ones"
            if self.realm is Realm.PRIVATE
            else "everybody could read all that was ever published of it"
        )
        raise StoreError(
            f"{repo}: is to be {self.realm} and is served from {other / repo.path}, as {other.name}. Nothing was "
            f"moved: {why}. Leave it {other.name} in its job, or remove {other / repo.path}, {other / repo.path}.git "
            f"and {other / LATEST / repo.path} here and on each edge that has them, then sync again"
        )

    def publish(self, publication: Publication) -> bool:
        """Make a repository look like `publication`, refs last; return whether anything changed.

        Raises StoreError when a blob is missing (then every ref still names what it named before), NoSpace.
        """
        if publication.realm is not self.realm:
            raise StoreError(f"{publication.repo}: is {publication.realm} and belongs nowhere below {self.served}")
        repo, mirrors = publication.repo, publication.mirrors
        elsewhere = self.mirrors(repo) != mirrors
        changed = [elsewhere]
        for manifest in publication.manifests.values():
            changed.append(self.publish_revision(manifest, mirrors))
            if elsewhere and not changed[-1]:
                self.publish_metalinks(manifest, mirrors)
        new = [commit for commit, is_new in zip(publication.manifests, changed[1:], strict=True) if is_new]
        changed.append(self.publish_git(repo, publication.git))
        if elsewhere:  # behind the metalinks, so that a run that was killed is made up for
            self._publish_mirrors(repo, mirrors)
        if any(changed) or self.refs(repo) != publication.refs:  # in front, so that a kill cannot keep it secret
            self._point_latest(publication)
            self._describe(publication)
            self.note_change(publication, publication.manifests if elsewhere else new)
        former = self._former_refs(repo)
        changed.append(self.publish_refs(repo, publication.refs))
        self._put_up_signposts(publication, new, former)
        return any(changed)

    def _put_up_signposts(self, publication: Publication, new: Container[str], former: Mapping[str, str]) -> None:
        """Let nginx find quickly what is shown by now. What is private has no signposts."""
        if self.realm is Realm.PRIVATE:
            return
        signposts = self._signposts()
        for commit, manifest in publication.manifests.items():
            if commit in new or signposts.lacks(manifest):
                with self._staging(commit) as stage, suppress(PermissionError):  # the root may be somebody else's
                    signposts.put_up(manifest, stage)
        with _writing(self.served):
            signposts.follow(publication.repo, _quoted(publication.refs), _quoted(former))

    def _signposts(self) -> Signposts:
        from mirrortools.signposts import Signposts

        return Signposts(self.served.parent)

    def note_change(self, publication: Publication, commits: Iterable[str] = ()) -> None:
        """Let mirrors that pull by rsync know that a repository, and these of its revisions, are other than before.

        Raises StoreError, NoSpace.
        """
        from mirrortools.revision import RSYNC_LIST

        repo = publication.repo
        lists = [f"{repo.path}/meta/{name}" for name in (*(f"{commit}/{RSYNC_LIST}" for commit in commits), RSYNC_LIST)]
        folder = self.served / CHANGES
        with _writing(folder):
            _replace(self._folder(repo) / "meta" / RSYNC_LIST, "".join(_of_repository(publication)).encode())
            now_s = int(time.time())
            line_up(folder / time.strftime("%Y-%m-%d", time.gmtime(now_s)), [f"{now_s} {name}" for name in lists])

    def _point_latest(self, publication: Publication) -> None:
        """Let the files of the default branch be found by the repository's name alone."""
        repo, link = publication.repo, self.served / LATEST / publication.repo.path
        with _writing(link):
            if ref := _default_ref(publication):
                make_folder(link.parent)
                point_link(link, f"{'../' * (repo.path.count('/') + 1)}{repo.path}/refs/{quote_ref(ref)}")
            else:
                link.unlink(missing_ok=True)

    def publish_revision(self, manifest: Manifest, mirrors: Sequence[str] = ()) -> bool:
        """Put a commit's files, API answers and metalinks in place; return whether anything changed.

        The same commit with another manifest (other include or exclude rules) replaces the former one.
        Raises StoreError, NoSpace.
        """
        from mirrortools.revision import RSYNC_LIST, has_content

        folder = self._folder(manifest.revision.repo)
        commit = manifest.revision.commit
        meta = folder / "meta" / commit
        is_whole = (meta / RSYNC_LIST).is_file() and (folder / "commits" / commit).is_dir()
        if is_whole and has_content(meta / "manifest.json", manifest.json_pieces()):
            return False
        self._require(manifest.iter_blobs(), str(manifest.revision))
        with self._staging(commit) as stage:
            files = self._files(manifest, mirrors)
            files.write_links(stage / "files")
            files.write_meta(stage / "meta")
            move_folder(stage / "files", folder / "commits" / commit)
            move_folder(stage / "meta", folder / "meta" / commit)
        return True

    def publish_metalinks(self, manifest: Manifest, mirrors: Sequence[str]) -> bool:
        """Let the metalinks of a published revision say `mirrors` and the pieces that are known now.

        Return whether anything changed. Raises StoreError, NoSpace.
        """
        from mirrortools.metalink import OF_REVISION
        from mirrortools.revision import METALINKS, PAGE
        from mirrortools.sums import SUMS

        commit = manifest.revision.commit
        meta = self._folder(manifest.revision.repo) / "meta" / commit
        files = self._files(manifest, mirrors)
        with self._staging(commit) as stage:
            if files.says_where(meta):
                return False
            (stage / METALINKS).mkdir()
            files.write_where(stage, meta / SUMS)
            sync_contents([stage / PAGE])
            move_file(stage / PAGE, meta / PAGE)
            move_folder(stage / METALINKS, meta / METALINKS)
            if mirrors:  # last: it tells whether all was written
                sync_contents([stage / OF_REVISION])
                move_file(stage / OF_REVISION, meta / OF_REVISION)
            else:
                (meta / OF_REVISION).unlink(missing_ok=True)
        return True

    def _files(self, manifest: Manifest, mirrors: Sequence[str]) -> RevisionFiles:
        from mirrortools.revision import RevisionFiles

        return RevisionFiles(manifest, tuple(mirrors), self.served, is_private=self.realm is Realm.PRIVATE)

    def mirrors(self, repo: RepoId) -> tuple[str, ...]:
        """The base URLs of the hosts that serve a repository, as published; none when they are not known."""
        try:
            return _load(self._folder(repo) / "meta" / "mirrors.json", _mirrors_of) or ()
        except StoreError:
            return ()

    def _publish_mirrors(self, repo: RepoId, mirrors: Sequence[str]) -> None:
        with _writing(self._folder(repo) / "meta"):
            _replace(self._folder(repo) / "meta" / "mirrors.json", _json({"mirrors": list(mirrors)}))

    def _describe(self, publication: Publication) -> None:
        """Keep what the index will say of a repository."""
        from mirrortools.pages import About

        ref = _default_ref(publication)
        commit = hubapi.short_refs(publication.refs)[ref] if ref else min(publication.manifests, default=None)
        meta = self._folder(publication.repo) / "meta"
        with _writing(meta):
            if commit:
                _replace(meta / "about.json", _json(About.of(publication.manifests[commit]).to_json()))

    def publish_index(self) -> None:
        """Write the page that lists all repositories, the stylesheet, and the script for clients.

        Raises StoreError, NoSpace.
        """
        from mirrortools.client import SCRIPT, SCRIPT_PATH
        from mirrortools.pages import STYLE_PATH, index
        from mirrortools.style import STYLE

        with _writing(self.served):
            _replace(self.served / STYLE_PATH, STYLE.encode())
            _replace(self.served / SCRIPT_PATH, SCRIPT.encode())
            write_pieces(self.served / INDEX, map(str.encode, index(self._abouts())))

    @property
    def has_index(self) -> bool:
        """Whether the index was ever written."""
        return (self.served / INDEX).is_file()

    def _abouts(self) -> Iterator[About]:
        from mirrortools.pages import About

        for repo in self.repositories():
            with suppress(StoreError):
                record = self._folder(repo) / "meta" / "about.json"
                if about := _load(record, partial(About.from_json, repo)):
                    yield about

    def publish_git(self, repo: RepoId, snapshot: GitSnapshot) -> bool:
        """Let `git clone` see `snapshot`, packs before refs; return whether anything changed.

        Raises StoreError, NoSpace. Packs of the snapshot before stay for clones that are under way.
        """
        record = self._folder(repo) / "meta" / "git.json"
        wanted = _json(snapshot.to_json())
        if _content(record) == wanted and self.git(repo):
            return False
        self._require(snapshot.packs.values(), f"{repo}.git")
        former = self.git(repo)
        bare = self.served / f"{repo.path}.git"
        with _writing(bare):
            make_folder(bare / "refs")  # without it git does not take the folder for a repository
            _point_packs(bare / "objects" / "pack", f"{repo.path}.git/objects/pack", snapshot)
            for name, content in _git_files(snapshot).items():
                make_folder((bare / name).parent)
                write_file(bare / name, content)
            make_folder(record.parent)
            write_file(record, wanted)
            _drop_packs(bare / "objects" / "pack", {*snapshot.packs, *(former.packs if former else ())})
        return True

    def publish_refs(self, repo: RepoId, refs: Mapping[str, str]) -> bool:
        """Make `refs` (full name → commit) the refs of a repository; return whether anything changed.

        Refs that are not named any more vanish; their commits stay.
        Raises StoreError when a commit was not published.
        """
        folder = self._folder(repo)
        for name, commit in refs.items():
            check_full_ref(name)
            if not (folder / "meta" / commit / "manifest.json").is_file():
                raise StoreError(f"{repo}: {name} may not name {commit}: that revision is not in the tree")
        wanted, former = _quoted(refs), _quoted(self._former_refs(repo))
        with _writing(folder / "refs"):
            self._signposts().step_aside(repo, wanted, former)
            moved = _point_refs(folder / "refs", {name: f"../commits/{commit}" for name, commit in wanted.items()})
            return _replace(folder / "meta" / "refs.json", _json(hubapi.refs(refs))) or moved

    def publish_statement(self, repo: RepoId, signed: Signed) -> None:
        """Show what the origin says of a repository. Raises StoreError, NoSpace."""
        with _writing(self._folder(repo) / "meta"):
            _replace(self._folder(repo) / "meta" / "statement.json", _json(signed.to_json()))

    def statement(self, repo: RepoId) -> Signed | None:
        """What the origin says of a repository; None when it has said nothing, or the record is damaged."""
        try:
            return _load(self._folder(repo) / "meta" / "statement.json", _signed_of)
        except StoreError:
            return None

    def stated_ns(self, path: str) -> int:
        """When the record of what the origin says of the repository at `path` was written, in ns; 0: there is none."""
        try:
            record = f"{self.served}/{path}/meta/statement.json"
            return os.stat(record).st_mtime_ns  # noqa: PTH116  (of every repository of a run)
        except OSError:
            return 0

    def _former_refs(self, repo: RepoId) -> dict[str, str]:
        """Full ref names → commits as published; none when they are not known."""
        try:
            return self.refs(repo)
        except StoreError:
            return {}

    def stamp(self, path: str) -> str:
        """What changes whenever a record does that makes the publication of the repository at `path`, or its statement.

        The number of the records' folder, and when anything in it was replaced (ns); empty when there is none.
        """
        try:
            seen = os.stat(f"{self.served}/{path}/meta")  # noqa: PTH116  (of every repository of a run)
        except OSError:
            return ""
        return f"{seen.st_ino}.{seen.st_ctime_ns}"

    def refs(self, repo: RepoId) -> dict[str, str]:
        """Full ref names → commits as published; empty when the repository is unknown. Raises StoreError."""
        return _load(self._folder(repo) / "meta" / "refs.json", _refs_of) or {}

    def manifest(self, revision: Revision) -> Manifest | None:
        """The manifest of a published revision. Raises StoreError when it is damaged."""
        record = self._folder(revision.repo) / "meta" / revision.commit / "manifest.json"
        return _load(record, Manifest.from_json)

    def git(self, repo: RepoId) -> GitSnapshot | None:
        """What `git clone` sees. Raises StoreError when the record is damaged."""
        if not (self.served / f"{repo.path}.git" / "HEAD").is_file():
            return None
        return _load(self._folder(repo) / "meta" / "git.json", GitSnapshot.from_json)

    def commits(self, repo: RepoId) -> list[str]:
        """Every commit that is served, with a ref or without."""
        return sorted(record.parent.name for record in (self._folder(repo) / "meta").glob("*/manifest.json"))

    def latest(self, repo: RepoId, commits: Iterable[str], most: int) -> list[str]:
        """Those of `commits` that are in the tree, the one published last first, `most` at most."""
        meta = self._folder(repo) / "meta"
        published = {}
        for commit in commits:
            with suppress(FileNotFoundError):
                published[commit] = (meta / commit / "manifest.json").stat().st_mtime_ns
        return sorted(published, key=lambda commit: published[commit], reverse=True)[:most]

    def publication(self, repo: RepoId) -> Publication | None:
        """All that is served of a repository, commits without a ref too. Raises StoreError when damaged."""
        git = self.git(repo)
        if git is None or not (self._folder(repo) / "meta" / "refs.json").is_file():
            return None
        manifests = {commit: self.manifest(Revision(repo, commit)) for commit in self.commits(repo)}
        found = {commit: manifest for commit, manifest in manifests.items() if manifest}
        return Publication(repo, self.refs(repo), found, git, self.mirrors(repo), self.realm)

    def mend(self, repo: RepoId) -> bool:
        """Put away the records of a repository that are damaged, so that a sync writes them anew; whether any was.

        The refs are known to git's record too, and are taken from there: what they named must not be forgotten.
        """
        meta = self._folder(repo) / "meta"
        records = [(meta / "git.json", GitSnapshot.from_json), (meta / "refs.json", _refs_of)]
        records += [(record, Manifest.from_json) for record in meta.glob("*/manifest.json")]
        damaged = [record for record, parse in records if _is_damaged(record, parse)]
        with _writing(meta):
            for record in damaged:
                record.unlink()
            if damaged:
                os.utime(meta)  # so that `stamp` tells
        if meta / "refs.json" in damaged and (git := self.git(repo)):
            commits = {name: git.peeled.get(name, oid) for name, oid in git.refs.items()}
            with _writing(meta):
                write_file(meta / "refs.json", _json(hubapi.refs(commits)))
        return bool(damaged)

    def wrong_links(self, manifest: Manifest) -> list[str]:
        """The files of a revision whose links or signposts do not lead where its manifest says, in a stable order."""
        final = f"{manifest.revision.repo.path}/commits/{manifest.revision.commit}"
        wrong = [path for path, entry in manifest.files.items() if self._leads(final, path) != entry.blob.path]
        return sorted({*wrong, *self._signposts().wrong(manifest)})

    def _leads(self, final: str, path: str) -> str | None:
        """The blob's path that a link leads to, when it has the form of ours."""
        link = f"{final}/{path}"
        try:
            target = os.readlink(f"{self.served}/{link}")  # noqa: PTH115  (of every file of a revision)
        except OSError:
            return None
        up = "../" * link.count("/")
        return target.removeprefix(up) if target.startswith(up) else None

    def forget(self, revision: Revision) -> None:
        """Take away the record of a revision, which is published anew when it is wanted. Raises StoreError."""
        record = self._folder(revision.repo) / "meta" / revision.commit / "manifest.json"
        with _writing(record):
            record.unlink(missing_ok=True)
            os.utime(record.parents[1])  # so that `stamp` tells

    def repositories(self) -> Iterator[RepoId]:
        """Every repository whose refs were published."""
        for kind in KINDS:
            folder = self.served / kind
            records = [*folder.glob("*/meta/refs.json"), *folder.glob("*/*/meta/refs.json")]
            for record in sorted(records):
                yield RepoId(kind, record.parents[1].relative_to(folder).as_posix())

    def _folder(self, repo: RepoId) -> Path:
        """Where a repository lives. Raises StoreError for names that a URL of the Hub uses otherwise."""
        first, _, last = repo.name.partition("/")
        if first in _RESERVED_FIRST or last in _RESERVED_LAST or first.endswith(".git"):
            raise StoreError(f"{repo.path}: cannot be served, the served tree uses this name for something else")
        return self.served / repo.path

    def _require(self, blobs: Iterable[Blob], what: str) -> None:
        for blob in blobs:
            try:
                size = os.stat(f"{self.served}/{blob.path}").st_size  # noqa: PTH116  (of every file of a revision)
            except FileNotFoundError:
                raise StoreError(f"{what}: not published, {blob} is not in the store; sync again") from None
            if size != blob.size:
                raise StoreError(f"{what}: not published, {blob.path} has {size} bytes, expected {blob.size}")

    @contextmanager
    def _staging(self, name: str) -> Iterator[Path]:
        """An empty folder on the tree's file system that is gone afterwards."""
        import shutil
        import tempfile

        with _writing(self.stage):
            make_folder(self.stage)
            stage = Path(tempfile.mkdtemp(prefix=f"{name}.", dir=self.stage))
            try:
                stage.chmod(0o755)
                yield stage
            finally:
                shutil.rmtree(stage, ignore_errors=True)


@contextmanager
def _writing(place: Path) -> Iterator[None]:
    """Say StoreError or NoSpace where the system says OSError."""
    try:
        yield
    except OSError as error:
        text = f"{error.filename2 or error.filename or place}: {error.strerror}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace(f"{text}; free some space, then run it again") from error
        raise StoreError(text) from error


def _json(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _load(path: Path, parse: Callable[[Any], T]) -> T | None:
    """What `parse` makes of a JSON file; None when there is no such file. Raises StoreError."""
    try:
        return parse(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, HostileTree) as error:
        raise StoreError(f"{path}: damaged ({error}); sync this repository again") from error


def _is_damaged(path: Path, parse: Callable[[Any], object]) -> bool:
    try:
        _load(path, parse)
    except StoreError:
        return True
    return False


def _signed_of(document: Mapping[str, Any]) -> Signed:
    from mirrortools.statements import Signed

    signed = Signed.from_json(document)
    _ = signed.statement  # it must be readable
    return signed


def _refs_of(document: Mapping[str, Any]) -> dict[str, str]:
    return dict(document["refs"])


def _mirrors_of(document: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(map(str, document["mirrors"]))


def _replace(path: Path, content: bytes) -> bool:
    """Write a file unless it already has this content; return whether it was written."""
    if _content(path) == content:
        return False
    make_folder(path.parent)
    write_file(path, content)
    return True


def _of_repository(publication: Publication) -> Iterator[str]:
    """What a mirror needs of a repository besides its revisions."""
    from mirrortools.revision import RSYNC_LIST

    path = publication.repo.path
    yield from (f"{blob.path}\n" for _, blob in sorted(publication.git.packs.items()))
    names = ["git.json", "refs.json", "about.json", RSYNC_LIST, *(["mirrors.json"] if publication.mirrors else [])]
    yield from (f"{path}/meta/{name}\n" for name in names)
    yield f"{path}.git/\n{path}/refs/\n"
    if _default_ref(publication):
        yield f"{LATEST}/{path}\n"


def _default_ref(publication: Publication) -> str | None:
    """The ref that users mean when they name none: main, else what a clone checks out, else the first; its short name.

    None when only commits are served.
    """
    names = sorted(hubapi.short_refs(publication.refs))
    favourites = ("main", publication.git.head.removeprefix("refs/heads/"), *names)
    return next((name for name in favourites if name in names), None)


def _quoted(refs: Mapping[str, str]) -> dict[str, str]:
    """The names of links to refs (full names → commits) → commits."""
    return {quote_ref(name): commit for name, commit in hubapi.short_refs(refs).items()}


def _point_refs(folder: Path, wanted: Mapping[str, str]) -> bool:
    """Make the symlinks in `folder` exactly `wanted` (name → target), new ones first; whether one changed."""
    make_folder(folder)
    present = {link.name: str(link.readlink()) for link in folder.iterdir()}
    for name in sorted(wanted):
        if present.get(name) != wanted[name]:
            point_link(folder / name, wanted[name])
    dropped = present.keys() - wanted.keys()
    _unlink(folder, dropped)
    return bool(dropped) or any(present.get(name) != target for name, target in wanted.items())


def _unlink(folder: Path, names: Collection[str]) -> None:
    for name in names:
        (folder / name).unlink()
    if names:
        sync_folder(folder)


def _point_packs(folder: Path, final: str, snapshot: GitSnapshot) -> None:
    from mirrortools.revision import link_target

    make_folder(folder)
    for name, blob in sorted(snapshot.packs.items()):
        link, target = folder / name, link_target(final, blob)
        if not link.is_symlink() or str(link.readlink()) != target:
            point_link(link, target)


def _drop_packs(folder: Path, kept: Container[str]) -> None:
    _unlink(folder, [link.name for link in folder.iterdir() if link.name not in kept])


def _git_files(snapshot: GitSnapshot) -> dict[str, bytes]:
    """The files of a bare repository but for its packs, in the order in which they must be written."""
    head = snapshot.head if snapshot.head.startswith("refs/") else f"refs/heads/{snapshot.head}"
    check_full_ref(head)
    packs = [f"P {name}\n" for name in sorted(snapshot.packs) if name.endswith(".pack")]
    packed, listed = ["# pack-refs with: peeled fully-peeled sorted \n"], []
    for name, oid in sorted(snapshot.refs.items()):
        packed.append(f"{oid} {name}\n")
        listed.append(f"{oid}\t{name}\n")
        if peeled := snapshot.peeled.get(name):
            packed.append(f"^{peeled}\n")
            listed.append(f"{peeled}\t{name}^{{}}\n")
    return {
        "config": _GIT_CONFIG,
        "objects/info/packs": "".join([*packs, "\n"]).encode(),
        "packed-refs": "".join(packed).encode(),
        "info/refs": "".join(listed).encode(),
        "HEAD": f"ref: {head}\n".encode(),
    }
