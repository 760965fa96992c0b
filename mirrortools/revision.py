"""The files that are served of one revision: links to its blobs, and beside them all that is said about it.

They are written into a stage, which the tree moves into place. Only the standard library is used here, because the
receiver runs this module on edges.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Final

from mirrortools import hubapi
from mirrortools.errors import StoreError
from mirrortools.metalink import LEAST_BYTES, OF_REVISION, SUFFIX, Linked, metalink
from mirrortools.model import Blob, Manifest, json_pieces
from mirrortools.pages import page
from mirrortools.pieces import needs_pieces, read_pieces
from mirrortools.sums import SUMS, parse_sums, sha256_sums, sums_line

# A listing lies in the folder that it lists, under the one name that no file of a repository can have.
LISTING: Final = ".git"
RSYNC_LIST: Final = "rsync.list"
PAGE: Final = "page.html"
COMMITS: Final = "commits.json"
METALINKS: Final = "files"


@dataclass(frozen=True, slots=True)
class RevisionFiles:
    """What is served of the revision of a manifest whose blobs lie below `served`.

    `mirrors` are the base URLs of the hosts that serve it, the best first; without any there are no metalinks.
    """

    manifest: Manifest
    mirrors: tuple[str, ...]
    served: Path
    is_private: bool = False

    def write_links(self, stage: Path, former: Path | None = None) -> None:
        """Write the files themselves as they must be when `stage` is renamed to its place.

        What is the same in the folder of a `former` revision gets a second name instead: that takes a third of the
        time, and neither an inode nor, where a target is long, a block.
        """
        final = f"{self.manifest.revision.repo.path}/commits/{self.manifest.revision.commit}"
        stage.mkdir()
        made = {""}
        for path, entry in self.manifest.files.items():
            folder = path.rpartition("/")[0]
            if folder not in made:
                (stage / folder).mkdir(parents=True, exist_ok=True)
                made.add(folder)
            target = link_target(f"{final}/{folder}" if folder else final, entry.blob)
            if not (former and _is_linked_again(f"{former}/{path}", target, f"{stage}/{path}")):
                os.symlink(target, f"{stage}/{path}")  # noqa: PTH211  (tens of thousands of them)

    def write_meta(self, stage: Path) -> None:
        """Write all that is said about the revision."""
        manifest = self.manifest
        _write_new(stage / "manifest.json", manifest.json_pieces())
        _write_new(stage / "info.json", json_pieces(hubapi.info(manifest, blobs=False, is_private=self.is_private)))
        _write_new(
            stage / "info-blobs.json", json_pieces(hubapi.info(manifest, blobs=True, is_private=self.is_private))
        )
        _write_new(stage / "brief.json", json_pieces(hubapi.brief(manifest, is_private=self.is_private)))
        if manifest.history:
            _write_new(stage / COMMITS, [(self.served / manifest.history.path).read_text(encoding="utf-8")])
        for path, entry in manifest.files.items():
            if entry.blob.size > hubapi.HUGE_BYTES:
                _write_new(stage / "huge" / path, ())
        for listing in hubapi.listings(manifest):
            _write_pages(stage, "flat", listing.folder, listing.flat)
            if listing.recursive is not None:
                _write_pages(stage, "recursive", listing.folder, listing.recursive)
        sums = sha256_sums(manifest, self.served)
        _write_new(stage / SUMS, (sums_line(path, sha256) for path, sha256 in sums))
        self.write_where(stage, stage / SUMS)
        _write_new(stage / RSYNC_LIST, self._needed())

    def write_where(self, stage: Path, sums: Path) -> None:
        """Write what depends on mirrors and pieces: the page, and metalinks of all and of each larger file."""
        self._write_page(stage / PAGE, sums)
        if not self.mirrors:
            return
        _write_new(stage / OF_REVISION, metalink(self.manifest, self._linked(sums), self.mirrors))
        for file in self._linked(sums):
            if file.size >= LEAST_BYTES:
                # Beside a file `x` there may be a folder `x.meta4`: what is in it stands in the revision's alone.
                with suppress(FileExistsError, NotADirectoryError):
                    path = stage / METALINKS / f"{file.path}{SUFFIX}"
                    _write_new(path, metalink(self.manifest, [file], self.mirrors))

    def says_where(self, meta: Path) -> bool:
        """Whether what `write_where` would write is there."""
        if not (meta / PAGE).is_file():
            return False
        if not self.mirrors:
            return not (meta / OF_REVISION).exists()
        return has_content(meta / OF_REVISION, metalink(self.manifest, self._linked(meta / SUMS), self.mirrors))

    def _write_page(self, path: Path, sums: Path) -> None:
        blob = self.manifest.card
        card = (self.served / blob.path).read_text(encoding="utf-8") if blob else None
        with sums.open(encoding="utf-8", newline="\n") as file:
            _write_new(path, page(self.manifest, parse_sums(file), card, metalinks=bool(self.mirrors)))

    def _linked(self, sums: Path) -> Iterator[Linked]:
        """The files as a metalink has them, by the sums that were written of them."""
        with sums.open(encoding="utf-8", newline="\n") as file:
            for path, sha256 in parse_sums(file):
                blob = self.manifest.files[path].blob
                pieces = read_pieces(self.served, blob) if needs_pieces(blob) else None
                yield Linked(path, blob.size, sha256, pieces)

    def _needed(self) -> Iterator[str]:
        """What a mirror needs of the revision, a line each: blobs, then the folders with what is to be shown."""
        yield from (f"{blob.path}\n" for blob in self.manifest.iter_blobs())
        repo, commit = self.manifest.revision.repo, self.manifest.revision.commit
        yield f"{repo.path}/commits/{commit}/\n{repo.path}/meta/{commit}/\n"


def link_target(folder: str, blob: Blob) -> str:
    """The relative symlink from a file in `folder` (below public) to `blob`."""
    return "../" * (folder.count("/") + 1) + blob.path


def require(served: Path, blobs: Iterable[Blob], what: str) -> None:
    """Have all blobs in their places below `served` before `what` is published. Raises StoreError."""
    for blob in blobs:
        try:
            size = os.stat(f"{served}/{blob.path}").st_size  # noqa: PTH116  (of every file of a revision)
        except FileNotFoundError:
            raise StoreError(f"{what}: not published, {blob} is not in the store; sync again") from None
        if size != blob.size:
            raise StoreError(f"{what}: not published, {blob.path} has {size} bytes, expected {blob.size}")


def _is_linked_again(link: str, target: str, name: str) -> bool:
    """Give a symlink that leads to `target` a second name; whether that could be."""
    try:
        if os.readlink(link) != target:  # noqa: PTH115  (tens of thousands of them)
            return False
        os.link(link, name, follow_symlinks=False)
    except OSError:  # it is not there, has as many names as one may have, or the file system knows no such thing
        return False
    return True


def has_content(path: Path, pieces: Iterable[str]) -> bool:
    """Whether a file is there and consists of `pieces`."""
    try:
        with path.open("rb") as file:
            return all(file.read(len(piece)) == piece for piece in map(str.encode, pieces)) and not file.read(1)
    except FileNotFoundError:
        return False


def _write_pages(stage: Path, kind: str, folder: str, entries: Iterator[hubapi.Document]) -> None:
    """Write a folder's listing, in as many pages as it takes: `flat`, `flat-n`, `flat-nn`, … each have one of them.

    A server that can neither count nor read finds the next page by one more letter.
    """
    page, rest = kind, entries
    while True:
        _write_new(stage / page / folder / LISTING, json_pieces(islice(rest, hubapi.PAGE_ENTRIES)))
        further = next(rest, None)
        if further is None:
            return
        page, rest = f"{page}n" if page != kind else f"{kind}-n", chain([further], rest)


def _write_new(path: Path, pieces: Iterable[str]) -> None:
    """Write a file of a staged folder, which is made durable as a whole when it moves."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        file.writelines(map(str.encode, pieces))
