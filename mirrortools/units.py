"""systemd units of the mirror: one sync service and timer per job, and nginx in the foreground.

The units run as an account of their own, `mirrortool`: everything that they read from the network is untrusted, and
all that they must write is the mirror's root. Instances are named by job files (`%i`, not `%I`, which would make
slashes of the dashes in `Qwen-Qwen2-7B`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined

from mirrortools.config import DEFAULT_PATH, Config
from mirrortools.errors import ConfigError, StoreError
from mirrortools.files import make_folder, write_file

UNIT_FOLDER: Final = "etc/systemd/system"
ACCOUNT_FILE: Final = "etc/sysusers.d/mirrortools.conf"
UNITS: Final = ("mirrortool-sync@.service", "mirrortool-sync@.timer", "mirrortool-serve.service")
_HOMES: Final = (Path("/home"), Path("/root"), Path("/run/user"))
_SPREAD_LIMIT_S: Final = 900


@dataclass(frozen=True, slots=True)
class UnitSettings:
    """What the units depend on.

    `intervals_s` maps jobs to their sync intervals in seconds, `local_edges` are the roots of edges that are folders
    of this host, `local_sources` the folders that are pulled from.
    """

    root: Path = Path("/srv/mirrortools")
    config_path: Path = DEFAULT_PATH
    executable: Path = Path("/usr/bin/mirrortool")
    user: str = "mirrortool"
    interval_s: int = 3600
    intervals_s: Mapping[str, int] = field(default_factory=dict)
    local_edges: tuple[Path, ...] = ()
    local_sources: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        for path in (self.root, self.config_path, self.executable, *self.local_edges):
            if not path.is_absolute() or any(c.isspace() or c in "%\"'\\$;" for c in str(path)):
                raise ConfigError(f"{path}: a unit needs an absolute path without spaces, quotes, %, $ and \\")

    @classmethod
    def of(cls, config: Config, executable: Path, user: str) -> UnitSettings:
        """The settings that follow from a configuration. Raises ConfigError."""
        return cls(
            root=config.root,
            config_path=config.path,
            executable=executable,
            user=user,
            interval_s=config.sync_interval_s,
            intervals_s={job.name: job.sync_interval_s for job in config.jobs.values()},
            local_edges=tuple(edge.root for edge in config.edges.values() if edge.scheme == "file"),
            local_sources=_local_sources(config),
        )

    @property
    def protect_home(self) -> str:
        """Home folders are hidden, unless the mirror or something that it reads or writes lies in one."""
        used = (self.root, self.config_path, self.executable, *self.local_edges, *self.local_sources)
        in_home = any(path.is_relative_to(home) for path in used for home in _HOMES)
        return "read-only" if in_home else "yes"


def _local_sources(config: Config) -> tuple[Path, ...]:
    sources = [s for r in config.repositories() for s in (r.source, r.backup_source) if s is not None]
    paths = {unquote(urlsplit(source.url).path) for source in sources if source.scheme in ("file", "dir")}
    return tuple(sorted(Path(path) for path in paths))


def render_units(settings: UnitSettings) -> dict[str, str]:
    """Every file that belongs on the host, below its root: path → text."""
    files = {f"{UNIT_FOLDER}/{name}": _render(f"{name}.j2", settings) for name in UNITS}
    if settings.user != "root":
        files[ACCOUNT_FILE] = _render("mirrortools.conf.j2", settings)
    for job, interval_s in settings.intervals_s.items():
        path = f"{UNIT_FOLDER}/mirrortool-sync@{job}.timer.d/interval.conf"
        files[path] = _render("interval.conf.j2", settings, interval_s)
    return files


def _render(template: str, settings: UnitSettings, interval_s: int | None = None) -> str:
    templates = Environment(
        loader=PackageLoader("mirrortools", "templates/systemd"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        autoescape=False,  # noqa: S701  (units, not HTML)
    )
    interval_s = interval_s or settings.interval_s
    option = "" if settings.config_path == DEFAULT_PATH else f" --config {settings.config_path}"
    return templates.get_template(template).render(
        root=settings.root,
        executable=settings.executable,
        config_option=option,
        user=settings.user,
        private_users="no" if settings.user == "root" else "yes",
        protect_home=settings.protect_home,
        local_edges=settings.local_edges,
        interval_s=interval_s,
        spread_s=min(interval_s // 10, _SPREAD_LIMIT_S),
    )


@dataclass(frozen=True, slots=True)
class Installed:
    """What an installation did: files written, files that were right already, folders of jobs that are gone."""

    written: tuple[Path, ...]
    unchanged: tuple[Path, ...]
    left_over: tuple[Path, ...]


def install_units(settings: UnitSettings, prefix: Path) -> Installed:
    """Write the units below `prefix` (`/` for this host); files that are right are left alone. Raises StoreError."""
    files = {prefix / name: text for name, text in render_units(settings).items()}
    written = [path for path, text in files.items() if _replace(path, text)]
    drop_ins = set((prefix / UNIT_FOLDER).glob("mirrortool-sync@*.timer.d/interval.conf"))
    return Installed(
        written=tuple(written),
        unchanged=tuple(path for path in files if path not in written),
        left_over=tuple(sorted(path.parent for path in drop_ins - set(files))),
    )


def _replace(path: Path, text: str) -> bool:
    """Whether the file had to be written."""
    try:
        if path.is_file() and path.read_text() == text:
            return False
        make_folder(path.parent)
        write_file(path, text.encode())
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}; run this as root, or with --prefix DIR") from error
    return True
