"""From files to one frozen `Config`, or to every problem of every file at once."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from mirrortools.config.document import read_document
from mirrortools.config.load import JOB_FOLDER
from mirrortools.config.problems import problems
from mirrortools.config.resolve import File, resolve
from mirrortools.config.resolved import Config
from mirrortools.config.schema import NAME, JobForm, MainForm, SourcesForm
from mirrortools.errors import ConfigError

Form = TypeVar("Form", bound=SourcesForm)


def parse(main_path: Path) -> Config:
    """Read the main file and the jobs beside it. Raises ConfigError, whose text has every problem."""
    found: list[str] = []
    main = _read(main_path, MainForm, found)
    jobs = [_read(job_path, JobForm, found) for job_path in _job_paths(main_path.parent, found)]
    if main is None or found:
        raise _error(found)
    config = resolve(main, [job for job in jobs if job is not None], found)
    if found:
        raise _error(found)
    return config


def _job_paths(folder: Path, found: list[str]) -> list[Path]:
    """The job files, sorted; a file that looks like one but would be passed over is a problem."""
    paths = []
    for path in sorted(folder.glob(f"{JOB_FOLDER}/[!.]*")):
        if path.suffix == ".yml":
            found.append(f"{path}: job files end in .yaml; rename it to {path.stem}.yaml")
        elif path.suffix == ".yaml" and not NAME.match(path.stem):
            found.append(f"{path}: a job's file name is made of letters, digits, '.', '_' and '-'")
        elif path.suffix == ".yaml":
            paths.append(path)
    return paths


def _read(path: Path, form: type[Form], found: list[str]) -> File[Form] | None:
    try:
        document = read_document(path)
        return File(document, form.model_validate({} if document.value is None else document.value))
    except ConfigError as error:
        found.append(str(error))
    except ValidationError as error:
        found.extend(problems(document, form, error))
    return None


def _error(found: list[str]) -> ConfigError:
    lines = list(dict.fromkeys(found))
    head = [] if len(lines) == 1 else [f"{len(lines)} problems in the configuration"]
    return ConfigError("\n".join([*head, *lines]))
