"""`mirrortool config`: check, show and describe the configuration."""

from __future__ import annotations

import click

from mirrortools.cli import Invocation, exit_statuses, print_json
from mirrortools.config.show import as_documents, job_schema, main_schema, missing_files
from mirrortools.errors import ConfigError
from mirrortools.text import count


@click.group(epilog=exit_statuses())
def config() -> None:
    """Check, show and describe the configuration."""


@config.command(epilog=exit_statuses())
@click.pass_obj
def check(invocation: Invocation) -> None:
    """Read every file and say all that is wrong with them, and which files that they name are missing."""
    loaded = invocation.config
    missing = missing_files(loaded)
    if missing:
        raise ConfigError("\n".join(missing))
    click.echo(
        f"{loaded.path}: fine: {count(len(loaded.repositories()), 'repository/repositories')} in "
        f"{count(len(loaded.jobs), 'job')}, {count(len(loaded.edges), 'edge')}"
    )
    if not loaded.jobs:
        click.echo(f"nothing is mirrored yet: write a job into {loaded.path.parent}/conf.d/NAME.yaml", err=True)


@config.command(epilog=exit_statuses())
@click.option("--json", "as_json", is_flag=True, help="Print JSON: file name → content.")
@click.pass_obj
def show(invocation: Invocation, as_json: bool) -> None:
    """Print what is in force, with every default filled in: one YAML document per file."""
    documents = as_documents(invocation.config)
    if as_json:
        print_json(documents)
        return
    import yaml

    for name, document in documents.items():
        click.echo(f"--- # {name}")
        click.echo(yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=110), nl=False)


@config.command(epilog=exit_statuses())
@click.option("--job", is_flag=True, help="Describe the files of conf.d instead of the main file.")
def schema(job: bool) -> None:
    """Print the JSON Schema of mirrortool.yaml, for editors and for reading."""
    print_json(job_schema() if job else main_schema())
