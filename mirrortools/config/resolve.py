"""From the forms of all files to one `Config`: defaults are inherited here, and contradictions found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from types import MappingProxyType
from typing import Generic, TypeVar

from mirrortools.config.document import Document, Key
from mirrortools.config.resolved import Config, EdgeConfig, Job, RepositoryConfig, Source, Tls, did_you_mean
from mirrortools.config.schema import (
    BackupForm,
    EdgeForm,
    JobForm,
    MainForm,
    RepositoryForm,
    SourceForm,
    SourcesForm,
    TlsForm,
)
from mirrortools.config.tokens import unfitness
from mirrortools.model import RepoId

Form = TypeVar("Form", bound=SourcesForm, covariant=True)


@dataclass(frozen=True, slots=True)
class File(Generic[Form]):
    """A form, and where it stands: the file, and the keys above it."""

    document: Document
    form: Form
    keys: tuple[Key, ...] = ()

    @property
    def folder(self) -> Path:
        """What relative paths in the file are relative to."""
        return self.document.path.parent

    def problem(self, message: str, *keys: Key) -> str:
        """`file:line: key: message` for the value at `keys` below this form."""
        return self.document.problem((*self.keys, *keys), message)

    def place(self) -> str:
        """`file:line`."""
        return f"{self.document.path}:{self.document.where(self.keys)[0]}"


@dataclass(frozen=True, slots=True)
class _JobPart:
    """What a job is made of, whether it has a file of its own or stands in the main file."""

    name: str
    file: File[SourcesForm]
    repositories: tuple[File[RepositoryForm], ...]
    sync_interval_s: int | None = None
    minimum_rate: int | None = None
    edges: tuple[str, ...] | None = None
    hot: bool = False
    private: bool = False
    readers: tuple[str, ...] = ()
    gated: bool = False


@dataclass(frozen=True, slots=True)
class _Readership:
    """Who may read a repository: everybody, or those whom it names. Groups are not resolved."""

    private: bool
    readers: tuple[str, ...]
    gated: bool

    @classmethod
    def of(cls, part: _JobPart, form: RepositoryForm) -> _Readership:
        """What the repository says, or else its job."""
        return cls(
            part.private if form.private is None else form.private,
            part.readers if form.readers is None else form.readers,
            part.gated if form.gated is None else form.gated,
        )

    def users(self, groups: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
        """The readers, one by one."""
        return tuple(sorted({user for name in self.readers for user in groups.get(name, (name,))}))


def resolve(main: File[MainForm], files: Sequence[File[JobForm]], found: list[str]) -> Config:
    """Fill in what is inherited, and append every contradiction to `found`."""
    parts = _parts(main, files)
    for check in (
        _repeated_jobs,
        _repeated_repositories,
        _unknown_edges,
        _missing_sources,
        _unfit_tokens,
        _readerships,
    ):
        found.extend(check(main, parts))
    edges = {name: _edge(main, name, form) for name, form in main.form.edges.items()}
    found.extend(_edge_places(main, edges))
    form = main.form
    return Config(
        path=main.document.path,
        root=form.root,
        listen=form.listen,
        tls=_tls(form.tls),
        git_socket=form.git_socket,
        sync_interval_s=form.sync_interval,
        max_parallel=form.max_parallel,
        minimum_rate_bytes_s=form.minimum_rate,
        min_free_bytes=form.min_free,
        request_budget=form.request_budget,
        seeds=form.seeds,
        http=form.http,
        delivery_limit_bytes_s=form.delivery_rate_limit,
        edges=MappingProxyType(edges),
        jobs=MappingProxyType({part.name: _job(main, part) for part in parts}),
    )


def _parts(main: File[MainForm], files: Sequence[File[JobForm]]) -> list[_JobPart]:
    """The job of the main file, if it has repositories, and one per job file."""
    parts = []
    if main.form.repositories:
        parts.append(_JobPart(main.document.path.stem, main, _places(main, main.form.repositories)))
    for file in files:
        repositories = _places(file, file.form.repositories)
        form = file.form
        said = (form.sync_interval, form.minimum_rate, form.edges, form.hot, form.private, form.readers, form.gated)
        parts.append(_JobPart(file.document.path.stem, file, repositories, *said))
    return parts


def _places(file: File[SourcesForm], forms: Iterable[RepositoryForm]) -> tuple[File[RepositoryForm], ...]:
    return tuple(File(file.document, form, ("repositories", index)) for index, form in enumerate(forms))


def _job(main: File[MainForm], part: _JobPart) -> Job:
    repositories = (_repository(main, part, place) for place in part.repositories)
    return Job(
        name=part.name,
        path=part.file.document.path,
        sync_interval_s=part.sync_interval_s or main.form.sync_interval,
        repositories=tuple(repository for repository in repositories if repository is not None),
    )


def _repository(main: File[MainForm], part: _JobPart, place: File[RepositoryForm]) -> RepositoryConfig | None:
    """None without a source, of which `_missing_sources` speaks."""
    levels, form = (place, part.file, main), place.form
    readership = _Readership.of(part, form)
    usual_rate = part.minimum_rate or main.form.minimum_rate
    source = _source(levels, usual_rate)
    if source is None:
        return None
    named = _edges(form.edges, part.edges, () if readership.private else main.form.edges)
    edges = tuple(name for name in named if name not in main.form.edges or _takes(main.form.edges[name], form.repo))
    return RepositoryConfig(
        repo=RepoId.parse(form.repo),
        job=part.name,
        source=source,
        backup_source=_backup_source(levels[:-1] if readership.private else levels, usual_rate),
        revisions=form.revisions,
        include=form.include,
        exclude=form.exclude,
        edges=edges,
        force_push=form.force_push or main.form.force_push,
        hot=part.hot if form.hot is None else form.hot,
        mirrors=_mirrors(edges, main.form),
        private=readership.private,
        readers=readership.users(main.form.groups),
        gated=readership.gated,
    )


def _edges(*levels: Iterable[str] | None) -> tuple[str, ...]:
    """The names of the innermost level that says something."""
    return next((tuple(dict.fromkeys(names)) for names in levels if names is not None), ())


def _takes(edge: EdgeForm, repo: str) -> bool:
    """Whether an edge may have a repository by its own rules, which count above those of jobs."""
    wanted = any(fnmatchcase(repo, pattern) for pattern in edge.repositories)
    return wanted and not any(fnmatchcase(repo, pattern) for pattern in edge.exclude_repositories)


def _mirrors(edges: Iterable[str], main: MainForm) -> tuple[str, ...]:
    """Where clients reach all of a repository: its edges in their order, then this host.

    Edges with a part of the files are no such place. Unknown edges are told elsewhere.
    """
    known = [main.edges[name] for name in edges if name in main.edges]
    urls = [edge.http for edge in known if edge.include == ("*",) and not edge.exclude]
    return tuple(dict.fromkeys(url for url in (*urls, main.http) if url))


def _source(levels: Iterable[File[SourcesForm]], usual_rate: int) -> Source | None:
    return next((_place(level, level.form.source, usual_rate) for level in levels if level.form.source), None)


def _backup_source(levels: Iterable[File[SourcesForm]], usual_rate: int) -> Source | None:
    """The innermost backup; none is inherited past a level that has a source of its own."""
    for level in levels:
        if "backup_source" in level.form.model_fields_set:
            return _place(level, level.form.backup_source, usual_rate) if level.form.backup_source else None
        if level.form.source:
            return None
    return None


def _place(level: File[SourcesForm], form: SourceForm, usual_rate: int) -> Source:
    files = _path(level, form.token_file), _path(level, form.ca_file)
    use = form.use if isinstance(form, BackupForm) else "failover"
    return Source(form.url, *files, form.max_parallel, form.minimum_rate or usual_rate, use)


def _path(file: File[SourcesForm], path: Path | None) -> Path | None:
    return None if path is None else file.folder / path


def _edge(main: File[MainForm], name: str, form: EdgeForm) -> EdgeConfig:
    return EdgeConfig(
        name=name,
        url=form.url,
        http=form.http,
        identity_file=_path(main, form.identity_file),
        known_hosts=_path(main, form.known_hosts),
        listen=form.listen or main.form.listen,
        rate_limit_bytes_s=form.rate_limit,
        repositories=form.repositories,
        exclude_repositories=form.exclude_repositories,
        include=form.include,
        exclude=form.exclude,
        quota_bytes=form.quota,
        min_free_bytes=form.min_free,
        incoming_limit_bytes=form.incoming_limit,
        relay_host=form.relay_host,
        relay_ports=form.relay_ports,
        tls=_tls(form.tls),
        git_socket=form.git_socket,
        private=form.private,
        region=form.region or "",
    )


def _tls(form: TlsForm | None) -> Tls | None:
    if form is None:
        return None
    return Tls(form.certificate, form.key, form.listen, form.hsts, form.acme)


def _repeated_jobs(main: File[MainForm], parts: Sequence[_JobPart]) -> Iterable[str]:
    for part in parts[1:]:
        if main.form.repositories and part.name == main.document.path.stem:
            message = f"a second job called {part.name!r}, after the repositories of {main.document.path}"
            yield part.file.problem(f"{message}; rename this file")


def _repeated_repositories(_: File[MainForm], parts: Sequence[_JobPart]) -> Iterable[str]:
    seen: dict[str, str] = {}
    for part in parts:
        for place in part.repositories:
            first = seen.setdefault(place.form.repo, place.place())
            if first != place.place():
                yield place.problem(f"{place.form.repo} is mirrored already by {first}; keep one of the two")


def _unknown_edges(main: File[MainForm], parts: Sequence[_JobPart]) -> Iterable[str]:
    known = main.form.edges
    for part in parts:
        for index, name in enumerate(part.edges or ()):
            if name not in known:
                yield part.file.problem(_unknown_edge(name, known), "edges", index)
        for place in part.repositories:
            for index, name in enumerate(place.form.edges or ()):
                if name not in known:
                    yield place.problem(_unknown_edge(name, known), "edges", index)


def _readerships(main: File[MainForm], parts: Sequence[_JobPart]) -> Iterable[str]:
    """Private repositories that nobody could read, or that would go where they may not; readers of public ones."""
    for part in parts:
        for place in part.repositories:
            readership = _Readership.of(part, place.form)
            if not readership.private:
                if readership.readers or readership.gated:
                    yield place.problem("`readers` and `gated` are for what is private, and this is not: private: true")
                continue
            if not readership.users(main.form.groups):
                yield place.problem("private, and nobody may read it: name users or groups in `readers`")
            for name in _edges(place.form.edges, part.edges):
                if name in main.form.edges and not main.form.edges[name].private:
                    yield place.problem(
                        f"private, and the edge {name!r} is not for that: say `private: true` in its entry in "
                        f"{main.document.path}, or leave it out of `edges`"
                    )


def _unknown_edge(name: str, known: Mapping[str, EdgeForm]) -> str:
    return f"there is no edge {name!r}{did_you_mean(name, known) or '; the main file defines none'}"


def _missing_sources(main: File[MainForm], parts: Sequence[_JobPart]) -> Iterable[str]:
    for part in parts:
        for place in part.repositories:
            if not any(level.form.source for level in (place, part.file, main)):
                yield place.problem("no source; set `source` here, in the job or in the main file")


def _unfit_tokens(main: File[MainForm], parts: Sequence[_JobPart]) -> Iterable[str]:
    """Token files that are folders, or that accounts outside of owner and group can read."""
    for level, key, path in _tokens(main, parts):
        message = unfitness(path)
        if message:
            yield level.problem(message, key, "token_file")


def _tokens(main: File[MainForm], parts: Sequence[_JobPart]) -> Iterable[tuple[File[SourcesForm], str, Path]]:
    """Every token file, and where it is named."""
    for level in (main, *(level for part in parts for level in (part.file, *part.repositories))):
        for key, form in (("source", level.form.source), ("backup_source", level.form.backup_source)):
            path = _path(level, form.token_file if form else None)
            if path:
                yield level, key, path


def token_files(main: File[MainForm], files: Sequence[File[JobForm]]) -> Sequence[Path]:
    """Every token file that is named anywhere, once."""
    return list(dict.fromkeys(path for _, _, path in _tokens(main, _parts(main, files))))


def _edge_places(main: File[MainForm], edges: Mapping[str, EdgeConfig]) -> Iterable[str]:
    """Edges that would overwrite the origin or each other."""
    seen: dict[object, str] = {}
    for name, edge in edges.items():
        root = main.form.root
        if edge.scheme == "file" and (edge.root.is_relative_to(root) or root.is_relative_to(edge.root)):
            yield main.problem(f"this edge lies in the origin's own root {root}", "edges", name, "url")
        first = seen.setdefault((edge.host, edge.port or 22, edge.root), name)
        if first != name:
            yield main.problem(f"the same place as the edge {first!r}", "edges", name, "url")
