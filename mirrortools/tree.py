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

import json
import os
import time
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mirrortools.errors import StoreError
from mirrortools.files import make_folder, point_link, unlink_all, write_file, write_pieces
from mirrortools.model import (
    KINDS,
    GitSnapshot,
    Manifest,
    Publication,
    Realm,
    RepoId,
    Revision,
    check_full_ref,
    quote_ref,
)
from mirrortools.records import content, is_damaged, load, replace_record, to_json, writing

if TYPE_CHECKING:
    from mirrortools.catalogue import Catalogue, Listed
    from mirrortools.commits import ServedRevision
    from mirrortools.signposts import Signposts
    from mirrortools.statements import Signed

INDEX = ".mirror/index.html"
# Names that URLs or the layout use for something else, as the first and as the last segment of a repository.
_RESERVED_FIRST = frozenset((*KINDS, "api", "blobs"))
_RESERVED_LAST = frozenset(
    ("auth-check", "commits", "meta", "raw", "refs", "resolve", "revision", "tree", "paths-info", "info")
)
_FOR_PUBLISHING = (
    "mirrortools.bare",
    "mirrortools.catalogue",
    "mirrortools.changes",
    "mirrortools.commits",
    "mirrortools.pages",
    "mirrortools.signposts",
    "html",
)


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
        with writing(self.served):
            if not self.served.is_dir():
                make_folder(self.served)
                self.served.chmod(0o750 if self.realm is Realm.PRIVATE else 0o755)

    def refuse_elsewhere(self, repo: RepoId) -> None:
        """Refuse a repository that the other realm serves: to move it is not for a sync to do. Raises StoreError."""
        other = self.served.with_name(self.realm.other.value)
        if not (other / repo.path / "meta" / "refs.json").exists():
            return
        from mirrortools.changes import LATEST

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
        from mirrortools.changes import point_latest

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
            point_latest(self.served, publication)
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
        from mirrortools.commits import staging

        signposts = self._signposts()
        for commit, manifest in publication.manifests.items():
            if commit in new or signposts.lacks(manifest):
                with staging(self.stage, commit) as stage, suppress(PermissionError):  # the root may be somebody else's
                    signposts.put_up(manifest, stage)
        with writing(self.served):
            signposts.follow(publication.repo, _quoted(publication.refs), _quoted(former))

    def _signposts(self) -> Signposts:
        from mirrortools.signposts import Signposts

        return Signposts(self.served.parent)

    def note_change(self, publication: Publication, commits: Iterable[str] = ()) -> None:
        """Let mirrors that pull by rsync know that a repository, and these of its revisions, are other than before.

        Raises StoreError, NoSpace.
        """
        from mirrortools.changes import note_change

        note_change(self.served, publication, commits)

    def publish_revision(self, manifest: Manifest, mirrors: Sequence[str] = ()) -> bool:
        """Put a commit's files, API answers and metalinks in place; return whether anything changed.

        The same commit with another manifest (other include or exclude rules) replaces the former one.
        Raises StoreError, NoSpace.
        """
        return self._revision(manifest, mirrors).publish(lambda: self._former_links(manifest.revision.repo))

    def _former_links(self, repo: RepoId) -> Path | None:
        """The folder of the revision that was published last; None when there is none."""
        latest = self.latest(repo, self.commits(repo), most=1)
        return self._folder(repo) / "commits" / latest[0] if latest else None

    def publish_metalinks(self, manifest: Manifest, mirrors: Sequence[str]) -> bool:
        """Let the metalinks of a published revision say `mirrors` and the pieces that are known now.

        Return whether anything changed. Raises StoreError, NoSpace.
        """
        return self._revision(manifest, mirrors).publish_metalinks()

    def _revision(self, manifest: Manifest, mirrors: Sequence[str]) -> ServedRevision:
        from mirrortools.commits import ServedRevision
        from mirrortools.revision import RevisionFiles

        files = RevisionFiles(manifest, tuple(mirrors), self.served, is_private=self.realm is Realm.PRIVATE)
        return ServedRevision(files, self._folder(manifest.revision.repo), self.stage)

    def mirrors(self, repo: RepoId) -> tuple[str, ...]:
        """The base URLs of the hosts that serve a repository, as published; none when they are not known."""
        try:
            return load(self._folder(repo) / "meta" / "mirrors.json", _mirrors_of) or ()
        except StoreError:
            return ()

    def _publish_mirrors(self, repo: RepoId, mirrors: Sequence[str]) -> None:
        with writing(self._folder(repo) / "meta"):
            replace_record(self._folder(repo) / "meta" / "mirrors.json", to_json({"mirrors": list(mirrors)}))

    def _describe(self, publication: Publication) -> None:
        """Keep what the index will say of a repository."""
        from mirrortools import hubapi
        from mirrortools.pages import About

        ref = hubapi.default_ref(publication)
        commit = hubapi.short_refs(publication.refs)[ref] if ref else min(publication.manifests, default=None)
        meta = self._folder(publication.repo) / "meta"
        with writing(meta):
            if commit:
                replace_record(meta / "about.json", to_json(About.of(publication.manifests[commit]).to_json()))

    def publish_index(self) -> list[Listed]:
        """Write the page that lists all repositories, the stylesheet, and the script for clients; gives what is listed.

        Raises StoreError, NoSpace.
        """
        from mirrortools.client import SCRIPT, SCRIPT_PATH
        from mirrortools.pages import STYLE_PATH, About, index
        from mirrortools.style import STYLE

        with writing(self.served):
            replace_record(self.served / STYLE_PATH, STYLE.encode())
            replace_record(self.served / SCRIPT_PATH, SCRIPT.encode())
            catalogue = self._catalogue()
            with catalogue.alone():
                listed = catalogue.listed(self._places(), time.time())
                abouts = (About(RepoId.parse(known.path), *known.figures) for known in listed if known.figures)
                write_pieces(self.served / INDEX, map(str.encode, index(abouts)))
        return listed

    def listed(self) -> list[Listed]:
        """What is to be said of all repositories. Raises StoreError, NoSpace."""
        catalogue = self._catalogue()
        with writing(self.served), catalogue.alone():
            return catalogue.listed(self._places(), time.time())

    @property
    def has_index(self) -> bool:
        """Whether the index was ever written."""
        return (self.served / INDEX).is_file()

    def _catalogue(self) -> Catalogue:
        from mirrortools.catalogue import Catalogue

        return Catalogue(self.served.parent / "state" / "catalogue" / self.realm.value, self._look)

    def _look(self, path: str) -> Listed | None:
        """Read what is to be said of the repository at a path."""
        from mirrortools.catalogue import Listed

        meta = self.served / path / "meta"
        refs, figures = "", None
        with suppress(StoreError):
            if (known := load(meta / "refs.json", _refs_of)) is None:
                return None
            refs = json.dumps(known, ensure_ascii=False, separators=(",", ":"))
        with suppress(StoreError):
            figures = load(meta / "about.json", _figures_of)
        return Listed(path, refs, figures or ())

    def publish_git(self, repo: RepoId, snapshot: GitSnapshot) -> bool:
        """Let `git clone` see `snapshot`, packs before refs; return whether anything changed.

        Raises StoreError, NoSpace. Packs of the snapshot before stay for clones that are under way.
        """
        from mirrortools.bare import BareRepository
        from mirrortools.revision import require

        record = self._folder(repo) / "meta" / "git.json"
        wanted = to_json(snapshot.to_json())
        if content(record) == wanted and self.git(repo):
            return False
        require(self.served, snapshot.packs.values(), f"{repo}.git")
        former, bare = self.git(repo), BareRepository(self.served, repo)
        with writing(bare.folder):
            bare.show(snapshot)
            make_folder(record.parent)
            write_file(record, wanted)
            bare.drop_packs({*snapshot.packs, *(former.packs if former else ())})
        return True

    def publish_refs(self, repo: RepoId, refs: Mapping[str, str]) -> bool:
        """Make `refs` (full name → commit) the refs of a repository; return whether anything changed.

        Refs that are not named any more vanish; their commits stay.
        Raises StoreError when a commit was not published.
        """
        from mirrortools import hubapi

        folder = self._folder(repo)
        for name, commit in refs.items():
            check_full_ref(name)
            if not (folder / "meta" / commit / "manifest.json").is_file():
                raise StoreError(f"{repo}: {name} may not name {commit}: that revision is not in the tree")
        wanted, former = _quoted(refs), _quoted(self._former_refs(repo))
        with writing(folder / "refs"):
            self._signposts().step_aside(repo, wanted, former)
            moved = _point_refs(folder / "refs", {name: f"../commits/{commit}" for name, commit in wanted.items()})
            return replace_record(folder / "meta" / "refs.json", to_json(hubapi.refs(refs))) or moved

    def publish_statement(self, repo: RepoId, signed: Signed) -> None:
        """Show what the origin says of a repository. Raises StoreError, NoSpace."""
        with writing(self._folder(repo) / "meta"):
            replace_record(self._folder(repo) / "meta" / "statement.json", to_json(signed.to_json()))

    def statement(self, repo: RepoId) -> Signed | None:
        """What the origin says of a repository; None when it has said nothing, or the record is damaged."""
        try:
            return load(self._folder(repo) / "meta" / "statement.json", _signed_of)
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
        return load(self._folder(repo) / "meta" / "refs.json", _refs_of) or {}

    def manifest(self, revision: Revision) -> Manifest | None:
        """The manifest of a published revision. Raises StoreError when it is damaged."""
        record = self._folder(revision.repo) / "meta" / revision.commit / "manifest.json"
        return load(record, Manifest.from_json)

    def git(self, repo: RepoId) -> GitSnapshot | None:
        """What `git clone` sees. Raises StoreError when the record is damaged."""
        if not (self.served / f"{repo.path}.git" / "HEAD").is_file():
            return None
        return load(self._folder(repo) / "meta" / "git.json", GitSnapshot.from_json)

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
        damaged = [record for record, parse in records if is_damaged(record, parse)]
        with writing(meta):
            for record in damaged:
                record.unlink()
            if damaged:
                os.utime(meta)  # so that `stamp` tells
        if meta / "refs.json" in damaged and (git := self.git(repo)):
            from mirrortools import hubapi

            commits = {name: git.peeled.get(name, oid) for name, oid in git.refs.items()}
            with writing(meta):
                write_file(meta / "refs.json", to_json(hubapi.refs(commits)))
        return bool(damaged)

    def wrong_links(self, manifest: Manifest) -> list[str]:
        """The files of a revision whose links or signposts do not lead where its manifest says, in a stable order."""
        return sorted({*self._revision(manifest, ()).wrong_links(), *self._signposts().wrong(manifest)})

    def forget(self, revision: Revision) -> None:
        """Take away the record of a revision, which is published anew when it is wanted. Raises StoreError."""
        record = self._folder(revision.repo) / "meta" / revision.commit / "manifest.json"
        with writing(record):
            record.unlink(missing_ok=True)
            os.utime(record.parents[1])  # so that `stamp` tells

    def repositories(self) -> Iterator[RepoId]:
        """Every repository whose refs were published."""
        for path, _ in self._places():
            if (self.served / path / "meta" / "refs.json").is_file():
                yield RepoId.parse(path)

    def _places(self) -> Iterator[tuple[str, str]]:
        """The paths below which records of repositories may lie, in a stable order, each with its stamp."""
        for kind in KINDS:
            for path in _below(f"{self.served}/{kind}"):
                if stamp := self.stamp(f"{kind}/{path}"):
                    yield f"{kind}/{path}", stamp

    def _folder(self, repo: RepoId) -> Path:
        """Where a repository lives. Raises StoreError for names that a URL of the Hub uses otherwise."""
        first, _, last = repo.name.partition("/")
        if first in _RESERVED_FIRST or last in _RESERVED_LAST or first.endswith(".git"):
            raise StoreError(f"{repo.path}: cannot be served, the served tree uses this name for something else")
        return self.served / repo.path


def _below(place: str) -> Iterator[str]:
    """The folders below one for repositories of a kind that may be a repository's, in a stable order."""
    for first in _folders(place, _RESERVED_FIRST):
        yield first
        for last in _folders(f"{place}/{first}", _RESERVED_LAST):
            yield f"{first}/{last}"


def _folders(place: str, reserved: Container[str]) -> list[str]:
    """The names of the folders in a folder that may be segments of a repository's name, in a stable order."""
    try:
        with os.scandir(place) as found:
            names = [entry.name for entry in found if entry.is_dir()]
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []
    return sorted(name for name in names if name not in reserved and not name.endswith(".git"))


def _signed_of(document: Mapping[str, Any]) -> Signed:
    from mirrortools.statements import Signed

    signed = Signed.from_json(document)
    _ = signed.statement  # it must be readable
    return signed


def _figures_of(document: Mapping[str, Any]) -> tuple[int, ...]:
    return int(document["files"]), int(document["size_bytes"]), int(document["committed_at"])


def _refs_of(document: Mapping[str, Any]) -> dict[str, str]:
    return dict(document["refs"])


def _mirrors_of(document: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(map(str, document["mirrors"]))


def _quoted(refs: Mapping[str, str]) -> dict[str, str]:
    """The names of links to refs (full names → commits) → commits."""
    from mirrortools.hubapi import short_refs

    return {quote_ref(name): commit for name, commit in short_refs(refs).items()}


def _point_refs(folder: Path, wanted: Mapping[str, str]) -> bool:
    """Make the symlinks in `folder` exactly `wanted` (name → target), new ones first; whether one changed."""
    make_folder(folder)
    present = {link.name: str(link.readlink()) for link in folder.iterdir()}
    for name in sorted(wanted):
        if present.get(name) != wanted[name]:
            point_link(folder / name, wanted[name])
    dropped = present.keys() - wanted.keys()
    unlink_all(folder, dropped)
    return bool(dropped) or any(present.get(name) != target for name, target in wanted.items())
