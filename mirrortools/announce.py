"""Small public files that tell others what this mirror has: `.mirror/status.json`, `edges.json`, `trace/<host>`.

A trace file holds one line of the time (UTC) and then `Key: value` lines, as Debian's mirror network has them.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from mirrortools import __version__
from mirrortools.config import Config
from mirrortools.files import make_folder, replace_file, write_file
from mirrortools.model import RepoId
from mirrortools.state import State
from mirrortools.store import write_error

Refs = Callable[[RepoId], Mapping[str, str]]
"""The refs that are served of a repository: full name → commit."""


def announce(config: Config, state: State, repos: Collection[RepoId], refs: Refs, now: float) -> None:
    """Write the public files anew, about repositories that may be very many. Raises StoreError, NoSpace."""
    folder = config.root / "public" / ".mirror"
    edges = {name: edge.http for name, edge in sorted(config.edges.items()) if edge.http}
    listed = (_about(repo, refs(repo), state) for repo in sorted(repos, key=str))
    try:
        make_folder(folder / "trace")
        # These two are about this moment: older ones are as true as they were, should a power cut bring them back.
        replace_file(folder / "status.json", _status(listed, now))
        replace_file(trace_file(config.root), [trace(len(repos), now).encode()])
        _write_edges(folder / "edges.json", json.dumps({"edges": edges}, ensure_ascii=False, separators=(",", ":")))
    except OSError as error:
        raise write_error(folder, error) from error


def _write_edges(path: Path, text: str) -> None:
    """Say where the edges are, when it is not said yet."""
    with suppress(FileNotFoundError):
        if path.read_bytes() == text.encode():
            return
    write_file(path, text.encode())


def _status(repositories: Iterable[Mapping[str, object]], now: float) -> Iterator[bytes]:
    """The JSON of status.json, in pieces."""
    yield f'{{"now":{json.dumps(now)},"repositories":['.encode()
    separator = ""
    for document in repositories:
        yield f"{separator}{json.dumps(document, ensure_ascii=False, separators=(',', ':'))}".encode()
        separator = ","
    yield b"]}"


def _about(repo: RepoId, refs: Mapping[str, str], state: State) -> dict[str, object]:
    known = state.repository(str(repo))
    return {
        "repo": known.repo,
        "refs": dict(refs),
        "status": known.status,
        "checked_at": known.checked_at,
        "published_at": known.published_at,
    }


def trace(repositories: int, now: float) -> str:
    """The text of a trace file."""
    lines = [
        time.strftime("%a %b %d %H:%M:%S UTC %Y", time.gmtime(now)),
        f"Date: {time.strftime('%a, %d %b %Y %H:%M:%S +0000', time.gmtime(now))}",
        f"Used-By: mirrortools {__version__}",
        f"Running on host: {os.uname().nodename}",
        f"Repositories: {repositories}",
    ]
    return "\n".join(lines) + "\n"


def trace_file(root: Path) -> Path:
    """Where this host's trace lies."""
    return root / "public" / ".mirror" / "trace" / (os.uname().nodename or "localhost")
