"""From files to one frozen `Config`, or to every problem of every file at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from mirrortools.config.document import read_document
from mirrortools.config.places import job_paths
from mirrortools.config.problems import problems
from mirrortools.config.resolve import File, resolve, token_files
from mirrortools.config.resolved import Config
from mirrortools.config.schema import JobForm, MainForm, SourcesForm
from mirrortools.errors import ConfigError

Form = TypeVar("Form", bound=SourcesForm)


def parse(main_path: Path) -> tuple[Config, Sequence[Path]]:
    """Read the main file and the jobs beside it; give the token files that were looked at, too.

    Raises ConfigError, whose text has every problem.
    """
    found: list[str] = []
    main = _read(main_path, MainForm, found)
    paths, wrong = job_paths(main_path.parent)
    found.extend(wrong)
    read = [_read(path, JobForm, found) for path in paths]
    if main is None or found:
        raise _error(found)
    jobs = [job for job in read if job is not None]
    config = resolve(main, jobs, found)
    if found:
        raise _error(found)
    return config, token_files(main, jobs)


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
