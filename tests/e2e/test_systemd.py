"""The units under a real systemd: timers, the account, the sandbox, stops, and nginx on port 80."""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from tests.servers.nspawn import Machine

TIMEOUT_S = 30
# What runs the tests may lie in folders that are closed to other accounts.
BINDS = {
    "/opt/code/mirrortools": Path(__file__).parents[2] / "mirrortools",
    "/opt/packages": Path(click.__file__).parents[1],
    "/opt/python": Path(sys.base_prefix),
}
PROGRAM = f"""\
#!/bin/sh
export PYTHONPATH=/opt/code:/opt/packages LD_LIBRARY_PATH=/opt/python/lib
exec /opt/python/bin/python{sys.version_info.major}.{sys.version_info.minor} -m mirrortools "$@"
"""
CONFIG = """\
root: /srv/mirrortools
source: dir:///srv/models
min_free: 0
sync_interval: 1d
edges:
  disk: {url: "file:///srv/disk"}
  slow: {url: "file:///srv/slow", rate_limit: 600kB/s}
  near: {url: "ssh://edge@127.0.0.1/srv/near", identity_file: id_ed25519, known_hosts: known_hosts}
  home: {url: "ssh://edge@localhost/srv/home"}
"""
HUB = '{repo: acme/hub, source: {url: "http://127.0.0.1", token_file: /etc/mirrortools/hub.token}}'
JOBS = {
    "timed": "sync_interval: 2s\nedges: [disk]\nrepositories: [acme/timed]\n",
    "remote": "edges: [near, home]\nrepositories: [acme/remote]\n",
    "slow": "edges: [slow]\nrepositories: [acme/slow]\n",
    "locked": "edges: []\nrepositories: [acme/locked]\n",
    "broken": "edges: []\nrepositories: [acme/broken]\n",
    "byhand": "edges: []\nrepositories: [acme/byhand]\n",
    "keyless": "edges: [near]\nrepositories: [acme/keyless]\n",
    "hub": f"edges: []\nrepositories: [{HUB}]\n",
}
# Runs in the place of a sync and says, one word a line, what the sandbox lets it do.
PROBE = """\
import ctypes, mmap, os, socket
from pathlib import Path

def may(word, act):
    try:
        act()
    except OSError:
        return
    print(word)

path = Path("/srv/mirrortools/state/probe")
may("write-root", lambda: path.write_text("x"))
may("write-edge", lambda: Path("/srv/disk/probe").write_text("x"))
may("write-tmp", lambda: Path("/tmp/probe").write_text("x"))
may("write-null", lambda: Path("/dev/null").write_text("x"))
may("inet", lambda: socket.socket(socket.AF_INET).close())
may("inet6", lambda: socket.socket(socket.AF_INET6).close())
may("unix", lambda: socket.socket(socket.AF_UNIX).close())
may("memfd", lambda: os.memfd_create("x"))
may("rename-exchange", lambda: ctypes.CDLL(None).renameat2)
may("write-etc", lambda: Path("/etc/mirrortools/probe").write_text("x"))
may("write-source", lambda: Path("/srv/models/probe").write_text("x"))
may("write-shm", lambda: Path("/dev/shm/probe").write_text("x"))
may("homes", lambda: os.listdir("/home"))
may("others", lambda: os.stat("/proc/1"))
may("settings", lambda: Path("/proc/sys/kernel/hostname").read_text())
may("netlink", lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW))
may("packet", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
may("chown", lambda: os.chown(path, os.getuid(), os.getgid()))
may("nice", lambda: os.setpriority(os.PRIO_PROCESS, 0, 19))
may("set-user-id", lambda: path.chmod(0o4755))
may("code", lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC))
status = dict(line.split(":\\t", 1) for line in Path("/proc/self/status").read_text().splitlines())
print("privileges", *(status[name] for name in ("CapBnd", "CapAmb", "CapEff", "NoNewPrivs", "Seccomp")))
"""
SSHD = "[Service]\nRuntimeDirectory=sshd\nExecStart=/usr/sbin/sshd -D -e -f /etc/ssh/edge\n"
SSHD_CONFIG = "ListenAddress 127.0.0.1\nHostKey /etc/ssh/edge_key\nUsePAM no\n"
MAKE_EDGE = """\
useradd --create-home --password '*' edge
install -d -o edge -g edge /srv/near /srv/home
ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/edge_key
ssh-keygen -q -t ed25519 -N '' -f /etc/mirrortools/id_ed25519
install -d -o edge -g edge -m 700 ~edge/.ssh
install -o edge -g edge -m 600 /etc/mirrortools/id_ed25519.pub ~edge/.ssh/authorized_keys
echo "127.0.0.1,localhost $(cat /etc/ssh/edge_key.pub)" >/etc/mirrortools/known_hosts
systemctl start edge-sshd
"""
GIVE_KEY_IN_HOME = """\
install -d -o mirrortool -g mirrortool -m 700 ~mirrortool/.ssh
install -o mirrortool -m 600 -t ~mirrortool/.ssh /etc/mirrortools/id_ed25519 /etc/mirrortools/known_hosts
"""


def content(repo: str) -> bytes:
    """The model of a repository, which does not compress."""
    return random.Random(repo).randbytes(1_500_000)


def make_models(machine: Machine) -> None:
    """Write a folder of models, which needs no network to be pulled from."""
    for job in set(JOBS) - {"broken", "hub"}:
        folder = machine.root / "srv/models/acme" / job
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({"name": job}))
        (folder / "model.safetensors").write_bytes(content(job))


def configure(machine: Machine) -> None:
    """Install the program, begin with `mirrortool init` as root does, then configure the jobs."""
    program = machine.root / "usr/bin/mirrortool"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    machine.run("mirrortool", "init", "--create-root")
    folder = machine.root / "etc/mirrortools"
    (folder / "conf.d/example.yaml").unlink()
    (folder / "mirrortool.yaml").write_text(CONFIG)
    for job, text in JOBS.items():
        (folder / f"conf.d/{job}.yaml").write_text(text)
    (folder / "hub.token").write_text("secret\n")
    (folder / "hub.token").chmod(0o600)


def make_edge(machine: Machine) -> None:
    """Start an sshd for an account of its own."""
    (machine.root / "etc/ssh/edge").write_text(SSHD_CONFIG)
    (machine.root / "etc/systemd/system/edge-sshd.service").write_text(SSHD)
    machine.shell(f"set -e\n{MAKE_EDGE}")


def install(machine: Machine) -> list[str]:
    """Install the units and do what the command says comes next; the commands that it said."""
    done = machine.run("mirrortool", "systemd", "install")
    assert done.stderr == ""
    commands = [line.strip() for line in done.stdout.partition("Next, as root:\n")[2].splitlines()]
    for command in commands:
        machine.shell(command)
    return commands


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Machine, list[str]]]:
    """A machine with everything installed and only the timer of the job `timed` running; what install said."""
    with Machine(tmp_path_factory.mktemp("machine"), BINDS) as machine:
        make_models(machine)
        configure(machine)
        make_edge(machine)
        commands = install(machine)
        machine.shell(GIVE_KEY_IN_HOME)
        machine.run("systemctl", "stop", *(timer(job) for job in JOBS if job != "timed"))
        yield machine, commands


@pytest.fixture
def machine(installed: tuple[Machine, list[str]]) -> Machine:
    """The machine that the tests share; each has a job of its own."""
    return installed[0]


@pytest.fixture
def website(machine: Machine) -> str:
    """The mirror on port 80."""
    machine.run("systemctl", "start", "mirrortool-serve")
    eventually(lambda: machine.run("curl", "-s", "http://127.0.0.1/", check=False).returncode == 0)
    return "http://127.0.0.1"


def service(job: str) -> str:
    """The service of a job."""
    return f"mirrortool-sync@{job}.service"


def timer(job: str) -> str:
    """The timer of a job."""
    return f"mirrortool-sync@{job}.timer"


def sync(machine: Machine, job: str) -> tuple[str, str]:
    """Start the service of a job and wait for its end: its result and its exit status, as systemd has them."""
    machine.run("systemctl", "start", service(job), check=False)
    return outcome(machine, job)


def outcome(machine: Machine, job: str) -> tuple[str, str]:
    """Result and exit status of the last run."""
    return machine.property(service(job), "Result"), machine.property(service(job), "ExecMainStatus")


def messages(machine: Machine, job: str, priority: int) -> str:
    """What a job said at a priority (syslog(3)). The journal may lag behind: look again, see `eventually`."""
    entries = said_by(machine, service(job))
    return "\n".join(entry["MESSAGE"] for entry in entries if entry["PRIORITY"] == str(priority))


def said_by(machine: Machine, unit: str) -> list[dict[str, Any]]:
    """What the program of a unit said, without what systemd says of the unit."""
    return [entry for entry in machine.journal(unit) if entry["SYSLOG_IDENTIFIER"] != "systemd"]


def replace_program(machine: Machine, job: str, command: str) -> None:
    """Let the service of a job run another command in the place of a sync."""
    drop_in = machine.root / "etc/systemd/system" / f"{service(job)}.d/test.conf"
    drop_in.parent.mkdir()
    drop_in.write_text(f"[Service]\nExecStart=\nExecStart={command}\n")
    machine.run("systemctl", "daemon-reload")


def served(machine: Machine, root: str, repo: str) -> bytes:
    """The model of a repository as a root serves it."""
    return (machine.root / root / "public/models/acme" / repo / "refs/main/model.safetensors").read_bytes()


def eventually(condition: Callable[[], Any]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.05)


def test_install_says_all_that_must_be_done(installed: tuple[Machine, list[str]]) -> None:
    """Whoever follows what `systemd install` says has an account that owns the mirror, its edges and its secrets."""
    machine, commands = installed
    timers = " ".join(timer(job) for job in sorted(JOBS))

    assert commands == [
        "systemd-sysusers",
        "chown -hR mirrortool:mirrortool /srv/mirrortools",
        "install -d -o mirrortool -g mirrortool /srv/disk",
        "install -d -o mirrortool -g mirrortool /srv/slow",
        "chown mirrortool: /etc/mirrortools/hub.token",
        "chown mirrortool: /etc/mirrortools/id_ed25519",
        f"systemctl daemon-reload && systemctl enable --now {timers}",
    ]
    assert machine.shell("getent passwd mirrortool").split(":")[5] == "/srv/mirrortools/state"
    assert machine.shell("stat -c %U /srv/mirrortools/public").strip() == "mirrortool"
    assert machine.shell(f"systemctl is-enabled {timers}").split() == ["enabled"] * len(JOBS)
    assert install(machine) == []


def test_the_timer_syncs_again_and_again(machine: Machine) -> None:
    """A job is synced at its interval, by the account of the units; a longer interval counts once it is installed."""
    job = machine.root / "etc/mirrortools/conf.d/timed.yaml"
    eventually(lambda: runs(machine, "timed") >= 2)
    job.write_text(JOBS["timed"].replace("2s", "1h"))
    commands = install(machine)
    eventually(lambda: machine.property(service("timed"), "ActiveState") == "inactive")
    before = runs(machine, "timed")
    time.sleep(3)

    assert outcome(machine, "timed") == ("success", "0")
    assert served(machine, "srv/mirrortools", "timed") == content("timed")
    assert served(machine, "srv/disk", "timed") == content("timed")
    assert len(commands) == 1
    assert runs(machine, "timed") == before
    assert machine.shell("find /srv/mirrortools /srv/disk ! -user mirrortool") == ""


def runs(machine: Machine, job: str) -> int:
    """How often a service has ended well."""
    return sum("Deactivated successfully" in entry["MESSAGE"] for entry in machine.journal(service(job)))


def test_ssh_edges_are_reached_from_the_sandbox(machine: Machine) -> None:
    """Inside the sandbox ssh finds keys and known hosts, configured or in the account's home, and rsync its socket."""
    status = sync(machine, "remote")

    assert status == ("success", "0"), machine.journal(service("remote"))
    assert served(machine, "srv/near", "remote") == content("remote")
    assert served(machine, "srv/home", "remote") == content("remote")


def test_the_mirror_is_served_on_port_80(machine: Machine, website: str) -> None:
    """The port is bound without being root and with no other capability, and nginx has nothing to complain of."""
    sync(machine, "locked")
    page = machine.shell(f"curl -sSf {website}/acme/locked/resolve/main/config.json")
    process = machine.property("mirrortool-serve", "MainPID")
    status = dict(line.split(":\t", 1) for line in machine.shell(f"cat /proc/{process}/status").splitlines())
    owner = machine.shell("id -u mirrortool").strip()
    machine.run("systemctl", "stop", "mirrortool-serve")
    said = {entry["MESSAGE"] for entry in said_by(machine, "mirrortool-serve")}

    assert page == '{"name": "locked"}'
    assert set(status["Uid"].split()) == {owner}
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 1 << 10
    assert machine.property("mirrortool-serve", "Result") == "success"
    assert said == {"serving /srv/mirrortools on 0.0.0.0:80"}


def test_a_failure_has_its_status_and_priority(machine: Machine) -> None:
    """`systemctl show` has the kind of error, the journal its text as an error, and results as information."""
    failure = sync(machine, "broken")
    sync(machine, "locked")

    assert failure == ("exit-code", "11")
    assert machine.property(service("broken"), "ActiveState") == "failed"
    eventually(lambda: "/srv/models/acme/broken" in messages(machine, "broken", 3))
    eventually(lambda: "acme/locked: main" in messages(machine, "locked", 6))
    assert messages(machine, "locked", 3) == ""


def test_a_locked_repository_is_no_failure(machine: Machine) -> None:
    """Another run at work is status 31, which is told and does not make the unit fail."""
    lock = "/srv/mirrortools/state/locks/models%2Facme%2Flocked.lock"
    sync(machine, "locked")
    machine.run("flock", lock, "systemctl", "start", service("locked"))

    assert outcome(machine, "locked") == ("success", "31")
    assert machine.property(service("locked"), "ActiveState") == "inactive"
    eventually(lambda: "it will run once more" in messages(machine, "locked", 3))


def test_a_stop_ends_everything_and_the_next_start_goes_on(machine: Machine) -> None:
    """A stop in mid-delivery leaves no process and no failed unit; what was sent is not sent again."""
    incoming = machine.root / "srv/slow/state/incoming"
    machine.run("systemctl", "start", "--no-block", service("slow"))
    eventually(lambda: any(path.stat().st_size >= 200_000 for path in incoming.glob("*/*")))
    groups_before = control_groups(machine, "slow")
    machine.run("systemctl", "stop", service("slow"))
    stopped = outcome(machine, "slow")
    state = machine.property(service("slow"), "ActiveState")
    groups_after = control_groups(machine, "slow")
    finished = sync(machine, "slow")
    status = json.loads(machine.shell("runuser -u mirrortool -- mirrortool status --json --repo acme/slow"))

    assert stopped == ("success", "143")
    assert state == "inactive"
    assert groups_before != ""
    assert groups_after == ""
    assert finished == ("success", "0")
    assert served(machine, "srv/slow", "slow") == content("slow")
    assert status["repositories"][0]["edges"][0]["sent_bytes"] <= len(content("slow")) - 150_000


def control_groups(machine: Machine, job: str) -> str:
    """The control groups of a service; they are there as long as a process is in them."""
    return machine.shell(f"find /sys/fs/cgroup -name {service(job)} 2>/dev/null || true")


@pytest.mark.parametrize(
    ("job", "path", "status"),
    [
        ("locked", "/etc/mirrortools/mirrortool.yaml", "2"),
        ("locked", "/etc/mirrortools/conf.d/locked.yaml", "2"),
        ("hub", "/etc/mirrortools/hub.token", "2"),
        ("keyless", "/etc/mirrortools/id_ed25519", "40"),
    ],
)
def test_a_file_that_the_account_cannot_read_is_named(
    job: str, path: str, status: str, machine: Machine, website: str
) -> None:
    """The journal names the file that is closed to the account, not what follows from it; opened, it is used."""
    machine.shell(f"chown root:root {path} && chmod 600 {path}")
    closed = sync(machine, job)
    eventually(lambda: f"{path}: Permission denied" in messages(machine, job, 3))
    machine.shell(f"chown mirrortool: {path}")
    opened = sync(machine, job)

    assert closed == ("exit-code", status)
    # The mirror has no such repository, but the token was read and it was asked.
    assert opened == ("exit-code", "11") if job == "hub" else ("success", "0")


def test_what_root_left_behind_is_handed_over(machine: Machine) -> None:
    """After a sync by root the account is refused, until the command that `systemd install` names was run."""
    machine.run("mirrortool", "sync", "--job", "byhand")
    refused = sync(machine, "byhand")
    commands = install(machine)
    allowed = sync(machine, "byhand")

    assert refused == ("exit-code", "32")
    assert commands == ["chown -hR mirrortool:mirrortool /srv/mirrortools"]
    assert allowed == ("success", "0")


def test_the_sandbox_is_in_force(machine: Machine) -> None:
    """Inside a sync nothing works but what a sync needs, with the Python of the distribution too."""
    (machine.root / "srv/models/probe.py").write_text(PROBE)
    replace_program(machine, "probe", "python3 /srv/models/probe.py")
    result = sync(machine, "probe")
    eventually(lambda: "privileges" in messages(machine, "probe", 6))
    *allowed, privileges = messages(machine, "probe", 6).splitlines()

    assert result == ("success", "0"), machine.journal(service("probe"))
    assert allowed == [
        *("write-root", "write-edge", "write-tmp", "write-null"),
        *("inet", "inet6", "unix", "memfd", "rename-exchange"),
    ]
    assert privileges.split() == ["privileges", *["0" * 16] * 3, "1", "2"]
    assert not (machine.root / "tmp/probe").exists()


def test_starts_are_not_counted(machine: Machine) -> None:
    """A job may be started more often than systemd's limit of five in ten seconds, by hand or by a short interval."""
    replace_program(machine, "often", "true")
    statuses = [machine.run("systemctl", "start", service("often"), check=False).returncode for _ in range(12)]

    assert statuses == [0] * 12
