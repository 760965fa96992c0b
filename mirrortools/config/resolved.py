"""What the rest of the program sees of a configuration: frozen values, every default filled in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal
from urllib.parse import unquote, urlsplit

from mirrortools.errors import ConfigError
from mirrortools.model import Realm, RepoId

# 1 Mbit/s: a model of 10 GB would take a day.
DEFAULT_MINIMUM_RATE_BYTES_S: Final = 125_000
Use = Literal["failover", "together"]
ForcePush = Literal["refuse", "accept"]


@dataclass(frozen=True, slots=True)
class Source:
    """A place to pull from. `url` has no trailing slash and no credentials; the token is in `token_file`.

    `max_parallel` is how many connections a run has to it at a time; None: no fewer than in all. A source that brings
    less than its minimum rate, over all its connections, is left when there is another one. A backup is asked when the
    source fails, or together with it.
    """

    url: str
    token_file: Path | None = None
    ca_file: Path | None = None
    max_parallel: int | None = None
    minimum_rate_bytes_s: int = DEFAULT_MINIMUM_RATE_BYTES_S
    use: Use = "failover"

    @property
    def scheme(self) -> str:
        """One of http, https, ssh, file, dir."""
        return urlsplit(self.url).scheme

    def __str__(self) -> str:
        return self.url


@dataclass(frozen=True, slots=True)
class Tls:
    """HTTPS: paths on the host that serves. `hsts_s` is None when browsers are not told to come by HTTPS alone."""

    certificate: Path
    key: Path
    listen: str
    hsts_s: int | None = None
    acme: Path | None = None


@dataclass(frozen=True, slots=True)
class EdgeConfig:
    """A host that serves a copy: `url` is `ssh://user@host:port/root` or `file:///root`.

    `http` is where clients reach it; None for files means what ssh uses by itself. Other edges reach it at `relay_host`
    (None: the host of the url) and one of `relay_ports`, both included (None: any). Those of one `region` are near each
    other; it is empty when none was named.
    `repositories` and `exclude_repositories` are fnmatch patterns of names, `include` and `exclude` of paths, as a
    repository has them. It gets private repositories when it is `private` and they name it.
    """

    name: str
    url: str
    http: str | None
    identity_file: Path | None
    known_hosts: Path | None
    listen: str
    rate_limit_bytes_s: int | None = None
    repositories: tuple[str, ...] = ("*",)
    exclude_repositories: tuple[str, ...] = ()
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    quota_bytes: int | None = None
    min_free_bytes: int = 0
    incoming_limit_bytes: int | None = None
    relay_host: str | None = None
    relay_ports: tuple[int, int] | None = None
    tls: Tls | None = None
    git_socket: Path | None = None
    private: bool = False
    region: str = ""

    @property
    def is_partial(self) -> bool:
        """Whether it may have a part of a repository's files only."""
        return self.include != ("*",) or bool(self.exclude)

    @property
    def scheme(self) -> str:
        """`ssh` or `file`."""
        return urlsplit(self.url).scheme

    @property
    def user(self) -> str | None:
        """The account on the edge, if the URL names one."""
        return urlsplit(self.url).username

    @property
    def host(self) -> str:
        """The host's name or address; empty for `file`."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int | None:
        """The port of sshd, if the URL names one."""
        return urlsplit(self.url).port

    @property
    def root(self) -> Path:
        """The root of the mirror on that host."""
        return Path(unquote(urlsplit(self.url).path))


@dataclass(frozen=True, slots=True)
class RepositoryConfig:
    """One repository to mirror, with the job's and the main file's values filled in.

    `revisions` are ref names, fnmatch patterns of ref names, or commits of 40 hexadecimal digits. `include`
    and `exclude` are fnmatch patterns of whole paths, in which `*` crosses slashes. `edges` are names of
    `Config.edges`. Hot ones are looked at and fetched before all others. `mirrors` are the URLs at which clients
    reach the edges and then the origin, as far as they are known. A private one is served to the users among `readers`
    alone; that it exists is told to all whom a token names when it is gated.
    """

    repo: RepoId
    job: str
    source: Source
    backup_source: Source | None
    revisions: tuple[str, ...] = ("main",)
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    edges: tuple[str, ...] = ()
    force_push: ForcePush = "refuse"
    hot: bool = False
    mirrors: tuple[str, ...] = ()
    private: bool = False
    readers: tuple[str, ...] = ()
    gated: bool = False

    @property
    def realm(self) -> Realm:
        """Where it is served from."""
        return Realm.PRIVATE if self.private else Realm.PUBLIC


@dataclass(frozen=True, slots=True)
class Job:
    """One configuration file's repositories and how often they are synced. `path` is that file."""

    name: str
    path: Path
    sync_interval_s: int
    repositories: tuple[RepositoryConfig, ...]


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that was configured; `path` is the main file, `http` where clients reach this host.

    `max_parallel` is None for `auto`, `request_budget` (questions a host and 5 minutes) for `unlimited`, and
    `delivery_limit_bytes_s`, for all deliveries of a run together, when there is no limit.
    """

    path: Path
    root: Path
    listen: str
    sync_interval_s: int
    max_parallel: int | None
    minimum_rate_bytes_s: int
    min_free_bytes: int
    request_budget: int | None
    seeds: tuple[Path, ...]
    http: str | None
    edges: Mapping[str, EdgeConfig]
    jobs: Mapping[str, Job]
    delivery_limit_bytes_s: int | None = None
    tls: Tls | None = None
    git_socket: Path | None = None

    @property
    def has_private(self) -> bool:
        """Whether any repository is for its readers alone."""
        return any(repository.private for repository in self.repositories())

    @property
    def has_metalinks(self) -> bool:
        """Whether clients' way to any host is known, so that metalinks can name it."""
        return any(repository.mirrors for repository in self.repositories())

    def repositories(self) -> tuple[RepositoryConfig, ...]:
        """Every repository of every job, in the order of the files."""
        return tuple(repository for job in self.jobs.values() for repository in job.repositories)

    def repository(self, repo: RepoId) -> RepositoryConfig:
        """What is configured for `repo`. Raises ConfigError."""
        known = {str(repository.repo): repository for repository in self.repositories()}
        if str(repo) not in known:
            hint = did_you_mean(str(repo), known) or "; name it in a job (conf.d/*.yaml)"
            raise ConfigError(f"no job has the repository {repo}{hint}")
        return known[str(repo)]

    def job(self, name: str) -> Job:
        """The job called `name`. Raises ConfigError."""
        if name not in self.jobs:
            raise ConfigError(f"there is no job {name!r}{did_you_mean(name, self.jobs)}")
        return self.jobs[name]

    def edge(self, name: str) -> EdgeConfig:
        """The edge called `name`. Raises ConfigError."""
        if name not in self.edges:
            raise ConfigError(f"there is no edge {name!r}{did_you_mean(name, self.edges)}")
        return self.edges[name]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the nearest known word, or `; known: a, b` when none is near."""
    import difflib

    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known: {', '.join(names)}" if 0 < len(names) <= 16 else ""
