"""Small public files that tell others what this mirror has: `.mirror/status.json`, `edges.json`, `trace/<host>`.

A trace file holds one line of the time (UTC) and then `Key: value` lines, as Debian's mirror network has them.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from mirrortools import __version__
from mirrortools.config import Config
from mirrortools.files import make_folder, write_file, write_json
from mirrortools.state import State
from mirrortools.store import write_error


def announce(config: Config, state: State, refs: Mapping[str, Mapping[str, str]], now: float) -> None:
    """Write the public files anew. `refs` has what is served: repository → full ref name → commit.

    Raises StoreError, NoSpace.
    """
    folder = config.root / "public" / ".mirror"
    edges = {name: edge.http for name, edge in sorted(config.edges.items()) if edge.http}
    status = {"now": now, "repositories": list(_repositories(state, refs))}
    try:
        make_folder(folder / "trace")
        write_json(folder / "status.json", status)
        write_json(folder / "edges.json", {"edges": edges})
        write_file(trace_file(config.root), trace(len(refs), now).encode())
    except OSError as error:
        raise write_error(folder, error) from error


def _repositories(state: State, refs: Mapping[str, Mapping[str, str]]) -> Iterable[dict[str, object]]:
    for repo, published in sorted(refs.items()):
        known = state.repository(repo)
        yield {
            "repo": repo,
            "refs": dict(published),
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
        f"Running on host: {platform.node()}",
        f"Repositories: {repositories}",
    ]
    return "\n".join(lines) + "\n"


def trace_file(root: Path) -> Path:
    """Where this host's trace lies."""
    return root / "public" / ".mirror" / "trace" / (platform.node() or "localhost")
