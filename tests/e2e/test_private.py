"""Private repositories as clients meet them: with a token, with another's, with none; and what the public can see."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import socket
import ssl
import stat
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mirrortools.serve import Site, Standalone, find_njs_module, write_standalone
from tests.clients import (
    HUB_VERSIONS,
    ClientError,
    Response,
    curl,
    read_folder,
    run_client,
    run_git,
    run_hub,
    run_hub_cli,
)
from tests.delivery import noise
from tests.e2e.test_https_and_git import make_certificate
from tests.mirror import Mirror
from tests.servers import Nginx, free_port
from tests.servers.ports import port_answers
from tests.servers.process import Process, program

HUB = "2.4.0"
OPEN = {"config.json": b'{"open": 1}', "model.bin": noise(5000, 1)}
SECRET = {"config.json": b'{"secret": 1}', "model.bin": noise(300_000, 2), "sub/a b.bin": noise(5000, 3)}
GATED = {"model.bin": noise(5000, 4)}
# In every name that must not be told, and in nothing else.
MARK = "hush"
MODEL, ROWS, LISTED = "acme/hush-model", "datasets/acme/hush-rows", "acme/hush-gated"


@dataclass(frozen=True, slots=True)
class Served:
    """An origin that nginx serves, and its users' tokens: alice reads all, bob a dataset, carol nothing."""

    mirror: Mirror
    url: str
    tls_port: int
    nginx: Path
    alice: str
    bob: str
    carol: str

    def url_of(self, repo: str, token: str, user: str = "anybody") -> str:
        """Where git finds a repository."""
        return f"{self.url.replace('://', f'://{user}:{token}@')}/{repo}"

    def get(self, path: str, token: str = "", *words: str) -> Response:
        """One request by curl."""
        return curl(f"{self.url}/{path}", *(["-H", f"Authorization: Bearer {token}"] if token else []), *words)


def write(folder: Path, files: dict[str, bytes]) -> None:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)


def given(mirror: Mirror, user: str, *words: str) -> str:
    """A new token."""
    ended = mirror.run("token", "add", user, *words)
    assert ended.status == 0, ended.stderr
    return ended.stdout.strip()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A public and a private model, a private dataset and a gated model, behind the nginx that `mirrortool` prints."""
    folder, port, tls_port = tmp_path_factory.mktemp("private"), free_port(), free_port()
    certificate, key = make_certificate(folder)
    for repo, files in (("acme/open", OPEN), (MODEL, SECRET), (ROWS, SECRET), (LISTED, GATED)):
        write(folder / "source" / repo, files)
    mirror = Mirror(
        folder / "origin",
        f"dir://{folder}/source",
        listen=f"127.0.0.1:{port}",
        http=f"http://127.0.0.1:{port}",
        tls={"certificate": str(certificate), "key": str(key), "listen": f"127.0.0.1:{tls_port}"},
        groups={"readers": ["alice", "bob"]},
    )
    mirror.add("acme/open")
    mirror.add(MODEL, private=True, readers=["alice"])
    mirror.add(ROWS, private=True, readers=["readers"])
    mirror.add(LISTED, private=True, readers=["alice"], gated=True)
    ended = mirror.run("sync", "--all")
    assert ended.status == 0, ended.stderr
    place = folder / "nginx"
    assert mirror.run("nginx", "print", "--standalone", str(place)).status == 0
    with Nginx(place / "nginx.conf", place, [port, tls_port]):
        tokens = [given(mirror, user) for user in ("alice", "bob", "carol")]
        yield Served(mirror, f"http://127.0.0.1:{port}", tls_port, place, *tokens)


def test_hub_client_with_a_token(served: Served, tmp_path: Path) -> None:
    """HF_TOKEN is all that huggingface_hub needs; what it is told says that the repository is private."""
    model = {"repo_id": MODEL}
    calls = [
        ("snapshot_download", {**model, "local_dir": str(tmp_path / "model")}),
        (
            "snapshot_download",
            {"repo_id": ROWS.partition("/")[2], "repo_type": "dataset", "local_dir": str(tmp_path / "rows")},
        ),
        ("model_info", {**model, "files_metadata": True}),
        ("list_repo_tree", {**model, "recursive": True}),
        ("list_repo_refs", model),
        ("get_paths_info", {**model, "paths": ["model.bin"]}),
        ("file_exists", {**model, "filename": "no such file"}),
        ("hf_hub_download", {**model, "filename": "no such file"}),
        ("hf_hub_download", {**model, "filename": "model.bin", "revision": "nowhere"}),
        ("whoami", {}),
    ]
    *_, info, tree, refs, paths, exists, no_file, no_revision, me = run_hub(
        HUB, served.url, tmp_path / "cache", calls, served.alice
    )

    for name in ("model", "rows"):
        found = read_folder(tmp_path / name)
        assert {path: found[path] for path in SECRET} == SECRET
    assert (info["private"], info["id"]) == (True, MODEL)
    assert {entry["path"] for entry in tree} >= {"config.json", "model.bin", "sub", "sub/a b.bin"}
    assert refs["branches"][0]["name"] == "main"
    assert [entry["size"] for entry in paths] == [len(SECRET["model.bin"])]
    assert exists is False
    assert "EntryNotFoundError" in no_file["error"]
    assert no_revision["error"] == "RevisionNotFoundError"
    assert (me["name"], me["auth"]["accessToken"]["role"]) == ("alice", "read")


def test_hf_login_and_download(served: Served, tmp_path: Path) -> None:
    """`hf auth login --token` takes a token of the mirror, and `hf download` uses it; a wrong one is refused."""
    run_hub_cli(HUB, served.url, tmp_path / "home", ["auth", "login", "--token", served.alice])
    run_hub_cli(HUB, served.url, tmp_path / "home", ["download", MODEL, "--local-dir", tmp_path / "model"])

    assert read_folder(tmp_path / "model")["model.bin"] == SECRET["model.bin"]
    with pytest.raises(ClientError):
        run_hub_cli(HUB, served.url, tmp_path / "nobody", ["auth", "login", "--token", "hf_" + "x" * 34])


def test_hub_client_hears_what_the_hub_would_say(served: Served, tmp_path: Path) -> None:
    """Who is no reader finds no private repository; a gated one is said to be gated, to who has any token."""
    calls = [
        ("model_info", {"repo_id": MODEL}),
        ("hf_hub_download", {"repo_id": MODEL, "filename": "model.bin"}),
        ("hf_hub_download", {"repo_id": LISTED, "filename": "model.bin"}),
        ("hf_hub_download", {"repo_id": "acme/nothing", "filename": "model.bin"}),
        ("hf_hub_download", {"repo_id": "acme/open", "filename": "model.bin"}),
    ]
    nobody = run_hub(HUB, served.url, tmp_path / "nobody", calls)
    carol = run_hub(HUB, served.url, tmp_path / "carol", calls, served.carol)

    missing = "RepositoryNotFoundError"
    assert [outcome["error"] for outcome in nobody[:-1]] == [missing] * 4
    assert [outcome["error"] for outcome in carol[:-1]] == [missing, missing, "GatedRepoError", missing]
    assert Path(nobody[-1]).read_bytes() == Path(carol[-1]).read_bytes() == OPEN["model.bin"]


PATHS = ("resolve/main/model.bin", "raw/main/config.json", "meta/main/SHA256SUMS", "info/refs", "HEAD", "tree/main")


def urls(repo: str) -> list[str]:
    """What is asked of a model, in each way that one can be asked for."""
    api = [
        "",
        "/refs",
        "/auth-check",
        "/commits/main",
        "/tree/main",
        "/revision/main",
        "/revision/nowhere",
        f"/tree/{'0' * 40}",
    ]
    pages = [f"{repo}/{path}" for path in PATHS]
    return [
        repo,
        f"{repo}.git/info/refs?service=git-upload-pack",
        *pages,
        *(f"api/models/{repo}{rest}" for rest in api),
    ]


def told(response: Response) -> tuple[object, ...]:
    """All that an answer tells, but for the time."""
    return response.status, response.body, sorted((k, v) for k, v in response.headers.items() if k != "date")


def test_who_may_not_read_cannot_tell_a_repository_from_none(served: Served) -> None:
    """Whatever is asked for, the answer is the same as for a name that nobody has, header by header."""
    posts = [("info/lfs/objects/batch", '{"operation":"download","objects":[]}'), ("", "")]
    for token, status in (("", 401), ("hf_wrong", 401), (served.carol, 404)):
        for there, nowhere in zip(urls(MODEL), urls("acme/nothing-here"), strict=True):
            answer = served.get(there, token)

            assert told(answer) == told(served.get(nowhere, token)), there
            assert (answer.status, answer.headers["x-error-code"]) == (status, "RepoNotFound"), there
            assert ("www-authenticate" in answer.headers) is (status == 401)
        for path, body in posts[:1]:
            some = [served.get(f"{repo}.git/{path}", token, "--data", body) for repo in (MODEL, "acme/nothing-here")]

            assert told(some[0]) == told(some[1])
            assert some[0].status == status
        some = [served.get(f"api/models/{r}/paths-info/main", token, "--data", "paths=x") for r in (MODEL, "acme/none")]

        assert told(some[0]) == told(some[1])
        assert some[0].status == status


def test_every_address_answers_a_reader(served: Served) -> None:
    """The same addresses as of public repositories, and nothing that a cache for several users might keep."""
    missing = {
        f"{MODEL}/HEAD": 200,
        f"api/models/{MODEL}/revision/nowhere": 404,
        f"api/models/{MODEL}/tree/{'0' * 40}": 404,
    }
    for url in urls(MODEL):
        if "service=" in url:
            continue
        answer = served.get(url, served.alice)

        assert answer.status == missing.get(url, 200), url
        assert "public" not in answer.headers.get("cache-control", "")
    answer = served.get(f"{MODEL}/resolve/main/model.bin", served.alice, "-H", "Range: bytes=10-19")

    assert (answer.status, answer.body) == (206, SECRET["model.bin"][10:20])
    assert served.get(f"{MODEL}/resolve/main/model.bin", "", "--user", f"me:{served.alice}").body == SECRET["model.bin"]


def test_a_reader_of_one_reads_no_other(served: Served) -> None:
    """Bob has the dataset, and with it none of the model's files, though they are the same."""
    commit = served.get(f"{ROWS}/resolve/main/config.json", served.bob).headers["x-repo-commit"]

    assert served.get(f"{ROWS}/resolve/{commit}/model.bin", served.bob).body == SECRET["model.bin"]
    assert served.get(f"{MODEL}/resolve/main/model.bin", served.bob).status == 404
    assert served.get(f"{LISTED}/resolve/main/model.bin", served.bob).headers["x-error-code"] == "GatedRepo"
    assert served.get(f"{LISTED}/resolve/main/model.bin", served.bob).status == 403


@pytest.mark.parametrize(
    "path",
    [
        "private/models/acme/hush-model",
        ".private/acme/hush-model/resolve/main/config.json",
        ".links/acme/hush-model/resolve/main/config.json",
        ".links/.private/acme/hush-model/resolve/main/config.json",
        ".private/api/models/acme/hush-model",
        "models/acme/hush-model/meta/refs.json",
        "private/.access/tokens",
        ".access/tokens",
        "../private/.access/tokens",
        "models/../../private/models/acme/hush-model/meta/refs.json",
    ],
)
def test_there_is_no_way_round(served: Served, path: str) -> None:
    """Neither the folders of private/ nor the location that serves them can be asked for, not even by a reader."""
    for token in ("", served.alice):
        assert served.get(path, token).status in (400, 401, 404)


def test_a_private_blob_has_no_address_of_its_own(served: Served) -> None:
    """Whoever knows a digest gets nothing for it, from the public blobs, by git-lfs, or from another's repository."""
    oid = served.get(f"{MODEL}/resolve/main/model.bin", served.alice, "--head").headers["etag"].strip('"')
    gated = served.get(f"{LISTED}/resolve/main/model.bin", served.alice, "--head").headers["etag"].strip('"')
    ask = json.dumps({"operation": "download", "objects": [{"oid": gated, "size": 5000}, {"oid": "no", "size": 1}]})
    batch = json.loads(served.get(f"{ROWS}.git/info/lfs/objects/batch", served.bob, "--data", ask).body)
    public = json.loads(served.get("acme/open.git/info/lfs/objects/batch", "", "--data", ask).body)

    assert served.get(f"blobs/sha256/{oid[:2]}/{oid[2:4]}/{oid}", served.alice).status == 404
    assert [each["error"]["code"] for each in batch["objects"]] == [404, 422]
    assert [each["error"]["code"] for each in public["objects"]] == [404, 422]


def check_clone(url: str, home: Path) -> None:
    """`git clone` with git-lfs gives every file."""
    home.mkdir(parents=True, exist_ok=True)
    run_git("lfs", "install", "--skip-repo", home=home)
    run_git("clone", "--quiet", url, home / "clone", home=home)
    found = read_folder(home / "clone")

    assert {path: found[path] for path in SECRET} == SECRET


def test_git_with_a_token_in_the_url(served: Served, tmp_path: Path) -> None:
    """The user's name does not matter, the token is the password, for git and for git-lfs."""
    check_clone(served.url_of(MODEL, served.alice), tmp_path)
    check_clone(served.url_of(ROWS, served.bob), tmp_path / "rows")

    with pytest.raises(ClientError):
        run_git("clone", "--quiet", served.url_of(MODEL, served.carol), tmp_path / "none", home=tmp_path)
    with pytest.raises(ClientError, match="could not read Username"):
        run_git("clone", "--quiet", f"{served.url}/{MODEL}", tmp_path / "nobody", home=tmp_path)


def test_git_with_a_credential_helper(served: Served, tmp_path: Path) -> None:
    """A helper is asked because of the 401, and what it gives serves git and git-lfs."""
    helper = f"!f() {{ echo username=alice; echo password={served.alice}; }}; f"
    run_git("config", "--file", tmp_path / ".gitconfig", "credential.helper", helper, home=tmp_path)
    check_clone(f"{served.url}/{MODEL}", tmp_path)


def test_git_over_the_smart_protocol(served: Served, tmp_path: Path) -> None:
    """With fcgiwrap a shallow clone works for readers, and for them alone; pushes are refused as everywhere."""
    port, socket = free_port(), tmp_path / "fcgiwrap.socket"
    place = Standalone(tmp_path / "nginx", find_njs_module(), "root" if os.geteuid() == 0 else "")
    write_standalone(Site(served.mirror.root, (f"127.0.0.1:{port}",), place=place, git_socket=socket, private=True))
    wrapper = Process([program("fcgiwrap"), "-s", f"unix:{socket}"], tmp_path / "fcgiwrap.log")
    wrapper.start(socket.exists)
    try:
        with Nginx(tmp_path / "nginx" / "nginx.conf", tmp_path / "nginx", [port]):
            base = f"http://alice:{served.alice}@127.0.0.1:{port}"
            run_git("clone", "--quiet", "--depth=1", f"{base}/{MODEL}", tmp_path / "clone", home=tmp_path)
            run_git(
                "clone", "--quiet", "--depth=1", f"http://127.0.0.1:{port}/acme/open", tmp_path / "open", home=tmp_path
            )
            stranger = curl(f"http://127.0.0.1:{port}/{MODEL}/git-upload-pack", "--data", "0000")
    finally:
        wrapper.stop()

    assert (tmp_path / "clone" / "config.json").read_bytes() == SECRET["config.json"]
    assert (tmp_path / "open" / "config.json").read_bytes() == OPEN["config.json"]
    assert stranger.status == 401


def test_revoking_and_expiring_need_no_restart(served: Served) -> None:
    """A token counts from the moment it is made until it is revoked or its time is over; others stay."""
    path = f"{MODEL}/resolve/main/config.json"
    first, second = given(served.mirror, "alice"), given(served.mirror, "alice", "--expires", "1s")
    known = served.mirror.run("token", "list", "--json").json
    (one,) = [each for each in known if each["expires_at"]]
    assert served.get(path, first).status == 200
    while served.get(path, second).status == 200:
        pass
    assert served.mirror.run("token", "revoke", known[-2]["id"]).status == 0

    assert [served.get(path, token).status for token in (first, second, served.alice)] == [401, 401, 200]
    assert one["user"] == "alice"
    assert served.mirror.fails("token", "revoke", known[-2]["id"]).status == 2
    kept = "".join(
        file.read_text()
        for file in served.mirror.root.rglob("*")
        if file.name == "tokens.json" or (".access" in str(file) and file.is_file())
    )
    assert "alice" in kept
    assert not any(token in kept for token in (first, second, served.alice, served.bob))


LISTS = [
    ("list_models", {}),
    ("list_datasets", {}),
    ("list_models", {"search": MARK}),
    ("list_models", {"author": "a"}),
]


@pytest.mark.parametrize("version", HUB_VERSIONS)
def test_lists_have_what_a_token_may_read(served: Served, tmp_path: Path, version: str) -> None:
    """list_models(token=…) gives what is public and what that user may read, and says which is private."""
    asked = {
        user: run_hub(version, served.url, tmp_path / user, LISTS, token)
        for user, token in (("alice", served.alice), ("bob", served.bob), ("carol", served.carol), ("nobody", ""))
    }
    names = {user: [[each["id"] for each in found] for found in lists] for user, lists in asked.items()}

    assert names["alice"] == [[LISTED, MODEL, "acme/open"], [ROWS.partition("/")[2]], [LISTED, MODEL], []]
    assert names["bob"] == [["acme/open"], [ROWS.partition("/")[2]], [], []]
    assert names["carol"] == names["nobody"] == [["acme/open"], [], [], []]
    assert [each["private"] for each in asked["alice"][0]] == [True, True, False]


def test_a_list_is_for_whoever_asked_for_it(served: Served) -> None:
    """It comes page by page, no cache may give it to anybody else, and a bad token is told as much as none."""
    path = "api/models?limit=2"
    first = served.get(path, served.alice)
    following = re.findall(r"<https?://[^/]+/([^>]+)>", first.headers["link"])[0]
    nobody, wrong = served.get(path), served.get(path, "hf_wrong")

    assert [each["id"] for each in json.loads(first.body)] == [LISTED, MODEL]
    assert [each["id"] for each in json.loads(served.get(following, served.alice).body)] == ["acme/open"]
    assert (first.headers["cache-control"], first.headers["vary"]) == ("private, no-cache", "Authorization")
    assert told(nobody) == told(wrong)
    assert ("cache-control" in nobody.headers, nobody.headers["vary"]) == (False, "Authorization")
    assert [each["id"] for each in json.loads(served.get(following).body)] == ["acme/open"]
    assert served.get(path, "", "--user", f"me:{served.alice}").body == first.body


def test_a_list_follows_tokens_and_readers(served: Served) -> None:
    """A new reader is told of what is readable when the change is made known, and no more when it is taken back."""
    erin = given(served.mirror, "erin")

    def listed() -> list[str]:
        return [each["id"] for each in json.loads(served.get("api/datasets", erin).body)]

    before = listed()
    served.mirror.settings["groups"] = {"readers": ["alice", "bob", "erin"]}
    another = given(served.mirror, "erin")
    granted = listed()
    served.mirror.settings["groups"] = {"readers": ["alice", "bob"]}
    assert served.mirror.run("token", "revoke", hashlib.sha256(another.encode()).hexdigest()[:8]).status == 0
    taken_back = listed()
    assert served.mirror.run("token", "revoke", "erin").status == 0
    users = served.mirror.root / "private" / ".access" / "users"

    assert (before, granted, taken_back, listed()) == ([], [ROWS.partition("/")[2]], [], [])
    assert {file.name for file in users.iterdir()} == {"alice.json", "bob.json", "carol.json"}


def pages(served: Served) -> Iterator[tuple[str, str]]:
    """Every page that lists something, and what it says: followed from link to link, without a token."""
    seen, waiting = (
        set(),
        ["", ".mirror/", "models/", "datasets/", "spaces/", "latest/", ".mirror/trace/", ".mirror/changes/"],
    )
    waiting += [f"api/{kind}{query}" for kind in ("models", "datasets", "spaces") for query in ("", f"?search={MARK}")]
    waiting += ["api/models?author=acme", "api/datasets?author=acme", ".mirror/status.json", ".mirror/edges.json"]
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        answer = served.get(path)
        yield path, f"{answer.headers} {answer.body.decode(errors='replace')}"
        found = re.findall(r'href="([^"#?:]+)"', answer.body.decode(errors="replace"))
        waiting += [link.lstrip("/") if link.startswith("/") else f"{path}{link}" for link in found if ".." not in link]


def test_nothing_that_is_public_knows_a_private_name(served: Served, tmp_path: Path) -> None:
    """No file that is served, no name of one, no page, no list, no log of the public kind, nothing by rsync."""
    for token in ("", served.alice, served.carol):  # so that there is something to log
        for url in [
            *urls(MODEL),
            f"api/models/{MODEL}/commits/main",
            f"{MODEL}/unknown/page",
            f"{MODEL}.git/info/lfs/locks",
        ]:
            served.get(url, token)
            served.get(url, token, "--request", "POST")
    public = served.mirror.root / "public"
    names = [str(path.relative_to(public)) for path in public.rglob("*")]
    inside = [path for path in public.rglob("*") if path.is_file() and MARK.encode() in path.read_bytes()]
    links = [path for path in public.rglob("*") if path.is_symlink() and MARK in str(path.readlink())]
    told_by = [path for path, text in pages(served) if MARK in text.replace(f"search={MARK}", "")]
    log, private_log = served.nginx / "access.log", served.nginx / "private.log"
    said = log.read_text()

    assert len(names) > 50
    assert [name for name in names if MARK in name] == inside == links == told_by == []
    assert "acme/open" in said
    assert MARK not in said
    assert "alice" in private_log.read_text()
    assert MARK in private_log.read_text()
    assert stat.S_IMODE(private_log.stat().st_mode) == 0o640
    assert MARK not in by_rsync(served.mirror, tmp_path)


TRUSTING = ssl.create_default_context()
TRUSTING.check_hostname, TRUSTING.verify_mode = False, ssl.CERT_NONE
OTHERS = b"acme/open/resolve/main/config.json"
# What nginx cannot read or will not answer, and ways to have a name in a line about something public: each with the tag
# by which it is found in the private log, those without one are logged with no word of it.
RAW = {
    "unknown version": b"GET /acme/hush-1 HTTP/9.9\r\n\r\n",
    "no version": b"GET /acme/hush-2\r\n",
    "no slash": b"GET acme/hush-3 HTTP/1.1\r\nHost: x\r\n\r\n",
    "no method": b"acme/hush-4\r\n\r\n",
    "too long": b"GET /acme/hush-5/" + b"x" * 10_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "no host": b"GET /acme/hush-6 HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /acme/hush-7 HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "bad host": b"GET /acme/hush-8 HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "long header": b"GET /acme/hush-9 HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 10_000 + b"\r\n\r\n",
    "bad length": b"GET /acme/hush-10 HTTP/1.1\r\nHost: x\r\nContent-Length: hush\r\n\r\n",
    "out of the root": b"GET /../acme/hush-11 HTTP/1.1\r\nHost: x\r\n\r\n",
    "bad escape": b"GET /acme/hush-12/%zz HTTP/1.1\r\nHost: x\r\n\r\n",
    "too large": b"POST /acme/hush-13/resolve/main/x HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n",
    "put": b"PUT /api/models/acme/hush-14/refs HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "delete": b"DELETE /models/acme/hush-15 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "trace": b"TRACE /acme/hush-16.git/objects/pack/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "connect": b"CONNECT hush-17:443 HTTP/1.1\r\nHost: x\r\n\r\n",
    "method": b"acme-hush-18 / HTTP/1.1\r\nHost: x\r\n\r\n",
    "coding": b"POST /acme/hush-19 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: hush\r\n\r\n",
    "other host": b"GET http://hush/ HTTP/1.0\r\n\r\n",
    "way round": b"GET /acme/hush-model/../../%s HTTP/1.0\r\n\r\n" % OTHERS,
    "query": b"GET /%s?acme/hush-model HTTP/1.0\r\n\r\n" % OTHERS,
    "fragment": b"GET /%s#acme/hush-model HTTP/1.0\r\n\r\n" % OTHERS,
    "came from": b"GET /%s HTTP/1.0\r\nReferer: http://x/acme/hush-model\r\n\r\n" % OTHERS,
    "agent": b"GET /%s HTTP/1.0\r\nUser-Agent: hf_hub/2.4.0; for/acme/hush-model\r\n\r\n" % OTHERS,
    "name of a method": b"HUSH /acme/open/raw/main/model.bin HTTP/1.0\r\n\r\n",
    "search": b"GET /api/models?search=acme/hush-model HTTP/1.0\r\n\r\n",
}


def said_to(served: Served, data: bytes, *, secure: bool) -> bytes:
    """What the server answers to bytes as they are: the head, or all that has none."""
    port = served.tls_port if secure else int(served.url.rpartition(":")[2])
    with (
        socket.create_connection(("127.0.0.1", port), timeout=60) as plain,
        TRUSTING.wrap_socket(plain) if secure else plain as connection,
    ):
        connection.sendall(data)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while b"\r\n\r\n" not in answer and (piece := connection.recv(65536)):
                answer += piece
    return answer


def test_no_request_puts_a_private_name_into_a_log_for_many(served: Served) -> None:
    """Over HTTP and HTTPS, whatever is wrong with it: access and error logs but the private ones have no such name."""
    answers = {name: [said_to(served, data, secure=s) for s in (False, True)] for name, data in RAW.items()}
    port = int(served.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=60) as plain, contextlib.suppress(OSError):
        TRUSTING.wrap_socket(plain, server_hostname="hush-20").close()
    mixed = [
        curl(f"http://127.0.0.1:{served.tls_port}/acme/hush-21").status,
        curl(f"https://127.0.0.1:{served.tls_port}/acme/hush-22", "--insecure", "--http2", "-H", "Host: ").status,
    ]
    log, errors = served.nginx / "private.log", served.nginx / "private-error.log"
    tags = {match[0].decode() for data in RAW.values() if (match := re.search(rb"hush-\d+", data))}
    while missing := [tag for tag in tags if len(re.findall(rf"{tag}\b", log.read_text())) < 2]:
        time.sleep(0.05)  # what a connection was closed for is logged after that
    others = [path for path in served.nginx.iterdir() if path.is_file() and path not in (log, errors)]

    assert not missing
    assert mixed == [400, 400]
    assert [name for name, pair in answers.items() if b"" in pair] == []
    assert "hush-13" in errors.read_text(), "client intended to send too large body"
    assert {path.name for path in others} >= {"access.log", "error.log", "nginx.out", "nginx.conf"}
    assert [path for path in others if MARK.encode() in path.read_bytes().lower()] == []
    assert f"GET /{OTHERS.decode()} HTTP/1.0" in (served.nginx / "access.log").read_text()
    assert stat.S_IMODE(errors.stat().st_mode) == 0o640


def test_the_ordinary_log_has_the_address_that_was_asked_for(served: Served) -> None:
    """Also where nginx has gone another way, by the links of the tree."""
    signposts = served.mirror.root / "signposts"
    commit = served.get("acme/open/resolve/main/config.json").headers["x-repo-commit"]
    signposts.rename(signposts.with_name("aside"))
    try:
        answer = served.get(f"acme/open/resolve/{commit}/.gitattributes")
    finally:
        signposts.with_name("aside").rename(signposts)
    log = (served.nginx / "access.log").read_text()

    assert answer.status == 200
    assert f'"GET /acme/open/resolve/{commit}/.gitattributes HTTP/1.1" 200 ' in log
    assert ".links" not in log


def by_rsync(mirror: Mirror, folder: Path) -> str:
    """All that a generated rsyncd lists, and its modules."""
    assert mirror.run("rsyncd", "install", "--prefix", str(folder)).status == 0
    port = free_port()
    command = [program("rsync"), "--daemon", "--no-detach", "--address=127.0.0.1", f"--port={port}"]
    server = Process([*command, f"--config={folder}/rsyncd.conf", f"--log-file={folder}/log"], folder / "out")
    server.start(lambda: port_answers(port))
    try:
        url = f"rsync://127.0.0.1:{port}"
        modules = run_client([program("rsync"), f"{url}/"], os.environ)
        names = [line.split()[0] for line in modules.splitlines() if line.strip()]
        command = [program("rsync"), "-rL", "--list-only"]
        lists = [subprocess.run([*command, f"{url}/{name}/"], capture_output=True, text=True).stdout for name in names]
    finally:
        server.stop()
    assert any("config.json" in listed for listed in lists)
    return modules + "".join(lists)
