"""`mirrortool get` as a user runs it, against an origin and two edges behind plain nginx."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mirrortools.serve import Site, Standalone, find_njs_module, write_standalone
from mirrortools.store import Store
from tests.clients import (
    ALL_HUB_VERSIONS,
    PROJECT,
    curl,
    hub_environment,
    hub_program,
    read_folder,
    run_client,
    run_hub,
)
from tests.delivery import noise, sha256_blob
from tests.fakes import Heard, ScriptedServer, answer
from tests.mirror import Ended, Mirror
from tests.servers import Nginx, free_port

MIB = 1 << 20
REPO, DATASET, SHARDS = "acme/tiny", "datasets/rows", "acme/shards"
MODEL, TWIN = "model.safetensors", "sub/折 #%41 twin.safetensors"
BASE = noise(24 * MIB, 1)
TOKENIZER = {
    "config.json": b'{"model_type": "bert", "hidden_size": 8, "vocab_size": 7}',
    "tokenizer_config.json": b'{"tokenizer_class": "BertTokenizer", "do_lower_case": true}',
    "vocab.txt": b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nmirror\nhello\n",
}
FIRST = {
    MODEL: BASE,
    TWIN: noise(3 * MIB, 2),
    "README.md": b"# Tiny\n",
    **TOKENIZER,
    "empty.json": b"",
    ".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n",
    "gone/old.txt": b"only in the first revision\n",
    "renamed-before.safetensors": noise(2 * MIB, 3),
    **{f"small/{number:02}.json": b"%d" % number * 50 for number in range(20)},
}
MANY = {f"part-{number:02}.safetensors": noise(640 << 10, 100 + number) for number in range(16)}
# Of the model one segment of six is other, the twin is there twice, one file has another name.
SECOND = {
    **{path: content for path, content in FIRST.items() if path not in ("gone/old.txt", "renamed-before.safetensors")},
    MODEL: BASE[: 9 * MIB] + noise(MIB, 4) + BASE[10 * MIB :],
    "twin.safetensors": FIRST[TWIN],
    "renamed.safetensors": FIRST["renamed-before.safetensors"],
    "README.md": b"# Tiny, better\n",
}


@dataclass(frozen=True, slots=True)
class Mirrors:
    """An origin that has delivered two revisions to two edges, the URLs, and the folder of each one's nginx."""

    origin: Mirror
    urls: Mapping[str, str]
    folders: Mapping[str, Path]
    servers: Mapping[str, Nginx]
    first: str
    second: str

    def root(self, host: str) -> Path:
        return self.origin.root if host == "origin" else self.origin.folder.parent / host

    def sent(self, host: str) -> list[tuple[str, int, int]]:
        """Path, status and bytes of each answer of a host."""
        found = re.findall(r'"GET (\S+) HTTP/1\.1" (\d+) (\d+)', (self.folders[host] / "access.log").read_text())
        return [(path, int(status), int(size)) for path, status, size in found]

    def forget(self) -> None:
        for folder in self.folders.values():
            (folder / "access.log").write_bytes(b"")


@pytest.fixture(scope="module")
def mirrors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mirrors]:
    """A model of two revisions and a dataset with a name of one segment."""
    folder = tmp_path_factory.mktemp("get")
    mirror = Mirror(folder / "origin", f"dir://{folder}/source")
    ports = {name: free_port() for name in ("origin", "e1", "e2")}
    urls = {name: f"http://127.0.0.{number}:{ports[name]}" for number, name in enumerate(ports, start=1)}
    mirror.settings |= {"http": urls["origin"], "listen": f"0.0.0.0:{ports['origin']}"}
    mirror.settings["edges"] = {
        name: {"url": f"file://{folder}/{name}", "http": urls[name], "listen": f"0.0.0.0:{ports[name]}"}
        for name in ("e1", "e2")
    }
    _write(folder / "source" / REPO, FIRST)
    _write(folder / "source" / DATASET, {"train.csv": b"a,b\n1,2\n"})
    mirror.add(REPO)
    first = mirror.sync()["refs"]["refs/heads/main"]
    shutil.rmtree(folder / "source" / REPO)
    _write(folder / "source" / REPO, SECOND)
    mirror.add(DATASET)
    _write(folder / "source" / SHARDS, MANY)
    mirror.add(SHARDS)
    ended = mirror.run("sync", "--all", "--json")
    assert ended.status == 0, ended.stderr
    second = ended.json[0]["refs"]["refs/heads/main"]
    folders = {name: folder / f"nginx-{name}" for name in ports}
    with ExitStack() as running:
        servers = {}
        for name, place in folders.items():
            words = () if name == "origin" else ("--edge", name)
            printed = mirror.run("nginx", "print", *words, "--standalone", str(place))
            assert printed.status == 0, printed.stderr
            servers[name] = running.enter_context(Nginx(place / "nginx.conf", place, [ports[name]]))
        yield Mirrors(mirror, urls, folders, servers, first, second)


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


@pytest.fixture(autouse=True)
def _counted_anew(mirrors: Mirrors) -> None:
    mirrors.forget()


def command(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "mirrortools", "get", *map(str, words)]


def environment(**more: str) -> dict[str, str]:
    """One in which nothing says where a mirror is."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "MIRRORTOOL"))}
    return {**kept, "HOME": "/nonexistent", **more}


def run(*words: str | Path, cwd: Path | None = None, **env: str) -> Ended:
    done = subprocess.run(
        command(*words), capture_output=True, text=True, timeout=100, env=environment(**env), cwd=cwd or "/"
    )
    assert "this is a bug" not in done.stderr, done.stderr
    return Ended(done.returncode, done.stdout, done.stderr)


def get(mirrors: Mirrors, folder: Path, *words: str | Path, host: str = "origin") -> dict[str, Any]:
    """A `get` into a folder that goes well; its outcome."""
    ended = run(REPO, "--from", mirrors.urls[host], "--to", folder, "--json", *words)
    assert ended.status == 0, ended.stderr
    return dict(ended.json)


def files_of(folder: Path) -> dict[str, bytes]:
    """What a user sees in a folder, and the record that lies there."""
    return {path: content for path, content in read_folder(folder).items() if path != ".mirrortool.json"}


def test_a_whole_revision_once(mirrors: Mirrors, tmp_path: Path) -> None:
    """Every file comes, verified; a second run asks two questions and fetches nothing; no work is left behind."""
    folder = tmp_path / "tiny"
    outcome = get(mirrors, folder)
    mirrors.forget()
    again = get(mirrors, folder)

    assert files_of(folder) == SECOND
    assert outcome["commit"] == mirrors.second
    assert sum(map(len, set(SECOND.values()))) == outcome["fetched_bytes"]
    assert (again["fetched_bytes"], again["kept_files"]) == (0, len(SECOND))
    assert len(mirrors.sent("origin")) == 2
    assert not (folder / ".mirrortool").exists()
    assert (folder / MODEL).stat().st_mode & 0o200


def test_what_hf_endpoint_names_is_asked_and_other_kinds_have_their_places(mirrors: Mirrors, tmp_path: Path) -> None:
    """Without --from and --to: the environment says where from, the name where to."""
    ended = run(DATASET, cwd=tmp_path, HF_ENDPOINT=mirrors.urls["origin"])

    assert ended.status == 0, ended.stderr
    assert files_of(tmp_path / "rows") == {"train.csv": b"a,b\n1,2\n"}
    assert "datasets/rows: main" in ended.stdout


def test_an_update_fetches_what_changed(mirrors: Mirrors, tmp_path: Path) -> None:
    """Of a changed file the changed segment, of a renamed one nothing; what is gone goes; --dry-run says so before."""
    folder = tmp_path / "tiny"
    get(mirrors, folder, "--revision", mirrors.first)
    assert files_of(folder) == FIRST
    foreseen = get(mirrors, folder, "--dry-run")
    outcome = get(mirrors, folder)
    new = {"README.md", MODEL}

    assert files_of(folder) == SECOND
    assert foreseen["reused_bytes"] == outcome["reused_bytes"] == 20 * MIB
    assert foreseen["wanted_bytes"] == sum(len(SECOND[path]) for path in new)
    assert outcome["fetched_bytes"] == foreseen["wanted_bytes"] - 20 * MIB
    assert outcome["removed"] == ["gone/old.txt", "renamed-before.safetensors"]
    assert not (folder / "gone").exists()


def test_files_that_are_chosen(mirrors: Mirrors, tmp_path: Path) -> None:
    """By the patterns of the Hub's client; what another run left out is fetched by the next one alone."""
    folder = tmp_path / "tiny"
    some = get(mirrors, folder, "--include", "*.json", "--include", "*.md", "--exclude", "small/1*")
    left = files_of(folder)
    rest = get(mirrors, folder)

    assert left == {p: c for p, c in SECOND.items() if p.endswith((".json", ".md")) and not p.startswith("small/1")}
    assert files_of(folder) == SECOND
    assert rest["kept_files"] == some["files"]


def test_what_a_user_changed_is_not_overwritten_unasked(mirrors: Mirrors, tmp_path: Path) -> None:
    """It is named, nothing is touched; with --force it is replaced, and what does not belong to it stays."""
    folder = tmp_path / "tiny"
    get(mirrors, folder)
    (folder / "README.md").write_text("my own notes")
    (folder / "own.txt").write_text("mine")
    refused = run(REPO, "--from", mirrors.urls["origin"], "--to", folder)
    kept = files_of(folder)
    forced = get(mirrors, folder, "--force")

    assert refused.status == 32
    assert "README.md" in refused.stderr
    assert "--force" in refused.stderr
    assert kept == {**SECOND, "README.md": b"my own notes", "own.txt": b"mine"}
    assert files_of(folder) == {**SECOND, "own.txt": b"mine"}
    assert forced["wanted_blobs"] == 1


def test_what_somebody_else_downloaded_is_kept(mirrors: Mirrors, tmp_path: Path) -> None:
    """Files that hash right need no record of ours; one that rotted unseen is found when it is asked for."""
    folder = tmp_path / "tiny"
    _write(folder, {path: content for path, content in SECOND.items() if path != TWIN})
    outcome = get(mirrors, folder)
    seen = (folder / MODEL).stat()
    with (folder / MODEL).open("r+b") as file:
        file.write(b"rot")
    os.utime(folder / MODEL, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    unseen = get(mirrors, folder)
    found = run(REPO, "--from", mirrors.urls["origin"], "--to", folder, "--check")
    mended = get(mirrors, folder, "--check", "--force")

    assert (outcome["fetched_bytes"], outcome["kept_files"]) == (0, len(SECOND) - 1)  # the twin's twin was there
    assert unseen["wanted_blobs"] == 0
    assert found.status == 32
    assert mended["fetched_bytes"] == 4 * MIB
    assert files_of(folder) == SECOND


def test_a_folder_that_holds_another_repository_is_left_alone(mirrors: Mirrors, tmp_path: Path) -> None:
    """Nobody's files are removed because a name was forgotten."""
    folder = tmp_path / "tiny"
    get(mirrors, folder)
    ended = run(DATASET, "--from", mirrors.urls["origin"], "--to", folder)

    assert ended.status == 2
    assert REPO in ended.stderr
    assert files_of(folder) == SECOND


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_run_that_was_ended_goes_on(mirrors: Mirrors, tmp_path: Path, number: signal.Signals) -> None:
    """Segments that were verified are kept, the folder holds no half, and a stopped run says how to go on."""
    folder = tmp_path / "tiny"
    journal = folder / ".mirrortool" / "partial" / f"{sha256_blob(SECOND[MODEL]).digest}.journal"
    with Holding(mirrors) as holding:
        words = (REPO, "--from", holding.url, "--to", str(folder), "--include", MODEL)
        with subprocess.Popen(
            command(*words), stderr=subprocess.PIPE, text=True, env=environment(), cwd="/"
        ) as running:
            while running.poll() is None and not (journal.exists() and journal.read_text().count("\n") > 2):
                time.sleep(0.02)
            seen = files_of(folder).keys()
            running.send_signal(number)
            said = running.communicate(timeout=60)[1]
    outcome = get(mirrors, folder, "--include", MODEL)

    assert not {path for path in seen if not path.startswith(".mirrortool/")}
    assert running.returncode == (-9 if number == signal.SIGKILL else 128 + number)
    assert number == signal.SIGKILL or f"go on with: mirrortool get {REPO} --from {holding.url}" in said
    assert outcome["resumed_bytes"] >= 8 * MIB
    assert outcome["fetched_bytes"] == len(SECOND[MODEL]) - outcome["resumed_bytes"]
    assert files_of(folder) == {MODEL: SECOND[MODEL]}


class Holding:
    """The origin behind a server that knows no mirrors, and holds what is asked of the model beyond its first 8 MiB."""

    def __init__(self, mirrors: Mirrors) -> None:
        self._origin = mirrors.urls["origin"]
        self._ended = threading.Event()
        self._server = ScriptedServer(self._script)

    @property
    def url(self) -> str:
        return self._server.origin

    def _script(self, heard: Heard) -> bytes | None:
        if "range" not in heard.headers:
            got = curl(f"{self._origin}{heard.target}")
            return answer(got.body, 404 if "mirrors.json" in heard.target else got.status)
        first, last = map(int, heard.headers["range"].removeprefix("bytes=").split("-"))
        if last >= 8 * MIB:
            self._ended.wait(60)
            return None
        part = SECOND[MODEL][first : last + 1]
        return answer(part, 206, Content_Range=f"bytes {first}-{last}/{len(SECOND[MODEL])}")

    def __enter__(self) -> Holding:
        self._server.__enter__()
        return self

    def __exit__(self, *trouble: Any) -> None:
        self._ended.set()
        self._server.__exit__(*trouble)


def test_a_host_with_wrong_bytes_is_survived_and_told(mirrors: Mirrors, tmp_path: Path) -> None:
    """It is the first one that is asked; what it has wrong comes from another one that the mirror names."""
    blob = Store(mirrors.root("e1")).path(sha256_blob(SECOND[MODEL]))
    blob.chmod(0o644)
    with blob.open("r+b") as file:
        file.write(b"wrong")
    try:
        folder = tmp_path / "tiny"
        ended = run(REPO, "--from", mirrors.urls["e1"], "--to", folder)
    finally:
        with blob.open("r+b") as file:
            file.write(SECOND[MODEL][:5])

    assert ended.status == 0, ended.stderr
    assert files_of(folder) == SECOND
    assert re.search(rf"{re.escape(mirrors.urls['e1'])}: gave wrong bytes of {MODEL}", ended.stderr)


@contextmanager
def limited(folder: Path, root: Path, rate: str) -> Iterator[tuple[str, Path]]:
    """One more host of a root, each of whose connections is limited: its URL, and its log."""
    port = free_port()
    place = Standalone(folder, find_njs_module(), "root" if os.geteuid() == 0 else "")
    write_standalone(Site(root, (f"127.0.0.1:{port}",), place=place))
    config = folder / "nginx.conf"
    config.write_text(config.read_text().replace("sendfile on;", f"sendfile on; limit_rate {rate};"))
    with Nginx(config, folder, [port]):
        yield f"http://127.0.0.1:{port}", folder / "access.log"


def sent_bytes(log: Path) -> int:
    """What a host has sent of files."""
    return sum(int(size) for size in re.findall(r'/resolve/\S+ HTTP/1\.1" 20[06] (\d+)', log.read_text()))


@contextmanager
def spoilt(root: Path) -> Iterator[None]:
    """All shards below a root have a wrong byte."""
    blobs = [Store(root).path(sha256_blob(content)) for content in MANY.values()]
    for blob in blobs:
        blob.chmod(0o644)
        blob.write_bytes(b"?" + blob.read_bytes()[1:])
    try:
        yield
    finally:
        for blob, content in zip(blobs, MANY.values(), strict=True):
            blob.write_bytes(content)


def test_several_hosts_bring_one_repository(mirrors: Mirrors, tmp_path: Path) -> None:
    """Four at once, segments to whoever is free: a slow one brings little, what one has wrong comes from the others."""
    whole = sum(map(len, MANY.values()))
    rates = {"origin": "512k", "e1": "512k", "slow": "32k", "e2": "512k"}
    roots = {name: mirrors.root("e1" if name == "slow" else name) for name in rates}
    with ExitStack() as running:
        hosts = {
            name: running.enter_context(limited(tmp_path / f"at-{name}", roots[name], rate))
            for name, rate in rates.items()
        }
        running.enter_context(spoilt(roots["e2"]))
        folder = tmp_path / "shards"
        named = [word for url, _ in hosts.values() for word in ("--from", url)]
        ended = run(SHARDS, *named, "--to", folder, "--connections", "4", "--json")
        sent = {name: sent_bytes(log) for name, (_, log) in hosts.items()}

    assert ended.status == 0, ended.stderr
    assert {path: content for path, content in files_of(folder).items() if path in MANY} == MANY
    assert {url for url, _ in hosts.values()} <= ended.json["from_source"].keys()
    assert min(sent.values()) > 0
    assert sent["origin"] + sent["e1"] > whole * 0.8
    assert sent["slow"] < whole / len(MANY)
    assert sent["e2"] < whole / 4
    assert sum(sent.values()) < whole * 1.4
    assert re.search(rf"{re.escape(hosts['e2'][0])}: gave wrong bytes of part-", ended.stderr)


def test_the_number_of_connections_may_be_given(mirrors: Mirrors, tmp_path: Path) -> None:
    """One takes one file after the other, all from the first host."""
    folder = tmp_path / "shards"
    ended = run(SHARDS, "--from", mirrors.urls["origin"], "--to", folder, "--connections", "1", "--json")

    assert ended.status == 0, ended.stderr
    assert list(ended.json["from_source"]) == [mirrors.urls["origin"]]
    assert run(SHARDS, "--from", mirrors.urls["origin"], "--to", folder, "--connections", "0").status == 2


def test_hosts_that_are_down_or_lag_are_dropped(mirrors: Mirrors, tmp_path: Path) -> None:
    """The first host is down, the second lacks the commit, the third is asked; each is told in a line."""
    folder = tmp_path / "tiny"
    nobody = f"http://127.0.0.1:{free_port()}"
    commits = mirrors.root("e2") / "public/models" / REPO / "commits"
    (commits / mirrors.second).rename(commits / "aside")
    try:
        ended = run(REPO, "--from", nobody, "--from", mirrors.urls["origin"], "--to", folder)
    finally:
        (commits / "aside").rename(commits / mirrors.second)

    assert ended.status == 0, ended.stderr
    assert files_of(folder) == SECOND
    assert f"{nobody}/api/models" in ended.stderr
    assert re.search(rf"{re.escape(mirrors.urls['e2'])}/.*404.*not used", ended.stderr)


@pytest.mark.parametrize("version", ALL_HUB_VERSIONS)
def test_the_cache_of_the_hubs_client(mirrors: Mirrors, tmp_path: Path, version: str) -> None:
    """Offline, snapshot_download finds main and a pinned commit; the library's own scan finds nothing amiss."""
    home = tmp_path / "home"
    for revision in (mirrors.first, "main"):
        ended = run(
            REPO, "--cache", "--from", mirrors.urls["origin"], "--revision", revision, "--json", HF_HOME=str(home)
        )
        assert ended.status == 0, ended.stderr
    calls = [
        ("snapshot_download", {"repo_id": REPO, "local_files_only": True}),
        ("snapshot_download", {"repo_id": REPO, "revision": mirrors.first, "local_files_only": True}),
        ("hf_hub_download", {"repo_id": REPO, "filename": TWIN, "local_files_only": True}),
        ("scan_cache_dir", {"cache_dir": str(home / "hub")}),
    ]
    main, pinned, one, scan = run_hub(version, "http://127.0.0.1:9", home, calls)
    root = home / "hub" / "models--acme--tiny"

    assert read_folder(Path(main)) == SECOND
    assert read_folder(Path(pinned)) == FIRST
    assert Path(one).read_bytes() == SECOND[TWIN]
    assert scan["warnings"] == []
    assert ended.json["reused_bytes"] == 20 * MIB
    assert (root / "refs" / "main").read_text() == mirrors.second
    assert (Path(main) / TWIN).readlink() == Path("../../../blobs") / sha256_blob(SECOND[TWIN]).digest
    assert not (root / ".mirrortool").exists()


def test_the_client_goes_on_with_a_cache_and_verifies_it(mirrors: Mirrors, tmp_path: Path) -> None:
    """`hf download` fetches no content anew, `hf cache verify` finds every hash right."""
    home = tmp_path / "home"
    assert run(REPO, f"--cache={home / 'hub'}", "--from", mirrors.urls["origin"]).status == 0
    mirrors.forget()
    env = hub_environment(mirrors.urls["origin"], home)
    hf = hub_program("2.4.0", "hf")
    run_client([hf, "download", REPO], env)
    bodies = [path for path, status, _ in mirrors.sent("origin") if "/resolve/" in path and status == 200]
    verified = run_client([hf, "cache", "verify", REPO], env)

    assert bodies == []
    assert str(len(SECOND)) in verified


def test_from_pretrained_offline(mirrors: Mirrors, tmp_path: Path) -> None:
    """Transformers finds a configuration and a tokenizer in the cache, without asking anybody."""
    got = run(REPO, "--cache", "--from", mirrors.urls["origin"], HF_HOME=str(tmp_path))
    script = f"""
import transformers
tokenizer = transformers.AutoTokenizer.from_pretrained("{REPO}")
print(transformers.AutoConfig.from_pretrained("{REPO}").hidden_size, tokenizer("Hello mirror")["input_ids"])
"""
    env = {**hub_environment("http://127.0.0.1:9", tmp_path), "HF_HUB_OFFLINE": "1"}
    said = run_client([PROJECT / ".venvs" / "loaders" / "bin" / "python", "-c", script], env)

    assert got.status == 0, got.stderr
    assert said.strip() == "8 [2, 6, 5, 3]"


def test_what_cannot_be_had_says_why(mirrors: Mirrors, tmp_path: Path) -> None:
    """Each with the exit status that the documentation gives it."""
    origin = mirrors.urls["origin"]
    unknown = run("acme/none", "--from", origin, "--to", tmp_path / "x")
    branch = run(REPO, "--from", origin, "--revision", "none", "--to", tmp_path / "x")
    no_host = run(REPO, "--to", tmp_path / "x")
    nothing = run(REPO, "--from", origin, "--include", "*.gguf", "--to", tmp_path / "x")

    assert (unknown.status, branch.status, no_host.status, nothing.status) == (11, 11, 2, 2)
    assert "RepoNotFound" in unknown.stderr
    assert "RevisionNotFound" in branch.stderr
    assert "MIRRORTOOL_MIRROR" in no_host.stderr
    assert not (tmp_path / "x").exists()


def test_two_runs_in_one_folder(mirrors: Mirrors, tmp_path: Path) -> None:
    """The second one is told that the first is at work."""
    import fcntl

    work = tmp_path / "tiny" / ".mirrortool"
    work.mkdir(parents=True)
    held = os.open(work, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    ended = run(REPO, "--from", mirrors.urls["origin"], "--to", tmp_path / "tiny")
    os.close(held)

    assert ended.status == 31
    assert "another `mirrortool get`" in ended.stderr


def test_a_run_without_news_stays_small(mirrors: Mirrors, tmp_path: Path) -> None:
    """What only a configuration needs is not loaded, and neither is what draws bars."""
    words = [sys.executable, "-X", "importtime", "-m", "mirrortools", "get", REPO, "--from", mirrors.urls["origin"]]
    done = subprocess.run(
        [*words, "--to", str(tmp_path / "t")], capture_output=True, text=True, env=environment(), cwd="/", check=True
    )
    modules = set(re.findall(r"^import time:.*\| *(\S+)$", done.stderr, re.MULTILINE))

    assert "mirrortools.get" in modules
    assert not modules & {"pydantic", "yaml", "rich", "jinja2", "http.client", "mirrortools.sync", "mirrortools.tree"}
