"""Small public files that tell others what this mirror has: `.mirror/status.json`, `edges.json`, `trace/<host>`.

A trace file holds one line of the time (UTC) and then `Key: value` lines, as Debian's mirror network has them.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from mirrortools import __version__
from mirrortools.catalogue import Listed
from mirrortools.config import Config
from mirrortools.errors import StoreError
from mirrortools.files import make_folder, replace_file, write_file
from mirrortools.model import RepoId
from mirrortools.state import RepositoryState, State
from mirrortools.store import write_error


def announce(config: Config, state: State, listed: Sequence[Listed], now: float) -> None:
    """Write the public files anew, about repositories that may be very many. Raises StoreError, NoSpace."""
    folder = config.root / "public" / ".mirror"
    edges = {name: edge.http for name, edge in sorted(config.edges.items()) if edge.http}
    refs = {str(RepoId.parse(known.path)): known.refs for known in listed}
    known = state.repositories()
    abouts = (_about(known.get(repo, RepositoryState(repo)), refs[repo]) for repo in sorted(refs))
    try:
        make_folder(folder / "trace")
        # These two are about this moment: older ones are as true as they were, should a power cut bring them back.
        replace_file(folder / "status.json", _status(abouts, now))
        replace_file(trace_file(config.root), [trace(len(listed), now).encode()])
        _write_edges(folder / "edges.json", _compact({"edges": edges}))
    except OSError as error:
        raise write_error(folder, error) from error


def _compact(document: object) -> str:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def _write_edges(path: Path, text: str) -> None:
    """Say where the edges are, when it is not said yet."""
    with suppress(FileNotFoundError):
        if path.read_bytes() == text.encode():
            return
    write_file(path, text.encode())


def _status(repositories: Iterable[str], now: float) -> Iterator[bytes]:
    """The JSON of status.json, in pieces."""
    yield f'{{"now":{json.dumps(now)},"repositories":['.encode()
    separator = ""
    for text in repositories:
        yield f"{separator}{text}".encode()
        separator = ","
    yield b"]}"


def _about(known: RepositoryState, refs: str) -> str:
    """The JSON about one repository, with that of its refs. Raises StoreError when these are not known."""
    if not refs:
        raise StoreError(f"{known.repo}: the record of its refs is damaged; sync this repository again")
    times = {"status": known.status, "checked_at": known.checked_at, "published_at": known.published_at}
    return f'{{"repo":{json.dumps(known.repo)},"refs":{refs},{_compact(times)[1:]}'


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
