"""Unmodified clients against a hand-made tree that plain nginx serves."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest

from mirrortools.model import RepoId
from mirrortools.serve import Site, Standalone, find_njs_module, write_standalone
from tests import clients
from tests.clients import ALL_HUB_VERSIONS, HUB_VERSIONS, Expected, Response, curl
from tests.e2e.tree_fixture import FIRST, SECOND, SMALL, HandMade
from tests.servers import Nginx, free_port
from tests.servers.ports import http_answers, port_answers
from tests.servers.process import Process


@dataclass(frozen=True, slots=True)
class Mirror:
    """A served tree and what it must give."""

    root: Path
    log: Path
    url: str
    model: Expected
    dataset: Expected
    legacy: Expected
    space: Expected


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mirror]:
    """One nginx that serves a model, a dataset, a space and a model with a name of one segment."""
    folder = tmp_path_factory.mktemp("mirror")
    root, port = folder / "root", free_port()
    history = {
        "refs/heads/feature/x": SMALL,
        "refs/heads/deep/er/名字": SMALL | {"deep.json": b"{}"},
        "refs/tags/v1.0+cu118@100%25": SMALL | {"tag.json": b"{}"},
        "refs/pr/1": SMALL | {"proposal.json": b"{}"},
        "refs/tags/v1": FIRST,
        "refs/heads/main": SECOND,
    }
    model = HandMade(root, folder / "model", RepoId("models", "org/name.v1")).publish(history)
    dataset = HandMade(root, folder / "dataset", RepoId("datasets", "org/data")).publish({"refs/heads/main": SMALL})
    legacy = HandMade(root, folder / "legacy", RepoId("models", "gpt2")).publish({"refs/heads/main": SMALL})
    space = HandMade(root, folder / "space", RepoId("spaces", "org/demo")).publish({"refs/heads/main": SMALL})
    place = Standalone(folder / "nginx", find_njs_module(), "root" if os.geteuid() == 0 else "")
    write_standalone(Site(root, (f"127.0.0.1:{port}",), place=place))
    with Nginx(folder / "nginx" / "nginx.conf", folder / "nginx", [port]):
        yield Mirror(root, folder / "nginx" / "nginx.out", f"http://127.0.0.1:{port}", model, dataset, legacy, space)


@pytest.mark.parametrize(
    ("version", "kind"),
    [
        *((version, kind) for version in HUB_VERSIONS for kind in ("model", "dataset", "legacy", "space")),
        *((version, "model") for version in ALL_HUB_VERSIONS if version not in HUB_VERSIONS),
    ],
)
def test_hub_client(mirror: Mirror, version: str, kind: str, tmp_path: Path) -> None:
    """Downloads, API answers and errors are right for a model, a dataset and a one-segment model."""
    clients.check_all(version, mirror.url, getattr(mirror, kind), tmp_path)


@pytest.mark.parametrize("kind", ["model", "dataset", "legacy", "space"])
def test_git_clone_and_lfs_pull(mirror: Mirror, kind: str, tmp_path: Path) -> None:
    """Plain git and git-lfs get every file of every branch and tag over dumb HTTP."""
    clients.check_git(mirror.url, getattr(mirror, kind), tmp_path)


@pytest.mark.parametrize("kind", ["model", "dataset", "legacy", "space"])
def test_http(mirror: Mirror, kind: str) -> None:
    """Headers, ranges and validators are exact for every kind of name."""
    clients.check_http(mirror.url, getattr(mirror, kind))


@pytest.mark.parametrize("kind", ["model", "dataset", "legacy", "space"])
def test_a_slash_at_the_end_changes_no_answer(mirror: Mirror, kind: str) -> None:
    """Some clients (olah is one) ask for a listing, a folder or a revision with a slash at the end of the URL."""
    expected: Expected = getattr(mirror, kind)
    api = f"{mirror.url}/api/{expected.repo.kind}/{expected.repo.name}"
    revisions = [quote(revision, safe="") for revision in (*expected.commits, *expected.commits.values())]
    folders = sorted(quote(folder) for folder in clients.folders_of(expected.files["main"]))
    found = [f"revision/{revisions[0]}", *(f"tree/{r}" for r in revisions), *(f"tree/main/{f}" for f in folders)]
    for rest in [*found, "tree/main/nowhere", "tree/nowhere", "revision/nowhere"]:
        for query in ("", "?recursive=true"):
            without, with_slash = curl(f"{api}/{rest}{query}"), curl(f"{api}/{rest}/{query}")

            assert with_slash.status == without.status == (200 if rest in found else 404), rest
            assert with_slash.body == without.body
            assert with_slash.headers.get("x-repo-commit") == without.headers.get("x-repo-commit")
            assert with_slash.headers.get("x-error-code") == without.headers.get("x-error-code")


def model_url(mirror: Mirror, rest: str) -> str:
    return f"{mirror.url}/{mirror.model.repo.name}/{rest}"


def test_a_ref_that_moved_is_another_content(mirror: Mirror) -> None:
    """The ETag of one revision does not validate the other one's file of the same name and size."""
    first = curl(model_url(mirror, "resolve/v1/model.safetensors"), "--head")
    again = curl(
        model_url(mirror, "resolve/main/model.safetensors"),
        *("-H", f"If-None-Match: {first.headers['etag']}"),
        *("-H", "If-Modified-Since: Fri, 31 Dec 2100 23:59:59 GMT"),
    )

    assert again.status == 200
    assert "last-modified" not in again.headers
    assert again.body == SECOND["model.safetensors"]


@pytest.mark.parametrize(
    ("rest", "code"),
    [
        ("resolve/main/nothing", "EntryNotFound"),
        ("resolve/main/shards", "EntryNotFound"),
        ("resolve/main/shards/", "EntryNotFound"),
        ("resolve/main/config.json/", "EntryNotFound"),
        ("resolve/main/config.json%00", "EntryNotFound"),
        ("resolve/feature/config.json", "RevisionNotFound"),
        ("resolve/feature%2Fx%2Fy/README.md", "RevisionNotFound"),
        ("resolve/%2e%2e%2fmeta/refs.json", None),
        ("resolve/main%2F..%2F..%2Fmeta/refs.json", None),
        ("resolve/../meta/refs.json", None),
        ("resolve/main/../../../../../../../../etc/passwd", None),
        ("resolve/%6Dain/config.json", "RevisionNotFound"),
        ("resolve/" + "0" * 40 + "/config.json", "RevisionNotFound"),
    ],
)
def test_what_is_not_there(mirror: Mirror, rest: str, code: str | None) -> None:
    """Each kind of absence has its code; no way of writing a URL leads out of the revision."""
    response = curl(model_url(mirror, rest))

    assert response.status in (400, 404) if code is None or "%00" in rest else response.status == 404
    assert response.headers.get("x-error-code") == code or "%00" in rest
    assert b"root:" not in response.body


def test_absence_is_ordinary(mirror: Mirror) -> None:
    """Looking for optional files fills no error log, and the client may remember the answer for that commit."""
    log = mirror.log.read_text() if mirror.log.exists() else ""
    response = curl(model_url(mirror, "resolve/main/optional.json"))
    curl(model_url(mirror, "resolve/no-such/optional.json"))
    curl(f"{mirror.url}/nobody/nothing/resolve/main/optional.json")

    assert response.headers["x-repo-commit"] == mirror.model.commits["main"]
    assert (mirror.log.read_text() if mirror.log.exists() else "") == log


def answers(url: str, mirror: Mirror) -> dict[tuple[str, ...], tuple[int, dict[str, str], bytes]]:
    """What is said to requests for files, and for what is none, without the time at which it was said."""
    found = {}
    for expected in (mirror.model, mirror.legacy, mirror.space):
        for revision in (*expected.commits, *expected.commits.values(), "nowhere", "main@", "0" * 40):
            for path in ("README.md", "data/train.bin", "with space/a b.bin", "what?.json", "data", ".git", "no.json"):
                asked = f"{expected.repo.url_path}/resolve/{quote(revision, safe='')}/{quote(path)}"
                for words in ([], ["--head"], ["-H", "Range: bytes=1-2"], ["-H", "If-None-Match: *"]):
                    answer = curl(f"{url}/{asked}", *words)
                    headers = {name: value for name, value in answer.headers.items() if name != "date"}
                    found[asked, *words] = answer.status, headers, answer.body
    return found


def test_signposts_change_no_answer(mirror: Mirror, tmp_path: Path) -> None:
    """Every request is answered in the same way where the tree has none, as that of an older version has."""
    port = free_port()
    place = Standalone(tmp_path, find_njs_module(), "root" if os.geteuid() == 0 else "")
    write_standalone(Site(mirror.root, (f"127.0.0.1:{port}",), place=place))
    config = tmp_path / "nginx.conf"
    config.write_text(config.read_text().replace("../signposts", "../there-are-none"))
    with Nginx(config, tmp_path, [port]):
        without = answers(f"http://127.0.0.1:{port}", mirror)

    assert answers(mirror.url, mirror) == without
    assert {status for status, _, _ in without.values()} == {200, 206, 304, 404}


@pytest.mark.parametrize("revision", ["main", "feature%2Fx", "v1.0%2Bcu118%40100%2525", "refs%2Fpr%2F1", None])
def test_signposts_are_what_is_asked(mirror: Mirror, revision: str | None) -> None:
    """One that says another digest has it answered: so what is fast does happen."""
    commits = {quote(name, safe=""): commit for name, commit in mirror.model.commits.items()}
    commit = commits[revision or "v1"]
    signpost = mirror.root / "signposts" / f"models@org@name.v1@{commit}" / "README.md"
    other = (
        signpost.with_name("data") / "train.bin" if revision not in ("main", None) else signpost.with_name("empty.json")
    )
    right, wrong = signpost.readlink(), f"../{signpost.parent.name}".replace("../", "../@")
    signpost.unlink()
    signpost.symlink_to(f"{wrong}/{other.resolve().name}")
    try:
        answer = curl(model_url(mirror, f"resolve/{revision or commit}/README.md"))
    finally:
        signpost.unlink()
        signpost.symlink_to(right)

    assert answer.headers["x-repo-commit"] == commit
    assert answer.headers["etag"] == f'"{other.resolve().name}"'


@pytest.mark.parametrize("path", ["{mark}", ".git/{mark}", "%2e%2e/@models@org@name.v1@{commit}/{mark}"])
def test_a_mark_is_no_file(mirror: Mirror, path: str) -> None:
    """No URL names what signposts lead to."""
    commit = mirror.model.commits["main"]
    mark = (mirror.root / "signposts" / f"models@org@name.v1@{commit}" / "README.md").resolve().name
    there = path.format(mark=mark, commit=commit)
    urls = [f"{mirror.url}/{repo}/resolve/{there}" for repo in ("org/name.v1", f"org/name.v1@{commit}")]
    urls += [model_url(mirror, f"resolve/{revision}/{there}") for revision in ("main", commit, f"{commit}%2F..")]

    assert {curl(url).status for url in urls} <= {400, 404}


@pytest.mark.parametrize("repo", ["org/name.v1", "gpt2", "datasets/org/data"])
def test_nobody_can_ask_the_links(mirror: Mirror, repo: str) -> None:
    """The location for what has no signpost is for nginx itself."""
    assert curl(f"{mirror.url}/.links/{repo}/resolve/main/README.md").status == 404


def test_signposts_of_a_repository_that_was_removed_lead_nowhere(mirror: Mirror, tmp_path: Path) -> None:
    """Who removes a repository from the tree need not know of them."""
    repo = RepoId("models", "org/removed")
    HandMade(mirror.root, tmp_path / "git", repo).publish({"refs/heads/main": SMALL})
    shutil.rmtree(mirror.root / "public" / repo.path)
    answer = curl(f"{mirror.url}/{repo.name}/resolve/main/README.md")

    assert (mirror.root / "signposts" / "models@org@removed@main" / "README.md").exists()
    assert (answer.status, answer.headers["x-error-code"]) == (404, "RepoNotFound")


def test_a_link_that_leaves_the_tree_is_not_served(mirror: Mirror, tmp_path: Path) -> None:
    """A symlink to somebody else's file, should one come to be in the tree, is not followed."""
    commit = mirror.root / "public" / mirror.legacy.repo.path / "commits" / mirror.legacy.commits["main"]
    secret = Path("/etc/passwd")
    if os.geteuid() == 0:
        secret = tmp_path / "secret"
        secret.write_text("root:")
        os.chown(secret, 65534, 65534)
    (commit / "leak").symlink_to(secret)
    try:
        by_hub = curl(f"{mirror.url}/gpt2/resolve/main/leak")
        static = curl(f"{mirror.url}/models/gpt2/refs/main/leak")
    finally:
        (commit / "leak").unlink()

    assert by_hub.status == 404
    assert static.status in (403, 404)
    assert b"root:" not in by_hub.body + static.body


def test_percent_signs_in_a_repository_do_not_choose_another_revision(mirror: Mirror) -> None:
    """A repository's name written with escapes is not found, rather than served from another revision."""
    response = curl(f"{mirror.url}/%6Frg/name.v1/resolve/v1/config.json")

    assert response.status == 404


@pytest.mark.parametrize("path", ["", "state/", ".mirror/", "blobs/", "blobs/sha256/"])
def test_folders_that_nobody_lists(mirror: Mirror, path: str) -> None:
    """The root says what this is; blobs and our own folders are not listed."""
    response = curl(f"{mirror.url}/{path}")

    assert response.status == (200 if not path else 404)
    assert b"Index of" not in response.body
    assert "nginx/" not in response.headers["server"]


def test_static_files(mirror: Mirror) -> None:
    """Blobs, commits and refs are plain files for curl and aria2, with the digest for ETag, and can be browsed."""
    digest = hashlib.sha256(SECOND["model.safetensors"]).hexdigest()
    repo = mirror.model.repo.path
    blob = curl(f"{mirror.url}/blobs/sha256/{digest[:2]}/{digest[2:4]}/{digest}")
    by_ref = curl(f"{mirror.url}/{repo}/refs/main/model.safetensors")
    odd = curl(f"{mirror.url}/{repo}/commits/{mirror.model.commits['main']}/100%2541%20%231.safetensors")
    listing = curl(f"{mirror.url}/{repo}/refs/main/")

    assert blob.body == by_ref.body == SECOND["model.safetensors"]
    assert blob.headers["etag"] == by_ref.headers["etag"] == f'"{digest}"'
    assert odd.body == FIRST["100%41 #1.safetensors"]
    assert b"model.safetensors" in listing.body
    assert curl(f"{mirror.url}/{repo}").headers["location"] == f"/{repo}/"


@pytest.mark.parametrize("method", ["PUT", "DELETE", "POST", "PROPFIND"])
def test_nothing_can_be_written(mirror: Mirror, method: str) -> None:
    """Methods that change something are refused everywhere."""
    digest = hashlib.sha256(SECOND["model.safetensors"]).hexdigest()
    blob = f"{mirror.url}/blobs/sha256/{digest[:2]}/{digest[2:4]}/{digest}"
    for url in (blob, model_url(mirror, "resolve/main/config.json"), f"{mirror.url}/api/models/gpt2"):
        assert curl(url, "--request", method, "--data", "x").status in (403, 404, 405)


def batch(mirror: Mirror, document: object, repository: str = "org/name.v1.git", *words: str) -> Response:
    url = f"{mirror.url}/{repository}/info/lfs/objects/batch"
    body = document if isinstance(document, str) else json.dumps(document)
    return curl(url, "--data-binary", body, "-H", "Content-Type: application/vnd.git-lfs+json", *words)


def test_lfs_batch(mirror: Mirror) -> None:
    """Each object asked for is answered, in order, and no other: its link, or its own error."""
    content = SECOND["model.safetensors"]
    oid = hashlib.sha256(content).hexdigest()
    asked = [
        {"oid": oid, "size": len(content)},
        {"oid": "0" * 64, "size": 5},
        {"oid": oid, "size": 1},
        {"oid": "../../../etc/passwd", "size": 1},
    ]
    for repository in ("org/name.v1.git", "org/name.v1", "gpt2", "gpt2.git", "datasets/org/data"):
        response = batch(mirror, {"operation": "download", "objects": asked}, repository)
        answered = json.loads(response.body)["objects"]

        assert response.headers["content-type"] == "application/vnd.git-lfs+json"
        assert [(o["oid"], o["size"]) for o in answered] == [(o["oid"], o["size"]) for o in asked]
        assert [o.get("error", {}).get("code") for o in answered] == [None, 404, 422, 422]
        href = answered[0]["actions"]["download"]["href"]
        assert href == f"{mirror.url}/blobs/sha256/{oid[:2]}/{oid[2:4]}/{oid}"


def test_lfs_batch_behind_tls(mirror: Mirror) -> None:
    """Behind a proxy that ends TLS, links are https and have the name that the client used."""
    content = SECOND["model.safetensors"]
    asked = [{"oid": hashlib.sha256(content).hexdigest(), "size": len(content)}]
    headers = ("-H", "X-Forwarded-Proto: https", "-H", "Host: mirror.example")
    response = batch(mirror, {"operation": "download", "objects": asked}, "gpt2", *headers)

    assert json.loads(response.body)["objects"][0]["actions"]["download"]["href"].startswith(
        "https://mirror.example/blobs/sha256/"
    )


@pytest.mark.parametrize(
    ("document", "status"),
    [
        ("{", 422),
        ("", 422),
        ("[]", 422),
        ({"operation": "upload", "objects": []}, 403),
        ({"operation": "download", "objects": [], "hash_algo": "sha512"}, 409),
        ({"operation": "download", "objects": [], "transfers": ["ssh"]}, 422),
        ({"operation": "download", "objects": [None, 1, {}]}, 200),
        ({"operation": "download", "objects": [{"oid": "x" * 64}] * 60000}, 413),
    ],
)
def test_lfs_batch_refusals(mirror: Mirror, document: object, status: int, tmp_path: Path) -> None:
    """What is no download is refused with a message."""
    (tmp_path / "body").write_text(document if isinstance(document, str) else json.dumps(document))
    response = batch(mirror, f"@{tmp_path / 'body'}")

    assert response.status == status
    assert status in (200, 413) or json.loads(response.body)["message"]


def test_paths_info_takes_json_and_does_not_leave_the_revision(mirror: Mirror) -> None:
    """The form and JSON give the same; paths with .. and unknown ones are left out."""
    url = f"{mirror.url}/api/models/{mirror.model.repo.name}/paths-info/main"
    paths = ["config.json", "../config.json", "shards/../config.json", "shards", "", "constructor", "what?.json"]
    as_json = curl(url, "-H", "Content-Type: application/json", "--data-binary", json.dumps({"paths": paths}))
    as_form = curl(url, *(word for path in paths for word in ("--data-urlencode", f"paths={path}")))

    assert [entry["path"] for entry in json.loads(as_json.body)] == ["config.json", "shards", "what?.json"]
    assert as_form.body == as_json.body
    assert curl(url).status == 405
    assert curl(url, "--data", "x=y").status == 400


def test_thousands_of_paths_at_once(mirror: Mirror, tmp_path: Path) -> None:
    """A client that asks for more paths than a query string usually has is answered in full."""
    (tmp_path / "body").write_text("&".join(["paths=config.json"] * 3000))
    url = f"{mirror.url}/api/models/{mirror.model.repo.name}/paths-info/main"
    response = curl(url, "--data-binary", f"@{tmp_path / 'body'}")

    assert len(json.loads(response.body)) == 3000


def test_serve_in_the_foreground(mirror: Mirror, tmp_path: Path) -> None:
    """`mirrortool serve` becomes an nginx that serves the root, and one SIGTERM ends it all."""
    port = free_port()
    config = tmp_path / "mirrortool.yaml"
    config.write_text(f"root: {mirror.root}\nsource: https://source.example\n")
    words = ["--config", config, "serve", "--listen", f"127.0.0.1:{port}"]
    process = Process([sys.executable, "-m", "mirrortools", *words], tmp_path / "log")
    process.start(lambda: http_answers(port))
    try:
        response = curl(f"http://127.0.0.1:{port}/gpt2/resolve/main/README.md")
    finally:
        process.stop()

    assert response.body == SMALL["README.md"]
    assert not port_answers(port)
