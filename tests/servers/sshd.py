"""An OpenSSH server on loopback with keys of its own."""

from __future__ import annotations

import getpass
import os
import signal
import subprocess
from contextlib import ExitStack, suppress
from pathlib import Path

from tests.servers.ports import free_port, port_answers
from tests.servers.process import Process, Startable, program
from tests.servers.relay import Relay


class Sshd(Startable):
    """sshd for the current user, with everything in `folder`, behind a relay that counts.

    Clients need `port` or `url`, `identity_file` and `known_hosts`.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder = folder.resolve()
        self.port, self._sshd_port = free_port(), free_port()
        self.user = getpass.getuser()
        self.identity_file = self.folder / "user_key"
        self.known_hosts = self.folder / "known_hosts"
        self.authorized_keys = self.folder / "authorized_keys"
        self._log = self.folder / "sshd.log"
        self._log_start = 0
        self._running = ExitStack()
        self._prepare()
        # sshd starts itself again for each connection and therefore wants its full path.
        self._process = Process([program("sshd"), "-D", "-e", "-f", self.folder / "sshd_config"], self._log)

    def url(self, root: Path | str) -> str:
        """The edge URL of the folder `root` behind this server."""
        return f"ssh://{self.user}@127.0.0.1:{self.port}{root}"

    @property
    def options(self) -> list[str]:
        """Options with which ssh(1) logs in here and nowhere else."""
        settings = {
            "IdentityFile": self.identity_file,
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": self.known_hosts,
            "GlobalKnownHostsFile": "/dev/null",
            "StrictHostKeyChecking": "yes",
            "BatchMode": "yes",
        }
        pairs = [f'-o{name}="{value}"' for name, value in settings.items()]
        return ["-F", "none", *pairs, "-p", str(self.port)]

    def authorize(self, options: str = "") -> None:
        """Let the user's key in with these options of authorized_keys, `restrict,command="…"` for example."""
        key = self.identity_file.with_suffix(".pub").read_text()
        self.authorized_keys.write_text(f"{options} {key}".lstrip())

    def logins(self) -> int:
        """How many logins there were since the last `forget`."""
        return self._said().count("Accepted publickey for")

    def received_bytes(self) -> int:
        """What clients sent since the last `forget`: bytes on the wire, enciphered."""
        return self._relay.received_bytes

    def sent_bytes(self) -> int:
        """What clients got since the last `forget`: bytes on the wire, enciphered."""
        return self._relay.sent_bytes

    def forget(self) -> None:
        """Begin to count anew."""
        self._relay.forget()
        self._log_start = self._log.stat().st_size

    def cut_after(self, size: int) -> None:
        """Cut all connections, once, when clients have sent `size` more bytes."""
        self._relay.cut_after(size)

    def heal(self) -> None:
        """Break what is still connected, and let the key do everything again."""
        self._relay.heal()
        self.kill_sessions()
        self.authorize()

    def kill_sessions(self) -> int:
        """Break all open connections with SIGKILL, as a crash does; how many processes there were."""
        processes = descendants(self._process.pid)
        for pid in processes:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(processes)

    def start(self) -> None:
        """Start sshd and wait until it answers. Raises ServerError with what sshd said."""
        with ExitStack() as starting:
            starting.callback(self._process.stop)
            self._process.start(lambda: port_answers(self._sshd_port))
            starting.callback(self.kill_sessions)
            self._relay = starting.enter_context(Relay(self.port, self._sshd_port))
            self._running = starting.pop_all()

    def stop(self) -> None:
        """End sshd and break its connections; `start` brings it back at the same port."""
        self._running.close()

    def _prepare(self) -> None:
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        for name in ("host_key", "user_key"):
            make_key(self.folder / name)
        host_key = (self.folder / "host_key.pub").read_text()
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {host_key}")
        self.authorize()
        settings = _SSHD_CONFIG.format(port=self._sshd_port, folder=self.folder, user=self.user)
        (self.folder / "sshd_config").write_text(settings)

    def _said(self) -> str:
        with self._log.open("rb") as file:
            file.seek(self._log_start)
            return file.read().decode(errors="replace")


def make_key(path: Path) -> None:
    if not path.exists():
        command = [program("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-C", path.name, "-f", str(path)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def descendants(pid: int) -> list[int]:
    """The processes that `pid` started, and those that they started, as far as they still live."""
    children: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it may just have ended
            parent = int(status.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(status.parent.name))
    found, open_ends = [], [pid]
    while open_ends:
        found += (next_ones := children.get(open_ends.pop(), []))
        open_ends += next_ones
    return found


_SSHD_CONFIG = """\
Port {port}
ListenAddress 127.0.0.1
HostKey "{folder}/host_key"
PidFile none
AuthorizedKeysFile "{folder}/authorized_keys"
AllowUsers {user}
AuthenticationMethods publickey
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
UseDNS no
PrintMotd no
PrintLastLog no
MaxStartups 200
MaxSessions 100
LogLevel VERBOSE
Subsystem sftp internal-sftp
"""
