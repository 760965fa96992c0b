"""A connection to a host as its administrator: OpenSSH's configuration, paramiko's conversation.

OpenSSH itself is asked what its configuration makes of the host (`ssh -G`), so that aliases, ports, Include, Match and
jump hosts mean what they mean to deliveries; a way through a jump host or a ProxyCommand is a child process.
"""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import paramiko

from mirrortools.config import EdgeConfig
from mirrortools.errors import ConfigError, EdgeUnreachable, StoreError
from mirrortools.provision.facts import Done

CONNECT_TIMEOUT_S: Final = 20
COMMAND_TIMEOUT_S: Final = 900
_TOKEN: Final = re.compile(r"%([%hprn])")
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:%@+-]*\Z")


@dataclass(frozen=True, slots=True)
class Administrator:
    """Who logs in to provision, and with which private key; None: as ssh's configuration has it."""

    user: str | None = None
    identity_file: Path | None = None


@dataclass(frozen=True, slots=True)
class HostKeys:
    """How a host key that nobody knows yet is judged: by fingerprints or keys that were given, or by asking."""

    given: tuple[str, ...] = ()
    ask: Callable[[str], bool] | None = None

    def accepts(self, edge: str, name: str, fingerprint: str, key: str) -> bool:
        """Whether an unknown key is the host's. Raises EdgeUnreachable with what to do when it cannot be told."""
        if self.given:
            return any(text == fingerprint or key in text.split() for text in self.given)
        where = f"edge {edge}: the host key of {name} is not known: {fingerprint}"
        if self.ask is None:
            raise EdgeUnreachable(
                f"{where}; compare it with what `for f in /etc/ssh/ssh_host_*.pub; do ssh-keygen -lf $f; done` says on "
                f"that host's console, then run again with --host-key {fingerprint}"
            )
        return self.ask(where)


@dataclass(frozen=True, slots=True)
class Place:
    """What ssh's configuration makes of an edge's host (`ssh -G`): option in small letters → its values."""

    host: str
    options: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, edge: EdgeConfig, user: str | None) -> Place:
        """Ask OpenSSH. Raises ConfigError."""
        if not _NAME.match(edge.host) or (user and not _NAME.match(user)):
            raise ConfigError(f"edge {edge.name}: {edge.url}: not a host or user name that ssh takes")
        words = ["ssh", "-G", *(["-l", user] if user else []), *(["-p", str(edge.port)] if edge.port else [])]
        done = subprocess.run([*words, "--", edge.host], capture_output=True, text=True, check=False)
        if done.returncode:
            raise ConfigError(f"edge {edge.name}: ssh does not take its configuration: {done.stderr.strip()}")
        return cls.parse(edge.host, done.stdout)

    @classmethod
    def parse(cls, host: str, text: str) -> Place:
        """Read what `ssh -G` printed."""
        options: dict[str, list[str]] = {}
        for line in text.splitlines():
            name, _, value = line.partition(" ")
            options.setdefault(name.lower(), []).append(value)
        return cls(host, options)

    def one(self, name: str, otherwise: str = "") -> str:
        """The first value of an option; `none` counts as not there."""
        value = next(iter(self.options.get(name, ())), otherwise)
        return otherwise if value.lower() == "none" else value

    @property
    def port(self) -> int:
        """The port of sshd."""
        return int(self.one("port", "22"))

    @property
    def user(self) -> str:
        """The account that logs in."""
        return self.one("user", "root")

    @property
    def known_name(self) -> str:
        """What the host is called in known_hosts."""
        return self.one("hostkeyalias") or self.one("hostname", self.host)

    def identities(self) -> list[str]:
        """Private keys that are there."""
        paths = [Path(text).expanduser() for text in self.options.get("identityfile", ())]
        return [str(path) for path in paths if path.is_file()]

    def known_hosts(self) -> list[Path]:
        """Lists of host keys; the first is where a new one is written."""
        texts = [self.one(name) for name in ("userknownhostsfile", "globalknownhostsfile")]
        return [Path(word).expanduser() for text in texts for word in shlex.split(text)]

    def proxy(self) -> list[str] | None:
        """The command that leads to the host through others, on its standard input and output."""
        target = self.one("hostname", self.host)
        if jumps := self.one("proxyjump"):
            *before, last = jumps.split(",")
            through = ["-J", ",".join(before)] if before else []
            where = f"[{target}]:{self.port}"
            return ["ssh", *through, "-W", where, "--", last if "://" in last else f"ssh://{last}"]
        if command := self.one("proxycommand"):
            values = {"%": "%", "h": target, "p": str(self.port), "r": self.user, "n": self.host}
            return ["sh", "-c", "exec " + _TOKEN.sub(lambda match: values[match[1]], command)]
        return None


class Connection:
    """A host that was logged in to; commands run as root, by sudo where the account is another."""

    def __init__(self, edge: str, client: paramiko.SSHClient, *, is_root: bool) -> None:
        self._edge = edge
        self._client = client
        self._before = () if is_root else ("sudo", "-n", "--")

    def run(self, words: Sequence[str], data: bytes = b"") -> Done:
        """Run a command as root, with `data` as its input. Raises EdgeUnreachable."""
        try:
            transport = self._client.get_transport()
            if transport is None:
                raise EOFError("the connection is closed")
            with transport.open_session(timeout=CONNECT_TIMEOUT_S) as channel:
                channel.settimeout(COMMAND_TIMEOUT_S)
                channel.exec_command(shlex.join([*self._before, *words]))
                channel.sendall(data)
                channel.shutdown_write()
                out = channel.makefile("rb").read()
                said = channel.makefile_stderr("rb").read().decode(errors="replace").strip()
                return Done(channel.recv_exit_status(), out.decode(errors="surrogateescape"), said)
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise EdgeUnreachable(f"edge {self._edge}: the connection broke: {error}") from error

    def check_rights(self) -> None:
        """See that commands run as root. Raises EdgeUnreachable."""
        done = self.run(["id", "-u"])
        if done.out.strip() != "0":
            raise EdgeUnreachable(
                f"edge {self._edge}: commands do not run as root there: {done.said or done.out.strip()}; log in as "
                "root (--as root), or let the account use sudo without a password (NOPASSWD)"
            )


@contextmanager
def connect(edge: EdgeConfig, administrator: Administrator, host_keys: HostKeys) -> Iterator[Connection]:
    """Log in to an edge's host. Raises EdgeUnreachable, ConfigError, StoreError."""
    place = Place.of(edge, administrator.user)
    lists = [edge.known_hosts] if edge.known_hosts else place.known_hosts()
    with ExitStack() as open_things:
        way = open_things.enter_context(_way(place))
        client = open_things.enter_context(paramiko.SSHClient())
        for path in lists:
            if path.is_file():
                client.load_system_host_keys(str(path))
        client.set_missing_host_key_policy(_Policy(edge.name, host_keys, lists[0] if lists else None))
        _log_in(edge, client, place, administrator, way)
        connection = Connection(edge.name, client, is_root=place.user == "root")
        connection.check_rights()
        yield connection


def _log_in(
    edge: EdgeConfig,
    client: paramiko.SSHClient,
    place: Place,
    administrator: Administrator,
    way: socket.socket,
) -> None:
    own = administrator.identity_file
    where = f"edge {edge.name}: {place.user}@{place.host}"
    keys: Any = [str(own)] if own else place.identities()  # the stubs know of one only
    try:
        client.connect(
            place.known_name,
            place.port,
            place.user,
            sock=way,
            key_filename=keys,
            allow_agent=own is None,
            look_for_keys=False,
            timeout=CONNECT_TIMEOUT_S,
            banner_timeout=CONNECT_TIMEOUT_S,
            auth_timeout=CONNECT_TIMEOUT_S,
        )
    except paramiko.BadHostKeyException as error:
        raise EdgeUnreachable(
            f"{where}: its host key is {error.key.fingerprint}, and the known one is "
            f"{error.expected_key.fingerprint}: ask whoever runs it, before anything else"
        ) from error
    except paramiko.AuthenticationException as error:
        raise EdgeUnreachable(
            f"{where}: does not let us in: {error}; say as whom (--as USER) and by which key (--identity FILE, "
            "or one in ssh-agent)"
        ) from error
    except (OSError, EOFError, paramiko.SSHException) as error:
        raise EdgeUnreachable(f"{where}: port {place.port}: {error or 'it closed the connection'}") from error


class _Policy(paramiko.MissingHostKeyPolicy):
    """Never accepts blindly; what was accepted is written where deliveries look for it."""

    def __init__(self, edge: str, host_keys: HostKeys, known_hosts: Path | None) -> None:
        self._edge = edge
        self._host_keys = host_keys
        self._known_hosts = known_hosts

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:  # noqa: ARG002
        """Judge a key that is in no list. Raises EdgeUnreachable, StoreError."""
        if not self._host_keys.accepts(self._edge, hostname, key.fingerprint, key.get_base64()):
            raise EdgeUnreachable(
                f"edge {self._edge}: its host key, {key.fingerprint} ({key.get_name()}), was not accepted; "
                "nothing was done"
            )
        if self._known_hosts:
            _add(self._known_hosts, f"{hostname} {key.get_name()} {key.get_base64()}\n")


def _add(path: Path, line: str) -> None:
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        with path.open("a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                file.write(b"" if file.read(1) == b"\n" else b"\n")
            file.write(line.encode())
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}; the edge's host key belongs there") from error


def _child(words: Sequence[str], end: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(words, stdin=end, stdout=end)


@contextmanager
def _way(place: Place) -> Iterator[socket.socket]:
    """A socket that leads to the host's sshd. Raises EdgeUnreachable."""
    words = place.proxy()
    if words is None:
        address = place.one("hostname", place.host), place.port
        try:
            ours = socket.create_connection(address, CONNECT_TIMEOUT_S)
        except OSError as error:
            raise EdgeUnreachable(f"{address[0]} port {address[1]}: {error.strerror or error}") from error
        with ours:
            yield ours
        return
    ours, theirs = socket.socketpair()
    with ours, theirs, _child(words, theirs.fileno()) as child:
        theirs.close()
        try:
            yield ours
        finally:
            ours.close()
            child.terminate()
