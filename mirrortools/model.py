"""The nouns: repositories, revisions, blobs, manifests. They know nothing of disk or network.

Only the standard library is used here, because the receiver runs this module on edges.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice
from sys import intern
from typing import Any, Final, TypeVar
from urllib.parse import quote

from mirrortools.errors import ConfigError, HostileTree

T = TypeVar("T")

KINDS: Final = ("models", "datasets", "spaces")
COMMIT: Final = re.compile(r"[0-9a-f]{40}\Z")
_DIGEST_LENGTH: Final = {"sha256": 64, "git": 40}
_HEX: Final = re.compile(r"[0-9a-f]+\Z")
_REPO_SEGMENT: Final = re.compile(r"(?!.*(?:--|\.\.))[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}\Z")
_BASE_URL: Final = re.compile(r"https?://[^\s/<>\"'?#]+(?:/[^\s<>\"'?#]*)?\Z")
# Characters that make a name look like another one (Unicode TR 36, bidirectional controls).
# Elements that are encoded at a time where JSON is made piece by piece.
_TOGETHER: Final = 256
_ENCODE: Final = json.JSONEncoder(separators=(",", ":")).encode
_ENCODE_SORTED: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, sort_keys=True).encode
_DISGUISES: Final = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f")


@dataclass(frozen=True, slots=True, order=True)
class RepoId:
    """A repository's kind and name: `models/org/name`, `datasets/org/name`, `spaces/…`; a bare name is a model."""

    kind: str
    name: str

    def __post_init__(self) -> None:
        segments = self.name.split("/")
        if self.kind not in KINDS or len(segments) > 2 or not all(_REPO_SEGMENT.match(s) for s in segments):
            raise ConfigError(f"{self.kind}/{self.name}: not a repository name (org/name or datasets/org/name)")
        if self.name.endswith((".git", ".lock")):
            raise ConfigError(f"{self.kind}/{self.name}: a repository name does not end in .git or .lock")

    @classmethod
    def parse(cls, text: str) -> RepoId:
        """Read `org/name`, `models/org/name` or `datasets/org/name`. Raises ConfigError."""
        kind, _, rest = text.partition("/")
        if kind in KINDS and rest:
            return cls(kind, rest)
        return cls("models", text)

    @property
    def path(self) -> str:
        """Where the repository lives below the tree's root: `models/org/name`."""
        return f"{self.kind}/{self.name}"

    @property
    def url_path(self) -> str:
        """Where the Hub shows it: `org/name` for a model, `datasets/org/name` for a dataset."""
        return self.name if self.kind == "models" else self.path

    def __str__(self) -> str:
        return self.url_path


class Realm(StrEnum):
    """Whom a repository is served to: everybody, or its readers alone. Each has a folder of its own below the root."""

    PUBLIC = "public"
    PRIVATE = "private"

    @property
    def other(self) -> Realm:
        """Where a repository of this one must not be."""
        return Realm.PRIVATE if self is Realm.PUBLIC else Realm.PUBLIC


@dataclass(frozen=True, slots=True, order=True)
class Blob:
    """Content, named by its digest; `size` is in bytes.

    `algorithm` is `sha256` (hash of the bytes, as git-LFS names them) or `git` (SHA-1 of the header
    `blob <size>` with a NUL and the bytes, as git names them).
    """

    algorithm: str
    digest: str
    size: int

    def __post_init__(self) -> None:
        length = _DIGEST_LENGTH.get(self.algorithm)
        if length is None or len(self.digest) != length or not _HEX.match(self.digest):
            raise HostileTree(f"not a digest: {self.algorithm}:{self.digest!r}")
        if self.size < 0:
            raise HostileTree(f"{self.digest}: a size cannot be {self.size}")

    @property
    def path(self) -> str:
        """Where the blob lives below the tree's root: `blobs/sha256/aa/bb/<digest>`."""
        return f"blobs/{self.algorithm}/{self.digest[:2]}/{self.digest[2:4]}/{self.digest}"

    def new_hash(self) -> hashlib._Hash:
        """A running hash that ends with the blob's digest when it is given the blob's content."""
        return new_hash(self.algorithm, self.size)

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.digest[:12]}… ({self.size} bytes)"


def new_hash(algorithm: str, size: int) -> hashlib._Hash:
    """A running hash for content of `size` bytes; git's begins with a header (git-hash-object(1))."""
    if algorithm == "sha256":
        return hashlib.sha256()
    return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a revision.

    `git_oid` is the id that git has for it: of the file itself, or of the LFS pointer, whose size is
    `pointer_size` (None for a plain file).
    """

    blob: Blob
    git_oid: str
    pointer_size: int | None = None

    def __post_init__(self) -> None:
        if not COMMIT.match(self.git_oid):
            raise HostileTree(f"not a git object id: {self.git_oid!r}")

    @property
    def is_lfs(self) -> bool:
        """Whether git holds only a pointer to this file."""
        return self.pointer_size is not None


@dataclass(frozen=True, slots=True)
class Revision:
    """One commit of a repository; it never changes."""

    repo: RepoId
    commit: str

    def __post_init__(self) -> None:
        if not COMMIT.match(self.commit):
            raise HostileTree(f"{self.repo}: not a commit id: {self.commit!r}")

    def __str__(self) -> str:
        return f"{self.repo}@{self.commit[:12]}"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a revision holds: path → entry. `committed_at` is the commit's time in Unix seconds.

    `card` is what the origin made of its README for people to read: HTML that can do no harm, or None. `history` is
    what it made of git's log: the commits that led here, as the Hub's API tells them.
    Paths are checked here once for every caller. Raises HostileTree.
    """

    revision: Revision
    files: Mapping[str, Entry]
    committed_at: int
    title: str = ""
    filtered: bool = False
    card: Blob | None = None
    history: Blob | None = None

    def __post_init__(self) -> None:
        for path in self.files:
            check_path(path)
        check_no_file_is_a_folder(self.files)

    @property
    def blobs(self) -> frozenset[Blob]:
        """Every distinct blob of the revision."""
        return frozenset(self.iter_blobs())

    def iter_blobs(self) -> Iterator[Blob]:
        """The blob of every file, the card and the history; one that several files have comes several times."""
        yield from (entry.blob for entry in self.files.values())
        yield from filter(None, (self.card, self.history))

    @property
    def size_bytes(self) -> int:
        """The sum of the files' sizes."""
        return sum(entry.blob.size for entry in self.files.values())

    def to_json(self) -> dict[str, Any]:
        """The form in which a manifest travels and lies in `meta/<sha>/manifest.json`."""
        return {**self._about(), "files": dict(self._rows())}

    def json_pieces(self) -> Iterator[str]:
        """`to_json` as compact JSON, never all of it in memory."""
        return json_pieces({**self._about(), "files": Items(self._rows())})

    def digest(self) -> str:
        """The SHA-256 of `to_json` with sorted keys, as compact JSON in UTF-8."""
        document = {**self._about(), "files": Items(self._rows())}
        return _json_digest(dict(sorted(document.items())))

    def _about(self) -> dict[str, Any]:
        return {
            "version": 1,
            "repo": self.revision.repo.path,
            "commit": self.revision.commit,
            "committed_at": self.committed_at,
            "title": self.title,
            "filtered": self.filtered,
            **({"card": _row(self.card)} if self.card else {}),
            **({"history": _row(self.history)} if self.history else {}),
        }

    def _rows(self) -> Iterator[tuple[str, list[Any]]]:
        for path in sorted(self.files):
            e = self.files[path]
            yield path, [e.blob.algorithm, e.blob.digest, e.blob.size, e.git_oid, e.pointer_size]

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Manifest:
        """Read what `to_json` wrote. Raises HostileTree on anything malformed."""
        try:
            files = {
                path: Entry(Blob(intern(str(algorithm)), str(digest), int(size)), str(git_oid), pointer_size)
                for path, (algorithm, digest, size, git_oid, pointer_size) in document["files"].items()
            }
            repo = RepoId.parse(document["repo"])
            revision = Revision(repo, document["commit"])
            committed_at, title = int(document["committed_at"]), str(document["title"])
            card = _blob_of(document["card"]) if "card" in document else None
            history = _blob_of(document["history"]) if "history" in document else None
            return cls(revision, files, committed_at, title, bool(document["filtered"]), card, history)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise HostileTree(f"not a manifest: {error!r}") from error


def _row(blob: Blob) -> list[Any]:
    return [blob.algorithm, blob.digest, blob.size]


def _blob_of(item: Sequence[Any]) -> Blob:
    algorithm, digest, size = item
    return Blob(str(algorithm), str(digest), int(size))


@dataclass(frozen=True, slots=True)
class GitSnapshot:
    """What `git clone` needs: packs (file name → sha256 blob), refs (full name → object id), default branch.

    `peeled` maps annotated tags to the commit they name, as `info/refs` shows it in its `^{}` lines.
    """

    packs: Mapping[str, Blob]
    refs: Mapping[str, str]
    head: str
    peeled: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.packs:
            if not re.fullmatch(r"pack-[0-9a-f]{40}\.(pack|idx)", name):
                raise HostileTree(f"not a pack file's name: {name!r}")
        for name, oid in [*self.refs.items(), *self.peeled.items()]:
            check_full_ref(name)
            if not COMMIT.match(oid):
                raise HostileTree(f"{name}: not an object id: {oid!r}")

    def to_json(self) -> dict[str, Any]:
        """The form in which a snapshot travels."""
        return {
            "packs": {name: [b.algorithm, b.digest, b.size] for name, b in sorted(self.packs.items())},
            "refs": dict(sorted(self.refs.items())),
            "peeled": dict(sorted(self.peeled.items())),
            "head": self.head,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> GitSnapshot:
        """Read what `to_json` wrote. Raises HostileTree on anything malformed."""
        try:
            packs = {name: Blob(str(a), str(d), int(s)) for name, (a, d, s) in document["packs"].items()}
            return cls(packs, dict(document["refs"]), str(document["head"]), dict(document["peeled"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise HostileTree(f"not a git snapshot: {error!r}") from error


@dataclass(frozen=True, slots=True)
class Publication:
    """Everything of one repository that is served: the same value on the origin and on every edge.

    `refs` maps full ref names (`refs/heads/main`) to commits; `manifests` holds one manifest for each of
    those commits and for each pinned one. `mirrors` are the base URLs of all hosts that serve it, the best first.
    The realm is a part of it, so that what is signed as private cannot be shown to everybody.
    """

    repo: RepoId
    refs: Mapping[str, str]
    manifests: Mapping[str, Manifest]
    git: GitSnapshot
    mirrors: tuple[str, ...] = ()
    realm: Realm = Realm.PUBLIC

    def __post_init__(self) -> None:
        for name, commit in self.refs.items():
            check_full_ref(name)
            if commit not in self.manifests:
                raise HostileTree(f"{self.repo}: {name} names {commit}, of which there is no manifest")
        for commit, manifest in self.manifests.items():
            if manifest.revision != Revision(self.repo, commit):
                raise HostileTree(f"{self.repo}: the manifest of {commit} says {manifest.revision}")
        for url in self.mirrors:
            if not _BASE_URL.match(url):
                raise HostileTree(f"{self.repo}: not the URL of a mirror: {url!r}")

    @property
    def blobs(self) -> frozenset[Blob]:
        """Every blob that must lie in the store before the publication may become visible."""
        content = (manifest.blobs for manifest in self.manifests.values())
        return frozenset().union(*content, self.git.packs.values())

    def digests(self) -> dict[str, str]:
        """SHA-256 of each part: `refs` (the refs, what git shows, the mirrors, a realm that is not the public one) and
        the manifest of every commit.

        Whoever holds these items holds this publication, and perhaps older commits besides.
        """
        told = [dict(self.refs), self.git.to_json(), list(self.mirrors)]
        return {
            "refs": _json_digest(told if self.realm is Realm.PUBLIC else [*told, self.realm]),
            **{commit: manifest.digest() for commit, manifest in self.manifests.items()},
        }

    def to_json(self, held: Container[str] = ()) -> dict[str, Any]:
        """The form in which a publication travels to an edge; manifests of commits that it has `held` stay here."""
        manifests = {c: None if c in held else m.to_json() for c, m in sorted(self.manifests.items())}
        return {
            "repo": self.repo.path,
            "refs": dict(sorted(self.refs.items())),
            "manifests": manifests,
            "git": self.git.to_json(),
            "mirrors": list(self.mirrors),
            "realm": self.realm,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any], held: Callable[[str], Manifest | None]) -> Publication:
        """Read what `to_json` wrote; `held` gives the manifests that did not travel.

        Raises HostileTree on anything malformed.
        """
        try:
            sent = document["manifests"].items()
            manifests = {c: m for c, d in sent if (m := held(c) if d is None else Manifest.from_json(d))}
            git = GitSnapshot.from_json(document["git"])
            mirrors = tuple(map(str, document["mirrors"]))
            realm = Realm(document.get("realm", Realm.PUBLIC))
            return cls(RepoId.parse(document["repo"]), dict(document["refs"]), manifests, git, mirrors, realm)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise HostileTree(f"not a publication: {error!r}") from error


@dataclass(frozen=True, slots=True)
class Items:
    """Names and values, made one after the other, that become an object in JSON."""

    pairs: Iterator[tuple[str, Any]]


def json_pieces(document: Any, encode: Callable[[Any], str] = _ENCODE) -> Iterator[str]:
    """JSON piece by piece: iterators become lists and `Items` objects, alone or as values of a dict.

    What is in the iterators is never all in memory.
    """
    if isinstance(document, Iterator):
        yield from _joined("[", (encode(list(some)) for some in _batches(document)), "]")
    elif isinstance(document, Items):
        yield from _joined("{", (encode(dict(some)) for some in _batches(document.pairs)), "}")
    elif isinstance(document, dict):
        before = "{"
        for name, value in document.items():
            yield f"{before}{encode(name)}:"
            yield from json_pieces(value, encode) if isinstance(value, Iterator | Items) else [encode(value)]
            before = ","
        yield "}" if document else "{}"
    else:
        yield encode(document)


def _batches(elements: Iterator[T]) -> Iterator[list[T]]:
    while some := list(islice(elements, _TOGETHER)):
        yield some


def _joined(opening: str, encoded: Iterable[str], closing: str) -> Iterator[str]:
    """One list or object out of several that were encoded."""
    between = opening
    for each in encoded:
        yield between + each[1:-1]
        between = ","
    yield closing if between == "," else opening + closing


def _json_digest(document: Any) -> str:
    digest = hashlib.sha256()
    for piece in json_pieces(document, _ENCODE_SORTED):
        digest.update(piece.encode())
    return digest.hexdigest()


def check_path(path: str) -> None:
    """Refuse a file name that could leave its folder, hide, or hurt its readers. Raises HostileTree."""
    problem = _path_problem(path)
    if problem:
        raise HostileTree(f"refused file name {path!r}: {problem}")


def _path_problem(path: str) -> str | None:
    segments = path.split("/")
    if not path or any(segment in ("", ".", "..") for segment in segments):
        return "empty, absolute, or with an empty, . or .. segment"
    if any(segment.casefold() == ".git" for segment in segments):
        return "a .git folder inside the tree"
    if path.startswith("-"):
        return "begins with -, which programs take for an option"
    if "\\" in path:
        return "contains a backslash"
    if not (path.isascii() and path.isprintable()) and any(map(_is_treacherous, path)):
        return "contains control, surrogate or direction-changing characters"
    if len(path.encode()) > 2048 or any(len(segment.encode()) > 255 for segment in segments):
        return "longer than file systems allow"
    return None


def _is_treacherous(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cs") or character in _DISGUISES


def check_no_file_is_a_folder(paths: Collection[str]) -> None:
    """Refuse files (a mapping or set of paths) among which are `a` and `a/b` too. Raises HostileTree."""
    folders: set[str] = set()
    for path in paths:
        folder = path.rpartition("/")[0]
        while folder and folder not in folders:
            if folder in paths:
                raise HostileTree(f"refused tree: {folder!r} is a file and the folder of {path!r}")
            folders.add(folder)
            folder = folder.rpartition("/")[0]


def check_full_ref(name: str) -> None:
    """Refuse what `git check-ref-format` refuses. Raises HostileTree."""
    segments = name.split("/")
    bad = (
        len(segments) < 2
        or segments[0] != "refs"
        or any(not s or s.startswith(".") or s.endswith(".lock") for s in segments)
        or any(ord(c) < 0x21 or ord(c) == 0x7F or c in "~^:?*[\\" for c in name)
        or ".." in name
        or "@{" in name
        or name.endswith(".")
        or any(unicodedata.category(c) == "Cs" for c in name)
        or len(quote_ref(name)) > 230  # it becomes the name of a file
    )
    if bad:
        raise HostileTree(f"refused ref name {name!r}")


def short_ref(full_ref: str) -> str:
    """The name users type: `refs/heads/main` → `main`, `refs/tags/v1` → `v1`, others unchanged."""
    for prefix in ("refs/heads/", "refs/tags/"):
        if full_ref.startswith(prefix):
            return full_ref[len(prefix) :]
    return full_ref


def quote_ref(ref: str) -> str:
    """The file name of a ref in the tree: percent-encoded as URL clients do, `feature/x` → `feature%2Fx`."""
    return quote(ref, safe="")
