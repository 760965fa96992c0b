"""`ssh://user@host:port/root`: OpenSSH for the receiver, and rsync through the same connection.

ssh reads its own configuration files, because that is where jump hosts, host aliases and ports are kept. What a
delivery depends on stands on the command line, which wins: no password prompts, known host keys only, no
forwarding, no remote or local command, no terminal, AES-GCM first, no key exchange that takes long, connections that
notice a dead network. With `known_hosts` no other list of host keys counts for the edge, with `identity_file` no other
key is offered.
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from mirrortools.access import reason
from mirrortools.config import EdgeConfig
from mirrortools.errors import ConfigError, EdgeUnreachable
from mirrortools.files import make_folder
from mirrortools.transports.base import Session
from mirrortools.transports.child import environment
from mirrortools.transports.session import ProcessSession

CONNECT_TIMEOUT_S: Final = 15
_FAILED: Final = 255
_OTHERS: Final = 0o077
# A socket's name may have 107 bytes (unix(7)); ssh first makes one with 17 more.
_CONTROL_PATH_BYTES: Final = 107 - 17
_OPTIONS: Final = (
    "BatchMode=yes",
    "StrictHostKeyChecking=yes",
    f"ConnectTimeout={CONNECT_TIMEOUT_S}",
    "ServerAliveInterval=15",
    "ServerAliveCountMax=4",
    "Ciphers=aes128-gcm@openssh.com,aes256-gcm@openssh.com,chacha20-poly1305@openssh.com,aes128-ctr,aes256-ctr",
    "Compression=no",
    "ControlPersist=no",
    "ForwardAgent=no",
    "ForwardX11=no",
    "ClearAllForwardings=yes",
    "PermitLocalCommand=no",
    "RemoteCommand=none",
    "RequestTTY=no",
    "LogLevel=ERROR",
)
# OpenSSH's code for it takes 65 ms of a processor, a login without it 30; newer ones have ML-KEM, which is quick.
_FOR_WHAT_IS_PUBLIC: Final = ("KexAlgorithms=-sntrup761*",)
_HOST: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:%-]*\Z")
_USER: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]*\Z")
_ADVICE: Final = (
    (
        "has changed and you have requested",
        "its host key is not the known one: ask whoever runs it, before anything else",
    ),
    (
        "Host key verification failed",
        "its host key is not known: compare it with the host's own, then add it to {known}",
    ),
    ("bad permissions", "others can read that private key, so ssh passes it over: chmod 600 the file"),
    ("Permission denied", "it does not accept the key: add the public key to authorized_keys there"),
    ("no matching key exchange", "its sshd has to allow curve25519-sha256, or ML-KEM, beside what it offers"),
    ("Could not resolve", "its name is not known: look at the url"),
    ("Connection refused", "nothing listens there: look at the port, and whether sshd runs"),
    ("timed out", "nothing answers: look at the network and firewalls"),
)


class SshTransport:
    """The way to a host. `state` is the origin's state folder, where the connection's socket may lie."""

    def __init__(self, edge: EdgeConfig, state: Path) -> None:
        if not _HOST.match(edge.host) or (edge.user and not _USER.match(edge.user)):
            raise ConfigError(f"edge {edge.name}: {edge.url}: not a host or user name that ssh takes")
        self.edge = edge.name
        self.root = edge.root
        self.python = "python3"
        self.env = environment(*(() if edge.identity_file else ("SSH_AUTH_SOCK",)))
        self.rate_limit_bytes_s = edge.rate_limit_bytes_s
        self._config = edge
        self._control = control_path(state)

    def open(self, receiver: bytes) -> Session:
        """Connect and start the receiver."""
        self._check_identity()
        if self._control:
            make_folder(self._control.parent)
            self._control.parent.chmod(0o700)
        return ProcessSession(self, receiver)

    def command(self, words: Sequence[str], *, joined: bool = False) -> list[str]:
        """ssh, as the owner of the connection unless `joined`. The edge's login shell takes the words apart again."""
        return [*self._ssh("no" if joined else "yes"), "--", self._config.host, shlex.join(words)]

    def rsync_words(self, folder: Path) -> tuple[list[str], str]:
        """Ssh again, over the connection of the receiver when there is a socket for it."""
        host = f"[{self._config.host}]" if ":" in self._config.host else self._config.host
        return [f"--rsh={rsh(self._ssh('no'))}"], f"{host}:{folder}"

    def unreachable(self, status: int, said: str) -> EdgeUnreachable | None:
        """What ssh's own exit status means, with advice and the command to try by hand."""
        if status != _FAILED:
            return None
        return EdgeUnreachable(
            f"edge {self.edge}: ssh could not reach {self._config.host}, or was cut off: {said or 'it said nothing'}; "
            f"{self._advice(said)}try by hand: {self.by_hand()}"
        )

    def by_hand(self) -> str:
        """The command with which an operator sees the same failure."""
        options = [word for option in self._own_options() for word in ("-o", option)]
        return shlex.join(["ssh", *options, *self._place(), "--", self._config.host, "true"])

    def _advice(self, said: str) -> str:
        known = self._config.known_hosts or "known_hosts"
        found = [advice.format(known=known) for words, advice in _ADVICE if words in said]
        return f"{found[0]}; " if found else ""

    def _check_identity(self) -> None:
        """Say that the key cannot be read, or is open to others: ssh passes it over and complains of the edge."""
        path = self._config.identity_file
        if path is None:
            return
        try:
            with path.open("rb") as key:
                status = os.fstat(key.fileno())
        except OSError as error:
            raise EdgeUnreachable(f"edge {self.edge}: {path}: {reason(error)} (identity_file)") from error
        # ssh's own rule: it looks at the mode of files of the account that runs it.
        if status.st_uid == os.getuid() and status.st_mode & _OTHERS:
            raise EdgeUnreachable(
                f"edge {self.edge}: {path}: its mode {stat.S_IMODE(status.st_mode):04o} opens this private key to "
                f"other accounts, so ssh does not use it; run: chmod 600 {shlex.quote(str(path))} (identity_file)"
            )

    def _ssh(self, master: str) -> list[str]:
        control = (
            (f"ControlMaster={master}", f"ControlPath={self._control}") if self._control else ("ControlPath=none",)
        )
        exchange = () if self._config.private else _FOR_WHAT_IS_PUBLIC
        options = (*_OPTIONS, *exchange, *self._own_options(), *control)
        return ["ssh", *(word for option in options for word in ("-o", option)), *self._place()]

    def _own_options(self) -> list[str]:
        options = []
        if self._config.known_hosts:
            options += [f"UserKnownHostsFile={_quoted(self._config.known_hosts)}", "GlobalKnownHostsFile=/dev/null"]
        if self._config.identity_file:
            options += [f"IdentityFile={_quoted(self._config.identity_file)}", "IdentitiesOnly=yes"]
        return options

    def _place(self) -> list[str]:
        user = ["-l", self._config.user] if self._config.user else []
        return [*user, *(["-p", str(self._config.port)] if self._config.port else [])]


def control_path(state: Path) -> Path | None:
    """A new name for the socket that rsync finds the receiver's connection by; None when it would be too long."""
    path = state / "ssh" / secrets.token_hex(4)
    usable = len(str(path).encode()) <= _CONTROL_PATH_BYTES and not set(str(path)) & set("%$\"' ")
    return path if usable else None


def rsh(words: Sequence[str]) -> str:
    """One text that rsync takes apart into `words`: it knows quotes, and a doubled quote inside them, no more."""
    return " ".join('"' + word.replace('"', '""') + '"' for word in words)


def _quoted(path: Path) -> str:
    """A file name in an ssh option, where % and quotes mean something (ssh_config(5))."""
    return '"' + str(path).replace("%", "%%").replace("\\", "\\\\").replace('"', '\\"') + '"'
