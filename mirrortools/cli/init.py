"""`mirrortool init`: a commented configuration to start from."""

from __future__ import annotations

import re
from pathlib import Path

import click

from mirrortools.cli import exit_statuses
from mirrortools.config import DEFAULT_PATH, JOB_FOLDER
from mirrortools.config.schema import SOURCE_SCHEMES, check_url
from mirrortools.errors import ConfigError, StoreError
from mirrortools.files import make_folder, write_file
from mirrortools.templating import templates_of

_PLAIN = re.compile(r"[\w./+@-]+\Z")  # what YAML takes for text without quotes
DEFAULT_ROOT = "/srv/mirrortools"
DEFAULT_SOURCE = "https://huggingface.co"


def _check_root(_context: click.Context, _option: click.Parameter, root: str) -> str:
    if not Path(root).is_absolute() or not _PLAIN.match(root):
        raise click.BadParameter(f"expected an absolute path such as {DEFAULT_ROOT}, got {root!r}")
    return root


def _check_source(_context: click.Context, _option: click.Parameter, source: str) -> str:
    try:
        return check_url(source, SOURCE_SCHEMES)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def sample_files(root: str = DEFAULT_ROOT, source: str = DEFAULT_SOURCE) -> dict[str, str]:
    """The commented start: file name → text."""
    templates = templates_of("config")
    main = templates.get_template("mirrortool.yaml.j2").render(root=root, source=source)
    example = templates.get_template("example.yaml").render()
    return {"mirrortool.yaml": main, f"{JOB_FOLDER}/example.yaml": example}


@click.command(epilog=exit_statuses(StoreError))
@click.argument("folder", metavar="[DIR]", default=DEFAULT_PATH.parent, type=click.Path(path_type=Path))
@click.option(
    "--root", callback=_check_root, default=DEFAULT_ROOT, show_default=True, help="Where the mirror will lie."
)
@click.option("--source", callback=_check_source, default=DEFAULT_SOURCE, show_default=True, help="Where to pull from.")
@click.option("--create-root", is_flag=True, help="Create the folders below the root too.")
def init(folder: Path, root: str, source: str, create_root: bool) -> None:
    """Write mirrortool.yaml and conf.d/example.yaml into DIR (/etc/mirrortools).

    Files that exist are never overwritten.
    """
    files = {folder / name: text for name, text in sample_files(root, source).items()}
    there = [str(path) for path in files if path.exists()]
    if there:
        raise ConfigError(f"{' and '.join(there)} exist already; nothing was written")
    try:
        for path, text in files.items():
            make_folder(path.parent)
            write_file(path, text.encode())
        if create_root:
            _create_root(Path(root))
    except OSError as error:
        raise StoreError(f"{error.filename}: {error.strerror}") from error
    _tell(folder, list(files))


def _create_root(root: Path) -> None:
    make_folder(root / "public")
    make_folder(root / "state")
    (root / "state").chmod(0o700)


def _tell(folder: Path, written: list[Path]) -> None:
    for path in written:
        click.echo(f"wrote {path}")
    main = folder / "mirrortool.yaml"
    option = "" if main == DEFAULT_PATH else f" --config {main}"
    click.echo("Edit both files, then:")
    click.echo(f"  mirrortool{option} config check")
    click.echo(f"  mirrortool{option} sync --job example --dry-run")
    click.echo(f"  mirrortool{option} systemd install")
