"""Deliveries that begin while the origin fetches, between hosts with a bandwidth each."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.case import environment
from mirrortools.model import RepoId
from tests.delivery import noise, sha256_blob
from tests.servers.mirrored import Mirrored
from tests.servers.network import Network

MIB = 1 << 20
RATE_BITS = 240_000_000
SLOW_BITS = 40_000_000
EDGES = ("e1", "e2")
WAIT_S = 60


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """A source, an origin and two edges that listen for ssh."""
    folder = tmp_path_factory.mktemp("network")
    with Network(folder, ["origin", "source", *EDGES], RATE_BITS) as network:
        for name in EDGES:
            network[name].serve_ssh()
        yield network


@pytest.fixture(scope="module")
def source(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mirrored]:
    """What is fetched from."""
    with Mirrored(network["source"], tmp_path_factory.mktemp("source")) as source:
        yield source


class Site:
    """An origin and two edges that have nothing yet of a repository that the source has."""

    def __init__(self, folder: Path, network: Network, source: Mirrored, files: int) -> None:
        self.folder = folder
        self.network = network
        self.source = source
        self.repo = f"acme/{folder.name.replace('_', '-').lower()}"
        self.files = {f"part-{n}.safetensors": noise(40 * MIB // files, n) for n in range(files)}
        source.publish(self.repo, self._write)

    def _write(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        for name, content in {**self.files, "config.json": b"{}"}.items():
            (folder / name).write_bytes(content)

    def start(self, **more: Any) -> subprocess.Popen[str]:
        """Start a sync on the origin's host."""
        keys = {"identity_file": str(self.network.identity_file), "known_hosts": str(self.network.known_hosts)}
        edges = {name: {"url": self.network[name].url(self.folder / name), **keys} for name in EDGES}
        document = {"root": str(self.folder / "origin"), "source": self.source.url, "min_free": 0, "edges": edges}
        config = self.folder / "origin.yaml"
        config.write_text(yaml.safe_dump({**document, "repositories": [self.repo], **more}))
        program = Path(sys.executable).with_name("mirrortool")
        words = [str(program), "--config", str(config), "--verbose", "sync", "--all", "--json"]
        env, command = environment(self.folder), self.network["origin"].command(words)
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env, start_new_session=True
        )

    def hurry(self) -> None:
        """Let the source give what it can."""
        self.network["source"].set_rate(RATE_BITS)

    def arrived_bytes(self, edge: str) -> int:
        """How much an edge has that it does not show yet."""
        return sum(size for _, size in _files(self.folder / edge / "state" / "incoming"))

    def served(self, host: str) -> dict[str, bytes]:
        """The large files as a host shows them."""
        folder = self.folder / host / "public" / RepoId.parse(self.repo).path / "refs" / "main"
        return {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}

    def blobs(self, host: str) -> list[Path]:
        """The large blobs that a host has adopted."""
        found = _files(self.folder / host / "public" / "blobs" / "sha256")
        return [path for path, size in found if size >= MIB]

    def sent_bytes(self) -> int:
        """What the origin has sent until now, with all headers."""
        words = self.network["origin"].command(["cat", "/sys/class/net/eth0/statistics/tx_bytes"])
        return int(subprocess.run(words, check=True, capture_output=True).stdout)


def _files(top: Path) -> Iterator[tuple[Path, int]]:
    """The files below a folder with their sizes, while others move them."""
    for folder, _, names in os.walk(top):
        for path in (Path(folder) / name for name in names):
            with suppress(FileNotFoundError):
                yield path, path.stat().st_size


@pytest.fixture
def site(tmp_path: Path, network: Network, source: Mirrored, request: pytest.FixtureRequest) -> Site:
    """40 MiB to fetch, from a source that gives 5 MB/s until it is told to hurry."""
    network["source"].set_rate(SLOW_BITS)
    return Site(tmp_path, network, source, getattr(request, "param", 1))


def ended(run: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for the end of a run."""
    said, _ = run.communicate(timeout=WAIT_S)
    return run.returncode, said


def wait_until(happened: Callable[[], object], run: subprocess.Popen[str]) -> None:
    """Return when something is so."""
    until_s = time.monotonic() + WAIT_S
    while not happened():
        assert time.monotonic() < until_s
        assert run.poll() is None, ended(run)
        time.sleep(0.005)


@pytest.mark.parametrize("site", [1, 10], indirect=True, ids=["one large blob", "many"])
def test_what_comes_in_goes_on_at_once(site: Site) -> None:
    """Both edges have some of it before the origin has it all, nothing shows meanwhile, and each byte leaves the origin
    once.
    """
    before, run = site.sent_bytes(), site.start()
    wait_until(lambda: min(site.arrived_bytes(edge) for edge in EDGES) >= 4 * MIB, run)
    adopted, shown = len(site.blobs("origin")), [site.served(edge) for edge in EDGES]
    site.hurry()
    status, said = ended(run)

    assert status == 0, said
    assert shown == [{}, {}]
    assert adopted < len(site.files)
    assert [site.served(edge) == site.files for edge in EDGES] == [True, True]
    assert site.sent_bytes() - before < 1.4 * 40 * MIB


@pytest.mark.parametrize("victim", ["the sync", "an edge"])
def test_who_dies_in_the_middle_loses_nothing_that_arrived(site: Site, victim: str) -> None:
    """Nothing shows meanwhile. What was there stays, and the same run, or the next one, brings the rest."""
    before, run = site.sent_bytes(), site.start()
    wait_until(lambda: min(site.arrived_bytes(edge) for edge in EDGES) >= 8 * MIB, run)
    if victim == "the sync":
        os.killpg(run.pid, signal.SIGKILL)
        ended(run)
        assert [site.served(edge) for edge in EDGES] == [{}, {}]
        assert min(site.arrived_bytes(edge) for edge in EDGES) >= 8 * MIB
        before, run = site.sent_bytes(), site.start()
    else:
        site.network["e1"].kill_sessions()
    site.hurry()
    status, said = ended(run)

    assert status == 0, said
    assert [site.served(edge) == site.files for edge in EDGES] == [True, True]
    assert site.sent_bytes() - before < (1.2 if victim == "the sync" else 2.3) * 40 * MIB


def test_wrong_bytes_that_went_ahead_are_thrown_away_everywhere(site: Site) -> None:
    """A source that lies is found out by the origin and by each edge; when it tells the truth, all goes well."""
    truth = site.files["part-0.safetensors"]
    blob = site.source.root / "public" / sha256_blob(truth).path
    site.source.replace(blob, truth[:-1] + b"!")
    site.hurry()
    status, said = ended(site.start())

    assert status == 20, said
    assert "expected sha256" in said
    assert [site.served(edge) for edge in EDGES] == [{}, {}]
    assert [site.blobs(edge) for edge in EDGES] == [[], []]

    site.source.replace(blob, truth)
    status, said = ended(site.start())

    assert status == 0, said
    assert [site.served(edge) == site.files for edge in EDGES] == [True, True]


def test_an_edge_that_cannot_be_reached_does_not_hold_the_fetch(site: Site) -> None:
    """The other one has all, and the run says which edge has not, and why."""
    site.hurry()
    site.network["e1"].stop()
    try:
        status, said = ended(site.start())
    finally:
        site.network["e1"].serve_ssh()

    assert status == 40, said
    assert "edge e1" in said
    assert [site.served(host) == site.files for host in ("origin", "e2")] == [True, True]
