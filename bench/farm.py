"""An origin and its edges, each in a network namespace with a bandwidth, and what the origin publishes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from bench.case import environment
from bench.content import Content
from mirrortools.model import Manifest, RepoId
from tests.servers.mirrored import Mirrored
from tests.servers.network import Host, Network

MIRRORTOOL = Path(sys.executable).with_name("mirrortool")


@dataclass(frozen=True, slots=True)
class Published:
    """A repository of the origin: its name, the commit that is its `main`, its blobs as files below public/.

    `others` are repositories that are published too.
    """

    repo: str
    commit: str
    blobs: Sequence[str]
    size_bytes: int
    others: Sequence[str] = ()


class Farm:
    """The hosts `origin` and `e01`, `e02`, …, while the `with` block lasts. Everything lies below `folder`."""

    others: Sequence[str] = ()

    def __init__(self, folder: Path, edges: int, rate_bits: int) -> None:
        self.folder = folder
        self.root = folder / "origin-root"
        self.edges = [f"e{number:02}" for number in range(1, edges + 1)]
        self.network = Network(folder / "network", ["origin", *self.edges, *self.others], rate_bits)
        self.shared_root: Path | None = None
        self._running = ExitStack()

    # What it holds

    def publish(self, content: Content) -> Published:
        """Make `content` and publish it, unless an earlier run did."""
        source = self.folder / "source"
        if not (self.root / "public" / RepoId.parse(content.repo).path / "refs" / "main").exists():
            content.write(source / content.repo)
            self.publish_folder(content.repo)
            shutil.rmtree(source / content.repo)
        return self.published(content.repo)

    def publish_after(self, before: Content, content: Content) -> Published:
        """Publish `before`, have an edge take it, and publish `content`; unless an earlier run did.

        What the edge has then is kept, for `hand_out`.
        """
        if not self._kept(before.repo).exists():
            shutil.rmtree(self.root / "public" / RepoId.parse(before.repo).path, ignore_errors=True)
            for each in (before, content):
                shutil.rmtree(self.folder / "source" / before.repo, ignore_errors=True)
                each.write(self.folder / "source" / before.repo)
                self.publish_folder(before.repo)
                if each is before:
                    self._keep(before.repo)
            shutil.rmtree(self.folder / "source" / before.repo)
        return self.published(before.repo)

    def _keep(self, repo: str) -> None:
        """Have the first edge take what is published, and put away what it has then."""
        self.clear()
        self.deliver_once(repo)
        self._kept(repo).parent.mkdir(parents=True, exist_ok=True)
        self.edge_root(self.edges[0]).rename(self._kept(repo))

    def deliver_once(self, repo: str) -> None:
        """Let the first edge take what is published of a repository, outside of all measurements."""
        words = [str(MIRRORTOOL), "--config", str(self.configure([repo], self.edge_forms(self.edges[:1])))]
        deliver = self.origin.command([*words, "deliver", "--all", "--json"])
        subprocess.run(deliver, check=True, capture_output=True, env=environment(self.folder))

    def hand_out(self, repo: str) -> None:
        """Let each edge have what `publish_after` kept."""
        for edge in self.edges:
            subprocess.run(["cp", "-a", "--reflink=auto", self._kept(repo), self.edge_root(edge)], check=True)

    def _kept(self, repo: str) -> Path:
        return self.folder / "kept" / repo.replace("/", "_")

    def publish_folder(self, repo: str) -> Published:
        """Publish what is in the source folder of a repository."""
        self.mirrortool("sync", "--all", "--no-deliver", "--json", repos=[repo])
        return self.published(repo)

    def published(self, repo: str) -> Published:
        """What is published of a repository."""
        folder = self.public_root / "public" / RepoId.parse(repo).path
        commit = (folder / "refs" / "main").resolve().name
        document = json.loads((folder / "meta" / commit / "manifest.json").read_text())
        blobs = Manifest.from_json(document).blobs
        return Published(repo, commit, sorted(blob.path for blob in blobs), sum(blob.size for blob in blobs))

    def mirrortool(self, *words: str, repos: Sequence[str], edges: Mapping[str, Any] | None = None) -> None:
        """Run mirrortool here, outside of all measurements. Raises CalledProcessError."""
        command = [str(MIRRORTOOL), "--config", str(self.configure(repos, edges or {})), *words]
        subprocess.run(command, check=True, capture_output=True, env=environment(self.folder))

    def configure(self, repos: Sequence[str], edges: Mapping[str, Any]) -> Path:
        """Write a configuration of the origin; gives its file."""
        document = {
            "root": str(self.root),
            "source": f"dir://{self.folder / 'source'}",
            "min_free": 0,
            "repositories": list(repos),
            **({"edges": dict(edges)} if edges else {}),
        }
        path = self.folder / f"origin-{len(repos)}.yaml"  # a name for each, so that mirrortool remembers them
        path.write_text(yaml.safe_dump(document))
        return path

    def edge_forms(self, edges: Sequence[str], **more: Any) -> dict[str, Any]:
        """The edges as a configuration has them."""
        keys = {"identity_file": str(self.network.identity_file), "known_hosts": str(self.network.known_hosts)}
        return {name: {"url": self.network[name].url(self.edge_root(name)), **keys, **more} for name in edges}

    @property
    def public_root(self) -> Path:
        """Where what is published lies before the run."""
        return self.root

    def edge_root(self, edge: str) -> Path:
        """The root folder of an edge; all have the same one when `shared_root` says so."""
        return self.shared_root or self.folder / "edges" / edge

    def warm(self, published: Published) -> None:
        """Read what the origin is going to send, so that it comes from memory."""
        for path in published.blobs:
            with (self.public_root / "public" / path).open("rb", buffering=0) as file:
                while file.read(1 << 20):
                    pass

    def clear(self) -> None:
        """Forget what edges have, and heal what was broken."""
        shutil.rmtree(self.folder / "edges", ignore_errors=True)
        (self.folder / "edges").mkdir(parents=True)

    def sent_bytes(self) -> int:
        """What the origin has sent until now, with all headers."""
        words = self.origin.command(["cat", "/sys/class/net/eth0/statistics/tx_bytes"])
        return int(subprocess.run(words, check=True, capture_output=True).stdout)

    @property
    def origin(self) -> Host:
        return self.network["origin"]

    # Life

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as starting:
            starting.enter_context(self.network)
            for name in self.edges:
                self.network[name].serve_ssh()
            self._running = starting.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.close()
        shutil.rmtree(self.folder / "edges", ignore_errors=True)


class FetchingFarm(Farm):
    """Hosts with one more, `source`, which has what is published: the origin has nothing of it yet."""

    others = ("source",)

    def __init__(self, folder: Path, edges: int, rate_bits: int) -> None:
        super().__init__(folder, edges, rate_bits)
        self.root = folder / "fetching-root"
        self._source = Mirrored(self.network["source"], folder / "upstream")

    def publish(self, content: Content) -> Published:
        """Have the source serve `content`, unless an earlier run did."""
        if not (self._source.root / "public" / RepoId.parse(content.repo).path / "refs" / "main").exists():
            self._source.publish(content.repo, content.write)
        return self.published(content.repo)

    def configure(self, repos: Sequence[str], edges: Mapping[str, Any]) -> Path:
        """Write a configuration of the origin; gives its file."""
        path = super().configure(repos, edges)
        path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "source": self._source.url}))
        return path

    def clear(self) -> None:
        """Forget what the origin and the edges have."""
        super().clear()
        shutil.rmtree(self.root, ignore_errors=True)

    @property
    def public_root(self) -> Path:
        """Where what is published lies before the run."""
        return self._source.root

    def __enter__(self) -> Self:
        super().__enter__()
        self._running.enter_context(self._source)
        return self
