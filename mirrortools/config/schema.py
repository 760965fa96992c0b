"""What may stand in the configuration files, key by key, with a description and an example of each.

These classes are the form of the files; `resolved.py` has the values that the program works with.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Final, Literal, TypeVar
from urllib.parse import SplitResult, unquote, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)

from mirrortools.config.places import NAME
from mirrortools.config.quantities import parse_duration, parse_rate, parse_size
from mirrortools.config.resolved import DEFAULT_MINIMUM_RATE_BYTES_S
from mirrortools.errors import ConfigError, HostileTree
from mirrortools.model import RepoId, check_full_ref

SOURCE_SCHEMES: Final = ("http", "https", "ssh", "file", "dir")
EDGE_SCHEMES: Final = ("ssh", "file")
DEFAULT_LISTEN: Final = "0.0.0.0:80"
DEFAULT_TLS_LISTEN: Final = "0.0.0.0:443"
DEFAULT_INTERVAL_S: Final = 3600
DEFAULT_MIN_FREE_BYTES: Final = 1 << 30
DEFAULT_REQUESTS: Final = 500
LEAST_REQUESTS: Final = 10
Item = TypeVar("Item")
HOST: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\Z|[0-9A-Fa-f:]+(?:%[A-Za-z0-9]+)?\Z")
_PORTS: Final = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?\Z")
_LISTEN: Final = re.compile(r"(?:(?:\*|\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):)?(\d{1,5})\Z")


def check_url(text: str, schemes: tuple[str, ...]) -> str:
    """The URL without trailing slashes. Raises ValueError; its text never repeats a credential."""
    shown = re.sub(r"//.*@", "//…@", text)
    if any(character.isspace() or not character.isprintable() for character in text):
        raise ValueError("a URL has no spaces and no control characters")
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError as error:
        raise ValueError(f"{shown!r} is not a URL: a bracket or a port that is no number") from error
    if parts.scheme not in schemes:
        raise ValueError(f"expected a URL with {', '.join(f'{s}://' for s in schemes)}, got {shown!r}")
    _check_credentials(parts, shown)
    _check_place(parts, shown)
    return text.rstrip("/")


def _check_credentials(parts: SplitResult, shown: str) -> None:
    if parts.password is not None or (parts.username is not None and parts.scheme != "ssh"):
        raise ValueError(
            f"{shown}: credentials do not belong into a URL, where logs and process lists show them; "
            "write the token into a file that only you can read and name it: {url: …, token_file: /path}"
        )
    if parts.query or parts.fragment:
        raise ValueError(f"{shown.partition('?')[0].partition('#')[0]}: a URL with ? or # cannot be a base")


def _check_place(parts: SplitResult, shown: str) -> None:
    if parts.scheme in ("file", "dir"):
        if parts.hostname or not parts.path.strip("/"):
            raise ValueError(f"expected {parts.scheme}:///absolute/path, got {shown!r}")
    elif not parts.hostname or not HOST.match(parts.hostname):
        raise ValueError(f"expected a host after {parts.scheme}://, got {shown!r}")
    if ".." in PurePosixPath(unquote(parts.path)).parts:
        raise ValueError(f"write the path without '..', got {shown!r}")


def _source_url(text: str) -> str:
    return check_url(text, SOURCE_SCHEMES)


def _edge_url(text: str) -> str:
    url = check_url(text, EDGE_SCHEMES)
    if not urlsplit(url).path.strip("/"):
        raise ValueError(f"name the edge's root folder too: {url}/srv/mirrortools")
    return url


def _http_url(text: str) -> str:
    if set(text) & set("<>\"'"):
        raise ValueError(f"a URL that pages and metalinks name has no quotes and no angle brackets, got {text!r}")
    return check_url(text, ("http", "https"))


def _host(text: str) -> str:
    if not HOST.match(text):
        raise ValueError(f"expected the name or address of a host, got {text!r}")
    return text


def _ports(value: object) -> tuple[int, int]:
    match = _PORTS.match(str(value))
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 0 < first <= last < 65536:
        raise ValueError(f"expected ports such as 42000-42099, got {value!r}")
    return first, last


def _requests(value: object) -> int | None:
    if value == "unlimited":
        return None
    if isinstance(value, str) and value.isascii() and value.isdigit() and int(value) >= LEAST_REQUESTS:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= LEAST_REQUESTS:
        return value
    raise ValueError(f"expected a number of {LEAST_REQUESTS} or more, or unlimited, got {value!r}")


def _file(path: Path) -> Path:
    if not str(path).isprintable():
        raise ValueError(f"a path without control characters is needed, got {str(path)!r}")
    return path


def _root(path: Path) -> Path:
    _file(path)
    if not path.is_absolute() or ".." in path.parts or path == Path("/"):
        raise ValueError(f"expected an absolute path such as /srv/mirrortools, got {str(path)!r}")
    return path


def _listen(text: str) -> str:
    match = _LISTEN.match(text)
    if match is None or not 0 < int(match.group(1)) < 65536:
        raise ValueError(f"expected address:port such as 0.0.0.0:80 or [::]:80, got {text!r}")
    return text if ":" in text else f"0.0.0.0:{text}"


def _repo(text: str) -> str:
    try:
        return str(RepoId.parse(text))
    except ConfigError as error:
        raise ValueError(str(error)) from error


def _revision(text: str) -> str:
    name = text if text.startswith("refs/") else f"refs/heads/{text}"
    try:
        check_full_ref(re.sub(r"[*?\[\]!]", "x", name))
    except HostileTree as error:
        raise ValueError(f"expected a branch, tag, pattern such as 'v*', or commit, got {text!r}") from error
    return text


def _pattern(text: str) -> str:
    if not text or text.startswith("/") or "\\" in text:
        raise ValueError(f"expected a pattern of paths inside the repository such as '*.json', got {text!r}")
    return text + "*" if text.endswith("/") else text


def _name(text: str) -> str:
    if not NAME.match(text):
        raise ValueError(f"a name is made of letters, digits, '.', '_' and '-', got {text!r}")
    return text


def _parallel(value: Any) -> int | None:
    if value == "auto":
        return None
    if not re.fullmatch(r"[0-9]{1,2}", str(value)) or not 1 <= int(value) <= 64:
        raise ValueError(f"expected a number from 1 to 64, or auto, got {value!r}")
    return int(value)


def _not_empty(values: tuple[Item, ...]) -> tuple[Item, ...]:
    # pydantic's own min_length also speaks up when the only item is wrong, which says the same thing twice.
    if not values:
        raise ValueError("the list is empty; name at least one, or leave the key out")
    return values


_TEXT_OR_NUMBER: Final = WithJsonSchema({"type": ["string", "integer"]})
Size = Annotated[int, BeforeValidator(parse_size), _TEXT_OR_NUMBER]
Rate = Annotated[int, BeforeValidator(parse_rate), _TEXT_OR_NUMBER]
Duration = Annotated[int, BeforeValidator(parse_duration), _TEXT_OR_NUMBER]
Parallel = Annotated[
    int | None,
    BeforeValidator(_parallel),
    WithJsonSchema({"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 1, "maximum": 64}]}),
]
Requests = Annotated[
    int | None,
    BeforeValidator(_requests),
    WithJsonSchema({"anyOf": [{"const": "unlimited"}, {"type": "integer", "minimum": 10}]}),
]
FilePath = Annotated[Path, AfterValidator(_file)]
AbsolutePath = Annotated[Path, AfterValidator(_root)]
SourceUrl = Annotated[str, AfterValidator(_source_url)]
Listen = Annotated[str, AfterValidator(_listen), _TEXT_OR_NUMBER]
Name = Annotated[str, AfterValidator(_name)]
RepoName = Annotated[str, AfterValidator(_repo)]
Revisions = Annotated[tuple[Annotated[str, AfterValidator(_revision)], ...], AfterValidator(_not_empty)]
Patterns = tuple[Annotated[str, AfterValidator(_pattern)], ...]


def _or_text(schema: dict[str, Any]) -> None:
    """Say in a JSON Schema that plain text may stand for the mapping."""
    mapping = {key: schema.pop(key) for key in list(schema) if key not in ("title", "description")}
    schema["anyOf"] = [{"type": "string"}, mapping]


class _Form(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True, hide_input_in_errors=True)


class SourceForm(_Form):
    """A place to pull from: its URL, or a mapping with the files that it needs."""

    model_config = ConfigDict(json_schema_extra=_or_text)

    url: SourceUrl = Field(
        description="Where repositories lie: <url>/<org>/<name>, datasets below <url>/datasets/. "
        "http, https, ssh, file or dir (a folder of model files without git).",
        examples=["https://huggingface.co", "dir:///srv/own-models"],
    )
    token_file: FilePath | None = Field(
        default=None,
        description="File with the access token; not readable by others. Relative to this file. Without it a source on "
        "http(s) is asked with the login that ~/.netrc has for its very host, if it has one.",
        examples=["/etc/mirrortools/hub.token"],
    )
    ca_file: FilePath | None = Field(
        default=None,
        description="Certificates (PEM) to trust for this source instead of the system's.",
        examples=["/etc/mirrortools/company-ca.pem"],
    )
    max_parallel: Parallel = Field(
        default=None,
        description="Connections to this source at a time, over all repositories of a run: 1 to 64, or auto, which is "
        "the max_parallel of the main file.",
        examples=[4],
    )
    minimum_rate: Rate | None = Field(
        default=None,
        description="What this source must bring at least, all its connections together; one that stays under it for "
        "30 s is left for another source, when there is one. As in the job or the main file when left out.",
        examples=["5Mbit"],
    )

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return {"url": value} if isinstance(value, str) else value


class BackupForm(SourceForm):
    """A second place to pull bytes from."""

    use: Literal["failover", "together"] = Field(
        default="failover",
        description="failover: asked when the source fails. together: asked for a part of large files beside the "
        "source, as long as both bring clearly more than the source alone.",
        examples=["together"],
    )


class SourcesForm(_Form):
    """What the main file, a job and a repository have in common."""

    source: SourceForm | None = Field(
        default=None,
        description="The source to pull from. It alone decides what a ref means.",
        examples=["https://huggingface.co", {"url": "https://huggingface.co", "token_file": "hub.token"}],
    )
    backup_source: BackupForm | None = Field(
        default=None,
        description="Asked for bytes when the source fails; never decides a ref. A job or repository with a "
        "source of its own does not inherit a backup_source, so that private names are never asked of a public one.",
        examples=["https://hf-mirror.example"],
    )


_PRIVATE: Final = (
    "Serve it to its readers alone, from the root's private/. It goes to those edges alone that are named for it and "
    "say `private: true` themselves."
)
_READERS: Final = "Who may read what is private: users, as `mirrortool token add` names them, and groups."
_GATED: Final = (
    "Tell that it exists to everybody whom a token names: who is no reader gets 403 GatedRepo instead of 404."
)
_HOT: Final = "Look at it and fetch it before all that is not hot, whatever its size."


class RepositoryForm(SourcesForm):
    """A repository to mirror: its name, or a mapping."""

    model_config = ConfigDict(json_schema_extra=_or_text)

    repo: RepoName = Field(
        description="org/name for a model, datasets/org/name for a dataset.",
        examples=["Qwen/Qwen2-7B", "datasets/squad"],
    )
    revisions: Revisions = Field(
        default=("main",),
        description="Branches, tags, fnmatch patterns of them, full names (refs/pr/1), or commits of 40 digits.",
        examples=[["main", "v*"]],
    )
    include: Annotated[Patterns, AfterValidator(_not_empty)] = Field(
        default=("*",),
        description="fnmatch patterns of the files to mirror; * crosses slashes, a last / means the folder.",
        examples=[["*.safetensors", "*.json"]],
    )
    exclude: Patterns = Field(
        default=(), description="fnmatch patterns of the files to leave out.", examples=[["*.bin", "onnx/"]]
    )
    edges: tuple[Name, ...] | None = Field(
        default=None,
        description="Names of the edges to deliver to; all when left out, none when private.",
        examples=[["bj1"]],
    )
    force_push: Literal["refuse", "accept"] | None = Field(
        default=None,
        description="What to do when the source moves a ref to an unrelated or older commit.",
        examples=["accept"],
    )
    hot: bool | None = Field(default=None, description=f"{_HOT} As in the job when left out.", examples=[True])
    private: bool | None = Field(default=None, description=f"{_PRIVATE} As in the job when left out.", examples=[True])
    readers: tuple[Name, ...] | None = Field(
        default=None, description=f"{_READERS} As in the job when left out.", examples=[["alice"]]
    )
    gated: bool | None = Field(default=None, description=f"{_GATED} As in the job when left out.", examples=[True])

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return {"repo": value} if isinstance(value, str) else value


_Repositories = Annotated[tuple[RepositoryForm, ...], AfterValidator(_not_empty)]
_REPOSITORY_EXAMPLES: Final[list[Any]] = [["Qwen/Qwen2-7B", {"repo": "datasets/squad", "revisions": ["main"]}]]


class TlsForm(_Form):
    """HTTPS beside plain HTTP."""

    certificate: AbsolutePath = Field(
        description="The certificate with those of its authorities, as PEM, on the host that serves.",
        examples=["/etc/letsencrypt/live/mirror.example/fullchain.pem"],
    )
    key: AbsolutePath = Field(
        description="The certificate's private key, as PEM, on the host that serves.",
        examples=["/etc/letsencrypt/live/mirror.example/privkey.pem"],
    )
    listen: Listen = Field(
        default=DEFAULT_TLS_LISTEN, description="What to listen on for HTTPS.", examples=["0.0.0.0:443", "[::]:8443"]
    )
    hsts: Duration | None = Field(
        default=None,
        description="For how long browsers are told to come by HTTPS alone; they are not told when left out.",
        examples=["365d"],
    )
    acme: AbsolutePath | None = Field(
        default=None,
        description="Folder in which an ACME client (certbot --webroot) puts its answers, served over plain HTTP.",
        examples=["/var/www/acme"],
    )


_TLS_EXAMPLES: Final[list[Any]] = [{"certificate": "/etc/ssl/mirror.pem", "key": "/etc/ssl/private/mirror.key"}]
_GIT_SOCKET: Final = (
    "Socket of fcgiwrap, with which git-http-backend answers git's smart protocol (shallow clones, small fetches); "
    "without it git clones over the dumb one."
)


class EdgeForm(_Form):
    """A host that serves a copy."""

    url: Annotated[str, AfterValidator(_edge_url)] = Field(
        description="How to deliver: ssh://user@host:port/root, or file:///root for a folder on this host.",
        examples=["ssh://mirror@bj1.example:22/srv/mirrortools"],
    )
    http: Annotated[str, AfterValidator(_http_url)] | None = Field(
        default=None, description="Where clients reach the edge.", examples=["https://bj1.example"]
    )
    identity_file: FilePath | None = Field(
        default=None,
        description="Private key for ssh; what ssh uses by itself when left out.",
        examples=["/etc/mirrortools/id_ed25519"],
    )
    known_hosts: FilePath | None = Field(
        default=None,
        description="File with the edge's host key; what ssh uses by itself when left out.",
        examples=["/etc/mirrortools/known_hosts"],
    )
    listen: Listen | None = Field(
        default=None,
        description="What the generated nginx of the edge listens on; as at the top level when left out.",
        examples=["0.0.0.0:80"],
    )
    tls: TlsForm | None = Field(
        default=None, description="HTTPS on the edge, beside plain HTTP.", examples=_TLS_EXAMPLES
    )
    git_socket: AbsolutePath | None = Field(default=None, description=_GIT_SOCKET, examples=["/run/fcgiwrap.socket"])
    rate_limit: Rate | None = Field(
        default=None,
        description="The most that a delivery to this edge may send, and that it may pass on to others.",
        examples=["100Mbit"],
    )
    relay_host: Annotated[str, AfterValidator(_host)] | None = Field(
        default=None,
        description="Where other edges and the origin reach its relay; the host of the url when left out.",
        examples=["10.1.2.3"],
    )
    relay_ports: Annotated[tuple[int, int], BeforeValidator(_ports), WithJsonSchema({"type": "string"})] | None = Field(
        default=None,
        description="Ports of this edge that others may connect to during a delivery; any when left out.",
        examples=["42000-42099"],
    )
    region: Name | None = Field(
        default=None,
        description="Edges of one region feed each other; what is new comes into the region once. Those that name none "
        "are one region.",
        examples=["asia"],
    )
    repositories: Annotated[Patterns, AfterValidator(_not_empty)] = Field(
        default=("*",),
        description="fnmatch patterns of the repositories that this edge may have (org/name, datasets/org/name).",
        examples=[["Qwen/*", "datasets/squad"]],
    )
    exclude_repositories: Patterns = Field(
        default=(), description="fnmatch patterns of repositories that it never gets.", examples=[["*/*-72B*"]]
    )
    include: Annotated[Patterns, AfterValidator(_not_empty)] = Field(
        default=("*",),
        description="fnmatch patterns of the files that it gets of each repository; it then lists no others.",
        examples=[["*.safetensors", "*.json"]],
    )
    exclude: Patterns = Field(
        default=(), description="fnmatch patterns of the files that it does not get.", examples=[["*.bin"]]
    )
    private: bool = Field(
        default=False,
        description="Whether it may have private repositories: those that name it in their `edges`, and their readers.",
        examples=[True],
    )
    quota: Size | None = Field(
        default=None,
        description="The most that it may hold. A repository that would go beyond it is left out; hot ones come first, "
        "then the newest.",
        examples=["500GiB"],
    )
    min_free: Size = Field(
        default=DEFAULT_MIN_FREE_BYTES,
        description="Disk space that a delivery always leaves free there.",
        examples=["10GiB"],
    )
    incoming_limit: Size | None = Field(
        default=None,
        description="The most that may lie in the edge's state/incoming, where it was provisioned; what is free there, "
        "less min_free, when left out.",
        examples=["200GiB"],
    )


class JobForm(SourcesForm):
    """One file of conf.d: repositories, and what they have in common."""

    sync_interval: Duration | None = Field(
        default=None, description="Time between two syncs of this job.", examples=["1h", 3600]
    )
    minimum_rate: Rate | None = Field(
        default=None,
        description="What the sources of this job must bring at least, unless they say otherwise.",
        examples=["5Mbit"],
    )
    edges: tuple[Name, ...] | None = Field(
        default=None,
        description="Edges for the repositories that name none; all when left out, none when private.",
        examples=[["bj1"]],
    )
    hot: bool = Field(default=False, description=f"{_HOT} For the repositories that do not say.", examples=[True])
    private: bool = Field(default=False, description=_PRIVATE, examples=[True])
    readers: tuple[Name, ...] = Field(default=(), description=_READERS, examples=[["alice", "team-vision"]])
    gated: bool = Field(default=False, description=_GATED, examples=[True])
    repositories: _Repositories = Field(description="What to mirror.", examples=_REPOSITORY_EXAMPLES)


class MainForm(SourcesForm):
    """mirrortool.yaml."""

    root: Annotated[Path, AfterValidator(_root)] = Field(
        description="Where everything lies; public/ below it is served.", examples=["/srv/mirrortools"]
    )
    sync_interval: Duration = Field(
        default=DEFAULT_INTERVAL_S,
        description="Time between two syncs, for jobs that name none.",
        examples=["1h", 3600],
    )
    max_parallel: Parallel = Field(
        default=None,
        description="Connections that bring bytes at the same time, over all sources and repositories of a run: 1 to "
        "64, or auto, which measures how many pay.",
        examples=["auto", 8],
    )
    minimum_rate: Rate = Field(
        default=DEFAULT_MINIMUM_RATE_BYTES_S,
        description="What a source must bring at least, all its connections together; one that stays under it for 30 s "
        "is left for another source, when there is one.",
        examples=["1Mbit"],
    )
    listen: Listen = Field(
        default=DEFAULT_LISTEN,
        description="What the generated nginx of this origin listens on.",
        examples=["0.0.0.0:80", "[::]:8080"],
    )
    http: Annotated[str, AfterValidator(_http_url)] | None = Field(
        default=None,
        description="Where clients reach this origin; metalinks name it behind the edges.",
        examples=["https://mirror.example"],
    )
    tls: TlsForm | None = Field(
        default=None, description="HTTPS on this origin, beside plain HTTP.", examples=_TLS_EXAMPLES
    )
    git_socket: AbsolutePath | None = Field(default=None, description=_GIT_SOCKET, examples=["/run/fcgiwrap.socket"])
    min_free: Size = Field(
        default=DEFAULT_MIN_FREE_BYTES,
        description="Disk space that a sync always leaves free.",
        examples=["10GiB"],
    )
    request_budget: Requests = Field(
        default=DEFAULT_REQUESTS,
        description="Questions (git, links) to a source's host in 5 minutes, by all runs together; or unlimited.",
        examples=[500, "unlimited"],
    )
    seeds: tuple[Annotated[Path, AfterValidator(_root)], ...] = Field(
        default=(),
        description="Folders of this host that are looked into before a source is asked for bytes: a root of "
        "mirrortools, a Hub cache, a folder with git-LFS objects.",
        examples=[["/var/cache/huggingface/hub", "/srv/old-mirror"]],
    )
    delivery_rate_limit: Rate | None = Field(
        default=None,
        description="The most that all deliveries of a run together may send from this host.",
        examples=["500Mbit"],
    )
    force_push: Literal["refuse", "accept"] = Field(
        default="refuse",
        description="What to do when the source moves a ref to an unrelated or older commit.",
        examples=["accept"],
    )
    edges: dict[Name, EdgeForm] = Field(
        default_factory=dict,
        description="The hosts that serve a copy, by name.",
        examples=[{"bj1": {"url": "ssh://mirror@bj1.example/srv/mirrortools", "http": "https://bj1.example"}}],
    )
    groups: dict[Name, tuple[Name, ...]] = Field(
        default_factory=dict,
        description="Users by the name of their group, for `readers`.",
        examples=[{"team-vision": ["bob", "carol"]}],
    )
    repositories: _Repositories | None = Field(
        default=None,
        description="Repositories without a job file; they form a job called like this file.",
        examples=_REPOSITORY_EXAMPLES,
    )
