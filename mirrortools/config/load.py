"""Where the configuration lies, and the way to it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from mirrortools.config.resolved import Config

DEFAULT_PATH: Final = Path("/etc/mirrortools/mirrortool.yaml")
ENVIRONMENT_VARIABLE: Final = "MIRRORTOOL_CONFIG"
JOB_FOLDER: Final = "conf.d"


def config_path(path: Path | None, environ: Mapping[str, str]) -> Path:
    """The main file: `path`, else what MIRRORTOOL_CONFIG names, else /etc/mirrortools/mirrortool.yaml."""
    return (path or Path(environ.get(ENVIRONMENT_VARIABLE) or DEFAULT_PATH)).absolute()


def load(path: Path | None, environ: Mapping[str, str]) -> Config:
    """Read the main file and the conf.d beside it. Raises ConfigError, whose text has every problem."""
    from mirrortools.config.parse import parse  # with pydantic and yaml, which only reading needs

    return parse(config_path(path, environ))
