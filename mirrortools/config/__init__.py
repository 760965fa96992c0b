"""The configuration: YAML files at the door, one frozen `Config` behind it.

What is here is cheap to import, because all of the program uses it. The modules that know the files' form
(`parse`, `schema`, `show`) are imported by those who need them.
"""

from mirrortools.config.load import DEFAULT_PATH, ENVIRONMENT_VARIABLE, config_path, load
from mirrortools.config.places import JOB_FOLDER
from mirrortools.config.resolved import Config, EdgeConfig, Job, RepositoryConfig, Source, Tls, did_you_mean

__all__ = [
    "DEFAULT_PATH",
    "ENVIRONMENT_VARIABLE",
    "JOB_FOLDER",
    "Config",
    "EdgeConfig",
    "Job",
    "RepositoryConfig",
    "Source",
    "Tls",
    "config_path",
    "did_you_mean",
    "load",
]
