"""A real rsyncd with the generated configuration: users, other mirrors, and who looks for more."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from mirrortools.model import Publication, RepoId
from mirrortools.rsyncd import Modules, install
from mirrortools.tree import Tree
from tests.clients import read_folder
from tests.delivery import noise, publication
from tests.servers import free_port
from tests.servers.ports import port_answers
from tests.servers.process import Process, program

PROJECT = Path(__file__).resolve().parents[2]
MODEL, ROWS = RepoId.parse("Qwen/Qwen2-7B"), RepoId.parse("datasets/acme/rows")
FILES = {
    "model.safetensors": noise(300_000, 1),
    "config.json": b"{}",
    "sub/模型 #%41.safetensors": noise(9000, 2),
    "#comment.txt": b"a line that begins with #",
}


@dataclass(frozen=True, slots=True)
class Served:
    """A tree, and the URL of the rsyncd that serves it."""

    root: Path
    url: str
    tree: Tree

    def publish(self, files: dict[str, bytes], repo: RepoId = MODEL, *others: str) -> Publication:
        shown = publication(self.root, files, repo)
        (commit,) = shown.manifests
        refs = {**shown.refs, **{f"refs/tags/{name}": commit for name in others}}
        shown = replace(shown, refs=refs)
        self.tree.publish(shown)
        return shown


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A model and a dataset behind rsyncd, whose main file includes ours."""
    root, port = tmp_path / "root", free_port()
    install(Modules(root), tmp_path / "etc")
    (root / "state" / "keys").mkdir(parents=True)
    (root / "state" / "keys" / "signing").write_text("secret")
    command = [program("rsync"), "--daemon", "--no-detach", "--address=127.0.0.1", f"--port={port}"]
    server = Process([*command, f"--config={tmp_path}/etc/rsyncd.conf", f"--log-file={tmp_path}/log"], tmp_path / "out")
    found = Served(root, f"rsync://127.0.0.1:{port}", Tree(root))
    found.publish(FILES)
    found.publish({"train.safetensors": b"rows"}, ROWS)
    server.start(lambda: port_answers(port))
    try:
        yield found
    finally:
        server.stop()


def rsync(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program("rsync"), *words], capture_output=True, text=True, timeout=60)


def got(*words: str | Path) -> str:
    done = rsync(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def everything(root: Path) -> dict[str, str]:
    """Every name below a folder, but of what each publication writes, with its content or the target of its link."""
    found = {}
    for folder, folders, names in os.walk(root):
        for name in (*names, *(one for one in folders if Path(folder, one).is_symlink())):
            path = Path(folder, name)
            text = str(path.readlink()) if path.is_symlink() else path.read_bytes().hex()
            found[path.relative_to(root).as_posix()] = text
    return {name: text for name, text in found.items() if not name.startswith(".mirror/")}


def test_users_get_files_by_the_name_of_a_repository(served: Served, tmp_path: Path) -> None:
    """With -aL rsync gives plain files of the default branch, for models and datasets."""
    got("-aL", f"{served.url}/models/{MODEL}/", tmp_path / "model")
    got("-aL", f"{served.url}/datasets/acme/rows/", tmp_path / "rows")

    assert read_folder(tmp_path / "model") == FILES
    assert not any(path.is_symlink() for path in (tmp_path / "model").rglob("*"))
    assert read_folder(tmp_path / "rows") == {"train.safetensors": b"rows"}


def test_the_modules_list_themselves(served: Served) -> None:
    """Who asks for the modules is told how to use them, and sees the organisations of one."""
    assert "rsync -aL rsync://HOST/models/ORG/NAME/" in got(f"{served.url}/")
    assert got(f"{served.url}/models/").split()[-1] == "Qwen"


def test_the_tree_is_copied_exactly(served: Served, tmp_path: Path) -> None:
    """The module `mirror` gives rsync -a the same links and files."""
    got("-a", f"{served.url}/mirror/", tmp_path / "copy")

    assert everything(tmp_path / "copy") == everything(served.root / "public")


def test_the_documented_pull(served: Served, tmp_path: Path) -> None:
    """It brings all there is, then only what is new, and takes away a ref that is gone."""
    script = re.search(r"```sh\n(.*?)```", (PROJECT / "docs/operations.md").read_text(), re.DOTALL)
    assert script
    command = ["sh", "-euc", script[1], "pull", f"{served.url}/mirror", str(tmp_path / "copy")]
    served.publish(FILES, MODEL, "gone")
    subprocess.run(command, check=True, timeout=60)
    first, there = everything(tmp_path / "copy"), everything(served.root / "public")
    changed = served.publish({**FILES, "config.json": b"[]"}, MODEL, "v1")
    subprocess.run(command, check=True, timeout=60)
    files = (tmp_path / "copy.pull" / "files").read_text()

    assert first == there
    assert everything(tmp_path / "copy") == everything(served.root / "public")
    assert next(iter(changed.manifests)) in files
    assert read_folder(tmp_path / "copy" / MODEL.path / "refs/v1") == {**FILES, "config.json": b"[]"}
    assert not (tmp_path / "copy" / MODEL.path / "refs/gone").is_symlink()
    subprocess.run(command, check=True, timeout=60)


@pytest.mark.parametrize(
    "path", ["mirror/../state/keys/signing", "mirror/%2e%2e/state", "models/../../state/keys/signing", "state/", "../"]
)
def test_nothing_outside_is_read(served: Served, tmp_path: Path, path: str) -> None:
    """No way of writing a path leads out of public/."""
    done = rsync("-aL", f"{served.url}/{path}", tmp_path / "got/")

    assert done.returncode != 0
    assert not list((tmp_path / "got").rglob("*")) if (tmp_path / "got").exists() else True


def test_a_symlink_that_leads_out_leads_nowhere(served: Served, tmp_path: Path) -> None:
    """Even one in the tree itself, relative or absolute, in every module."""
    secret = served.root / "state" / "keys" / "signing"
    for name, target in {"a": "../state/keys/signing", "b": str(secret), "c": "/etc/hostname"}.items():
        (served.root / "public" / name).symlink_to(target)
        (served.root / "public/latest/models" / name).symlink_to(target if target[0] == "/" else f"../../{target}")
    for module in ("mirror", "models"):
        rsync("-aL", "--exclude=/blobs", f"{served.url}/{module}/", tmp_path / module)

        assert read_folder(tmp_path / module)
        assert not any((tmp_path / module / name).exists() for name in "abc")


def test_nothing_is_written(served: Served, tmp_path: Path) -> None:
    """The server refuses to take files, and to hash all blobs for a client."""
    (tmp_path / "new").write_text("x")

    assert "read only" in rsync(tmp_path / "new", f"{served.url}/mirror/").stderr
    assert "checksum" in rsync("-ac", f"{served.url}/mirror/", tmp_path / "copy").stderr
    assert not (served.root / "public/new").exists()


# Runs where /dev is a folder of its own: prints what a rsyncd says to syslog, of which the first word is the priority.
_HEARING = """\
import os, socket, subprocess, sys, threading, time
subprocess.run(["mount", "-t", "tmpfs", "none", "/dev"], check=True)
for name, minor in (("null", 3), ("zero", 5), ("urandom", 9)):
    os.mknod("/dev/" + name, 0o020666, os.makedev(1, minor))
log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
log.bind("/dev/log")
said = []

def hear():
    while True:
        said.append(log.recv(65536).decode())

threading.Thread(target=hear, daemon=True).start()
rsync, config, port, *asked = sys.argv[1:]
command = [rsync, "--daemon", "--no-detach", "--address=127.0.0.1", "--port=" + port, "--config=" + config]
server = subprocess.Popen(command)
try:
    while not all(word in " ".join(said) for word in ("rsync on mirror", "unknown module")):
        for url in asked:
            subprocess.run([rsync, url], capture_output=True)
        time.sleep(0.05)
finally:
    server.terminate()
    server.wait()
print(*said, sep="\\n")
"""


def test_who_asks_for_a_private_name_is_logged_for_few(tmp_path: Path) -> None:
    """What rsyncd says, of a module or of none, has syslog's facility for what is not for everybody (10)."""
    root, port = tmp_path / "root", free_port()
    (root / "public").mkdir(parents=True)
    install(Modules(root, private=True), tmp_path / "etc")
    asked = [f"rsync://127.0.0.1:{port}/{path}/" for path in ("mirror/models/acme/hush-model", "hush-model")]
    command = ["unshare", "--mount", sys.executable, "-c", _HEARING, program("rsync"), f"{tmp_path}/etc/rsyncd.conf"]
    said = subprocess.run([*command, str(port), *asked], capture_output=True, text=True, timeout=60, check=True).stdout
    lines = re.findall(r"^<(\d+)>(.*)$", said, re.MULTILINE)

    assert {int(priority) >> 3 for priority, _ in lines} == {10}
    assert ["hush-model" in line for _, line in lines].count(True) >= 2
