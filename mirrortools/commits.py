"""Revisions in the tree: each is built in a stage and put in its place as a whole.

Only the standard library is used here, because the receiver runs this module on edges.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mirrortools.files import make_folder, move_file, move_folder, sync_contents
from mirrortools.metalink import OF_REVISION
from mirrortools.model import Manifest
from mirrortools.records import writing
from mirrortools.revision import METALINKS, PAGE, RSYNC_LIST, RevisionFiles, has_content, require
from mirrortools.sums import SUMS


@contextmanager
def staging(folder: Path, name: str) -> Iterator[Path]:
    """An empty folder in `folder` that is gone afterwards. Raises StoreError, NoSpace, also for what the block does."""
    with writing(folder):
        make_folder(folder)
        stage = Path(tempfile.mkdtemp(prefix=f"{name}.", dir=folder))
        try:
            stage.chmod(0o755)
            yield stage
        finally:
            shutil.rmtree(stage, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class ServedRevision:
    """A revision in `folder`, that of its repository; its stages are made in `stages`, on the same file system."""

    files: RevisionFiles
    folder: Path
    stages: Path

    @property
    def _manifest(self) -> Manifest:
        return self.files.manifest

    def _in(self, part: str) -> Path:
        return self.folder / part / self._manifest.revision.commit

    def publish(self, former: Callable[[], Path | None] = lambda: None) -> bool:
        """Put files, API answers and metalinks in place; return whether anything changed.

        `former` gives the folder of the revision that was published last, whose links are given second names.
        Raises StoreError, NoSpace.
        """
        meta, commits = self._in("meta"), self._in("commits")
        is_whole = (meta / RSYNC_LIST).is_file() and commits.is_dir()
        if is_whole and has_content(meta / "manifest.json", self._manifest.json_pieces()):
            return False
        require(self.files.served, self._manifest.iter_blobs(), str(self._manifest.revision))
        with staging(self.stages, commits.name) as stage:
            self.files.write_links(stage / "files", former())
            self.files.write_meta(stage / "meta")
            move_folder(stage / "files", commits)
            move_folder(stage / "meta", meta)
        return True

    def publish_metalinks(self) -> bool:
        """Let the metalinks say where the files are by now; return whether anything changed.

        Raises StoreError, NoSpace.
        """
        meta = self._in("meta")
        with staging(self.stages, meta.name) as stage:
            if self.files.says_where(meta):
                return False
            (stage / METALINKS).mkdir()
            self.files.write_where(stage, meta / SUMS)
            sync_contents([stage / PAGE])
            move_file(stage / PAGE, meta / PAGE)
            move_folder(stage / METALINKS, meta / METALINKS)
            if self.files.mirrors:  # last: it tells whether all was written
                sync_contents([stage / OF_REVISION])
                move_file(stage / OF_REVISION, meta / OF_REVISION)
            else:
                (meta / OF_REVISION).unlink(missing_ok=True)
        return True

    def wrong_links(self) -> list[str]:
        """The files whose links do not lead where the manifest says."""
        final = f"{self._manifest.revision.repo.path}/commits/{self._manifest.revision.commit}"
        return [path for path, entry in self._manifest.files.items() if self._leads(final, path) != entry.blob.path]

    def _leads(self, final: str, path: str) -> str | None:
        """The blob's path that a link leads to, when it has the form of ours."""
        link = f"{final}/{path}"
        try:
            target = os.readlink(f"{self.files.served}/{link}")  # noqa: PTH115  (of every file of a revision)
        except OSError:
            return None
        up = "../" * link.count("/")
        return target.removeprefix(up) if target.startswith(up) else None
