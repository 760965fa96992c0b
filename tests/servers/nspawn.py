"""A machine of its own with a real systemd, on a throwaway copy of this one's files.

systemd-nspawn gives it its own processes, mounts and network, with nothing in it but loopback. Never start systemd
in a bare chroot or unshare instead: it would empty the temporary folders of this host.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tests.servers.process import Process, ServerError, Startable, program

STOP_TIMEOUT_S: Final = 10
COMMAND_TIMEOUT_S: Final = 60
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_VENDOR: Final = Path("usr/lib/systemd")
_LOCAL: Final = Path("etc/systemd")
_CGROUPS: Final = Path("/sys/fs/cgroup")
_NEEDED: Final = ("systemd-journald.service", "systemd-journald.socket", "systemd-journald-dev-log.socket")
_TARGET: Final = "mirrortool-tests.target"
_TARGET_TEXT: Final = """\
[Unit]
Description=As little as services need
Requires=basic.target
After=basic.target
AllowIsolate=yes
"""
_numbers = itertools.count(1)


class Machine(Startable):
    """A booted systemd. What it writes lies in memory, below `folder`, and is gone afterwards.

    It sees this host's root file system, and what `binds` names, read-only: its path → ours. Its files can be reached
    below `root` while it runs.
    """

    def __init__(self, folder: Path, binds: Mapping[str, Path]) -> None:
        self.folder = folder
        self.root = folder / "root"
        self.name = f"mirrortool-tests-{os.getpid()}-{next(_numbers)}"
        self._binds = binds
        self._leader = 0
        self._running = ExitStack()

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in the machine as root. Raises ServerError when it fails, unless `check` is off."""
        done = subprocess.run(
            [*self._enter(), *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
        if check and done.returncode:
            raise ServerError(f"{' '.join(words)}: status {done.returncode}; it said:\n{done.stdout}{done.stderr}")
        return done

    def shell(self, line: str) -> str:
        """Run a line of shell in the machine as root, and give its output. Raises ServerError."""
        return self.run("sh", "-c", line).stdout

    def property(self, unit: str, name: str) -> str:
        """What systemd knows of a unit (`systemctl show`)."""
        return self.run("systemctl", "show", "--value", "--property", name, unit).stdout.strip()

    def journal(self, unit: str) -> list[dict[str, Any]]:
        """The journal of a unit, oldest entry first."""
        self.run("journalctl", "--sync")
        lines = self.run("journalctl", "--output=json", "--quiet", "--unit", unit).stdout.splitlines()
        return [json.loads(line) for line in lines]

    def start(self) -> None:
        """Boot, and return when systemd says that it is done. Raises ServerError with what it said."""
        if os.geteuid() != 0:
            raise ServerError("a machine with systemd can be started by root only: run the tests as root")
        with ExitStack() as starting:
            self._mount(starting)
            _keep_the_least(self.root)
            self._boot(starting)
            self._running = starting.pop_all()

    def stop(self) -> None:
        """Shut down and forget everything."""
        self._running.close()

    def _mount(self, running: ExitStack) -> None:
        memory = self.folder / "memory"
        self.root.mkdir()
        memory.mkdir()
        running.enter_context(_mounted("tmpfs", memory, "mode=755"))
        (memory / "upper").mkdir()
        (memory / "work").mkdir()
        layers = f"lowerdir=/,upperdir={memory}/upper,workdir={memory}/work"
        running.enter_context(_mounted("overlay", self.root, layers))

    def _boot(self, running: ExitStack) -> None:
        groups = running.enter_context(_own_cgroups(self.name))
        with _Notices(self.folder / "notify") as notices:
            nspawn = Process(self._command(groups), self.folder / "console.log", {"NOTIFY_SOCKET": str(notices.path)})
            running.callback(nspawn.stop)
            nspawn.start(lambda: notices.has("X_NSPAWN_LEADER_PID"))
            self._leader = int(notices["X_NSPAWN_LEADER_PID"])
            running.callback(_power_off, self._leader)
            nspawn.wait_until(lambda: notices.has("READY"))

    def _command(self, groups: Sequence[Path]) -> Sequence[str]:
        """The words that run systemd-nspawn in control groups of its own: machines would share one otherwise."""
        move = "; ".join(f'echo $$ >"{group}/cgroup.procs"' for group in groups)
        return [
            *("sh", "-c", f'set -e; {move}; exec "$@"', "sh"),
            program("systemd-nspawn"),
            "--quiet",
            "--register=no",
            "--keep-unit",
            "--private-network",
            "--notify-ready=yes",
            "--link-journal=no",
            "--resolv-conf=off",
            "--timezone=off",
            f"--machine={self.name}",
            f"--directory={self.root}",
            *(f"--bind-ro={ours}:{its}" for its, ours in self._binds.items()),
            "--boot",
            f"systemd.unit={_TARGET}",
        ]

    def _enter(self) -> Sequence[str]:
        spaces = ["--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wd"]
        environment = ["env", "-i", f"PATH={_PATH}", "LC_ALL=C.UTF-8"]
        return [program("nsenter"), "--target", str(self._leader), *spaces, *environment]


class _Notices:
    """A socket that systemd-nspawn tells how far it is (sd_notify(3))."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._said: dict[str, str] = {}

    def has(self, name: str) -> bool:
        """Whether `name` has been told by now."""
        with suppress(BlockingIOError):
            while True:
                lines = self._socket.recv(4096, socket.MSG_DONTWAIT).decode().splitlines()
                self._said |= dict(line.split("=", 1) for line in lines if "=" in line)
        return name in self._said

    def __getitem__(self, name: str) -> str:
        return self._said[name]

    def __enter__(self) -> Self:
        self._socket.bind(str(self.path))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()


@contextmanager
def _mounted(kind: str, where: Path, options: str) -> Iterator[None]:
    subprocess.run(["mount", "-t", kind, "-o", options, kind, str(where)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(where)], check=True)


def _keep_the_least(root: Path) -> None:
    """Leave of this host's units only what services need: no other services, no timers, no generated mounts."""
    local, generators = root / _LOCAL / "system", root / _LOCAL / "system-generators"
    shutil.rmtree(local)
    local.mkdir()
    generators.mkdir(exist_ok=True)
    for target in ("sysinit", "sockets", "timers"):
        for unit in (root / _VENDOR / "system" / f"{target}.target.wants").iterdir():
            if unit.name not in _NEEDED:
                _mask(local / unit.name)
    for generator in (root / _VENDOR / "system-generators").iterdir():
        _mask(generators / generator.name)
    (local / _TARGET).write_text(_TARGET_TEXT)


def _mask(path: Path) -> None:
    if not path.is_symlink():
        path.symlink_to("/dev/null")


@contextmanager
def _own_cgroups(name: str) -> Iterator[Sequence[Path]]:
    """Control groups in the hierarchies that systemd uses: one of version 2, or of version 1, or of both."""
    trees = [_CGROUPS / tree for tree in ("systemd", "unified") if (_CGROUPS / tree).is_dir()] or [_CGROUPS]
    with ExitStack() as made:
        for tree in trees:
            made.callback(_remove_cgroup, tree / name)
            try:
                (tree / name).mkdir()
            except OSError as error:
                raise ServerError(f"{tree}: {error.strerror}; systemd needs control groups to write to") from error
        yield [tree / name for tree in trees]


def _remove_cgroup(group: Path) -> None:
    for folder, _, _ in os.walk(group, topdown=False):
        Path(folder).rmdir()


def _power_off(leader: int) -> None:
    """Let the machine's systemd stop everything (systemd(1), SIGRTMIN+4); force the end if that takes long."""
    deadline = time.monotonic() + STOP_TIMEOUT_S
    with suppress(ProcessLookupError):
        os.kill(leader, signal.SIGRTMIN + 4)
        while time.monotonic() < deadline:
            os.kill(leader, 0)
            time.sleep(0.01)
        os.kill(leader, signal.SIGKILL)
