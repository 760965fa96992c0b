"""huggingface_hub as a library: what it asks of a mirror, and what must come of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests import clients
from tests.clients import Expected, etag_of, file_url, folders_of
from tests.matrix.cells import EVERYWHERE, Client, Limit, Operation, Visit, Wrong, same, same_files, sha256
from tests.matrix.content import (
    BERT,
    BERT_TENSORS,
    DATASET,
    HISTORY,
    LARGE,
    LEGACY,
    LONG,
    MANY,
    MANY_COMMITS,
    MIB,
    MODEL,
    SPACE,
    TABLE,
    WEIGHTS,
)

VERSIONS = ("0.20.3", "0.36.2", "0.36.2-without-xet", "1.16.4", "1.16.4-without-xet", "2.4.0", "2.4.0-without-xet")
_SINCE_0_36 = VERSIONS[1:]
_SINCE_1 = VERSIONS[3:]
_TOKEN = "hf_" + "a" * 34
_ODD = "权重/模型 %41+#.safetensors"


def _info(repo: str, **more: Any) -> Callable[[Visit], None]:
    def act(visit: Visit) -> None:
        expected = visit.expected(repo)
        kind = expected.address["repo_type"]
        [info] = visit.hub.ask((f"{kind}_info", {"repo_id": expected.repo.name, **more}))
        same("id", info["id"], expected.repo.name)
        same("sha", info["sha"], expected.commits[more.get("revision", "main")])
        wanted = expected.files[more.get("revision", "main")]
        same("siblings", sorted(sibling["rfilename"] for sibling in info["siblings"]), sorted(wanted))
        if more.get("files_metadata"):
            for sibling in info["siblings"]:
                same("size", sibling["size"], len(wanted[sibling["rfilename"]]))
                clients.check_digest(expected, sibling["rfilename"], sibling)

    return act


def _tree(visit: Visit, **more: Any) -> tuple[Expected, list[Any]]:
    expected = visit.expected(MODEL)
    [entries] = visit.hub.ask(("list_repo_tree", {**expected.address, **more}))
    return expected, entries


def _tree_recursive(visit: Visit) -> None:
    expected, entries = _tree(visit, recursive=True)
    wanted = expected.files["main"]
    clients.check_entries(expected, entries, {*wanted, *folders_of(wanted)})


def _tree_expand(visit: Visit) -> None:
    expected, entries = _tree(visit, recursive=True, expand=True)
    wanted = expected.files["main"]
    clients.check_entries(expected, entries, {*wanted, *folders_of(wanted)})


def _tree_of_folder(visit: Visit) -> None:
    expected, entries = _tree(visit, path_in_repo="权重")
    below = {path for path in expected.files["main"] if path.startswith("权重/")}
    clients.check_entries(expected, entries, below)


def _tree_of_pages(visit: Visit) -> str:
    [files] = visit.hub.ask(("list_repo_files", {"repo_id": LONG}))
    same("files", sorted(files), sorted({*MANY, ".gitattributes"}))
    return f"{len(files):,} files"


def _refs(visit: Visit) -> None:
    expected = visit.expected(MODEL)
    [refs] = visit.hub.ask(("list_repo_refs", expected.address))
    shown = {ref["name"]: ref["target_commit"] for ref in [*refs["tags"], *refs["branches"]]}
    same("refs", shown, dict(expected.commits))


def _commits(visit: Visit) -> str:
    main, short = visit.hub.ask(
        ("list_repo_commits", {"repo_id": HISTORY}),
        ("list_repo_commits", {**visit.expected(MODEL).address, "revision": "feature/x"}),
    )
    titles = [f"Step {number}" for number in range(MANY_COMMITS, 0, -1)]
    same("titles", [commit["title"] for commit in main], titles)
    same("newest", main[0]["commit_id"], visit.expected(HISTORY).commits["main"])
    same(
        "one commit",
        [(c["commit_id"], c["title"], c["message"], c["authors"]) for c in short],
        [(visit.expected(MODEL).commits["feature/x"], "Add the model", "It is small.", ["Test Author"])],
    )
    return f"{len(main)} commits, in pages"


def _paths_info(visit: Visit) -> None:
    expected = visit.expected(MODEL)
    wanted = {*expected.files["main"], *folders_of(expected.files["main"])}
    [entries] = visit.hub.ask(("get_paths_info", {**expected.address, "paths": [*sorted(wanted), "no/such"]}))
    clients.check_entries(expected, entries, wanted)


def _paths_info_expand(visit: Visit) -> None:
    expected = visit.expected(MODEL)
    [entries] = visit.hub.ask(("get_paths_info", {**expected.address, "paths": [_ODD], "expand": True}))
    same("size", entries[0]["size"], len(expected.files["main"][_ODD]))


def _exists(visit: Visit) -> None:
    there = {"repo_id": MODEL}
    got = visit.hub.ask(
        ("file_exists", {**there, "filename": _ODD}),
        ("file_exists", {**there, "filename": "no/such"}),
        ("repo_exists", there),
        ("repo_exists", {"repo_id": "nobody/nothing"}),
    )
    same("answers", got, [True, False, True, False])


def _revision_exists(visit: Visit) -> None:
    names = ("feature/x", "v1.0", "no-such")
    got = visit.hub.ask(*(("revision_exists", {"repo_id": MODEL, "revision": name}) for name in names))
    same("answers", got, [True, True, False])


def _auth_check(visit: Visit) -> None:
    same("answer", visit.hub.ask(("auth_check", {"repo_id": MODEL})), [None])
    [(error, _)] = visit.hub.refused(("auth_check", {"repo_id": "nobody/nothing"}))
    same("error", error, "RepositoryNotFoundError")


def _list(visit: Visit) -> None:
    everything, some, of_one, datasets, spaces = visit.hub.ask(
        ("list_models", {}),
        ("list_models", {"search": "CLIENTS", "limit": 1}),
        ("list_models", {"author": "t"}),
        ("list_datasets", {}),
        ("list_spaces", {}),
    )
    models = sorted(name for name, shown in visit.world.repos.items() if shown.repo.kind == "models")
    same("models", [one["id"] for one in everything], models)
    same("search", [one["id"] for one in some], [MODEL])
    same("author", [one["id"] for one in of_one], [BERT])
    same("datasets", [f"datasets/{one['id']}" for one in datasets], sorted([DATASET, TABLE]))
    same("spaces", [f"spaces/{one['id']}" for one in spaces], [SPACE])


def _list_refused(visit: Visit) -> str:
    key = "sort" if visit.version.startswith("0.") else "filter"
    [(error, text)] = visit.hub.refused(("list_models", {key: "downloads"}))
    if "select or sort" not in text and "400" not in text:
        raise Wrong(f"{error}: {text}")
    return f"{error} (400)"


def _whoami(visit: Visit) -> str:
    [(error, text)] = visit.hub.refused(("whoami", {"token": _TOKEN}))
    if not re.search(r"401|[Ii]nvalid", text):
        raise Wrong(f"{error}: {text}")
    return error


def _errors(visit: Visit) -> None:
    there, nobody = {"repo_id": MODEL}, {"repo_id": "nobody/nothing"}
    refused = visit.hub.refused(
        ("hf_hub_download", {**there, "filename": "missing.bin"}),
        ("hf_hub_download", {**there, "filename": "a", "revision": "no-such-branch"}),
        ("hf_hub_download", {**nobody, "filename": "a"}),
        ("model_info", nobody),
        ("model_info", {**there, "revision": "no/such"}),
        ("get_paths_info", {**there, "paths": ["a"], "revision": "nope"}),
        ("list_repo_refs", nobody),
        ("list_repo_commits", {**there, "revision": "nope"}),
    )
    file, revision, repo = "EntryNotFoundError", "RevisionNotFoundError", "RepositoryNotFoundError"
    got = [error.removeprefix("Remote") for error, _ in refused]
    same("errors", got, [file, revision, repo, repo, revision, revision, repo, revision])


def _metadata(visit: Visit) -> None:
    expected = visit.expected(MODEL)
    paths = [WEIGHTS, _ODD, "empty.txt", "what?.txt"]
    urls = [file_url(visit.url, expected, "main", path) for path in paths]
    for path, got in zip(paths, visit.hub.ask(*(("get_hf_file_metadata", {"url": url}) for url in urls)), strict=True):
        content = expected.files["main"][path]
        same(path, got["etag"], etag_of(expected, path, content))
        same(path, (got["commit_hash"], got["size"]), (expected.commits["main"], len(content)))


def _safetensors(visit: Visit) -> None:
    [metadata] = visit.hub.ask(("get_safetensors_metadata", {"repo_id": BERT}))
    same("tensors", sorted(metadata["weight_map"]), sorted(BERT_TENSORS))


def _download(visit: Visit) -> None:
    expected = visit.expected(MODEL)
    paths = [path for path in expected.files["main"] if not path.startswith("shards/")]
    revisions = ["main", "v1.0", "feature/x", expected.commits["main"]]
    wanted = [(path, "main") for path in paths] + [("config.json", name) for name in revisions]
    calls = [{**expected.address, "filename": p, "revision": name} for p, name in wanted]
    got = visit.hub.ask(*(("hf_hub_download", {**call, **_cache(visit)}) for call in calls))
    by_commit = {commit: expected.files[name] for name, commit in expected.commits.items()}
    for (path, name), place in zip(wanted, got, strict=True):
        content = by_commit[expected.commits.get(name, name)][path]
        same(f"sha256 of {path}", sha256(Path(place).read_bytes()), sha256(content))


def _download_of(repo: str) -> Callable[[Visit], None]:
    def act(visit: Visit) -> None:
        expected = visit.expected(repo)
        [folder] = visit.hub.ask(("snapshot_download", {**expected.address, **_cache(visit)}))
        same_files(Path(folder), expected.files["main"])

    return act


def _snapshots(visit: Visit) -> None:
    expected = visit.expected(MODEL)
    names = [*expected.commits, expected.commits["v1.0"]]
    calls = [("snapshot_download", {**expected.address, "revision": name, **_cache(visit)}) for name in names]
    by_commit = {commit: expected.files[name] for name, commit in expected.commits.items()}
    for name, folder in zip(names, visit.hub.ask(*calls), strict=True):
        commit = expected.commits.get(name, name)
        same("folder", Path(folder).name, commit)
        same_files(Path(folder), by_commit[commit])


def _local_folder(visit: Visit) -> None:
    expected = visit.expected(MODEL)
    patterns = {"allow_patterns": ["*.json", "*.safetensors"], "ignore_patterns": ["shards/*"]}
    visit.hub.ask(
        (
            "snapshot_download",
            {**expected.address, "local_dir": str(visit.folder / "files"), **patterns, **_cache(visit)},
        )
    )
    wanted = {
        path: content
        for path, content in expected.files["main"].items()
        if path.endswith((".json", ".safetensors")) and not path.startswith("shards/")
    }
    same_files(visit.folder / "files", wanted)


def _again_and_offline(visit: Visit) -> None:
    expected = visit.expected(MODEL)
    call = {**expected.address, "revision": "v1.0", **_cache(visit)}
    first, again, offline = visit.hub.ask(
        ("snapshot_download", call),
        ("snapshot_download", call),
        ("snapshot_download", {**call, "local_files_only": True}),
    )
    same("folders", [again, offline], [first, first])
    same_files(Path(offline), expected.files["v1.0"])


def _resume(visit: Visit) -> str:
    """What a broken download left is kept, or the client begins anew: a marked byte in it tells which."""
    expected = visit.expected(MODEL)
    blobs = visit.folder / "models--org--clients.v1" / "blobs"
    blobs.mkdir(parents=True)
    left = bytearray(LARGE[: 4 * MIB])
    left[1000] ^= 255
    (blobs / f"{sha256(LARGE)}.incomplete").write_bytes(left)
    more = {"resume_download": True} if visit.version == "0.20.3" else {}
    call = {**expected.address, "filename": WEIGHTS, "cache_dir": str(visit.folder), **more}
    [path] = visit.hub.ask(("hf_hub_download", call))
    got = Path(path).read_bytes()
    if got == LARGE:
        return "it does not resume, and begins anew"
    same("what was resumed", sha256(got), sha256(bytes(left) + LARGE[4 * MIB :]))
    return "it resumes"


def _cache(visit: Visit) -> dict[str, str]:
    return {"cache_dir": str(visit.folder / "cache")}


# The file system


def _ls(visit: Visit) -> None:
    names, deep = visit.hub.ask(
        ("HfFileSystem.ls", {"path": MODEL, "detail": False}),
        ("HfFileSystem.ls", {"path": f"datasets/{DATASET.removeprefix('datasets/')}/data", "detail": True}),
    )
    top = {path.partition("/")[0] for path in visit.expected(MODEL).files["main"]}
    same("names", sorted(names), sorted(f"{MODEL}/{name}" for name in top))
    rows = visit.expected(DATASET).files["main"]
    sizes = {f"{DATASET}/{path}": len(content) for path, content in rows.items() if path.startswith("data/")}
    same("sizes", {entry["name"]: entry["size"] for entry in deep}, sizes)


def _glob(visit: Visit) -> None:
    shards, tagged = visit.hub.ask(
        ("HfFileSystem.glob", {"path": f"{MODEL}/**/*.safetensors"}),
        ("HfFileSystem.glob", {"path": f"{MODEL}@v1.0/*.json"}),
    )
    same("files", sorted(shards), sorted(f"{MODEL}/{path}" for path in visit.expected(MODEL).lfs))
    same("of a tag", tagged, [f"{MODEL}@v1.0/config.json"])


def _read(repo: str) -> Callable[[Visit], None]:
    def act(visit: Visit) -> None:
        content = visit.expected(repo).files["main"][WEIGHTS]
        half = len(content) // 2
        part, end, whole, info, gone = visit.hub.ask(
            ("HfFileSystem.cat_file", {"path": f"{repo}/{WEIGHTS}", "start": half, "end": half + 20}),
            ("HfFileSystem.cat_file", {"path": f"{repo}/{WEIGHTS}", "start": -20}),
            ("HfFileSystem.cat_file", {"path": f"{repo}/config.json"}),
            ("HfFileSystem.info", {"path": f"{repo}/{WEIGHTS}"}),
            ("HfFileSystem.exists", {"path": f"{repo}/none"}),
        )
        same("a part", part.encode("latin-1"), content[half : half + 20])
        same("the end", end.encode("latin-1"), content[-20:])
        same("a file", whole.encode("latin-1"), visit.expected(repo).files["main"]["config.json"])
        same("size, and whether another is there", (info["size"], gone), (len(content), False))

    return act


def _legacy_file_system(visit: Visit) -> None:
    [names] = visit.hub.ask(("HfFileSystem.ls", {"path": LEGACY, "detail": False}))
    same("names", sorted(names), sorted(f"{LEGACY}/{path}" for path in visit.expected(LEGACY).files["main"]))
    _read(LEGACY)(visit)


_BARE = ("bare 302", "bare 307", "bare 308")
_NO_LEGACY = Limit(
    "no longer supported",
    "from 1.0 on its file system refuses such names itself, before it asks anybody; downloads of them work",
    _SINCE_1,
)
_GET_OF_POST = Limit(
    "405",
    "answered by 302 the client makes a GET of its POST, as browsers do: answer 307 or 308",
    (),
    ("redirect 302", "bare 302"),
)
_ANY_IS_YES = Limit(
    r"got \[True, True", "to the client any answer to HEAD but an error means that the file is there", (), _BARE
)
_HEAD_TELLS = Limit(
    "LocalEntryNotFoundError",
    "the first answer to HEAD must name commit and ETag itself; the client does not follow it to another host",
    (),
    _BARE,
)
OPERATIONS: Sequence[Operation] = (
    Operation("info", _info(MODEL), places=EVERYWHERE),
    Operation("info of a tag", _info(MODEL, revision="v1.0")),
    Operation("info of a branch with a slash", _info(MODEL, revision="feature/x")),
    Operation("info with `blobs`", _info(MODEL, files_metadata=True)),
    Operation("info with `expand`", _info(MODEL, expand=["sha", "siblings"]), versions=_SINCE_0_36),
    Operation("info with `securityStatus`", _info(MODEL, securityStatus=True)),
    Operation("info of a dataset", _info(DATASET)),
    Operation("info of a space", _info(SPACE)),
    Operation("info of a repository with a name of one segment", _info(LEGACY)),
    Operation("tree: recursive", _tree_recursive, places=EVERYWHERE),
    Operation("tree: `expand`", _tree_expand),
    Operation("tree: a folder", _tree_of_folder),
    Operation("tree: several pages", _tree_of_pages, long=True),
    Operation("refs", _refs),
    Operation("commits, in pages", _commits),
    Operation("paths-info", _paths_info, [_GET_OF_POST], places=EVERYWHERE),
    Operation("paths-info with `expand`", _paths_info_expand),
    Operation("file_exists, repo_exists", _exists, [_ANY_IS_YES], places=EVERYWHERE),
    Operation("revision_exists", _revision_exists, versions=_SINCE_0_36),
    Operation("auth_check", _auth_check, versions=_SINCE_0_36),
    Operation("list and search", _list),
    Operation("list by what a mirror does not know: refused", _list_refused),
    Operation("whoami: refused", _whoami),
    Operation("missing file, revision, repository: the Hub's errors", _errors),
    Operation("get_hf_file_metadata (HEAD)", _metadata),
    Operation("get_safetensors_metadata (Range)", _safetensors),
    Operation("hf_hub_download: every name, by ref and commit", _download, [_HEAD_TELLS], places=EVERYWHERE),
    Operation("snapshot_download of every revision", _snapshots, [_HEAD_TELLS], places=EVERYWHERE),
    Operation("snapshot_download to a folder, by patterns", _local_folder),
    Operation("snapshot_download of a dataset", _download_of(DATASET)),
    Operation("snapshot_download of a space", _download_of(SPACE)),
    Operation("snapshot_download of a name of one segment", _download_of(LEGACY)),
    Operation("snapshot_download again, and offline", _again_and_offline),
    Operation("a download that was broken off", _resume),
    Operation("HfFileSystem: ls", _ls),
    Operation("HfFileSystem: glob", _glob),
    Operation("HfFileSystem: info, open, read ranges", _read(MODEL)),
    Operation("HfFileSystem of a name of one segment", _legacy_file_system, [_NO_LEGACY]),
)
HUB = Client("huggingface_hub", VERSIONS, OPERATIONS)
