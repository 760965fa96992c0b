"""A host that knows nothing of git: nginx serves bare repositories as plain files (gitprotocol-http, "dumb")."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.servers.author import run_git
from tests.servers.nginx import Nginx, user_directive
from tests.servers.ports import free_port


class DumbHost:
    """Serves what lies in `folder`/git until the `with` block ends; `bytes_per_s` paces each answer."""

    def __init__(self, folder: Path, bytes_per_s: int = 0) -> None:
        self.folder = folder / "git"
        self.folder.mkdir(parents=True)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        text = _CONFIG.format(folder=folder, port=self.port, rate=bytes_per_s, user=user_directive())
        self._nginx = Nginx(text, folder / "nginx", [self.port])

    def show(self, repo: str, work: Path) -> Path:
        """Serve a copy of the working repository `work` as `repo`, as it is now; the bare repository."""
        bare = self.folder / repo
        shutil.rmtree(bare, ignore_errors=True)
        shutil.copytree(work / ".git", bare)
        run_git("--git-dir", str(bare), "config", "core.bare", "true")
        run_git("--git-dir", str(bare), "update-server-info")
        return bare

    def __enter__(self) -> Self:
        self._nginx.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._nginx.stop()


_CONFIG = """\
{user}
worker_processes 1;
pid {folder}/nginx/nginx.pid;
events {{ }}
http {{
    access_log off;
    default_type text/plain;
    client_body_temp_path {folder}/nginx/body;
    proxy_temp_path {folder}/nginx/proxy;
    fastcgi_temp_path {folder}/nginx/fastcgi;
    uwsgi_temp_path {folder}/nginx/uwsgi;
    scgi_temp_path {folder}/nginx/scgi;
    server {{
        listen 127.0.0.1:{port};
        root {folder}/git;
        limit_rate {rate};
    }}
}}
"""
