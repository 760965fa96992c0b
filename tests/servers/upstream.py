"""A git-LFS host: git-http-backend and giftless behind nginx, with the URL scheme of the Hub."""

from __future__ import annotations

import socket
import tempfile
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from string import Template

from tests.servers.access_log import LOG_FORMAT, AccessLog, Request
from tests.servers.author import LFS_PATTERNS, Author, Change, run_git
from tests.servers.faults import Faults
from tests.servers.front import Front
from tests.servers.nginx import Nginx, user_directive
from tests.servers.ports import free_port
from tests.servers.process import Process, ServerError, Startable, program

PROJECT = Path(__file__).parents[2]
GIFTLESS = PROJECT / ".venvs" / "giftless" / "bin" / "waitress-serve"


class GitLfsUpstream(Faults, Startable):
    """A git-LFS host on loopback with everything in `folder`.

    A repository is `org/name` or `datasets/org/name`; it is made by its first commit. `url` is what a
    configuration names as `source`.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder.resolve()
        self.port, self._author_port, self.elsewhere_port = free_port(), free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = AccessLog(self.folder / "access.log", self._settle)
        self._authors: dict[str, Author] = {}
        self._flipped: dict[str, set[int]] = {}
        self._running = ExitStack()

    # What it holds

    def commit(
        self,
        repo: str,
        files: Mapping[str, bytes | Path | None],
        *,
        branch: str = "main",
        tag: str | None = None,
        message: str = "Update",
        lfs: Sequence[str] = LFS_PATTERNS,
        force: bool = False,
    ) -> str:
        """Commit and push `files` (path → bytes, a file to copy, or None to delete); the commit's id.

        `tag` makes an annotated tag. `force` replaces the branch's last commit instead of following it.
        Files that match a pattern of `lfs` go through git-LFS.
        """
        return self.author(repo).commit(Change(files, branch, tag, message, lfs, force))

    def branch(self, repo: str, name: str, at: str) -> None:
        """Make the branch `name`, or move it by force, to the commit or ref `at`, which may be an older one."""
        self.author(repo).branch(name, at)

    def tag(self, repo: str, name: str, at: str, *, annotated: bool = True) -> None:
        """Make the tag `name`, or move it by force, to the commit or ref `at`."""
        self.author(repo).tag(name, at, annotated=annotated)

    def delete(self, repo: str, full_ref: str) -> None:
        """Delete `refs/heads/…` or `refs/tags/…`."""
        self.author(repo).delete(full_ref)

    def commit_of(self, repo: str, ref: str) -> str:
        """The commit that `ref` names in the author's clone."""
        return self.author(repo).commit_of(ref)

    def author(self, repo: str) -> Author:
        """The working clone of `repo`; the repository is made when there is none."""
        if repo not in self._authors:
            self._make_repository(repo)
            self._authors[repo] = Author(self.folder / "authors" / repo, f"{self._author_url}/{repo}")
        return self._authors[repo]

    def repository(self, repo: str) -> Path:
        """The bare repository of `repo`."""
        return self.folder / "git" / f"{repo}.git"

    def objects(self, oid: str) -> list[Path]:
        """The files that hold the LFS object `oid`, one for each repository that has it."""
        return sorted((self.folder / "storage").rglob(oid))

    # What it was asked for

    def requests(self) -> list[Request]:
        """The clients' requests since the last `forget`, oldest first; the author's are not among them."""
        return self.log.requests()

    def lfs_bytes(self) -> int:
        """How many bytes of LFS content were sent since the last `forget`.

        When a client broke off, what lay in the sockets' buffers counts as sent (about 200 KB).
        """
        return self._sent("bytes")

    def git_bytes(self) -> int:
        """How many bytes git was sent since the last `forget`."""
        return self._sent("git")

    def forget(self) -> None:
        """Begin to count anew."""
        self.log.forget()

    # What is wrong with it

    def corrupt(self, oid: str, offset: int = 0) -> None:
        """Flip the byte at `offset` of a stored LFS object."""
        self._flip(oid, offset)
        self._flipped.setdefault(oid, set()).symmetric_difference_update({offset})

    def lose(self, oid: str) -> None:
        """Forget a stored LFS object: the batch API and the byte route answer 404."""
        for path in self._stored(oid):
            path.rename(path.with_name(f"{oid}.lost"))

    def restore(self, oid: str) -> None:
        """Undo `corrupt` and `lose`."""
        for path in self.objects(f"{oid}.lost"):
            path.rename(path.with_suffix(""))
        for offset in self._flipped.pop(oid, set()):
            self._flip(oid, offset)

    def heal(self) -> None:
        """Undo every fault, damaged and lost objects among them."""
        super().heal()
        for oid in [*self._flipped, *(path.stem for path in self.objects("*.lost"))]:
            self.restore(oid)

    # Life

    def start(self) -> None:
        """Start the servers and wait until they answer. Raises ServerError, and then none runs."""
        with ExitStack() as starting:
            sockets = Path(starting.enter_context(tempfile.TemporaryDirectory(prefix="up-", dir="/tmp")))
            giftless = self._giftless(sockets / "lfs")
            for process in (giftless, *self._git_backends(sockets / "git", starting)):
                starting.callback(process.stop)
                process.launch()
            giftless.wait_until((sockets / "lfs").exists)
            self._front = starting.enter_context(self._new_front(sockets / "front"))
            starting.enter_context(self._nginx(sockets))
            self._running = starting.pop_all()

    def stop(self) -> None:
        """End the servers, as when the host is down; `start` brings it back, healed, at the same URL."""
        self._running.close()

    @property
    def _author_url(self) -> str:
        return f"http://127.0.0.1:{self._author_port}"

    def _settle(self) -> None:
        with urllib.request.urlopen(f"{self._author_url}/.settle", timeout=30) as answer:
            answer.read()

    def _sent(self, route: str) -> int:
        return sum(request.body_bytes for request in self.requests() if request.route == route)

    def _stored(self, oid: str) -> list[Path]:
        paths = self.objects(oid)
        if not paths:
            raise ServerError(f"{self.url} holds no LFS object {oid}")
        return paths

    def _flip(self, oid: str, offset: int) -> None:
        for path in self._stored(oid):
            with path.open("r+b") as file:
                file.seek(offset)
                byte = file.read(1)[0]
                file.seek(offset)
                file.write(bytes([byte ^ 0xFF]))

    def _make_repository(self, repo: str) -> None:
        path = self.repository(repo)
        if path.is_dir():
            return
        run_git("init", "--quiet", "--bare", "--initial-branch=main", str(path))
        for key in ("http.receivepack", "uploadpack.allowFilter", "uploadpack.allowAnySHA1InWant"):
            run_git("-C", str(path), "config", key, "true")

    def _giftless(self, path: Path) -> Process:
        if not GIFTLESS.is_file():
            raise ServerError(f"{GIFTLESS} is missing; run scripts/setup")
        config = self.folder / "giftless.yaml"
        config.write_text(Template(_GIFTLESS_CONFIG).substitute(folder=self.folder))
        command: list[str | Path] = [GIFTLESS, f"--unix-socket={path}", "--threads=8", "giftless.wsgi_entrypoint:app"]
        return Process(command, self.folder / "giftless.log", {"GIFTLESS_CONFIG_FILE": str(config)})

    def _git_backends(self, path: Path, stack: ExitStack) -> list[Process]:
        """One fcgiwrap for each request at a time; they share the listening socket as their standard input."""
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(path))
        listener.listen(128)
        log = self.folder / "git.log"
        return [Process([program("fcgiwrap"), "-f"], log, stdin=listener.fileno()) for _ in range(4)]

    def _new_front(self, path: Path) -> Front:
        flag = self.folder / "faulty"
        flag.unlink(missing_ok=True)
        return Front(path, self.folder / "storage" / "lfs", flag)

    def _nginx(self, sockets: Path) -> Nginx:
        values = {
            "user": user_directive(),
            "folder": self.folder,
            "sockets": sockets,
            "log_format": LOG_FORMAT,
            "port": self.port,
            "author_port": self._author_port,
            "elsewhere_port": self.elsewhere_port,
            "git_http_backend": Path(run_git("--exec-path")) / "git-http-backend",
        }
        folder = self.folder / "nginx"
        folder.mkdir(exist_ok=True)
        (folder / "routes.conf").write_text(_filled("routes.conf", values))
        return Nginx(_filled("upstream.conf", values), folder, [self.port, self._author_port])


class _Percent(Template):
    """A template whose variables are written %{name}, because nginx's own are $name."""

    delimiter = "%"


def _filled(template: str, values: Mapping[str, object]) -> str:
    return _Percent(Path(__file__).with_name(template).read_text()).substitute(values)


_GIFTLESS_CONFIG = """\
AUTH_PROVIDERS: ["giftless.auth.allow_anon:read_write"]
LEGACY_ENDPOINTS: false
PRE_AUTHORIZED_ACTION_PROVIDER:
  options: {private_key: "signs the links of a test's upstream", default_lifetime: 900}
TRANSFER_ADAPTERS:
  basic:
    factory: giftless.transfer.basic_streaming:factory
    options:
      storage_class: giftless.storage.local_storage:LocalStorage
      storage_options: {path: "$folder/storage"}
      action_lifetime: 900
"""
