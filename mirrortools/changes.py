"""What mirrors and users that take files by rsync go by: lists of what belongs together, what changed when, the latest.

Only the standard library is used here, because the receiver runs this module on edges.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from mirrortools.files import line_up, make_folder, point_link
from mirrortools.hubapi import default_ref
from mirrortools.model import Publication, quote_ref
from mirrortools.records import replace_record, writing
from mirrortools.revision import RSYNC_LIST

LATEST: Final = "latest"
CHANGES: Final = ".mirror/changes"


def note_change(served: Path, publication: Publication, commits: Iterable[str]) -> None:
    """Let mirrors know that a repository, and these of its revisions, are other than before.

    Raises StoreError, NoSpace.
    """
    path = publication.repo.path
    lists = [f"{path}/meta/{name}" for name in (*(f"{commit}/{RSYNC_LIST}" for commit in commits), RSYNC_LIST)]
    folder = served / CHANGES
    with writing(folder):
        replace_record(served / path / "meta" / RSYNC_LIST, "".join(_of_repository(publication)).encode())
        now_s = int(time.time())
        line_up(folder / time.strftime("%Y-%m-%d", time.gmtime(now_s)), [f"{now_s} {name}" for name in lists])


def _of_repository(publication: Publication) -> Iterator[str]:
    """What a mirror needs of a repository besides its revisions."""
    path = publication.repo.path
    yield from (f"{blob.path}\n" for _, blob in sorted(publication.git.packs.items()))
    names = ["git.json", "refs.json", "about.json", RSYNC_LIST, *(["mirrors.json"] if publication.mirrors else [])]
    yield from (f"{path}/meta/{name}\n" for name in names)
    yield f"{path}.git/\n{path}/refs/\n"
    if default_ref(publication):
        yield f"{LATEST}/{path}\n"


def point_latest(served: Path, publication: Publication) -> None:
    """Let the files of the default branch be found by the repository's name alone. Raises StoreError, NoSpace."""
    repo, link = publication.repo, served / LATEST / publication.repo.path
    with writing(link):
        if ref := default_ref(publication):
            make_folder(link.parent)
            point_link(link, f"{'../' * (repo.path.count('/') + 1)}{repo.path}/refs/{quote_ref(ref)}")
        else:
            link.unlink(missing_ok=True)
