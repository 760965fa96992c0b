"""Ways to bring a repository to edges, and what is done to the edges meanwhile."""

from __future__ import annotations

import shlex
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from bench.case import DidNotRun, WrongBytes, environment, sha256
from bench.content import MIB
from bench.farm import MIRRORTOOL, Farm, Published
from mirrortools.model import RepoId

_LOOK_S: Final = 0.01
_TIMEOUT_S: Final = 600


@dataclass(frozen=True, slots=True)
class Sample:
    """One run: its time, the seconds after which each edge had all, and the bytes that left the origin."""

    wall_s: float
    edges_s: Mapping[str, float]
    sent_bytes: int


class Carrier(Protocol):
    """One way to bring what is published to edges."""

    @property
    def name(self) -> str: ...
    @property
    def about(self) -> str: ...

    def commands(self, farm: Farm, published: Published, edges: Sequence[str]) -> Sequence[Sequence[str]]:
        """What to run on the origin, all at once."""

    def is_there(self, farm: Farm, published: Published, edge: str) -> bool:
        """Whether an edge has all."""

    def check(self, farm: Farm, published: Published, edge: str) -> None:
        """See that every byte is right. Raises WrongBytes."""


@dataclass(frozen=True, slots=True)
class Ours:
    """`mirrortool deliver`."""

    name: str = "ours"
    about: str = "`mirrortool deliver`: from its start until an edge shows the revision, which it has hashed"
    more: Mapping[str, Any] = field(default_factory=dict)

    def commands(self, farm: Farm, published: Published, edges: Sequence[str]) -> Sequence[Sequence[str]]:
        """One process for all edges."""
        config = farm.configure([published.repo], farm.edge_forms(edges, **self.more))
        return [[str(MIRRORTOOL), "--config", str(config), "deliver", "--all", "--json"]]

    def is_there(self, farm: Farm, published: Published, edge: str) -> bool:
        """Whether the edge shows the revision."""
        link = farm.edge_root(edge) / "public" / RepoId.parse(published.repo).path / "refs" / "main"
        with suppress(OSError):
            return link.readlink().name == published.commit
        return False

    def check(self, farm: Farm, published: Published, edge: str) -> None:
        """Hash the blobs on the edge."""
        _check(farm.edge_root(edge) / "public", published)


@dataclass(frozen=True, slots=True)
class Star:
    """rsync over ssh to each edge at once, with ssh's own choice of a cipher; nothing is verified."""

    name: str = "rsync-star"
    about: str = "`rsync` over ssh to each edge at once, with ssh's default cipher; nothing is verified there"

    def commands(self, farm: Farm, published: Published, edges: Sequence[str]) -> Sequence[Sequence[str]]:
        """One rsync for each edge."""
        names = farm.folder / "names"
        names.write_text("\n".join(published.blobs))
        options = (f"-oIdentityFile={farm.network.identity_file}", f"-oUserKnownHostsFile={farm.network.known_hosts}")
        ssh = shlex.join(["ssh", "-F", "none", "-oBatchMode=yes", *options])
        commands = []
        for edge in edges:
            (farm.edge_root(edge) / "public").mkdir(parents=True)
            target = f"root@{farm.network[edge].address}:{farm.edge_root(edge)}/public/"
            sources = ["--whole-file", f"--files-from={names}", f"{farm.root}/public/"]
            commands.append(["rsync", "-a", f"--rsh={ssh}", *sources, target])
        return commands

    def is_there(self, farm: Farm, published: Published, edge: str) -> bool:
        """Whether each blob has its name: rsync renames it when it is whole."""
        return all((farm.edge_root(edge) / "public" / path).exists() for path in published.blobs)

    def check(self, farm: Farm, published: Published, edge: str) -> None:
        """Hash the blobs on the edge."""
        _check(farm.edge_root(edge) / "public", published)


def _check(public: Path, published: Published) -> None:
    for path in published.blobs:
        if path.startswith("blobs/sha256") and sha256(public / path) != Path(path).name:
            raise WrongBytes(f"{path}: has other content on the edge")


@dataclass(frozen=True, slots=True)
class Trouble:
    """What happens to an edge: `act` when so much of the time of all bytes at full speed has gone by."""

    edge: str
    at_share: float
    act: Callable[[Farm, str], None]


def run(
    farm: Farm,
    carrier: Carrier,
    published: Published,
    edges: Sequence[str],
    troubles: Sequence[Trouble] = (),
    ideal_s: float = 0.0,
) -> Sample:
    """Bring what is published to empty edges, and measure. Raises DidNotRun, WrongBytes.

    Edges that are in trouble may fail; how they fare is told all the same.
    """
    commands = carrier.commands(farm, published, edges)
    env = environment(farm.folder)
    log = (farm.folder / f"{carrier.name}.log").open("wb")
    before_bytes, began_s = farm.sent_bytes(), time.monotonic()
    children = [
        subprocess.Popen(farm.origin.command(words), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env)
        for words in commands
    ]
    timers = [threading.Timer(t.at_share * ideal_s, t.act, (farm, t.edge)) for t in troubles]
    for timer in timers:
        timer.start()
    try:
        edges_s = _watch(farm, carrier, published, edges, children, began_s)
    finally:
        for timer in timers:
            timer.cancel()
        for child in children:
            child.kill()
            child.wait()
        log.close()
    wall_s, sent_bytes = time.monotonic() - began_s, farm.sent_bytes() - before_bytes
    in_trouble = {trouble.edge for trouble in troubles}
    if missing := [edge for edge in edges if edge not in edges_s and edge not in in_trouble]:
        said = (farm.folder / f"{carrier.name}.log").read_text(errors="replace")[-2000:]
        raise DidNotRun(f"{', '.join(missing)} did not get all: {said}")
    for edge in edges_s:
        carrier.check(farm, published, edge)
    return Sample(wall_s, edges_s, sent_bytes)


def _watch(
    farm: Farm,
    carrier: Carrier,
    published: Published,
    edges: Sequence[str],
    children: Sequence[subprocess.Popen[bytes]],
    began_s: float,
) -> dict[str, float]:
    """After how many seconds each edge had all; until all children have ended."""
    edges_s: dict[str, float] = {}
    is_last = False
    while not is_last and time.monotonic() - began_s < _TIMEOUT_S:
        is_last = all(child.poll() is not None for child in children)
        for edge in edges:
            if edge not in edges_s and carrier.is_there(farm, published, edge):
                edges_s[edge] = time.monotonic() - began_s
        time.sleep(_LOOK_S)
    return edges_s


def touch(size_bytes: int, folder: Path) -> None:
    """Write and delete so much, so that the host has given us the memory before the clock runs."""
    path = folder / "touched"
    with path.open("wb", buffering=0) as file:
        for _ in range(size_bytes // MIB):
            file.write(bytes(MIB))
    path.unlink()
    subprocess.run(["sync", "-f", folder], check=True)
