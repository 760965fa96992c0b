"""The command line of huggingface_hub: `hf`, and `huggingface-cli` before there was one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.clients import ClientError, run_hub_cli
from tests.matrix.cells import Client, Operation, Visit, Wrong, same, same_files
from tests.matrix.content import BERT, DATASET, LEGACY, MODEL, SPACE
from tests.matrix.hub import VERSIONS

_SINCE_1, _SINCE_2 = VERSIONS[3:], VERSIONS[5:]


def _run(visit: Visit, *words: str | Path) -> str:
    return run_hub_cli(visit.version, visit.url, visit.folder / "cache", words)


def _download(repo: str, revision: str = "main") -> Callable[[Visit], None]:
    def act(visit: Visit) -> None:
        expected = visit.expected(repo)
        kind = ["--repo-type", expected.address["repo_type"]]
        target = ["--local-dir", visit.folder / "files"]
        _run(visit, "download", expected.repo.name, "--revision", revision, *kind, *target)
        same_files(visit.folder / "files", expected.files[revision])

    return act


def _download_to_cache(visit: Visit) -> None:
    said = _run(visit, "download", BERT)
    snapshots = visit.folder / "cache" / "hub" / "models--t--bert" / "snapshots"
    same_files(snapshots / visit.expected(BERT).commits["main"], visit.expected(BERT).files["main"])
    if str(snapshots) not in said:
        raise Wrong(f"it says {said!r}")


def _download_some(visit: Visit) -> None:
    files = visit.expected(MODEL).files["main"]
    _run(visit, "download", MODEL, "--include", "*.json", "--local-dir", visit.folder / "files")
    same_files(visit.folder / "files", {path: files[path] for path in files if path.endswith(".json")})


def _verify(visit: Visit) -> None:
    _run(visit, "download", BERT)
    _run(visit, "cache", "verify", BERT)
    blobs = [path for path in (visit.folder / "cache").rglob("blobs/*") if b"model_type" in path.read_bytes()]
    blobs[0].write_bytes(blobs[0].read_bytes()[::-1])
    try:
        said = _run(visit, "cache", "verify", BERT)
    except ClientError as error:
        if re.search(r"(?i)mismatch|checksum", str(error)):
            return
        raise
    raise Wrong(f"it finds no damage: {said!r}")


def _models(visit: Visit) -> None:
    listed = json.loads(_run(visit, "models", "list", "--author", "org", "--format", "json"))
    models = sorted(
        name for name, e in visit.world.repos.items() if e.repo.kind == "models" and name.startswith("org/")
    )
    same("models", sorted(one["id"] for one in listed), models)


def _model_info(visit: Visit) -> None:
    told = json.loads(_run(visit, "models", "info", MODEL, "--format", "json"))
    same("sha", told["sha"], visit.expected(MODEL).commits["main"])


def _model_files(visit: Visit) -> None:
    told = json.loads(_run(visit, "models", "list", MODEL, "--recursive", "--format", "json"))
    files = visit.expected(MODEL).files["main"]
    same(
        "sizes",
        {one["path"]: one["size"] for one in told if one["path"] in files},
        {p: len(c) for p, c in files.items()},
    )


def _card(visit: Visit) -> None:
    same(
        "card",
        _run(visit, "models", "card", MODEL).strip(),
        visit.expected(MODEL).files["main"]["README.md"].decode().strip(),
    )


def _copy(visit: Visit) -> None:
    _run(visit, "cp", f"hf://{MODEL}/config.json", visit.folder / "config.json")
    same("content", (visit.folder / "config.json").read_bytes(), visit.expected(MODEL).files["main"]["config.json"])


def _dry_run(visit: Visit) -> None:
    said = _run(visit, "download", BERT, "--dry-run")
    if "model.safetensors" not in said:
        raise Wrong(f"it says {said!r}")


def _whoami(visit: Visit) -> str:
    words = ("whoami",) if visit.version.startswith("0.20") else ("auth", "whoami")
    try:
        return _run(visit, *words).strip().splitlines()[0]
    except ClientError as error:
        if "Not logged in" not in str(error):
            raise
        return "Not logged in"


OPERATIONS: Sequence[Operation] = (
    Operation("download to a folder", _download(MODEL)),
    Operation("download of a branch with a slash", _download(MODEL, "feature/x"), long=True),
    Operation("download of a dataset", _download(DATASET), long=True),
    Operation("download of a space", _download(SPACE), long=True),
    Operation("download of a name of one segment", _download(LEGACY), long=True),
    Operation("download into the cache", _download_to_cache),
    Operation("download --include", _download_some, long=True),
    Operation("download --dry-run", _dry_run, versions=_SINCE_1, long=True),
    Operation("cache verify, and of a damaged file", _verify, versions=_SINCE_1),
    Operation("models list", _models, versions=_SINCE_1, long=True),
    Operation("models list of one model's files", _model_files, versions=_SINCE_1, long=True),
    Operation("models info", _model_info, versions=_SINCE_1, long=True),
    Operation("models card", _card, versions=_SINCE_1, long=True),
    Operation("cp hf://…", _copy, versions=_SINCE_2, long=True),
    Operation("auth whoami, without a token", _whoami, long=True),
)
CLI = Client("hf (huggingface-cli in 0.20.3)", VERSIONS, OPERATIONS)
