"""A git repository with LFS on http(s), ssh or this host's disk: the form that model hubs have."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from mirrortools.config import Source
from mirrortools.errors import AccessDenied, ConfigError, SourceMissing, SourceUnavailable, UpstreamError
from mirrortools.model import Blob, RepoId
from mirrortools.upstreams.answers import origin_of
from mirrortools.upstreams.base import ByteSource, RemoteRefs
from mirrortools.upstreams.git import SSH, GitMirror, Remote, remote_error
from mirrortools.upstreams.gitrefs import ask_refs
from mirrortools.upstreams.http import Credential, HttpClient
from mirrortools.upstreams.logins import login_of
from mirrortools.upstreams.program import run_program

if TYPE_CHECKING:
    from mirrortools.upstreams.lfs import LfsServer

# What the git program asks of a host, in requests (gitprotocol-v2): for its refs, and for objects by their ids.
REFS_QUESTIONS = 2
FETCH_QUESTIONS = 2
_SSH_TIMEOUT_S = 30
_SSH_FAILED = 255
_NO_SUCH_COMMAND = 127


class GitLfs:
    """One repository of a git-LFS host, pulled into `mirror`."""

    def __init__(self, source: Source, repo: RepoId, mirror: GitMirror, client: HttpClient) -> None:
        self.name = f"{source.url}/{repo.url_path}"
        self._mirror = mirror
        self._source = source
        self._client = client
        self._credential = _credential(source)

    def refs(self) -> RemoteRefs:
        """The refs as they are now: one request on http(s), an `ls-remote` elsewhere. Raises UpstreamError."""
        if self._source.scheme in ("http", "https"):
            return ask_refs(self._client, self.name, self._credential)
        with self._asking(REFS_QUESTIONS):
            return self._mirror.remote_refs(self._remote())

    def bring(self, refs: Mapping[str, str], commits: Collection[str]) -> None:
        """Fetch git's objects. Raises UpstreamError."""
        with self._asking(FETCH_QUESTIONS):
            self._mirror.fetch(self._remote(), refs, commits)

    def _asking(self, questions: int) -> AbstractContextManager[None]:
        parts = urlsplit(self.name)
        if parts.scheme == "file":
            return contextlib.nullcontext()
        return self._client.budget.asking(parts.netloc.rpartition("@")[2], questions)

    def _remote(self) -> Remote:
        settings: dict[str, str] = {}
        if self._credential:
            scheme, host, port = self._credential.origin
            scope = f"http.{scheme}://{f'[{host}]' if ':' in host else host}:{port}/"
            settings[f"{scope}.extraHeader"] = f"Authorization: {self._credential.authorization}"
            # git sends such a header along when it is redirected, to whomever.
            settings["http.followRedirects"] = "false"
        if self._source.ca_file:
            settings["http.sslCAInfo"] = str(self._source.ca_file)
        return Remote(self.name, settings)

    @cached_property
    def bytes(self) -> ByteSource:
        """Where LFS content is; only news are worth loading what reads it."""
        from mirrortools.upstreams.lfs import LfsBytes, LfsServer
        from mirrortools.upstreams.local import FileBytes

        scheme = urlsplit(self.name).scheme
        if scheme == "file":
            folder = Path(unquote(urlsplit(self.name).path))
            return FileBytes(self.name, lambda blob: _open_lfs_file(folder, blob))
        if scheme == "ssh":
            return LfsBytes(self.name, lambda: authenticate_over_ssh(self.name), self._client)
        server = LfsServer(f"{self.name}.git/info/lfs", self._credential)
        return LfsBytes(self.name, lambda: server, self._client)


def _credential(source: Source) -> Credential | None:
    if source.token_file is None:
        return _login(source)
    try:
        token = source.token_file.read_text().strip()
    except (OSError, ValueError) as error:
        from mirrortools.access import reason

        why = reason(error) if isinstance(error, OSError) else "is not text"
        raise ConfigError(f"{source.token_file}: {why} (token_file of {source.url})") from error
    if not token:
        raise ConfigError(f"{source.token_file}: is empty; write the token into it (token_file of {source.url})")
    if source.scheme not in ("http", "https"):
        raise ConfigError(f"{source.url}: takes no token_file; {source.scheme} sources know no tokens")
    return _basic(source, "mirrortool", token)


def _login(source: Source) -> Credential | None:
    """What the user's ~/.netrc has for a source's host."""
    if source.scheme not in ("http", "https"):
        return None
    found = login_of(origin_of(source.url)[1])
    return _basic(source, *found) if found else None


def _basic(source: Source, user: str, password: str) -> Credential:
    import base64

    text = base64.b64encode(f"{user}:{password}".encode()).decode()
    return Credential(origin_of(source.url), f"Basic {text}")


def _open_lfs_file(folder: Path, blob: Blob) -> int | None:
    from mirrortools.upstreams.local import open_regular

    path = _lfs_file(folder, blob)
    return None if path is None else open_regular(path)


def _lfs_file(folder: Path, blob: Blob) -> Path | None:
    digest = blob.digest
    for top in ("lfs", ".git/lfs"):
        for repository in (folder, folder.with_name(f"{folder.name}.git")):
            path = repository / top / "objects" / digest[:2] / digest[2:4] / digest
            if path.is_file():
                return path
    return None


def authenticate_over_ssh(url: str) -> LfsServer:
    """Ask an ssh host where its LFS server is (git-lfs/docs/api/server-discovery.md). Raises UpstreamError."""
    import shlex
    import subprocess

    from mirrortools.upstreams.lfs import LfsServer, expiry

    parts = urlsplit(url)
    target = f"{parts.username}@{parts.hostname}" if parts.username else str(parts.hostname)
    port = ["-p", str(parts.port)] if parts.port else []
    question = f"git-lfs-authenticate {shlex.quote(unquote(parts.path))} download"
    try:
        done = run_program([*SSH, *port, "--", target, question], timeout_s=_SSH_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise SourceUnavailable(f"{url}: no answer over ssh within {_SSH_TIMEOUT_S} s") from error
    if done.returncode:
        raise _refusal(url, done.returncode, done.stderr.decode(errors="replace").strip())
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):
        answer = json.loads(done.stdout)
        headers = {str(key): str(value) for key, value in (answer.get("header") or {}).items()}
        return LfsServer(str(answer["href"]).rstrip("/"), headers=headers, expires_at=expiry(answer))
    raise SourceUnavailable(f"{url}: git-lfs-authenticate gave no address: {done.stdout[:200]!r}")


def _refusal(url: str, status: int, text: str) -> UpstreamError:
    """What it means that `git-lfs-authenticate` failed."""
    if status == _SSH_FAILED:
        return remote_error(url, text)
    if status == _NO_SUCH_COMMAND:
        return SourceMissing(f"{url}: the host has no git-lfs-authenticate, so it tells of no LFS server: {text}")
    return AccessDenied(f"{url}: git-lfs-authenticate: {text or f'status {status}'}")
