"""Deliveries to several hosts, each in a network namespace with a bandwidth and an sshd of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Collection, Iterator, Mapping
from itertools import product
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
REGIONS = {"e1": {"region": "asia"}, "e2": {"region": "europe"}, "e3": {"region": "europe"}}
REPO = "acme/tiny"
CONTENT = noise(SIZE, 7)
"""What each host can do, and what is brought: about two seconds of it."""


class Site:
    """An origin with a published repository, and edges that have nothing."""

    def __init__(self, folder: Path, network: Network) -> None:
        self.folder = folder
        self.network = network
        self.config = folder / "origin.yaml"
        self.source = folder / "source" / REPO
        self.source.mkdir(parents=True)
        (self.source / "config.json").write_text("{}")
        self.change(CONTENT)

    def change(self, content: bytes) -> None:
        """Let the large file have this content, and publish that here."""
        (self.source / "model.safetensors").write_bytes(content)
        self.configure({})
        subprocess.run([*self.command("sync"), "--no-deliver"], check=True, env=environment(self.folder))

    def configure(self, edges: Mapping[str, Mapping[str, Any]], **more: Any) -> None:
        """Write the origin's configuration; the edges have these keys besides those they need."""
        keys = {"identity_file": str(self.network.identity_file), "known_hosts": str(self.network.known_hosts)}
        forms = {n: {"url": self.network[n].url(self.folder / n), **keys, **own} for n, own in edges.items()}
        document = {"root": str(self.folder / "origin"), "source": f"dir://{self.folder}/source", "min_free": 0}
        document |= {"repositories": [REPO], **({"edges": forms} if forms else {}), **more}
        self.config.write_text(yaml.safe_dump(document))

    def command(self, verb: str, *more: str) -> list[str]:
        """The words of a run of everything."""
        program = Path(sys.executable).with_name("mirrortool")
        return [str(program), "--config", str(self.config), verb, "--all", "--json", *more]

    def deliver(self, *more: str) -> subprocess.Popen[str]:
        """Deliver from the origin's host."""
        words = self.network["origin"].command(self.command("deliver", *more))
        env = environment(self.folder)
        return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)

    def fill(self, *edges: str) -> str:
        """Deliver to these edges, and see that it went well; gives what was said."""
        self.configure({name: {} for name in edges})
        status, said = ended(self.deliver())
        assert status == 0, said
        return said

    def seed(self, *edges: str) -> None:
        """Deliver to these edges over a network that is faster for once."""
        self._set_rates(10 * RATE_BITS)
        self.fill(*edges)
        self._set_rates(RATE_BITS)

    def _set_rates(self, bits_s: int) -> None:
        for host in self.network.hosts.values():
            host.set_rate(bits_s)

    def arrived_bytes(self, edge: str) -> int:
        """How much of the large file an edge has."""
        incoming = (self.folder / edge / "state" / "incoming").rglob("*")
        return sum(path.stat().st_size for path in incoming if path.is_file())

    def served(self, edge: str) -> bytes | None:
        """The large file as an edge shows it."""
        path = self.large_file(edge)
        return path.read_bytes() if path.exists() else None

    def large_file(self, edge: str) -> Path:
        """Where an edge shows the large file."""
        return self.folder / edge / "public" / RepoId.parse(REPO).path / "refs" / "main" / "model.safetensors"

    def sent_bytes(self, host: str) -> int:
        """What a host has sent, with all headers."""
        words = self.network[host].command(["cat", "/sys/class/net/eth0/statistics/tx_bytes"])
        return int(subprocess.run(words, check=True, capture_output=True).stdout)

    def firewall(self, *groups: Collection[str]) -> None:
        """Let hosts of one of these groups reach no other group."""
        for group in groups:
            for name, other in product(group, set(EDGES) - set(group)):
                self.network[name].refuse_from(self.network[other])


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


def drawn(said: str) -> set[tuple[str, str]]:
    """Who drew from whom, by what a delivery said."""
    deliveries = [one for outcome in json.loads(said[said.index("[") :]) for one in outcome["deliveries"]]
    return {(one["edge"], feeder) for one in deliveries for feeder in one["relayed_from"]}


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
    site.firewall(*([name] for name in EDGES))
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


def test_what_is_new_comes_into_each_region_once(site: Site) -> None:
    """All that leaves the origin is one copy, and one edge draws from another region: the head of its own."""
    site.configure(REGIONS)
    before = site.sent_bytes("origin")
    status, said = ended(site.deliver())
    across = {taker for taker, feeder in drawn(said) if REGIONS[taker] != REGIONS[feeder]}

    assert status == 0, said
    assert [site.served(name) == CONTENT for name in EDGES] == [True] * 3
    assert site.sent_bytes("origin") - before < 1.4 * SIZE
    assert len(across) == 1, said


def test_regions_that_cannot_reach_each_other_are_fed_side_by_side(site: Site) -> None:
    """The origin sends a copy to each; when one of a region dies, the other one is its head."""
    site.firewall(["e1"], ["e2", "e3"])
    site.configure(REGIONS)
    before = site.sent_bytes("origin")
    run = site.deliver()
    wait_for(site, "e3", SIZE // 3)
    sent_bytes = site.sent_bytes("origin") - before
    site.network["e2"].kill_sessions()
    status, said = ended(run)

    assert status == 0, said
    assert [site.served(name) == CONTENT for name in EDGES] == [True] * 3
    assert sent_bytes < 1.5 * SIZE
    assert not [pair for pair in drawn(said) if "e1" in pair], said


def test_a_new_edge_is_filled_from_its_siblings(site: Site) -> None:
    """Next to nothing leaves the origin when the others have all; whoever fed it keeps the note of what it shows."""
    site.seed("e1", "e2")
    notes = [site.folder / name / "state" / "shown" / "public" for name in ("e1", "e2")]
    before, noted = site.sent_bytes("origin"), [path.read_text() for path in notes]
    said = site.fill(*EDGES)

    assert site.served("e3") == CONTENT
    assert [path.read_text() for path in notes] == noted
    assert site.sent_bytes("origin") - before < 0.2 * SIZE, said


def test_a_new_edge_that_is_named_alone_is_filled_from_its_siblings(site: Site) -> None:
    """One that the run does not go to is called; another one is down, which is not the run's fault."""
    site.seed("e1", "e2")
    site.network["e1"].crash()
    site.configure({name: {} for name in EDGES})
    before = site.sent_bytes("origin")
    status, said = ended(site.deliver("--edge", "e3"))

    assert status == 0, said
    assert site.served("e3") == CONTENT
    assert site.sent_bytes("origin") - before < 0.2 * SIZE, said
    assert drawn(said) == {("e3", "e2")}


def test_several_revisions_that_an_edge_missed_come_from_its_siblings(site: Site) -> None:
    """In one go, and the edge shows what they show."""
    site.change(b"small")
    site.fill(*EDGES)
    for number in (1, 2):
        site.change(noise(SIZE, number))
        site.seed("e1", "e2")
    before = site.sent_bytes("origin")
    said = site.fill(*EDGES)

    assert site.served("e3") == site.served("e1") == noise(SIZE, 2)
    assert site.sent_bytes("origin") - before < 0.2 * SIZE, said


def test_a_feeder_that_dies_is_replaced(site: Site) -> None:
    """The other one that has all goes on, and the origin until it is there."""
    site.seed("e1", "e2")
    site.configure({name: {} for name in EDGES})
    before, fed = site.sent_bytes("origin"), {name: site.sent_bytes(name) for name in ("e1", "e2")}
    run = site.deliver()
    wait_for(site, "e3", SIZE // 3)
    site.network[max(fed, key=lambda name: site.sent_bytes(name) - fed[name])].kill_sessions()
    status, said = ended(run)

    assert status == 0, said
    assert site.served("e3") == CONTENT
    assert site.sent_bytes("origin") - before < 0.9 * SIZE


def test_a_slow_feeder_is_given_up(site: Site) -> None:
    """The origin feeds when it is much faster."""
    site.seed("e1")
    site.network["e1"].set_rate(RATE_BITS // 25)
    before = site.sent_bytes("e1")
    said = site.fill("e1", "e3")

    assert site.served("e3") == CONTENT
    assert site.sent_bytes("e1") - before < SIZE // 2, said


def test_what_rotted_at_a_feeder_comes_from_the_origin(site: Site) -> None:
    """The new edge hashes what it gets; its second try does not draw from those that may have the same."""
    site.seed("e1", "e2")
    for name in ("e1", "e2"):
        path = site.large_file(name).resolve()
        path.chmod(0o600)
        path.write_bytes(CONTENT[:-1] + b"?")
    site.fill(*EDGES)

    assert site.served("e3") == CONTENT


def test_what_changed_leaves_the_origin_once(site: Site) -> None:
    """Edges that have the older blob pass the new bytes on, and each makes the blob by itself."""
    site.seed("e1", "e2")
    changed = CONTENT[: 3 * MIB] + noise(6 * MIB, 8) + CONTENT[9 * MIB - 1000 :]
    site.change(changed)
    before = site.sent_bytes("origin")
    said = site.fill("e1", "e2")
    sent_bytes = site.sent_bytes("origin") - before
    told = json.loads(said)[0]["deliveries"]

    assert [site.served(name) == changed for name in ("e1", "e2")] == [True] * 2
    assert 6 * MIB < sent_bytes < 1.4 * 6 * MIB
    assert 6 * MIB < sum(edge["sent_bytes"] for edge in told) <= sent_bytes


def test_an_edge_that_lacks_what_changed_gets_it_whole(site: Site) -> None:
    """Beside others that get the new bytes alone."""
    site.seed("e1", "e2")
    changed = CONTENT[: 3 * MIB] + noise(6 * MIB, 8) + CONTENT[9 * MIB :]
    site.change(changed)
    site.fill(*EDGES)

    assert [site.served(name) == changed for name in EDGES] == [True] * 3
