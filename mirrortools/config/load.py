"""Where the configuration lies, and the way to it."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from mirrortools.config.cache import Cache
from mirrortools.config.resolved import Config

DEFAULT_PATH: Final = Path("/etc/mirrortools/mirrortool.yaml")
ENVIRONMENT_VARIABLE: Final = "MIRRORTOOL_CONFIG"


def config_path(path: Path | None, environ: Mapping[str, str]) -> Path:
    """The main file: `path`, else what MIRRORTOOL_CONFIG names, else /etc/mirrortools/mirrortool.yaml."""
    return (path or Path(environ.get(ENVIRONMENT_VARIABLE) or DEFAULT_PATH)).absolute()


def load(path: Path | None, environ: Mapping[str, str]) -> Config:
    """What the main file and the conf.d beside it say; they are read when they are not as they were last time.

    Raises ConfigError, whose text has every problem.
    """
    main_path = config_path(path, environ)
    cache = Cache(main_path, environ)
    remembered = cache.get()
    if remembered is None and cache.can_keep and threading.active_count() == 1:
        _read_apart(cache, main_path)
        remembered = cache.get()
    return remembered if remembered is not None else _read(cache, main_path)


def _read(cache: Cache, main_path: Path) -> Config:
    from mirrortools.config.parse import parse  # with pydantic and yaml, which only reading needs

    config, token_files = parse(main_path)
    cache.put(config, token_files)
    return config


def _read_apart(cache: Cache, main_path: Path) -> None:
    """Have a child read the files and remember them: the memory that takes, 12 MiB and more, is gone with it.

    Nothing is said of what goes wrong there; whoever finds nothing remembered reads the files himself. A process of
    several threads must not do this: the child would have the locks that the others hold.
    """
    with contextlib.suppress(OSError):
        child = os.fork()
        if not child:
            try:
                signal.set_wakeup_fd(-1)  # its signals are not its parent's
                _read(cache, main_path)
            finally:
                os._exit(0)
        os.waitpid(child, 0)
