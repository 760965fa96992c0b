"""Unmodified clients of a mirror as subprocesses, and what each must get from it, for an origin and an edge alike."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from mirrortools.model import RepoId

HUB_VERSIONS = ("2.4.0", "0.20.3")
ALL_HUB_VERSIONS = (*HUB_VERSIONS, "1.16.4", "0.36.2")
PROJECT = Path(__file__).resolve().parents[1]
# Environments of the matrix alone, which outlive a work tree.
MORE_VENVS = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mirrortools" / "venvs"
TIMEOUT_S = 110

Files = Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Expected:
    """What a mirror must serve of one repository: the commit of each revision's name, and that commit's files.

    The names are as users type them: `main`, `v1`, `feature/x`, `refs/pr/1`. `lfs` holds the paths of LFS files.
    """

    repo: RepoId
    commits: Mapping[str, str]
    files: Mapping[str, Files]
    lfs: frozenset[str] = frozenset()

    @property
    def address(self) -> dict[str, str]:
        """How the Hub's client names the repository."""
        return {"repo_id": self.repo.name, "repo_type": self.repo.kind.removesuffix("s")}


class ClientError(Exception):
    """A client ended with an error; the text is what it said."""


def run_hub(version: str, endpoint: str, cache: Path, calls: Sequence[tuple[str, Any]], token: str = "") -> list[Any]:
    """Make calls of huggingface_hub `version` against `endpoint`: per call its value, or `{"error": class}`."""
    python = hub_program(version, "python")
    script = PROJECT / "tests" / "hub_calls.py"
    output = run_client([python, script], hub_environment(endpoint, cache, token), json.dumps(calls))
    return [outcome.get("value", outcome) for outcome in json.loads(output)]


class HubSession:
    """A Python with huggingface_hub `version` that makes calls against `endpoint`, until the `with` block ends.

    It is started by the first call. What the client says goes to `hub.log` beside its `cache`.
    """

    def __init__(self, version: str, endpoint: str, cache: Path) -> None:
        self._version = version
        self._env = hub_environment(endpoint, cache)
        self._log = cache.parent / "hub.log"
        self._child: subprocess.Popen[str] | None = None

    def ask(self, *calls: tuple[str, Any]) -> list[Any]:
        """The value of each call. Raises ClientError with the first error."""
        outcomes = self._outcomes(calls)
        for (name, _), outcome in zip(calls, outcomes, strict=True):
            if "error" in outcome:
                raise ClientError(f"{name}: {outcome['error']}: {outcome['text']}")
        return [outcome["value"] for outcome in outcomes]

    def refused(self, *calls: tuple[str, Any]) -> list[tuple[str, str]]:
        """The class and text of the error that each call ends with. Raises ClientError when one does not."""
        outcomes = self._outcomes(calls)
        for (name, _), outcome in zip(calls, outcomes, strict=True):
            if "error" not in outcome:
                raise ClientError(f"{name} gave {outcome['value']!r}, and should have been refused")
        return [(outcome["error"], outcome["text"]) for outcome in outcomes]

    def _outcomes(self, calls: Sequence[tuple[str, Any]]) -> list[Any]:
        child = self._running()
        assert child.stdin is not None
        assert child.stdout is not None
        timer = threading.Timer(TIMEOUT_S, child.kill)
        timer.start()
        try:
            child.stdin.write(f"{json.dumps(calls)}\n")
            child.stdin.flush()
            answer = child.stdout.readline()
        finally:
            timer.cancel()
        if not answer:
            raise ClientError(f"huggingface_hub {self._version} ended or hung:\n{self._log.read_text()[-2000:]}")
        return list(json.loads(answer))

    def _running(self) -> subprocess.Popen[str]:
        if self._child is None:
            command = [str(hub_program(self._version, "python")), str(PROJECT / "tests" / "hub_calls.py")]
            with self._log.open("a") as log:
                pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
                self._child = subprocess.Popen(command, env=self._env, stderr=log, text=True, **pipes)
        return self._child

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._child is not None:
            with self._child:
                self._child.kill()


def run_hub_cli(version: str, endpoint: str, cache: Path, words: Sequence[str | Path], token: str = "") -> str:
    """Run `hf` (or, before there was one, `huggingface-cli`) with `words`; its standard output."""
    name = "huggingface-cli" if version == "0.20.3" else "hf"
    return run_client([hub_program(version, name), *words], hub_environment(endpoint, cache, token))


def hub_program(version: str, name: str) -> Path:
    """A program of the venv for huggingface_hub `version`, made by scripts/setup, or by scripts/clients for more."""
    for venvs in (PROJECT / ".venvs", MORE_VENVS):
        path = venvs / f"hub-{version}" / "bin" / name
        if path.exists():
            return path
    raise ClientError(f".venvs/hub-{version}/bin/{name} is missing; run scripts/setup")


def hub_environment(endpoint: str, cache: Path, token: str = "") -> dict[str, str]:
    """An environment without telemetry, with a cache of its own, and without a token unless one is given."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    return kept | {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(cache),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        **({"HF_TOKEN": token} if token else {}),
    }


def run_client(command: Sequence[str | Path], env: Mapping[str, str], stdin: str = "") -> str:
    """Run a client to its end; its standard output. Raises ClientError with what it said."""
    done = subprocess.run(
        [str(word) for word in command],
        env=env,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        raise ClientError(f"{command[0]} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done.stdout


def run_git(*words: str | Path, home: Path, env: Mapping[str, str] | None = None) -> str:
    """Run git without the user's and the machine's settings, but with git-lfs known, and with `env` besides."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    kept |= {"HOME": str(home), "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0"}
    return run_client(["git", *words], {**kept, **(env or {})})


def read_folder(folder: Path) -> dict[str, bytes]:
    """Every file below `folder` but those of the client itself (.git, .cache)."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not name.startswith((".git/", ".cache/")):
            found[name] = path.read_bytes()
    return found


def check_snapshots(version: str, endpoint: str, expected: Expected, scratch: Path) -> None:
    """snapshot_download gives every file of every revision, by its name and by its commit, byte for byte."""
    revisions = [*expected.commits, *sorted(set(expected.commits.values()))]
    calls = [("snapshot_download", {**expected.address, "revision": name}) for name in revisions]
    folders = run_hub(version, endpoint, scratch / "cache", calls)
    by_commit = {commit: expected.files[name] for name, commit in expected.commits.items()}
    for name, folder in zip(revisions, folders, strict=True):
        commit = expected.commits.get(name, name)

        assert isinstance(folder, str), f"{name}: {folder}"
        assert Path(folder).name == commit
        assert read_folder(Path(folder)) == by_commit[commit], name


def check_local_folder(version: str, endpoint: str, expected: Expected, scratch: Path) -> None:
    """snapshot_download to a folder of the user's gives the files there, and patterns choose among them."""
    wanted = expected.files["main"]
    chosen = {"allow_patterns": ["*.json", "*.safetensors"], "ignore_patterns": ["*00*"]}
    calls = [
        ("snapshot_download", {**expected.address, "local_dir": str(scratch / "all")}),
        ("snapshot_download", {**expected.address, "local_dir": str(scratch / "some"), **chosen}),
    ]
    results = run_hub(version, endpoint, scratch / "cache", calls)
    some = {p: c for p, c in wanted.items() if p.endswith((".json", ".safetensors")) and "00" not in p}

    assert all(isinstance(result, str) for result in results), results
    assert read_folder(scratch / "all") == wanted
    assert read_folder(scratch / "some") == some


def check_cli(version: str, endpoint: str, expected: Expected, scratch: Path) -> None:
    """The client's command line downloads a revision into a folder."""
    for number, (name, files) in enumerate(expected.files.items()):
        folder = scratch / f"cli-{number}"
        kind = ["--repo-type", expected.address["repo_type"]]
        words = ["download", expected.repo.name, "--revision", name, "--local-dir", folder, *kind]
        run_hub_cli(version, endpoint, scratch / "cache", words)

        assert read_folder(folder) == files, name


def check_api(version: str, endpoint: str, expected: Expected, scratch: Path) -> None:
    """Info, tree, refs, paths-info and file_exists tell what the revision holds."""
    wanted = expected.files["main"]
    repo, info = expected.address, f"{expected.address['repo_type']}_info"
    some = [*sorted(wanted), *sorted(folders_of(wanted)), "no/such file"]
    calls = [
        (info, {"repo_id": repo["repo_id"]}),
        (info, {"repo_id": repo["repo_id"], "revision": "main", "files_metadata": True}),
        ("list_repo_tree", {**repo, "recursive": True}),
        ("list_repo_tree", {**repo}),
        ("list_repo_refs", {**repo}),
        ("get_paths_info", {**repo, "paths": some}),
        ("file_exists", {**repo, "filename": some[0]}),
        ("file_exists", {**repo, "filename": "no/such file"}),
        *[("list_repo_tree", {**repo, "path_in_repo": folder}) for folder in sorted(folders_of(wanted))],
    ]
    short, full, deep, flat, refs, paths, there, missing, *inner = run_hub(version, endpoint, scratch / "cache", calls)

    assert short["id"] == expected.repo.name
    assert short["sha"] == expected.commits["main"]
    assert {sibling["rfilename"] for sibling in short["siblings"] or ()} == set(wanted)
    assert {s["rfilename"]: s["size"] for s in full["siblings"]} == {p: len(c) for p, c in wanted.items()}
    for sibling in full["siblings"]:
        check_digest(expected, sibling["rfilename"], sibling)
    check_entries(expected, deep, {*wanted, *folders_of(wanted)})
    check_entries(expected, flat, {path.partition("/")[0] for path in wanted})
    check_entries(expected, paths, {*wanted, *folders_of(wanted)})
    for folder, entries in zip(sorted(folders_of(wanted)), inner, strict=True):
        below = {path for path in {*wanted, *folders_of(wanted)} if path.rpartition("/")[0] == folder}
        assert {entry["path"] for entry in entries} == below
    shown = {r["name"]: r["target_commit"] for r in [*refs["tags"], *refs["branches"]]}
    assert shown == {n: c for n, c in expected.commits.items() if not n.startswith("refs/")}
    assert (there, missing) == (True, False)


def check_entries(expected: Expected, entries: Sequence[Mapping[str, Any]], paths: set[str]) -> None:
    """A listing has exactly `paths`, and each file's size and digest."""
    files = expected.files["main"]
    assert {entry["path"] for entry in entries} == paths
    assert len(entries) == len(paths)
    for entry in entries:
        assert (entry["class"] == "RepoFile") is (entry["path"] in files)
        if entry["class"] == "RepoFile":
            assert entry["size"] == len(files[entry["path"]])
            check_digest(expected, entry["path"], entry)


def check_digest(expected: Expected, path: str, entry: Mapping[str, Any]) -> None:
    """A file's git id, or the SHA-256 that LFS names it by, is that of its content."""
    content = expected.files["main"][path]
    assert bool(entry["lfs"]) is (path in expected.lfs)
    if entry["lfs"]:
        assert entry["lfs"]["sha256"] == hashlib.sha256(content).hexdigest()
    else:
        assert entry["blob_id"] == hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def check_errors(version: str, endpoint: str, expected: Expected, scratch: Path) -> None:
    """A missing file, revision and repository are three different errors, and none is taken for another."""
    repo = expected.address
    nobody = {**repo, "repo_id": "nobody/nothing"}
    info = f"{repo['repo_type']}_info"
    calls = [
        ("hf_hub_download", {**repo, "filename": "missing.bin"}),
        ("hf_hub_download", {**repo, "filename": "a", "revision": "no-such-branch"}),
        ("hf_hub_download", {**nobody, "filename": "a"}),
        ("snapshot_download", {**repo, "revision": "0" * 40}),
        (info, {"repo_id": nobody["repo_id"]}),
        (info, {"repo_id": repo["repo_id"], "revision": "no/such"}),
        ("get_paths_info", {**repo, "paths": ["a"], "revision": "nope"}),
    ]
    outcomes = run_hub(version, endpoint, scratch / "cache", calls)
    names = [outcome["error"] for outcome in outcomes]

    assert names[0] in ("EntryNotFoundError", "RemoteEntryNotFoundError")
    assert names[1:3] == ["RevisionNotFoundError", "RepositoryNotFoundError"]
    assert names[3] in ("RevisionNotFoundError", "LocalEntryNotFoundError")
    assert names[4:] == ["RepositoryNotFoundError", "RevisionNotFoundError", "RevisionNotFoundError"]


def check_git(endpoint: str, expected: Expected, scratch: Path) -> None:
    """`git clone` and `git lfs pull` give every branch's and tag's files."""
    scratch.mkdir(parents=True, exist_ok=True)
    run_git("lfs", "install", "--skip-repo", "--skip-smudge", home=scratch)
    clone = scratch / "clone"
    run_git("clone", "--quiet", f"{endpoint}/{expected.repo.url_path}", clone, home=scratch)
    shown = run_git("ls-remote", f"{endpoint}/{expected.repo.url_path}.git", "refs/heads/main", home=scratch)
    assert shown.split()[0] == expected.commits["main"]
    assert run_git("-C", clone, "rev-parse", "HEAD", home=scratch).strip() == expected.commits["main"]
    for name, commit in expected.commits.items():
        if name.startswith("refs/"):
            continue
        run_git("-C", clone, "checkout", "--quiet", "--detach", commit, home=scratch)
        run_git("-C", clone, "lfs", "pull", home=scratch)

        assert read_folder(clone) == expected.files[name], name
    run_git("-C", clone, "fsck", "--strict", home=scratch)


def check_all(version: str, endpoint: str, expected: Expected, scratch: Path) -> None:
    """Everything that huggingface_hub `version` may ask of a mirror. `scratch` is an empty folder."""
    for check in (check_snapshots, check_local_folder, check_cli, check_api, check_errors):
        folder = scratch / check.__name__
        folder.mkdir(parents=True)
        check(version, endpoint, expected, folder)


def folders_of(files: Files) -> set[str]:
    """Every folder that the paths of `files` name."""
    found = set()
    for path in files:
        while "/" in path:
            path = path.rpartition("/")[0]
            found.add(path)
    return found


@dataclass(frozen=True, slots=True)
class Response:
    """What curl got: the status, headers by their name in lower case, the body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def curl(url: str, *words: str) -> Response:
    """One request by curl, the URL sent exactly as it is given; with `--location` the answer that redirects lead to."""
    command = ["curl", "--silent", "--show-error", "--include", "--path-as-is", "--globoff", "--max-time", "60"]
    done = subprocess.run([*command, *words, url], capture_output=True, check=False)
    if done.returncode != 0:
        raise ClientError(f"curl {url}: {done.returncode}: {done.stderr.decode()}")
    head, _, body = done.stdout.partition(b"\r\n\r\n")
    while "--location" in words and head.split()[1].startswith(b"3") and body.startswith(b"HTTP/"):
        head, _, body = body.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Response(int(first.split()[1]), headers, body)


def check_http(endpoint: str, expected: Expected) -> None:
    """Headers, ranges, validators and names that have to be encoded, for every file of every revision's name."""
    for name, commit in expected.commits.items():
        for path, content in expected.files[name].items():
            if path.startswith("shards/"):
                continue
            url = file_url(endpoint, expected, name, path)
            digest = etag_of(expected, path, content)
            response = curl(url)

            assert (response.status, response.body) == (200, content), url
            assert response.headers["x-repo-commit"] == commit
            assert response.headers["etag"] == response.headers["x-linked-etag"] == f'"{digest}"'
            assert int(response.headers["x-linked-size"]) == len(content)
            assert response.headers["accept-ranges"] == "bytes"
            assert not any("xet" in header for header in response.headers)
            assert curl(url, "-H", f'If-None-Match: "{digest}"').status == 304
    check_ranges(endpoint, expected)


def check_ranges(endpoint: str, expected: Expected) -> None:
    """A Range gives the part, unless If-Range names another content: then it gives everything."""
    path, content = max(expected.files["main"].items(), key=lambda item: len(item[1]))
    url, digest = file_url(endpoint, expected, "main", path), etag_of(expected, path, content)
    part = curl(url, "--range", "10-19")
    same = curl(url, "--range", "10-19", "-H", f'If-Range: "{digest}"')
    other = curl(url, "--range", "10-19", "-H", f'If-Range: "{"0" * 64}"')
    packed = curl(url, "--range", "10-19", "-H", "Accept-Encoding: gzip")

    assert (part.status, part.body) == (206, content[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{len(content)}"
    assert int(part.headers["x-linked-size"]) == len(content)
    assert (same.status, same.body) == (206, content[10:20])
    assert (other.status, other.body) == (200, content)
    assert (packed.status, packed.body) == (206, content[10:20])
    assert curl(url, "--range", f"{len(content)}-").status == 416


def file_url(endpoint: str, expected: Expected, revision: str, path: str) -> str:
    """Where a file of a revision is, as the Hub's client writes it."""
    return f"{endpoint}/{expected.repo.url_path}/resolve/{quote(revision, safe='')}/{quote(path)}"


def etag_of(expected: Expected, path: str, content: bytes) -> str:
    """SHA-256 for LFS files, the git blob id for others."""
    if path in expected.lfs:
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
