"""The configuration: YAML files at the door, one frozen `Config` behind it."""

from mirrortools.config.load import DEFAULT_PATH, ENVIRONMENT_VARIABLE, JOB_FOLDER, config_path, load
from mirrortools.config.resolved import Config, EdgeConfig, Job, RepositoryConfig, Source, did_you_mean
from mirrortools.config.show import as_documents, job_schema, main_schema, missing_files

__all__ = [
    "DEFAULT_PATH",
    "ENVIRONMENT_VARIABLE",
    "JOB_FOLDER",
    "Config",
    "EdgeConfig",
    "Job",
    "RepositoryConfig",
    "Source",
    "as_documents",
    "config_path",
    "did_you_mean",
    "job_schema",
    "load",
    "main_schema",
    "missing_files",
]
