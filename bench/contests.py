"""What the servers are asked for, and what is required of ours."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench import load
from bench.case import DidNotRun
from bench.content import MIB
from bench.hosts import REPO, SMALL, Host, hide, ours, plain, proxy, publish, publish_many
from bench.load import Rate
from bench.peers import HUB

Ask = Callable[[Host], Rate]


@dataclass(frozen=True, slots=True)
class Target:
    """`host` has to reach at least this share of what `against` reaches."""

    host: str
    against: str
    least: float


@dataclass(frozen=True, slots=True)
class Contest:
    """One question, put to each of `hosts` in turn."""

    name: str
    title: str
    unit: str
    hosts: Sequence[str]
    target: Target


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of everything: seconds a run, the large file's bytes, the numbers of repositories."""

    seconds: float = 2.0
    large_bytes: int = 1024 * MIB
    repositories: tuple[int, ...] = (1, 1000, 10_000)


OURS, PRIVATE, PLAIN, KEPT, OLAH = "ours", "ours-private", "plain", "plain-kept-open", "olah"
_HIDDEN = 100
ABOUT = {
    OURS: "nginx as `mirrortool serve` configures it",
    PRIVATE: f"the same on a mirror that has {_HIDDEN} private repositories too; what is asked for is public",
    PLAIN: "the same nginx, modules, log and files, without the Hub's protocol: nginx's own ETag, no commit",
    KEPT: "plain with the file cache that ours has where content names the file",
    OLAH: "olah as a caching proxy of ours, which has everything in its cache",
}
_REQUESTS, _BYTES = "requests/s", "MiB/s"
_ALL = (OURS, PLAIN, KEPT, OLAH)
_SMALL_SHARE, _LARGE_SHARE, _STEADY, _PRIVATE_SHARE = 0.4, 0.95, 0.9, 0.97


def contests(scale: Scale) -> list[Contest]:
    """All of them, in the report's order."""
    small = Target(OURS, PLAIN, _SMALL_SHARE)
    numbers = tuple(f"{count:,}" for count in scale.repositories)
    steady = Target(numbers[-1], numbers[0], _STEADY)
    plain_numbers = tuple(f"{PLAIN} {number}" for number in (numbers[0], numbers[-1]))
    any_of_many = Target(numbers[-1], plain_numbers[-1], _SMALL_SHARE)
    many = "in a tree of so many repositories"
    beside_private, beside = Target(PRIVATE, OURS, _PRIVATE_SHARE), "on a mirror with private repositories"
    return [
        Contest("get", f"GET of {SMALL} by the ref", _REQUESTS, _ALL, small),
        Contest("get-commit", f"GET of {SMALL} by the commit", _REQUESTS, _ALL, small),
        Contest("head", f"HEAD of {SMALL} by the ref", _REQUESTS, _ALL, small),
        Contest("head-commit", f"HEAD of {SMALL} by the commit", _REQUESTS, _ALL, small),
        Contest("get-private", f"GET of {SMALL} by the ref, {beside}", _REQUESTS, (OURS, PRIVATE), beside_private),
        Contest("head-private", f"HEAD of {SMALL} by the ref, {beside}", _REQUESTS, (OURS, PRIVATE), beside_private),
        Contest("tree", "GET of the recursive tree page", _REQUESTS, _ALL, small),
        Contest("large", "one large file by curl", _BYTES, (OURS, PLAIN, OLAH), Target(OURS, PLAIN, _LARGE_SHARE)),
        Contest("download", "the repository by huggingface_hub 2.4.0", _BYTES, (OURS, OLAH), Target(OURS, OLAH, 1.0)),
        Contest("resolve-of-many", f"GET of one {SMALL} by the ref, {many}", _REQUESTS, numbers, steady),
        Contest("tree-of-many", f"GET of one tree page, {many}", _REQUESTS, numbers, steady),
        Contest(
            "any-of-many",
            f"GET of any {SMALL} in random order, {many}",
            _REQUESTS,
            (*numbers, *plain_numbers),
            any_of_many,
        ),
    ]


class Field:
    """Where contests are held: the servers, started when a contest first needs them, and how each is asked."""

    def __init__(self, folder: Path, scale: Scale) -> None:
        self.folder = folder
        self.scale = scale
        self._running = ExitStack()
        self._hosts: dict[str, Host] = {}
        self._downloads = 0

    def __enter__(self) -> Field:
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def ask(self, contest: Contest, name: str) -> Rate:
        """Put the contest's question to a host. Raises DidNotRun."""
        if contest.name.endswith("-of-many"):
            return self._ask_many(contest.name.removesuffix("-of-many"), name)
        host = self._host(name)
        asks: Mapping[str, Ask] = {
            "get": lambda host: self._get(host, host.by_ref),
            "get-private": lambda host: self._get(host, host.by_ref),
            "head-private": lambda host: self._head(host, host.by_ref),
            "get-commit": lambda host: self._get(host, host.by_commit),
            "head": lambda host: self._head(host, host.by_ref),
            "head-commit": lambda host: self._head(host, host.by_commit),
            "tree": lambda host: self._get(host, host.tree),
            "large": lambda host: load.curl(host.at(host.large), host.pid, self.scale.large_bytes),
            "download": self._download,
        }
        return asks[contest.name](host)

    def _get(self, host: Host, path: str) -> Rate:
        return load.get(host.at(path), host.pid, self.scale.seconds)

    def _head(self, host: Host, path: str) -> Rate:
        return load.head(host.at(path), host.pid, self.scale.seconds)

    def _download(self, host: Host) -> Rate:
        self._downloads += 1
        folder = self.folder / f"download-{self._downloads}"
        folder.mkdir()
        try:
            return load.hub(HUB, host.url, REPO, host.pid, folder, self.scale.large_bytes)
        finally:
            shutil.rmtree(folder)

    def _ask_many(self, what: str, host_name: str) -> Rate:
        """`host_name` is a number of repositories, with `plain` before it where nginx alone is asked."""
        count = int(host_name.removeprefix(PLAIN).replace(",", ""))
        tree = self.folder / f"many-{count}"
        if not tree.exists():
            self._publish_many(tree, count)
        is_plain = host_name.startswith(PLAIN)
        if host_name not in self._hosts:
            place = self.folder / f"many-{count}-{PLAIN if is_plain else OURS}"
            self._hosts[host_name] = self._running.enter_context((plain if is_plain else ours)(tree, "", place))
        host = self._hosts[host_name]
        paths = tree.with_suffix(f".{PLAIN}" if is_plain else f".{what}")
        return load.get(host.url, host.pid, self.scale.seconds, paths)

    @staticmethod
    def _publish_many(tree: Path, count: int) -> None:
        names = publish_many(tree, count)
        commit = next((tree / "public" / "models" / names[0] / "commits").iterdir()).name
        paths = {
            "resolve": [f"/{names[-1]}/resolve/main/{SMALL}"],
            "tree": [f"/api/models/{names[-1]}/tree/main"],
            "any": [f"/{repo}/resolve/main/{SMALL}" for repo in names],
            PLAIN: [f"/models/{repo}/commits/{commit}/{SMALL}" for repo in names],
        }
        for kind, listed in paths.items():
            tree.with_suffix(f".{kind}").write_text("\n".join(listed) + "\n")

    def _host(self, name: str) -> Host:
        if not self._hosts.keys() & {OURS}:
            self._start()
        if name == OLAH and OLAH not in self._hosts:
            source = self._hosts[OURS]
            self._hosts[OLAH] = host = self._running.enter_context(proxy(source, self.folder / "proxy"))
            for path in (host.by_ref, host.by_commit, host.large, host.tree):
                load.fetch(host.at(path))
        return self._hosts[name]

    def _start(self) -> None:
        root = self.folder
        commit = publish(root, self.scale.large_bytes)
        nginx = root / "state"
        enter = self._running.enter_context
        self._hosts[OURS] = enter(ours(root, commit, nginx / "ours"))
        hide(root, _HIDDEN)
        self._hosts[PRIVATE] = enter(ours(root, commit, nginx / "ours-private", private=True))
        self._hosts[PLAIN] = enter(plain(root, commit, nginx / "plain"))
        self._hosts[KEPT] = enter(plain(root, commit, nginx / "kept-open", keeps_open=True))


@dataclass(slots=True)
class Outcome:
    """What became of a host in a contest: a rate for each round, or why there is none."""

    rates: list[Rate]
    problem: str = ""


def hold(contest: Contest, field: Field, rounds: int, tell: Callable[[str], None]) -> dict[str, Outcome]:
    """All rounds of a contest, each host once in each of them."""
    outcomes = {name: Outcome([]) for name in contest.hosts}
    for _ in range(rounds):
        for name, outcome in outcomes.items():
            if outcome.problem:
                continue
            try:
                rate = field.ask(contest, name)
            except DidNotRun as error:
                outcome.problem = str(error)
                tell(f"    {name:16} {error}")
                continue
            outcome.rates.append(rate)
            tell(f"    {name:16} {rate.per_s:12,.0f} {contest.unit} {rate.server_us:10.2f} µs")
    return outcomes
