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
    fewer: int = 1
    options: Sequence[str] = ("--json",)

    def commands(self, farm: Farm, published: Published, edges: Sequence[str]) -> Sequence[Sequence[str]]:
        """One process for all edges, and for all repositories, or one in `fewer`."""
        repos = [published.repo, *published.others][:: self.fewer]
        config = farm.configure(repos, farm.edge_forms(edges, **self.more))
        return [[str(MIRRORTOOL), "--config", str(config), "deliver", "--all", *self.options]]

    def is_there(self, farm: Farm, published: Published, edge: str) -> bool:
        """Whether the edge shows the revision."""
        return _shows(farm.edge_root(edge), published)

    def check(self, farm: Farm, published: Published, edge: str) -> None:
        """Hash the blobs on the edge."""
        _check(farm.edge_root(edge) / "public", published)


@dataclass(frozen=True, slots=True)
class Fetching:
    """`mirrortool sync` from a source: with the edges, with the edges afterwards, or without."""

    name: str
    about: str
    verbs: Sequence[Sequence[str]]
    delivers: bool = True

    def commands(self, farm: Farm, published: Published, edges: Sequence[str]) -> Sequence[Sequence[str]]:
        """One process after the other."""
        config = farm.configure([published.repo], farm.edge_forms(edges))
        runs = [shlex.join([str(MIRRORTOOL), "--config", str(config), *verb, "--all", "--json"]) for verb in self.verbs]
        return [["sh", "-c", " && ".join(runs)]]

    def is_there(self, farm: Farm, published: Published, edge: str) -> bool:
        """Whether the edge shows the revision; the origin, when nothing goes to edges."""
        return _shows(self._root(farm, edge), published)

    def check(self, farm: Farm, published: Published, edge: str) -> None:
        """Hash the blobs there."""
        _check(self._root(farm, edge) / "public", published)

    def _root(self, farm: Farm, edge: str) -> Path:
        return farm.edge_root(edge) if self.delivers else farm.root


@dataclass(frozen=True, slots=True)
class Star:
    """rsync over ssh to each edge at once, with ssh's own choice of a cipher; nothing is verified."""

    name: str = "rsync-star"
    about: str = "`rsync` over ssh to each edge at once, with ssh's default cipher; nothing is verified there"

    def commands(self, farm: Farm, published: Published, edges: Sequence[str]) -> Sequence[Sequence[str]]:
        """One rsync for each edge."""
        names = farm.folder / "names"
        names.write_text("\n".join(published.blobs))
        ssh = shlex.join(_ssh(farm))
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


@dataclass(frozen=True, slots=True)
class Delta:
    """rsync of the changed file over the older one: made beside it of both, then renamed."""

    name: str = "rsync-delta"
    about: str = "`rsync -a --no-whole-file` of the repository's files over the older ones, not in place"

    def commands(self, farm: Farm, published: Published, edges: Sequence[str]) -> Sequence[Sequence[str]]:
        """One rsync for each edge, over what the edge shows as files of their names."""
        commands = []
        for edge in edges:
            for path in _refs(farm.edge_root(edge), published).rglob("*"):
                if path.is_file():
                    place = self._place(farm, edge) / path.relative_to(_refs(farm.edge_root(edge), published))
                    place.parent.mkdir(parents=True, exist_ok=True)
                    place.hardlink_to(path.resolve())
            target = f"root@{farm.network[edge].address}:{self._place(farm, edge)}/"
            words = ["rsync", "-a", "-L", "--ignore-times", "--no-whole-file", f"--rsh={shlex.join(_ssh(farm))}"]
            commands.append([*words, f"{_refs(farm.root, published)}/", target])
        return commands

    def is_there(self, farm: Farm, published: Published, edge: str) -> bool:
        """Whether each file has the time of the newer one, which rsync gives it before it renames it."""
        return all(_same_time(path, there) for path, there in self._files(farm, published, edge))

    def check(self, farm: Farm, published: Published, edge: str) -> None:
        """Hash the files on the edge."""
        for path, there in self._files(farm, published, edge):
            if sha256(there) != sha256(path):
                raise WrongBytes(f"{there}: has other content on the edge")

    def _files(self, farm: Farm, published: Published, edge: str) -> list[tuple[Path, Path]]:
        here = _refs(farm.root, published)
        return [(p, self._place(farm, edge) / p.relative_to(here)) for p in here.rglob("*") if p.is_file()]

    def _place(self, farm: Farm, edge: str) -> Path:
        return farm.edge_root(edge) / "files"


@dataclass(frozen=True, slots=True)
class TreeSync:
    """rsync of all that is served, as mirrors of file trees do it."""

    name: str = "rsync-tree"
    about: str = "`rsync -a --delete` of the whole tree; nothing is verified there"

    def commands(self, farm: Farm, published: Published, edges: Sequence[str]) -> Sequence[Sequence[str]]:  # noqa: ARG002
        """One rsync for each edge."""
        words = ["rsync", "-a", "--delete", f"--rsh={shlex.join(_ssh(farm))}", f"{farm.root}/public/"]
        targets = (f"root@{farm.network[edge].address}:{farm.edge_root(edge)}/public/" for edge in edges)
        return [[*words, target] for target in targets]

    def is_there(self, farm: Farm, published: Published, edge: str) -> bool:
        """Whether the edge shows the revision."""
        return _shows(farm.edge_root(edge), published)

    def check(self, farm: Farm, published: Published, edge: str) -> None:
        """Hash the blobs on the edge."""
        _check(farm.edge_root(edge) / "public", published)


@dataclass(frozen=True, slots=True)
class Login:
    """One login that does next to nothing: less no delivery can take."""

    name: str = "ssh-login"
    about: str = "`ssh EDGE touch FILE`"

    def commands(self, farm: Farm, published: Published, edges: Sequence[str]) -> Sequence[Sequence[str]]:  # noqa: ARG002
        """One ssh for each edge."""
        return [
            [*_ssh(farm), f"root@{farm.network[edge].address}", "touch", str(farm.edge_root(edge) / "touched")]
            for edge in edges
        ]

    def is_there(self, farm: Farm, published: Published, edge: str) -> bool:  # noqa: ARG002
        """Whether the file is there."""
        return (farm.edge_root(edge) / "touched").exists()

    def check(self, farm: Farm, published: Published, edge: str) -> None:
        """Nothing was brought."""


def _ssh(farm: Farm) -> list[str]:
    """Ssh with its own choice of a cipher."""
    options = (f"-oIdentityFile={farm.network.identity_file}", f"-oUserKnownHostsFile={farm.network.known_hosts}")
    return ["ssh", "-F", "none", "-oBatchMode=yes", *options]


def _refs(root: Path, published: Published) -> Path:
    """What a root shows as `main`."""
    return root / "public" / RepoId.parse(published.repo).path / "refs" / "main"


def _shows(root: Path, published: Published) -> bool:
    with suppress(OSError):
        return _refs(root, published).readlink().name == published.commit
    return False


def _same_time(path: Path, other: Path) -> bool:
    with suppress(OSError):
        return path.stat().st_mtime_ns == other.stat().st_mtime_ns
    return False


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
