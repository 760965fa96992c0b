"""systemd units of the mirror: one sync service and timer per job, and nginx in the foreground.

The units run as an account of their own, `mirrortool`: everything that they read from the network is untrusted, and
all that they must write is the mirror's root. Instances are named by job files (`%i`, not `%I`, which would make
slashes of the dashes in `Qwen-Qwen2-7B`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from mirrortools.access import Account
from mirrortools.config import DEFAULT_PATH, Config, Source
from mirrortools.errors import ConfigError, StoreError
from mirrortools.files import make_folder, write_file
from mirrortools.templating import templates_of

UNIT_FOLDER: Final = "etc/systemd/system"
ACCOUNT_FILE: Final = "etc/sysusers.d/mirrortools.conf"
UNITS: Final = ("mirrortool-sync@.service", "mirrortool-sync@.timer", "mirrortool-serve.service")
_HOMES: Final = (Path("/home"), Path("/root"), Path("/run/user"))
_SPREAD_LIMIT_S: Final = 900
_FIRST_LIMIT_S: Final = 60
_ACCURACY_LIMIT_S: Final = 10


@dataclass(frozen=True, slots=True)
class UnitSettings:
    """What the units depend on.

    `intervals_s` maps jobs to their sync intervals in seconds, `local_edges` are the roots of edges that are folders
    of this host, `local_sources` the folders that are pulled from, `config_files` the files that the main one leads
    to, `secrets` those of tokens and keys.
    """

    root: Path = Path("/srv/mirrortools")
    config_path: Path = DEFAULT_PATH
    executable: Path = Path("/usr/bin/mirrortool")
    user: str = "mirrortool"
    interval_s: int = 3600
    intervals_s: Mapping[str, int] = field(default_factory=dict)
    local_edges: tuple[Path, ...] = ()
    local_sources: tuple[Path, ...] = ()
    config_files: tuple[Path, ...] = ()
    secrets: tuple[Path, ...] = ()

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
            config_files=_config_files(config),
            secrets=_secrets(config),
        )

    @property
    def protect_home(self) -> str:
        """Home folders are hidden, unless the mirror or something that it reads or writes lies in one."""
        used = (self.root, *self.local_edges, *self.needed)
        in_home = any(path.is_relative_to(home) for path in used for home in _HOMES)
        return "read-only" if in_home else "yes"

    @property
    def needed(self) -> tuple[Path, ...]:
        """What the units must be able to read, besides secrets."""
        programs = (self.executable, interpreter(self.executable))
        return tuple(dict.fromkeys((*programs, self.config_path, *self.config_files, *self.local_sources)))


def interpreter(program: Path) -> Path:
    """What runs a script, as its first line has it, behind all symlinks; else the program itself."""
    try:
        with program.open("rb") as file:
            first_line = file.readline(1000)
    except OSError:
        return program
    words = first_line.removeprefix(b"#!").split()
    return Path(os.fsdecode(words[0])).resolve() if first_line.startswith(b"#!") and words else program


def _sources(config: Config) -> list[Source]:
    return [s for r in config.repositories() for s in (r.source, r.backup_source) if s is not None]


def _local_sources(config: Config) -> tuple[Path, ...]:
    paths = {unquote(urlsplit(s.url).path) for s in _sources(config) if s.scheme in ("file", "dir")}
    return tuple(sorted(Path(path) for path in paths))


def _config_files(config: Config) -> tuple[Path, ...]:
    jobs = {job.path for job in config.jobs.values()}
    authorities = {source.ca_file for source in _sources(config)}
    hosts = {edge.known_hosts for edge in config.edges.values()}
    return tuple(sorted(path for path in jobs | authorities | hosts if path is not None))


def _secrets(config: Config) -> tuple[Path, ...]:
    tokens = {source.token_file for source in _sources(config)}
    keys = {edge.identity_file for edge in config.edges.values()}
    return tuple(sorted(path for path in tokens | keys if path is not None))


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
    templates = templates_of("systemd")
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
        first_s=min(interval_s, _FIRST_LIMIT_S),
        spread_s=min(interval_s // 10, _SPREAD_LIMIT_S),
        accuracy_s=max(1, min(interval_s // 10, _ACCURACY_LIMIT_S)),
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


def preparations(settings: UnitSettings, account: Account) -> list[str]:
    """The commands with which root gives the account of the units what it lacks on this host."""
    commands = ["systemd-sysusers"] if account.uid is None else []
    for folder in (settings.root, *settings.local_edges):
        if not folder.exists():
            commands.append(f"install -d -o {account.name} -g {account.name} {folder}")
        elif any(_owner(path) not in (account.uid, None) for path in _top(folder)):
            commands.append(f"chown -hR {account.name}:{account.name} {folder}")
    commands += [f"chown {account.name}: {path}" for path in settings.secrets if account.obstacle(path) == path]
    return commands


def _top(folder: Path) -> Iterator[Path]:
    """A root and what lies in its first three levels: `mirrortool init` or a run as root left something there."""
    yield folder
    yield from folder.glob("*")
    yield from folder.glob("*/*")
    yield from folder.glob("*/*/*")


def _owner(path: Path) -> int | None:
    """None for what a running sync has just removed."""
    try:
        return path.lstat().st_uid
    except FileNotFoundError:
        return None


def obstacles(settings: UnitSettings, account: Account) -> dict[Path, Path]:
    """What the account of the units cannot read on this host → the folder or file that is closed to it."""
    found = {path: account.obstacle(path) for path in (*settings.needed, *settings.secrets)}
    return {path: closed for path, closed in found.items() if closed and closed not in settings.secrets}
