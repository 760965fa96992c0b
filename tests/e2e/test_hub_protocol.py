"""What more of the Hub's protocol clients use: pages of listings, lists of repositories, raw files, file systems."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mirrortools import hubapi
from mirrortools.model import RepoId
from mirrortools.serve import Site, Standalone, find_njs_module, write_standalone
from tests.clients import (
    ALL_HUB_VERSIONS,
    PROJECT,
    Expected,
    curl,
    hub_environment,
    hub_program,
    run_client,
    run_hub,
    run_hub_cli,
)
from tests.e2e.tree_fixture import SMALL, HandMade, pointer
from tests.servers import Nginx, free_port

MANY = {f"folder/{number:04}.txt": b"%d" % number for number in range(25)}
NAMES = ("alpha/one", "alpha/Two-Llama", "beta/llama", "gpt2", "zeta/last")
ALL_NAMES = sorted([*NAMES, "t/bert"])
PAGE = 10
TOKENIZER = {
    "config.json": b'{"model_type": "bert", "hidden_size": 8, "vocab_size": 7}',
    "tokenizer_config.json": b'{"tokenizer_class": "BertTokenizer", "do_lower_case": true}',
    "vocab.txt": b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nmirror\nhello\n",
}
TABLE = {"data/train.csv": b"a,b\n1,x\n2,y\n", "data/test.csv": b"a,b\n3,z\n"}


@dataclass(frozen=True, slots=True)
class Mirror:
    """A served tree, whose listings have ten entries a page."""

    url: str
    many: Expected
    plain: Expected


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mirror]:
    """One nginx that serves six models and two datasets."""
    folder = tmp_path_factory.mktemp("mirror")
    root, port = folder / "root", free_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hubapi, "PAGE_ENTRIES", PAGE)
        made = {
            name: HandMade(root, folder / name.replace("/", "-"), RepoId("models", name)).publish(
                {"refs/heads/main": {**SMALL, **(MANY if name == "alpha/one" else {})}}
            )
            for name in NAMES
        }
        for repo, files in (("datasets/alpha/rows", SMALL), ("datasets/alpha/table", TABLE), ("t/bert", TOKENIZER)):
            HandMade(root, folder / repo, RepoId.parse(repo)).publish({"refs/heads/main": files})
    place = Standalone(folder / "nginx", find_njs_module(), "root" if os.geteuid() == 0 else "")
    write_standalone(Site(root, (f"127.0.0.1:{port}",), place=place))
    with Nginx(folder / "nginx" / "nginx.conf", folder / "nginx", [port]):
        yield Mirror(f"http://127.0.0.1:{port}", made["alpha/one"], made["gpt2"])


def pages(url: str) -> list[list[dict[str, Any]]]:
    """Every page of a list, by the links between them."""
    found = []
    while url:
        response = curl(url)
        assert response.status == 200, response.body
        found.append(json.loads(response.body))
        link = response.headers.get("link", "")
        url = link[1 : link.index(">")] if link else ""
        assert not link or link.endswith('; rel="next"')
    return found


@pytest.mark.parametrize("rest", ["tree/main?recursive=true", "tree/main/folder", "tree/main/folder/?expand=1"])
def test_a_long_listing_has_pages(mirror: Mirror, rest: str) -> None:
    """Each page names the next one, none has more than it may, and together they are the whole in its order."""
    got = pages(f"{mirror.url}/api/models/alpha/one/{rest}")
    paths = [entry["path"] for page in got for entry in page]

    assert [len(page) for page in got[:2]] == [PAGE, PAGE]
    assert paths == sorted(paths)
    assert {path for path in paths if path.startswith("folder/")} == set(MANY)


def test_a_short_listing_has_one_page(mirror: Mirror) -> None:
    """There is no link where nothing follows, and no page behind the last one."""
    tree = f"{mirror.url}/api/models/gpt2/tree/main"

    assert "link" not in curl(f"{tree}?recursive=true").headers
    assert curl(f"{tree}?cursor=n").status == 404
    assert curl(f"{tree}?cursor=../../x").status == 404
    assert curl(f"{tree}/data").headers.get("link") is None


@pytest.mark.parametrize("version", ALL_HUB_VERSIONS)
def test_clients_follow_the_pages(mirror: Mirror, version: str, tmp_path: Path) -> None:
    """The client lists and finds every file of a folder of several pages; what it asks besides does no harm."""
    repo = {"repo_id": "alpha/one"}
    expanded = {**repo, "expand": ["sha", "siblings"]} if version != "0.20.3" else repo
    calls = [
        ("list_repo_tree", {**repo, "recursive": True, "expand": True}),
        ("get_paths_info", {**repo, "paths": sorted(MANY), "expand": True}),
        ("model_info", {**repo, "securityStatus": True, "files_metadata": True}),
        ("model_info", expanded),
        ("snapshot_download", repo),
        ("list_repo_commits", repo),
        ("whoami", {"token": "hf_abcdefghijklmnopqrstuvwxyzabcdefgh"}),
    ]
    listed, found, info, some, folder, commits, who = run_hub(version, mirror.url, tmp_path, calls)

    assert {entry["path"] for entry in listed if entry["class"] == "RepoFile"} == set(mirror.many.files["main"])
    assert {entry["path"] for entry in found} == set(MANY)
    assert info["sha"] == some["sha"] == mirror.many.commits["main"]
    assert isinstance(folder, str), folder
    assert commits["error"] != "RevisionNotFoundError"
    assert "git clone" in commits["text"] or version == "0.20.3"
    assert who["error"] in ("HTTPError", "HfHubHTTPError")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ALL_NAMES),
        ("?search=LLAMA", ["alpha/Two-Llama", "beta/llama"]),
        ("?author=alpha", ["alpha/Two-Llama", "alpha/one"]),
        ("?author=alpha&search=one", ["alpha/one"]),
        ("?author=nobody", []),
        ("?author=..", []),
        ("?author=gpt2", []),
        ("?search=none+of+these", []),
    ],
)
def test_list_of_models(mirror: Mirror, query: str, expected: Sequence[str]) -> None:
    """Models are listed by name, by a part of it and by author, with their commit."""
    for limit in ("", "limit=2"):
        url = f"{mirror.url}/api/models{query}" + (f"{'&' if query else '?'}{limit}" if limit else "")
        got = [entry for page in pages(url) for entry in page]

        assert [entry["id"] for entry in got] == list(expected)
        assert all(len(entry["sha"]) == 40 and entry["lastModified"] for entry in got)


def test_what_a_mirror_cannot_select_by_is_refused(mirror: Mirror) -> None:
    """A list that ignored a filter would be a lie."""
    for query in ("filter=text-generation", "sort=downloads", "pipeline_tag=x"):
        response = curl(f"{mirror.url}/api/models?{query}")

        assert response.status == 400
        assert query.partition("=")[0] in json.loads(response.body)["error"]


@pytest.mark.parametrize("version", ALL_HUB_VERSIONS)
def test_clients_list_and_search(mirror: Mirror, version: str, tmp_path: Path) -> None:
    """list_models and list_datasets work, with search, author and limit."""
    calls = [
        ("list_models", {}),
        ("list_models", {"search": "llama", "limit": 1}),
        ("list_models", {"author": "alpha"}),
        ("list_datasets", {}),
    ]
    everything, some, of_one, datasets = run_hub(version, mirror.url, tmp_path, calls)

    assert [entry["id"] for entry in everything] == ALL_NAMES
    assert [entry["id"] for entry in some] == ["alpha/Two-Llama"]
    assert len(of_one) == 2
    assert [entry["id"] for entry in datasets] == ["alpha/rows", "alpha/table"]


def test_raw_is_what_git_holds(mirror: Mirror) -> None:
    """A plain file is itself, an LFS file is its pointer; both belong to the commit."""
    base = f"{mirror.url}/gpt2/raw/main"
    plain, lfs = curl(f"{base}/README.md"), curl(f"{base}/data/train.bin")

    assert plain.body == SMALL["README.md"]
    assert lfs.body == pointer(SMALL["data/train.bin"])
    assert plain.headers["x-repo-commit"] == lfs.headers["x-repo-commit"] == mirror.plain.commits["main"]
    assert curl(f"{base}/nothing").headers["x-error-code"] == "EntryNotFound"
    assert curl(f"{mirror.url}/gpt2/raw/nowhere/README.md").headers["x-error-code"] == "RevisionNotFound"


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/api/whoami-v2", "GET", 401),
        ("/api/repos/create", "POST", 403),
        ("/api/models/gpt2/commit/main", "POST", 403),
        ("/api/models/gpt2/preupload/main", "POST", 403),
        ("/api/models/gpt2/commits/main", "GET", 404),
        ("/api/trending", "GET", 404),
        ("/api/models", "POST", 403),
    ],
)
def test_what_a_mirror_does_not_have(mirror: Mirror, path: str, method: str, status: int) -> None:
    """It is refused as JSON that says why."""
    response = curl(f"{mirror.url}{path}", "--request", method)

    assert response.status == status
    assert response.headers["content-type"] == "application/json"
    assert json.loads(response.body)["error"].startswith("This mirror")


@pytest.mark.parametrize("version", ["2.4.0", "1.16.4", "0.36.2"])
def test_file_system(mirror: Mirror, version: str, tmp_path: Path) -> None:
    """HfFileSystem lists, globs, tells sizes and reads a part of a file."""
    script = """
import json, sys, huggingface_hub
fs = huggingface_hub.HfFileSystem()
with fs.open("alpha/one/data/train.bin", "rb", block_size=1024) as file:
    file.seek(1000)
    part = file.read(8).decode()
print(json.dumps([
    sorted(fs.ls("alpha/one", detail=False)), len(fs.glob("alpha/one/**/*.txt")),
    fs.info("beta/llama/README.md")["size"], part, fs.exists("beta/llama/none"),
    fs.read_text("datasets/alpha/rows/README.md"),
]))
"""
    environment = hub_environment(mirror.url, tmp_path)
    output = run_client([hub_program(version, "python"), "-c", script], environment)
    names, count, size, part, exists, text = json.loads(output)

    assert names == [f"alpha/one/{name}" for name in (".gitattributes", "README.md", "data", "folder")]
    assert (count, size, part, exists, text) == (len(MANY), 6, "rowsrows", False, "small\n")


@pytest.mark.parametrize("version", ["2.4.0", "1.16.4"])
def test_cache_verify(mirror: Mirror, version: str, tmp_path: Path) -> None:
    """`hf cache verify` compares what was downloaded with what the mirror says, and finds a damaged file."""
    run_hub_cli(version, mirror.url, tmp_path, ["download", "gpt2"])
    said = run_hub_cli(version, mirror.url, tmp_path, ["cache", "verify", "gpt2"])
    (blob,) = [path for path in tmp_path.rglob("blobs/*") if path.stat().st_size == len(SMALL["data/train.bin"])]
    blob.write_bytes(b"x" * blob.stat().st_size)

    assert "3" in said
    with pytest.raises(Exception, match=r"(?i)mismatch|checksum"):
        run_hub_cli(version, mirror.url, tmp_path, ["cache", "verify", "gpt2"])


def test_transformers_and_datasets(mirror: Mirror, tmp_path: Path) -> None:
    """from_pretrained finds a configuration and a tokenizer, load_dataset every split, by HF_ENDPOINT alone."""
    script = """
import json, transformers, datasets
config = transformers.AutoConfig.from_pretrained("t/bert")
tokenizer = transformers.AutoTokenizer.from_pretrained("t/bert")
table = datasets.load_dataset("alpha/table")
rows = {name: split["a"][:] for name, split in table.items()}
print(json.dumps([config.hidden_size, tokenizer("Hello mirror")["input_ids"], rows]))
"""
    python = PROJECT / ".venvs" / "loaders" / "bin" / "python"
    size, ids, rows = json.loads(run_client([python, "-c", script], hub_environment(mirror.url, tmp_path)))

    assert (size, ids) == (8, [2, 6, 5, 3])
    assert rows == {"train": [1, 2], "test": [3]}
