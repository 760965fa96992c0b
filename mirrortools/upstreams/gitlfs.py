"""A git repository with LFS on http(s), ssh or this host's disk: the form that model hubs have."""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mirrortools.config import Source
from mirrortools.errors import AccessDenied, ConfigError, SourceUnavailable
from mirrortools.model import Blob, RepoId
from mirrortools.upstreams.base import ByteSource, Reader, RemoteRefs
from mirrortools.upstreams.git import GitMirror, Remote
from mirrortools.upstreams.http import Credential, HttpClient, origin_of
from mirrortools.upstreams.lfs import LfsBytes, LfsServer
from mirrortools.upstreams.local import FileBytes

_SSH_TIMEOUT_S = 30


class GitLfs:
    """One repository of a git-LFS host, pulled into `mirror`."""

    def __init__(self, source: Source, repo: RepoId, mirror: GitMirror, client: HttpClient) -> None:
        self.name = f"{source.url}/{repo.url_path}"
        self._mirror = mirror
        self._source = source
        self._client = client
        self._credential = _credential(source)
        self._bytes: ByteSource | None = None

    def refs(self) -> RemoteRefs:
        """The refs as they are now: one `ls-remote`. Raises UpstreamError."""
        return self._mirror.remote_refs(self._remote())

    def bring(self, refs: Mapping[str, str], commits: Collection[str]) -> None:
        """Fetch git's objects. Raises UpstreamError."""
        self._mirror.fetch(self._remote(), refs, commits)

    def prepare(self, blobs: Sequence[Blob]) -> None:
        """Say which blobs will be asked for, in which order."""
        self._byte_source().prepare(blobs)

    def open(self, blob: Blob, start: int, stop: int) -> AbstractContextManager[Reader]:
        """Read the bytes [start, stop) of an LFS blob. Raises UpstreamError."""
        return self._byte_source().open(blob, start, stop)

    def _remote(self) -> Remote:
        settings: dict[str, str] = {}
        if self._credential:
            scheme, host, port = self._credential.origin
            scope = f"http.{scheme}://{host}:{port}/"
            settings[f"{scope}.extraHeader"] = f"Authorization: {self._credential.authorization}"
            # git sends such a header along when it is redirected, to whomever.
            settings["http.followRedirects"] = "false"
        if self._source.ca_file:
            settings["http.sslCAInfo"] = str(self._source.ca_file)
        return Remote(self.name, settings)

    def _byte_source(self) -> ByteSource:
        if self._bytes is None:
            self._bytes = self._make_byte_source()
        return self._bytes

    def _make_byte_source(self) -> ByteSource:
        scheme = urlsplit(self.name).scheme
        if scheme == "file":
            folder = Path(unquote(urlsplit(self.name).path))
            return FileBytes(self.name, lambda blob: _lfs_file(folder, blob))
        if scheme == "ssh":
            return LfsBytes(authenticate_over_ssh(self.name), self._client)
        return LfsBytes(LfsServer(f"{self.name}.git/info/lfs", self._credential), self._client)


def _credential(source: Source) -> Credential | None:
    if source.token_file is None:
        return None
    try:
        token = source.token_file.read_text().strip()
    except OSError as error:
        raise ConfigError(f"{source.token_file}: {error.strerror} (token_file of {source.url})") from error
    user_and_token = base64.b64encode(f"mirrortool:{token}".encode()).decode()
    return Credential(origin_of(source.url), f"Basic {user_and_token}")


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
    parts = urlsplit(url)
    target = f"{parts.username}@{parts.hostname}" if parts.username else str(parts.hostname)
    port = ["-p", str(parts.port)] if parts.port else []
    command = ["ssh", "-oBatchMode=yes", "-oConnectTimeout=20", *port, "--", target]
    command += ["git-lfs-authenticate", parts.path.removeprefix("/"), "download"]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SSH_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise SourceUnavailable(f"{url}: no answer over ssh within {_SSH_TIMEOUT_S} s") from error
    if done.returncode:
        raise AccessDenied(f"{url}: git-lfs-authenticate: {done.stderr.decode(errors='replace').strip()}")
    with contextlib.suppress(ValueError, KeyError, TypeError):
        answer = json.loads(done.stdout)
        return LfsServer(str(answer["href"]), headers=dict(answer.get("header") or {}))
    raise SourceUnavailable(f"{url}: git-lfs-authenticate gave no address: {done.stdout[:200]!r}")
