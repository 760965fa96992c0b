"""git and git-lfs: smart and dumb, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.clients import ClientError, Expected, run_git
from tests.matrix.cells import EVERYWHERE, Client, Operation, Visit, Wrong, same, same_files, sha256
from tests.matrix.content import DATASET, LEGACY, MODEL
from tests.matrix.versions import version_of

_DUMB = {"GIT_SMART_HTTP": "0"}
_REFUSAL = "read-only; push to the source"


def _git(visit: Visit, *words: str | Path, env: Mapping[str, str] | None = None) -> str:
    return run_git(*words, home=visit.folder, env=env or {})


def _link(visit: Visit, repo: str = MODEL) -> str:
    return f"{visit.url}/{visit.expected(repo).repo.url_path}"


def _clone(visit: Visit, *words: str, repo: str = MODEL, smudge: bool = False, **env: str) -> Path:
    """A clone; with `smudge` git-lfs fetches while git checks out."""
    _git(visit, "lfs", "install", "--skip-repo", *([] if smudge else ["--skip-smudge"]))
    clone = visit.folder / "clone"
    _git(visit, "clone", "--quiet", *words, _link(visit, repo), clone, env=env)
    return clone


def _is_whole(visit: Visit, clone: Path, expected: Expected) -> None:
    """Every branch and tag has its files, and git finds nothing wrong with its objects."""
    for name, commit in expected.commits.items():
        _git(visit, "-C", clone, "checkout", "--quiet", "--detach", commit)
        _git(visit, "-C", clone, "lfs", "pull")
        same_files(clone, expected.files[name])
    _git(visit, "-C", clone, "fsck", "--strict")


def _clone_and_pull(repo: str, **env: str) -> Callable[[Visit], None]:
    def act(visit: Visit) -> None:
        _is_whole(visit, _clone(visit, repo=repo, **env), visit.expected(repo))

    return act


def _clone_smudging(visit: Visit) -> None:
    same_files(_clone(visit, smudge=True), visit.expected(MODEL).files["main"])


def _shallow(visit: Visit) -> None:
    clone = _clone(visit, "--depth=1")
    same("commits", _git(visit, "-C", clone, "rev-list", "--count", "HEAD").strip(), "1")


def _of_branch(visit: Visit) -> None:
    clone = _clone(visit, "--branch=feature/x", "--single-branch", smudge=True)
    same_files(clone, visit.expected(MODEL).files["feature/x"])


def _ls_remote(visit: Visit) -> None:
    said = _git(visit, "ls-remote", _link(visit) + ".git")
    refs = {line.split()[1]: line.split()[0] for line in said.splitlines()}
    commits = visit.expected(MODEL).commits
    got = [refs.get(name) for name in ("refs/heads/main", "refs/heads/feature/x", "refs/tags/v1.0^{}")]
    same("refs", got, [commits["main"], commits["feature/x"], commits["v1.0"]])


def _fetch(**env: str) -> Callable[[Visit], None]:
    """The history grows by one commit, and an older clone gets it."""

    def act(visit: Visit) -> None:
        clone, commits = visit.folder / "clone", visit.expected(MODEL).commits
        _git(visit, "init", "--quiet", clone)
        _git(visit, "-C", clone, "remote", "add", "origin", _link(visit))
        for name in ("v1.0", "main"):
            _git(visit, "-C", clone, "fetch", "--quiet", "origin", name, env=env)
            same(name, _git(visit, "-C", clone, "rev-parse", "FETCH_HEAD^{commit}").strip(), commits[name])

    return act


def _lfs_fetch_all(visit: Visit) -> str:
    clone, expected = _clone(visit), visit.expected(MODEL)
    _git(visit, "-C", clone, "lfs", "fetch", "--all")
    _git(visit, "-C", clone, "lfs", "fsck")
    objects = {path.name for path in (clone / ".git" / "lfs" / "objects").rglob("*") if path.is_file()}
    wanted = {sha256(files[path]) for files in expected.files.values() for path in files if path in expected.lfs}
    same("objects", sorted(objects), sorted(wanted))
    return f"{len(wanted)} objects"


def _push_refused(visit: Visit) -> None:
    clone = _clone(visit)
    _git(visit, "-C", clone, "config", "user.email", "a@b")
    _git(visit, "-C", clone, "config", "user.name", "a")
    (clone / "new.safetensors").write_bytes(b"new")
    _git(visit, "-C", clone, "add", "--all")
    _git(visit, "-C", clone, "commit", "-qm", "new")
    _refused(visit, "-C", clone, "push", "--no-verify", "origin", "main")
    _refused(visit, "-C", clone, "lfs", "push", "origin", "main")


def _refused(visit: Visit, *words: str | Path) -> None:
    try:
        _git(visit, *words)
    except ClientError as error:
        if _REFUSAL in str(error):
            return
        raise
    raise Wrong("a push was accepted")


OPERATIONS: Sequence[Operation] = (
    Operation("ls-remote", _ls_remote),
    Operation("clone (smart), lfs pull of every ref", _clone_and_pull(MODEL), places=EVERYWHERE),
    Operation("clone (dumb), lfs pull of every ref", _clone_and_pull(MODEL, **_DUMB), places=EVERYWHERE),
    Operation("clone of a dataset", _clone_and_pull(DATASET)),
    Operation("clone of a name of one segment", _clone_and_pull(LEGACY)),
    Operation("clone that fetches LFS files while it checks out", _clone_smudging),
    Operation("clone --branch", _of_branch),
    Operation("clone --depth=1 (smart)", _shallow),
    Operation("fetch of a newer commit (smart)", _fetch()),
    Operation("fetch of a newer commit (dumb)", _fetch(**_DUMB)),
    Operation("lfs fetch --all", _lfs_fetch_all),
    Operation("push, lfs push: refused, with the reason", _push_refused),
)
GIT = Client("git and git-lfs", (f"{version_of('git')}, {version_of('git-lfs')}",), OPERATIONS)
