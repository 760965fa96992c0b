"""Hosts of our own: network namespaces on one bridge, each with an address, a bandwidth, and an sshd if wanted."""

from __future__ import annotations

import os
import secrets
import shlex
import signal
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.servers.process import Process, program
from tests.servers.sshd import descendants, make_key

RATE_BITS: Final = 200_000_000
PORT: Final = 22
_SHELL_FILE: Final = Path.home() / ".bashrc"
_NET: Final = "10.213.7"
# A queue of 40 ms at 200 Mbit/s, counted in bytes: the kernel hands over packets of up to 64 KiB, which are cut later.
_QUEUE_BYTES: Final = 1 << 20


class Host:
    """One host of a `Network`."""

    def __init__(self, network: Network, name: str, number: int) -> None:
        self.name = name
        self.address = f"{_NET}.{number}"
        self.folder = network.folder / name
        self.space = f"{network.prefix}-{name}"
        self._network = network
        self._outside = f"v{number}"
        self._sshd: Process | None = None

    def command(self, words: Sequence[str | Path]) -> list[str]:
        """The words that run `words` on this host."""
        return ["ip", "netns", "exec", self.space, *map(str, words)]

    def url(self, root: Path) -> str:
        """The edge URL of a folder of this host."""
        return f"ssh://root@{self.address}{root}"

    def set_rate(self, bits_s: int) -> None:
        """How much it may send and get in a second, from now on."""
        _tc(self.space, "eth0", bits_s)
        _tc(self._network.hub, self._outside, bits_s)

    def unplug(self) -> None:
        """Nothing comes through any more, and nobody is told."""
        _ip("-n", self._network.hub, "link", "set", self._outside, "down")

    def plug(self) -> None:
        """Packets come through again."""
        _ip("-n", self._network.hub, "link", "set", self._outside, "up")

    def refuse_from(self, other: Host) -> None:
        """Answer nothing that another host says, as behind a firewall."""
        _ip("-n", self.space, "route", "add", "blackhole", f"{other.address}/32")

    def serve_ssh(self) -> None:
        """Start sshd for root, with the network's keys."""
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "sshd_config"
        config.write_text(_SSHD_CONFIG.format(address=self.address, keys=self._network.keys))
        words = shlex.join([program("sshd"), "-D", "-e", "-f", str(config)])
        # A namespace's mounts are its own (ip-netns(8)): no file of this machine slows a login down there.
        start = f"[ ! -e {_SHELL_FILE} ] || mount --bind /dev/null {_SHELL_FILE}; exec {words}"
        self._sshd = Process(self.command(["sh", "-c", start]), self.folder / "sshd.log")
        self._sshd.start(self._answers)

    def crash(self) -> None:
        """Kill sshd and all that it started, as a crash does; its connections are reset."""
        if self._sshd:
            for pid in [*descendants(self._sshd.pid), self._sshd.pid]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.stop()

    def kill_sessions(self) -> None:
        """Kill what sshd started, but not sshd."""
        if self._sshd:
            for pid in descendants(self._sshd.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        """End sshd."""
        if self._sshd:
            self.kill_sessions()
            self._sshd.stop()
            self._sshd = None

    def _answers(self) -> bool:
        look = self.command(["bash", "-c", f"exec 3<>/dev/tcp/{self.address}/{PORT}"])
        return subprocess.run(look, capture_output=True).returncode == 0


class Network:
    """Hosts by name, made when the `with` block begins and gone when it ends. All can log in to each other as root.

    Clients need `identity_file` and `known_hosts`.
    """

    def __init__(self, folder: Path, names: Sequence[str], rate_bits: int = RATE_BITS) -> None:
        self.folder = folder.resolve()
        self.prefix = f"mt{secrets.token_hex(3)}"
        self.hub = f"{self.prefix}-hub"
        self.keys = self.folder / "keys"
        self.identity_file = self.keys / "user_key"
        self.known_hosts = self.keys / "known_hosts"
        self.hosts = {name: Host(self, name, number) for number, name in enumerate(names, 1)}
        self._rate_bits = rate_bits
        self._made = ExitStack()

    def __getitem__(self, name: str) -> Host:
        return self.hosts[name]

    def __enter__(self) -> Self:
        self._prepare_keys()
        with ExitStack() as making:
            self._space(making, self.hub)
            _ip("-n", self.hub, "link", "add", "bridge", "type", "bridge")
            _ip("-n", self.hub, "link", "set", "bridge", "up")
            for number, host in enumerate(self.hosts.values(), 1):
                self._space(making, host.space)
                self._connect(host, number)
                making.callback(host.stop)
            self._made = making.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._made.close()

    def _space(self, making: ExitStack, name: str) -> None:
        _ip("netns", "add", name)
        making.callback(_ip, "netns", "del", name)

    def _connect(self, host: Host, number: int) -> None:
        peer = ("type", "veth", "peer", "name", "eth0", "netns", host.space)
        _ip("-n", self.hub, "link", "add", f"v{number}", *peer)
        _ip("-n", self.hub, "link", "set", f"v{number}", "master", "bridge", "up")
        _ip("-n", host.space, "addr", "add", f"{host.address}/24", "dev", "eth0")
        for name in ("lo", "eth0"):
            _ip("-n", host.space, "link", "set", name, "up")
        if self._rate_bits:
            host.set_rate(self._rate_bits)

    def _prepare_keys(self) -> None:
        self.keys.mkdir(parents=True, exist_ok=True, mode=0o700)
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        for name in ("host_key", "user_key"):
            make_key(self.keys / name)
        key = (self.keys / "host_key.pub").read_text()
        self.known_hosts.write_text("".join(f"{host.address} {key}" for host in self.hosts.values()))
        (self.keys / "authorized_keys").write_bytes((self.keys / "user_key.pub").read_bytes())


def _tc(space: str, device: str, bits_s: int) -> None:
    words = ["tc", "-n", space]
    burst = ("burst", "64k", "cburst", "64k", "quantum", "60000")
    subprocess.run([*words, "qdisc", "del", "dev", device, "root"], capture_output=True)
    for more in (
        ("qdisc", "add", "dev", device, "root", "handle", "1:", "htb", "default", "1"),
        ("class", "add", "dev", device, "parent", "1:", "classid", "1:1", "htb", "rate", f"{bits_s}bit", *burst),
        ("qdisc", "add", "dev", device, "parent", "1:1", "bfifo", "limit", str(_QUEUE_BYTES)),
    ):
        subprocess.run([*words, *more], check=True)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


_SSHD_CONFIG = """\
Port 22
ListenAddress {address}
HostKey "{keys}/host_key"
PidFile none
AuthorizedKeysFile "{keys}/authorized_keys"
AllowUsers root
AuthenticationMethods publickey
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
UseDNS no
PrintMotd no
PrintLastLog no
MaxStartups 200
MaxSessions 100
"""
