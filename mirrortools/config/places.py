"""Which files make up a configuration."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

JOB_FOLDER: Final = "conf.d"
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}\Z")


def job_paths(folder: Path) -> tuple[list[Path], list[str]]:
    """The job files beside a main file, sorted; and what is wrong: what looks like one but would be passed over."""
    paths, wrong = [], []
    for path in sorted(folder.glob(f"{JOB_FOLDER}/[!.]*")):
        if path.suffix == ".yml":
            wrong.append(f"{path}: job files end in .yaml; rename it to {path.stem}.yaml")
        elif path.suffix == ".yaml" and not NAME.match(path.stem):
            wrong.append(f"{path}: a job's file name is made of letters, digits, '.', '_' and '-'")
        elif path.suffix == ".yaml":
            paths.append(path)
    return paths, wrong
