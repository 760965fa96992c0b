"""`mirrortool edge provision` and its way back, on a Debian of its own with systemd, sshd, nginx and rsync."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.test_systemd import BINDS, PROGRAM, eventually
from tests.servers.nspawn import Machine

CONFIG = """\
root: /srv/mirrortools
source: dir:///srv/models
min_free: 0
listen: 127.0.0.1:8000
edges:
  bj1:
    url: ssh://mirror@bj1/srv/edge
    identity_file: bj1_key
    known_hosts: known_hosts
    listen: 0.0.0.0:80
    incoming_limit: 50MiB
    min_free: 1MiB
repositories: [acme/tiny]
"""
# Behind a jump host and on an odd port, as ssh_config alone says.
SSH_CONFIG = """\
Host bj1
    HostName 127.0.0.1
    Port 2222
    ProxyJump 127.0.0.1:2200
Host *
    IdentityFile /root/admin_key
"""
SSHD = "[Service]\nRuntimeDirectory=sshd\nExecStart=/usr/sbin/sshd -D -e -f /etc/ssh/edge\n"
SSHD_CONFIG = "Port 2222\nPort 2200\nListenAddress 127.0.0.1\nHostKey /etc/ssh/edge_key\nUsePAM no\n"
PREPARE = """\
set -e
mkdir -p /root/.ssh /etc/mirrortools /srv/models/acme/tiny /srv/mirrortools
rm -f /root/.ssh/config /root/.ssh/known_hosts /root/.bashrc /root/.profile /root/.bash_profile
ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/edge_key
ssh-keygen -q -t ed25519 -N '' -f /root/admin_key
cp /root/admin_key.pub /root/.ssh/authorized_keys
chmod 700 /root /root/.ssh
echo "[127.0.0.1]:2200 $(cat /etc/ssh/edge_key.pub)" >/root/.ssh/known_hosts
echo '{"name": "tiny"}' >/srv/models/acme/tiny/config.json
head -c 3000000 /dev/urandom >/srv/models/acme/tiny/model.safetensors
rm -rf /etc/nginx/conf.d/* /etc/rsyncd.d /etc/rsyncd.conf /etc/logrotate.d/mirrortools
ln -sf /etc/nginx/sites-available/default /etc/nginx/sites-enabled/default
systemctl start edge-sshd
mirrortool sync --all --no-deliver
"""
# There is no network to install from: this one "installs" what it is told to, and keeps its words.
APT = """\
#!/bin/sh
echo "$*" >>/srv/apt-said
case $* in *install*logrotate*) printf '#!/bin/sh\n' >/usr/sbin/logrotate; chmod 755 /usr/sbin/logrotate;; esac
"""
OPTIONS = ["-oBatchMode=yes", "-oIdentitiesOnly=yes", "-oUserKnownHostsFile=/etc/mirrortools/known_hosts"]
TOUCHED = (
    "/etc/nginx/conf.d/mirrortools.conf",
    "/etc/nginx/mirrortools",
    "/etc/rsyncd.conf",
    "/etc/rsyncd.d",
    "/etc/logrotate.d/mirrortools",
    "/usr/local/lib/mirrortools",
)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """An origin with a published repository, and an sshd that root may log in to; no edge yet."""
    with Machine(tmp_path_factory.mktemp("machine"), BINDS) as machine:
        program = machine.root / "usr/bin/mirrortool"
        program.write_text(PROGRAM)
        program.chmod(0o755)
        (machine.root / "etc/ssh/edge").write_text(SSHD_CONFIG)
        (machine.root / "etc/systemd/system/edge-sshd.service").write_text(SSHD)
        (machine.root / "usr/bin/apt-get").unlink()
        (machine.root / "usr/bin/apt-get").write_text(APT)
        (machine.root / "usr/bin/apt-get").chmod(0o755)
        (machine.root / "usr/sbin/logrotate").unlink(missing_ok=True)
        (machine.root / "etc/mirrortools").mkdir(exist_ok=True)
        (machine.root / "etc/mirrortools/mirrortool.yaml").write_text(CONFIG)
        machine.shell(PREPARE)
        (machine.root / "root/.ssh/config").write_text(SSH_CONFIG)
        yield machine


def host_key(machine: Machine) -> str:
    """What the host's own console says of its key."""
    return machine.shell("ssh-keygen -lf /etc/ssh/edge_key.pub").split()[1]


def provision(machine: Machine, *more: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Provision the edge as root."""
    words = ["edge", "provision", "bj1", "--as", "root", "--host-key", host_key(machine), "--yes", "--install"]
    return machine.run("mirrortool", *words, *more, check=check)


def deliver(machine: Machine) -> str:
    """Deliver everything to the edge."""
    return machine.run("mirrortool", "deliver", "--all").stdout


@pytest.fixture
def edge(machine: Machine) -> Machine:
    """The machine, provisioned by whichever test came first."""
    if not (machine.root / "usr/local/lib/mirrortools").exists():
        provision(machine)
    return machine


def test_a_host_key_is_never_accepted_blindly(machine: Machine) -> None:
    """Without a terminal an unknown one is refused, with its fingerprint and what to do; a wrong one too."""
    words = ["mirrortool", "edge", "provision", "bj1", "--as", "root", "--yes"]
    unknown = machine.run(*words, check=False)
    wrong = machine.run(*words, "--host-key", "SHA256:" + "A" * 43, check=False)

    assert (unknown.returncode, wrong.returncode) == (40, 40)
    assert f"run again with --host-key {host_key(machine)}" in unknown.stderr
    assert "was not accepted; nothing was done" in wrong.stderr
    assert not (machine.root / "etc/mirrortools/known_hosts").exists()


def test_a_dry_run_shows_the_plan_and_does_nothing(machine: Machine) -> None:
    """Each step in a line, files with what changes in them."""
    shown = provision(machine, "--dry-run").stdout

    assert "make the account mirror" in shown
    assert "write /etc/nginx/conf.d/mirrortools.conf (root:root, 0644)" in shown
    assert "remove /etc/nginx/sites-enabled/default" in shown
    assert re.search(r"\+restrict,command=.*--edge=bj1 --min-free=1048576 --incoming-limit=52428800 /srv/edge", shown)
    assert machine.run("id", "mirror", check=False).returncode == 1
    assert not (machine.root / "usr/local/lib/mirrortools").exists()


def test_packages_are_installed_with_consent_only(machine: Machine) -> None:
    """Without a terminal --yes alone is not enough for them, and nothing is done."""
    words = ["mirrortool", "edge", "provision", "bj1", "--as", "root", "--yes", "--host-key", host_key(machine)]
    done = machine.run(*words, check=False)

    assert done.returncode == 2
    assert "Install the packages logrotate? There is no terminal to ask on; say --install" in done.stderr
    assert machine.run("id", "mirror", check=False).returncode == 1


def test_a_bare_host_becomes_an_edge_through_a_jump_host(machine: Machine) -> None:
    """Account, folders, key, nginx, rsyncd: the first delivery is served over HTTP and rsync."""
    said = provision(machine).stdout
    deliver(machine)
    content = (machine.root / "srv/models/acme/tiny/model.safetensors").read_bytes()
    place = "/acme/tiny/resolve/main/model.safetensors"
    machine.shell(f"curl -sf http://127.0.0.1:80{place} >/srv/by-http")
    machine.shell("rsync -aL rsync://127.0.0.1/models/acme/tiny/ /srv/by-rsync/")

    assert "edge bj1: mirror@bj1 is ready" in said
    assert (machine.root / "srv/by-http").read_bytes() == content
    assert (machine.root / "srv/by-rsync/model.safetensors").read_bytes() == content
    assert machine.property("nginx", "ActiveState") == "active"
    assert (machine.root / "srv/apt-said").read_text().splitlines() == [
        "-q update",
        "-q -y --no-install-recommends install logrotate",
    ]


def test_a_second_run_finds_nothing_to_do(edge: Machine) -> None:
    """Nothing is written, nothing restarted."""
    since = edge.property("nginx", "ActiveEnterTimestampMonotonic")
    said = provision(edge).stdout

    assert "edge bj1: nothing to do on bj1" in said
    assert edge.property("nginx", "ActiveEnterTimestampMonotonic") == since


def test_the_key_delivers_and_nothing_else(edge: Machine) -> None:
    """The account cannot let in other keys: home and list belong to root."""
    key = [
        "-i",
        "/etc/mirrortools/bj1_key",
        "-o",
        "IdentitiesOnly=yes",
        "-o",
        "UserKnownHostsFile=/etc/mirrortools/known_hosts",
    ]
    done = edge.run("ssh", "-o", "BatchMode=yes", *key, "mirror@bj1", "id", check=False)
    owners = edge.shell("stat -c '%U %a' /var/lib/mirrortools /var/lib/mirrortools/.ssh/authorized_keys")

    assert done.returncode == 1
    assert "this key lets a mirror's origin deliver to /srv/edge, and nothing else" in done.stderr
    assert owners.splitlines() == ["root 755", "root 644"]


def test_what_was_changed_by_hand_is_put_right(edge: Machine) -> None:
    """The plan names that file alone, and shows the line; the keys of others stay."""
    keys = edge.root / "var/lib/mirrortools/.ssh/authorized_keys"
    keys.write_text(f"ssh-ed25519 AAAA another\n{keys.read_text()}".replace("restrict,", ""))
    said = provision(edge).stdout

    assert "change /var/lib/mirrortools/.ssh/authorized_keys" in said
    assert "nginx" not in said.partition("ready")[0]
    assert keys.read_text().startswith("ssh-ed25519 AAAA another\nrestrict,command=")
    assert keys.read_text().count("\n") == 2


def test_when_nginx_refuses_the_files_are_as_they_were(edge: Machine) -> None:
    """Another default server on that port: nginx's own words, status 50."""
    other = edge.root / "etc/nginx/conf.d/other.conf"
    config = edge.root / "etc/mirrortools/mirrortool.yaml"
    ours = edge.root / "etc/nginx/conf.d/mirrortools.conf"
    before = ours.read_bytes()
    other.write_text("server { listen 0.0.0.0:8081 default_server; }\n")
    config.write_text(CONFIG.replace("0.0.0.0:80", "0.0.0.0:8081"))
    done = provision(edge, check=False)
    other.unlink()
    config.write_text(CONFIG)

    assert done.returncode == 50
    assert "duplicate default server for 0.0.0.0:8081" in done.stderr
    assert ours.read_bytes() == before
    assert "nothing to do" in provision(edge).stdout


def test_a_new_push_key_takes_the_place_of_the_old_one(edge: Machine) -> None:
    """It is proved before the old one goes; deliveries go on; the old one is not let in any more."""
    edge.shell("cp /etc/mirrortools/bj1_key /tmp/old_key")
    said = edge.run("mirrortool", "edge", "rotate-key", "bj1", "--as", "root", "--yes").stdout
    old = edge.run("ssh", "-F", "none", "-p", "2222", *OPTIONS, "-i", "/tmp/old_key", "mirror@127.0.0.1", check=False)

    assert said.index("the new key was proved") < said.index("edge bj1: the old key is out")
    assert old.returncode == 255
    assert "Permission denied" in old.stderr
    assert "acme/tiny" in deliver(edge)
    assert "nothing to do" in provision(edge).stdout


def test_a_configuration_of_rsyncd_that_is_not_ours_stays(edge: Machine) -> None:
    """The plan says so."""
    rsyncd = edge.root / "etc/rsyncd.conf"
    ours = rsyncd.read_text()
    rsyncd.write_text("[pub]\npath = /srv\n")
    said = provision(edge).stdout
    after = rsyncd.read_text()
    rsyncd.write_text(ours)
    provision(edge)

    assert "/etc/rsyncd.conf is not ours and stays as it is; add this line at its end: &include /etc/rsyncd.d" in said
    assert after == "[pub]\npath = /srv\n"


def test_deprovision_takes_away_what_was_put_there(edge: Machine) -> None:
    """Content and account stay until --purge; Debian's own page is back; a second run finds nothing."""
    deprovision = ["mirrortool", "edge", "deprovision", "bj1", "--as", "root", "--yes"]
    deliver(edge)
    said = edge.run(*deprovision).stdout
    eventually(lambda: edge.run("curl", "-sf", "http://127.0.0.1:80/", check=False).returncode == 0)

    assert "/srv/edge and the account mirror, whose it is, stay" in said
    assert [path for path in TOUCHED if (edge.root / path.lstrip("/")).exists()] == []
    assert (edge.root / "srv/edge/public/models/acme/tiny/refs/main/config.json").exists()
    assert "restrict" not in (edge.root / "var/lib/mirrortools/.ssh/authorized_keys").read_text()
    assert "nothing to do" in edge.run(*deprovision).stdout

    provision(edge)
    edge.run(*deprovision, "--purge")

    assert not Path(edge.root / "srv/edge").exists()
    assert edge.run("id", "mirror", check=False).returncode == 1
