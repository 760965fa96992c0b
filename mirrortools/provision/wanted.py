"""What a working edge has: account, folders, files, packages, services."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from mirrortools import rsyncd
from mirrortools.config import EdgeConfig
from mirrortools.errors import ConfigError, EdgeRefused
from mirrortools.serve import Installed, Site, render
from mirrortools.templating import templates_of
from mirrortools.transports import installed_receiver

PROGRAM: Final = "/usr/local/lib/mirrortools"
RECEIVER: Final = f"{PROGRAM}/receiver.pyz"
RECORD: Final = f"{PROGRAM}/edge.json"
HOME: Final = "/var/lib/mirrortools"
LOGS: Final = "/var/log/mirrortools"
RSYNCD: Final = f"/etc/{rsyncd.MAIN_FILE}"
INCLUDE: Final = f"&include /etc/{rsyncd.FOLDER}"
NGINX: Final = "/etc/nginx"
PRIVATE_LOGS: Final = (Installed().private_log, Installed().private_error_log)
WELCOME: Final = f"{NGINX}/sites-enabled/default"
WELCOME_TARGET: Final = f"{NGINX}/sites-available/default"
LOGROTATE: Final = "/etc/logrotate.d/mirrortools"
# Files whose names others use too begin with this when they are ours.
MARK: Final = "# mirrortools:"
MARKED: Final = (RSYNCD, LOGROTATE)
# What must be there, and the Debian package that brings it.
NEEDS: Final[Mapping[str, str]] = {
    "/usr/bin/python3": "python3",
    "/usr/bin/rsync": "rsync",
    "/usr/bin/ssh-keygen": "openssh-client",
    "/usr/sbin/nginx": "nginx",
    "/usr/lib/nginx/modules/ngx_http_js_module.so": "libnginx-mod-http-js",
    "/usr/sbin/logrotate": "logrotate",
}
# The group of nginx's workers, as Debian has it.
WORKERS: Final = "www-data"
_ROOT: Final = "root:root"


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder that is to be there; `is_program` when it goes, once it is empty, with what was put there."""

    path: str
    owner: str = _ROOT
    mode: int = 0o755
    is_program: bool = False


@dataclass(frozen=True, slots=True)
class File:
    """A file that is to be there; with `once` only when there is none."""

    path: str
    content: bytes
    owner: str = _ROOT
    mode: int = 0o644
    once: bool = False


@dataclass(frozen=True, slots=True)
class Setting:
    """What provisioning is about: the edge, whom it is to believe, who may deliver, and how much.

    Whether it has rsyncd (else: yes) and what nginx calls it (else: everything) stays as it was, when it is None.
    """

    edge: EdgeConfig
    signer: str
    push_keys: tuple[str, ...]
    rsyncd: bool | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        if self.edge.scheme != "ssh":
            raise ConfigError(f"edge {self.edge.name}: {self.edge.url}: only hosts that ssh reaches are provisioned")
        if self.edge.user in (None, "root"):
            raise ConfigError(
                f"edge {self.edge.name}: {self.edge.url}: name the account that is to receive, and not root: "
                f"ssh://mirror@{self.edge.host}{self.edge.root}"
            )

    @property
    def account(self) -> str:
        """Who receives on the edge."""
        return str(self.edge.user)

    def key_lines(self) -> list[str]:
        """The lines of authorized_keys that let the push keys deliver, and do nothing else (sshd(8))."""
        limit = self.edge.incoming_limit_bytes
        words = [
            "/usr/bin/python3",
            "-I",
            RECEIVER,
            f"--edge={self.edge.name}",
            f"--min-free={self.edge.min_free_bytes}",
        ]
        words += [f"--incoming-limit={limit}"] if limit is not None else []
        command = shlex.join([*words, str(self.edge.root)]).replace('"', '\\"')
        return [f'restrict,command="{command}" {key} {mark(self.edge.name)}' for key in self.push_keys]


def mark(edge: str) -> str:
    """The comment of our keys in authorized_keys."""
    return f"mirrortools:{edge}"


def authorized(present: str, lines: Iterable[str], edge: str) -> str:
    """The text of authorized_keys with `lines` in the place of those that were ours; others stay as they are."""
    others = [line for line in present.splitlines() if not line.rstrip().endswith(f" {mark(edge)}")]
    return "".join(f"{line}\n" for line in [*others, *lines])


@dataclass(frozen=True, slots=True)
class Record:
    """What was put on a host, kept there, so that exactly that can be taken away."""

    edge: str
    root: str
    account: str
    made_account: bool
    keys: str
    files: tuple[str, ...]
    folders: tuple[str, ...]
    moved_welcome: bool
    rsyncd: bool
    server_name: str

    @classmethod
    def parse(cls, content: bytes | None) -> Record | None:
        """Read a host's record; None when there is none. Raises EdgeRefused."""
        if content is None:
            return None
        try:
            found: dict[str, Any] = json.loads(content)
            return cls(**{**found, "files": tuple(found["files"]), "folders": tuple(found["folders"])})
        except (ValueError, TypeError, KeyError) as error:
            raise EdgeRefused(f"{RECORD}: not a record of `mirrortool edge provision`: {error!r}") from error

    def content(self) -> bytes:
        """The record as a file."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return (json.dumps(fields, indent=2) + "\n").encode()


def as_before(setting: Setting, record: Record | None) -> Setting:
    """The setting, with what it leaves open as the host has it."""
    rsyncd = setting.rsyncd if setting.rsyncd is not None else record.rsyncd if record else True
    name = setting.server_name if setting.server_name is not None else record.server_name if record else ""
    return replace(setting, rsyncd=rsyncd, server_name=name)


def home_of(present_home: str | None) -> tuple[str, bool]:
    """The home of the account, and whether it is of our making: then it belongs to root."""
    return present_home or HOME, present_home in (None, HOME)


def keys_path(home: str) -> str:
    """Where sshd looks for the account's keys, by its default."""
    return f"{home}/.ssh/authorized_keys"


def folders(setting: Setting, home: str, made: bool) -> list[Folder]:
    """The folders of an edge, parents first."""
    root, account = str(setting.edge.root), f"{setting.account}:{setting.account}"
    homes = [Folder(home), Folder(f"{home}/.ssh")] if made else [Folder(f"{home}/.ssh", account, 0o700)]
    return [
        *homes,
        Folder(PROGRAM, is_program=True),
        Folder(root, account),
        Folder(f"{root}/public", account),
        *([Folder(f"{root}/private", f"{setting.account}:{WORKERS}", 0o750)] if setting.edge.private else []),
        Folder(f"{root}/state", account, 0o700),
        Folder(f"{root}/state/keys", account, 0o700),
        Folder(f"{NGINX}/mirrortools", is_program=True),
        Folder(f"{NGINX}/mirrortools/server.d", is_program=True),
        *([_logs(setting), Folder(f"/etc/{rsyncd.FOLDER}", is_program=True)] if setting.rsyncd else []),
    ]


def _logs(setting: Setting) -> Folder:
    """Where rsyncd logs what is asked for, which names what is private when somebody looks for it there."""
    return Folder(LOGS, "root:adm", 0o750) if setting.edge.private else Folder(LOGS)


def files(setting: Setting, home: str, made: bool, present_keys: bytes | None) -> list[File]:
    """The files of an edge, the key last: what it may call is there before."""
    account = f"{setting.account}:{setting.account}"
    owner = _ROOT if made else account
    text = authorized((present_keys or b"").decode(errors="surrogateescape"), setting.key_lines(), setting.edge.name)
    keys = File(keys_path(home), text.encode(errors="surrogateescape"), owner, 0o644 if made else 0o600)
    signer = f"{setting.edge.root}/state/keys/signer"
    return [
        File(RECEIVER, installed_receiver()),
        File(signer, f"{setting.signer}\n".encode(), account, 0o600, once=True),
        *(_rsyncd(setting) if setting.rsyncd else []),
        *(_private_logs() if setting.edge.private else []),
        *nginx_files(setting),
        keys,
    ]


def _private_logs() -> Iterator[File]:
    """The logs of what may be private, before nginx makes them, which would let everybody read them."""
    for log in PRIVATE_LOGS:
        yield File(str(log), b"", f"{WORKERS}:adm", 0o640, once=True)


def nginx_files(setting: Setting) -> list[File]:
    """What nginx serves the edge by: what `mirrortool nginx print --edge` prints."""
    edge = setting.edge
    site = Site(edge.root, (edge.listen,), setting.server_name or "", Installed(), private=edge.private)
    return [File(f"{NGINX}/{name}", text.encode()) for name, text in render(site).items()]


def _rsyncd(setting: Setting) -> list[File]:
    templates = templates_of("edge")
    values = {"edge": setting.edge.name, "include": INCLUDE, "logs": LOGS}
    texts = {RSYNCD: "rsyncd.conf.j2", LOGROTATE: "logrotate.j2"}
    modules = rsyncd.render(rsyncd.Modules(setting.edge.root, setting.account, setting.edge.private))
    return [
        File(f"/etc/{rsyncd.FILE}", modules.encode()),
        *(File(path, templates.get_template(n).render(values).encode()) for path, n in texts.items()),
    ]
