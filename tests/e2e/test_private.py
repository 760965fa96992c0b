"""Private repositories as clients meet them: with a token, with another's, with none; and what the public can see."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mirrortools.serve import Site, Standalone, find_njs_module, write_standalone
from tests.clients import ClientError, Response, curl, read_folder, run_client, run_git, run_hub, run_hub_cli
from tests.delivery import noise
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
    folder, port = tmp_path_factory.mktemp("private"), free_port()
    for repo, files in (("acme/open", OPEN), (MODEL, SECRET), (ROWS, SECRET), (LISTED, GATED)):
        write(folder / "source" / repo, files)
    mirror = Mirror(
        folder / "origin",
        f"dir://{folder}/source",
        listen=f"127.0.0.1:{port}",
        http=f"http://127.0.0.1:{port}",
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
    with Nginx(place / "nginx.conf", place, [port]):
        tokens = [given(mirror, user) for user in ("alice", "bob", "carol")]
        yield Served(mirror, f"http://127.0.0.1:{port}", place, *tokens)


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
    # What is no request is logged as nginx always does: one that wants to leave the root is.
    said = "".join(line.replace(f"search={MARK}", "") for line in log.read_text().splitlines() if '" 400 ' not in line)

    assert len(names) > 50
    assert [name for name in names if MARK in name] == inside == links == told_by == []
    assert "acme/open" in said
    assert MARK not in said
    assert "alice" in private_log.read_text()
    assert MARK in private_log.read_text()
    assert stat.S_IMODE(private_log.stat().st_mode) == 0o640
    assert MARK not in by_rsync(served.mirror, tmp_path)


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
