"""The author of an upstream's content: a working clone in which git and git-lfs commit and push for real."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.servers.process import ServerError, program

LFS_PATTERNS = ("*.safetensors", "*.bin", "*.gguf", "*.onnx", "*.pt", "*.pth", "*.h5", "*.parquet", "*.zip")


@dataclass(frozen=True, slots=True)
class Change:
    """What one commit does.

    `files` maps paths to content: bytes, a file to copy, or None to delete. `tag` makes an annotated tag.
    `force` puts the commit in the place of the branch's last one instead of after it.
    """

    files: Mapping[str, bytes | Path | None]
    branch: str = "main"
    tag: str | None = None
    message: str = "Update"
    lfs: Sequence[str] = LFS_PATTERNS
    force: bool = False


class Author:
    """A working clone in `folder` that pushes to the git-LFS repository at `url`."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        if not folder.is_dir():
            self._clone()
        self.git("config", "remote.origin.url", url)

    def commit(self, change: Change) -> str:
        """Commit and push `change`; the commit's id."""
        self._switch(change.branch)
        self._write(change)
        self.git("add", "--all")
        amend = ["--amend"] if change.force else []
        self.git("commit", "--quiet", "--allow-empty", "--message", change.message, *amend)
        if change.tag:
            self.git("tag", "--annotate", "--force", "--message", change.message, change.tag)
        self._push(f"refs/heads/{change.branch}", *([f"refs/tags/{change.tag}"] if change.tag else []))
        return self.commit_of("HEAD")

    def branch(self, name: str, at: str) -> None:
        """Make the branch `name`, or move it, by force, to the commit or ref `at`."""
        if self.git("symbolic-ref", "HEAD") == f"refs/heads/{name}":
            self.git("reset", "--quiet", "--hard", at)
        else:
            self.git("branch", "--force", "--no-track", name, at)
        self._push(f"refs/heads/{name}")

    def tag(self, name: str, at: str, *, annotated: bool) -> None:
        """Make the tag `name`, or move it, by force, to the commit or ref `at`."""
        kind = ["--annotate", "--message", f"Tag {name}"] if annotated else []
        self.git("tag", "--force", *kind, name, at)
        self._push(f"refs/tags/{name}")

    def delete(self, full_ref: str) -> None:
        """Delete `refs/heads/…` or `refs/tags/…` on the upstream."""
        self.git("push", "--quiet", "--no-verify", "origin", f":{full_ref}")
        if self.git("symbolic-ref", "HEAD") != full_ref:
            self.git("update-ref", "-d", full_ref)

    def commit_of(self, ref: str) -> str:
        """The commit that `ref` names."""
        return self.git("rev-parse", "--verify", f"{ref}^{{commit}}")

    def git(self, *words: str) -> str:
        """Run git in the clone; its output without the last line's end. Raises ServerError."""
        return run_git("-C", str(self.folder), *words)

    def _clone(self) -> None:
        run_git("init", "--quiet", "--initial-branch=main", str(self.folder))
        self.git("lfs", "install", "--local")
        for key, value in _CLONE_SETTINGS.items():
            self.git("config", key, value)

    def _switch(self, branch: str) -> None:
        if self.git("symbolic-ref", "HEAD") == f"refs/heads/{branch}":
            return
        exists = self.git("for-each-ref", f"refs/heads/{branch}")
        self.git("switch", "--quiet", *([] if exists else ["--create"]), branch)

    def _write(self, change: Change) -> None:
        if change.lfs and ".gitattributes" not in change.files:
            lines = [f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in change.lfs]
            (self.folder / ".gitattributes").write_text("".join(lines))
        for path, content in change.files.items():
            self._write_file(self.folder / path, content)

    def _write_file(self, path: Path, content: bytes | Path | None) -> None:
        if content is None:
            path.unlink()
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            shutil.copy(content, path)
        else:
            path.write_bytes(content)

    def _push(self, *refs: str) -> None:
        self.git("push", "--quiet", "--force", "origin", *(f"{ref}:{ref}" for ref in refs))


def run_git(*words: str) -> str:
    """Run git without the user's and the machine's settings. Raises ServerError."""
    done = subprocess.run(
        [program("git"), *words],
        env=_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        raise ServerError(f"git {' '.join(words)}: status {done.returncode}: {done.stderr.decode(errors='replace')}")
    return done.stdout.decode().rstrip("\n")


def _environment() -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    env |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0"}
    for role in ("AUTHOR", "COMMITTER"):
        env |= {f"GIT_{role}_NAME": "Test Author", f"GIT_{role}_EMAIL": "author@example.com"}
    return env


_CLONE_SETTINGS = {
    "commit.gpgSign": "false",
    "core.autocrlf": "false",
    "gc.auto": "0",
    "lfs.concurrenttransfers": "8",
    "lfs.locksverify": "false",
    "lfs.setlockablereadonly": "false",
}
