"""`scripts/clients`: run the whole matrix and write docs/clients.md."""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from bench import environments
from tests.clients import MORE_VENVS, PROJECT
from tests.matrix import loaders
from tests.matrix.cells import Cell
from tests.matrix.hub import VERSIONS
from tests.matrix.places import World, world
from tests.matrix.report import report
from tests.matrix.runs import CLIENTS, run_all, stops
from tests.matrix.versions import version_of
from tests.servers import GitLfsUpstream, Sshd

_REQUIREMENTS = Path(__file__).parent / "requirements"


def main() -> int:
    """Run what was asked for; 1 when a cell is not as expected."""
    options = _options()
    for version in VERSIONS:
        file = _REQUIREMENTS / f"hub-{version}.txt"
        if file.exists():
            environments.make(file.stem, file, MORE_VENVS, alone=True)
    loaders.prepare()
    chosen = [stop for stop in stops(whole=True) if re.search(options.only, str(stop))]
    started = time.monotonic()
    cells: list[Cell] = []
    with _world() as (places, scratch):
        for stop, found in zip(chosen, run_all(places, scratch, chosen), strict=True):
            cells += found
            bad = [cell for cell in found if cell.surprise]
            print(f"{stop}: {len(found)} cells", *(f"\n  {cell.operation}: {_said(cell)}" for cell in bad), flush=True)
    if options.only:
        print("docs/clients.md is written by whole runs alone")
    else:
        options.output.write_text(report(CLIENTS, cells, _about(time.monotonic() - started)))
    if options.json:
        options.json.write_text(json.dumps([asdict(cell) for cell in cells], ensure_ascii=False, indent=1))
    return 1 if any(cell.surprise for cell in cells) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/clients", description=__doc__)
    parser.add_argument("--only", default="", metavar="PATTERN", help="stops to make, such as 'git.* at edge'")
    parser.add_argument("--output", type=Path, default=PROJECT / "docs" / "clients.md", metavar="FILE")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every cell there too")
    return parser.parse_args()


@contextmanager
def _world() -> Iterator[tuple[World, Path]]:
    with tempfile.TemporaryDirectory(prefix="clients-") as name:
        folder = Path(name)
        with (
            GitLfsUpstream(folder / "upstream") as upstream,
            Sshd(folder / "sshd") as sshd,
            world(folder / "world", upstream, sshd, whole=True) as places,
        ):
            yield places, folder


def _said(cell: Cell) -> str:
    return cell.error or f"works, and should not; {cell.note}"


def _about(duration_s: float) -> Iterator[str]:
    git = ["git", "-C", str(PROJECT), "describe", "--always", "--dirty=, changed", "--abbrev=12", "--exclude=*"]
    commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    today = datetime.datetime.now(datetime.UTC).date()
    yield f"{today}, commit {commit}, {duration_s:.0f} s"
    programs = [
        version_of("nginx", "-v"),
        version_of("git"),
        version_of("git-lfs"),
        f"Python {platform.python_version()}",
    ]
    yield f"the servers: {', '.join(programs)}"


if __name__ == "__main__":
    sys.exit(main())
