"""rsync, of the daemons of origin and edge: it knows no redirects."""

from __future__ import annotations

import os
from pathlib import Path

from tests.clients import run_client
from tests.matrix.cells import Client, Operation, Visit, Wrong, same_files
from tests.matrix.content import DATASET, LEGACY, MODEL
from tests.matrix.versions import version_of

_PLACES = ("origin", "edge")


def _rsync(visit: Visit, *words: str | Path) -> None:
    run_client(["rsync", *words], os.environ)


def _model(visit: Visit) -> None:
    for repo, path in ((MODEL, f"models/{MODEL}"), (DATASET, DATASET), (LEGACY, f"models/{LEGACY}")):
        target = visit.folder / repo.replace("/", "-")
        _rsync(visit, "-aL", f"{visit.place.rsync}/{path}/", target)
        same_files(target, visit.expected(repo).files["main"])


def _again(visit: Visit) -> None:
    for _ in range(2):
        _rsync(visit, "-aL", "--delete", f"{visit.place.rsync}/models/{MODEL}/", visit.folder / "model")
    same_files(visit.folder / "model", visit.expected(MODEL).files["main"])


def _list(visit: Visit) -> None:
    """What belongs to a revision, by the list of it; the links then lead to the blobs that came."""
    commit = visit.expected(MODEL).commits["v1.0"]
    repo = visit.expected(MODEL).repo.path
    _rsync(visit, "-aR", f"{visit.place.rsync}/mirror/./{repo}/meta/{commit}/rsync.list", visit.folder)
    listed = visit.folder / repo / "meta" / commit / "rsync.list"
    _rsync(visit, "-ar", f"--files-from={listed}", f"{visit.place.rsync}/mirror/", visit.folder / "copy")
    same_files(visit.folder / "copy" / repo / "commits" / commit, visit.expected(MODEL).files["v1.0"])


def _tree(visit: Visit) -> None:
    _rsync(visit, "-a", f"{visit.place.rsync}/mirror/", visit.folder / "copy")
    for repo, expected in visit.world.repos.items():
        for name, files in expected.files.items():
            ref = visit.folder / "copy" / expected.repo.path / "refs" / name.replace("/", "%2F")
            if not ref.is_symlink():
                raise Wrong(f"{repo}: {name} is not a link")
            same_files(ref, files)


RSYNC = Client(
    "rsync",
    (version_of("rsync"),),
    (
        Operation("-aL of a model, a dataset, a name of one segment", _model, places=_PLACES),
        Operation("-aL --delete, twice", _again, places=_PLACES),
        Operation("--files-from: the list of a revision", _list, places=_PLACES),
        Operation("-a of the whole tree", _tree, places=_PLACES),
    ),
)
