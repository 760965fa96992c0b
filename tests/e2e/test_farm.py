"""Deliveries to several hosts, each in a network namespace with a bandwidth and an sshd of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.case import environment
from mirrortools.model import RepoId
from tests.delivery import noise
from tests.servers.network import Network

MIB = 1 << 20
SIZE = 24 * MIB
RATE_BITS = 100_000_000
EDGES = ("e1", "e2", "e3")
REPO = "acme/tiny"
CONTENT = noise(SIZE, 7)
"""What each host can do, and what is brought: about two seconds of it."""


class Site:
    """An origin with a published repository, and edges that have nothing."""

    def __init__(self, folder: Path, network: Network) -> None:
        self.folder = folder
        self.network = network
        self.config = folder / "origin.yaml"
        source = folder / "source" / REPO
        source.mkdir(parents=True)
        (source / "model.safetensors").write_bytes(CONTENT)
        (source / "config.json").write_text("{}")
        self.configure({})
        subprocess.run([*self.command("sync"), "--no-deliver"], check=True, env=environment(folder))

    def configure(self, edges: Mapping[str, Mapping[str, Any]], **more: Any) -> None:
        """Write the origin's configuration; the edges have these keys besides those they need."""
        keys = {"identity_file": str(self.network.identity_file), "known_hosts": str(self.network.known_hosts)}
        forms = {n: {"url": self.network[n].url(self.folder / n), **keys, **own} for n, own in edges.items()}
        document = {"root": str(self.folder / "origin"), "source": f"dir://{self.folder}/source", "min_free": 0}
        document |= {"repositories": [REPO], **({"edges": forms} if forms else {}), **more}
        self.config.write_text(yaml.safe_dump(document))

    def command(self, verb: str) -> list[str]:
        """The words of a run of everything."""
        program = Path(sys.executable).with_name("mirrortool")
        return [str(program), "--config", str(self.config), verb, "--all", "--json"]

    def deliver(self) -> subprocess.Popen[str]:
        """Deliver from the origin's host."""
        words = self.network["origin"].command(self.command("deliver"))
        env = environment(self.folder)
        return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)

    def arrived_bytes(self, edge: str) -> int:
        """How much of the large file an edge has."""
        incoming = (self.folder / edge / "state" / "incoming").rglob("*")
        return sum(path.stat().st_size for path in incoming if path.is_file())

    def served(self, edge: str) -> bytes | None:
        """The large file as an edge shows it."""
        path = self.folder / edge / "public" / RepoId.parse(REPO).path / "refs" / "main" / "model.safetensors"
        return path.read_bytes() if path.exists() else None

    def sent_bytes(self, host: str) -> int:
        """What a host has sent, with all headers."""
        words = self.network[host].command(["cat", "/sys/class/net/eth0/statistics/tx_bytes"])
        return int(subprocess.run(words, check=True, capture_output=True).stdout)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Three edges that listen for ssh."""
    with Network(tmp_path / "network", ["origin", *EDGES], RATE_BITS) as network:
        for name in EDGES:
            network[name].serve_ssh()
        yield Site(tmp_path, network)


def ended(run: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for the end of a run."""
    said, _ = run.communicate(timeout=100)
    return run.returncode, said


def wait_for(site: Site, edge: str, size_bytes: int) -> None:
    """Return when an edge has got so much."""
    words = textwrap.dedent(f"""
        import os, sys, time
        from pathlib import Path
        while sum(p.stat().st_size for p in Path(sys.argv[1]).rglob("*") if p.is_file()) < {size_bytes}:
            time.sleep(0.01)
    """)
    place = site.folder / edge / "state" / "incoming"
    subprocess.run([sys.executable, "-c", words, place], check=True, timeout=60)


def test_the_origin_sends_each_byte_once(site: Site) -> None:
    """Three edges have all, and hardly more than the size of it left the origin."""
    site.configure({name: {} for name in EDGES})
    before = site.sent_bytes("origin")
    status, said = ended(site.deliver())

    assert status == 0, said
    assert [site.served(name) == CONTENT for name in EDGES] == [True] * 3
    assert site.sent_bytes("origin") - before < 1.4 * SIZE


@pytest.mark.parametrize("fault", ["killed", "unplugged for long"])
def test_one_that_dies_does_not_stop_the_others(site: Site, fault: str) -> None:
    """The receiver of the second is killed half-way, or its host goes off the network: all have everything in the end,
    when it comes back, and the others do not get it all from the origin.
    """
    site.configure({name: {} for name in EDGES})
    before = site.sent_bytes("origin")
    run = site.deliver()
    wait_for(site, "e2", SIZE // 3)
    if fault == "killed":
        site.network["e2"].kill_sessions()
    else:
        site.network["e2"].unplug()
        wait_for(site, "e3", SIZE * 2 // 3)
        site.network["e2"].plug()
    status, said = ended(run)

    assert status == 0, said
    assert [site.served(name) == CONTENT for name in EDGES] == [True] * 3
    assert site.sent_bytes("origin") - before < 2.5 * SIZE


def test_edges_that_cannot_reach_each_other_are_served_all_the_same(site: Site) -> None:
    """Firewalls between two of them: the origin feeds both."""
    for name in EDGES:
        for other in set(EDGES) - {name}:
            site.network[name].refuse_from(site.network[other])
    site.configure({name: {} for name in EDGES})
    status, said = ended(site.deliver())

    assert status == 0, said
    assert [site.served(name) == CONTENT for name in EDGES] == [True] * 3


def test_where_no_port_can_be_reached_all_goes_through_ssh(site: Site) -> None:
    """Each edge is fed by the origin then, through the connection that is there."""
    site.configure({name: {"relay_host": "255.255.255.255"} for name in EDGES})
    status, said = ended(site.deliver())

    assert status == 0, said
    assert [site.served(name) == CONTENT for name in EDGES] == [True] * 3


def test_only_ports_that_are_allowed_are_used(site: Site) -> None:
    """Behind firewalls that let through one port of each edge, the chain is complete."""
    site.configure({name: {"relay_ports": "42000"} for name in EDGES})
    before = site.sent_bytes("origin")
    status, said = ended(site.deliver())

    assert status == 0, said
    assert site.sent_bytes("origin") - before < 1.4 * SIZE
    assert os.geteuid() == 0
