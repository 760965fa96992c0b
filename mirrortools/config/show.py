"""A `Config` as it would stand in files, its JSON Schema, and a look at the files that it names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mirrortools.config.places import JOB_FOLDER
from mirrortools.config.quantities import format_duration, format_rate, format_size
from mirrortools.config.resolved import Config, EdgeConfig, Job, RepositoryConfig, Source, Tls

Document = dict[str, Any]


def as_documents(config: Config) -> dict[str, Document]:
    """File name → content; `load` makes the same configuration of them."""
    documents = {config.path.name: _main(config)}
    for job in config.jobs.values():
        if job.path == config.path:
            documents[config.path.name]["repositories"] = _repositories(job, config)
        else:
            documents[f"{JOB_FOLDER}/{job.path.name}"] = {
                "sync_interval": format_duration(job.sync_interval_s),
                "repositories": _repositories(job, config),
            }
    return documents


def main_schema() -> Document:
    """JSON Schema of the main file."""
    from mirrortools.config.schema import MainForm

    return MainForm.model_json_schema()


def job_schema() -> Document:
    """JSON Schema of the files in conf.d."""
    from mirrortools.config.schema import JobForm

    return JobForm.model_json_schema()


def missing_files(config: Config) -> list[str]:
    """A line for every file that the configuration names (keys, tokens, certificates) and that is not there."""
    return [
        f"{config.path}: the {what}, {path}, does not exist"
        for what, path in dict.fromkeys(_named_files(config))
        if path is not None and not path.is_file()
    ]


def _named_files(config: Config) -> Iterator[tuple[str, Path | None]]:
    for edge in config.edges.values():
        yield f"identity_file of the edge {edge.name}", edge.identity_file
        yield f"known_hosts of the edge {edge.name}", edge.known_hosts
    for repository in config.repositories():
        for source in (repository.source, repository.backup_source):
            if source is not None:
                yield f"token_file of {source}", source.token_file
                yield f"ca_file of {source}", source.ca_file


def _main(config: Config) -> Document:
    return {
        "root": str(config.root),
        "listen": config.listen,
        "http": config.http,
        "tls": _tls(config.tls),
        "git_socket": _text(config.git_socket),
        "sync_interval": format_duration(config.sync_interval_s),
        "max_parallel": config.max_parallel or "auto",
        "minimum_rate": format_rate(config.minimum_rate_bytes_s),
        "min_free": format_size(config.min_free_bytes),
        "request_budget": config.request_budget or "unlimited",
        "seeds": [str(seed) for seed in config.seeds],
        "edges": {edge.name: _edge(edge) for edge in config.edges.values()},
    }


def _edge(edge: EdgeConfig) -> Document:
    return {
        "url": edge.url,
        "http": edge.http,
        "identity_file": _text(edge.identity_file),
        "known_hosts": _text(edge.known_hosts),
        "listen": edge.listen,
        "tls": _tls(edge.tls),
        "git_socket": _text(edge.git_socket),
        "rate_limit": edge.rate_limit_bytes_s and format_rate(edge.rate_limit_bytes_s),
        "repositories": list(edge.repositories),
        "exclude_repositories": list(edge.exclude_repositories),
        "include": list(edge.include),
        "exclude": list(edge.exclude),
        "quota": None if edge.quota_bytes is None else format_size(edge.quota_bytes),
        "min_free": format_size(edge.min_free_bytes),
        "incoming_limit": edge.incoming_limit_bytes and format_size(edge.incoming_limit_bytes),
        "private": edge.private,
    }


def _tls(tls: Tls | None) -> Document | None:
    if tls is None:
        return None
    return {
        "certificate": str(tls.certificate),
        "key": str(tls.key),
        "listen": tls.listen,
        "hsts": tls.hsts_s and format_duration(tls.hsts_s),
        "acme": _text(tls.acme),
    }


def _repositories(job: Job, config: Config) -> list[Document]:
    return [_repository(repository, config.minimum_rate_bytes_s) for repository in job.repositories]


def _repository(repository: RepositoryConfig, usual_rate: int) -> Document:
    backup = repository.backup_source
    return {
        "repo": str(repository.repo),
        "revisions": list(repository.revisions),
        "include": list(repository.include),
        "exclude": list(repository.exclude),
        "edges": list(repository.edges),
        "source": _source(repository.source, usual_rate),
        "backup_source": _source(backup, usual_rate) if backup else None,
        "force_push": repository.force_push,
        "hot": repository.hot,
        "private": repository.private,
        "readers": list(repository.readers),
        "gated": repository.gated,
    }


def _source(source: Source, usual_rate: int) -> Document | str:
    files = {"token_file": source.token_file, "ca_file": source.ca_file}
    named: Document = {key: str(path) for key, path in files.items() if path is not None}
    if source.max_parallel:
        named["max_parallel"] = source.max_parallel
    if source.minimum_rate_bytes_s != usual_rate:
        named["minimum_rate"] = format_rate(source.minimum_rate_bytes_s)
    if source.use != "failover":
        named["use"] = source.use
    return {"url": source.url, **named} if named else source.url


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
