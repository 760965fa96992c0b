"""Ours, and what the machine allows."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from bench.case import PROJECT, Case, DidNotRun, Step, WrongBytes, check_files, environment
from bench.measure import measure
from bench.seeded import seed
from bench.site import MIRRORTOOL
from bench.stand_in.xxhash import NO_HASH

_MANY_REQUESTS = 1_000_000  # counted as ever, but never waited for
_SHA256 = PROJECT / "bench" / "sha256.py"
_STAND_IN = PROJECT / "bench" / "stand_in"


@dataclass(frozen=True, slots=True)
class Ours:
    """`mirrortool sync` into a fresh root. Without `fsync` it is as careless as the peers (libeatmydata)."""

    name: str = "ours"
    about: str = "`mirrortool sync --no-deliver` into a fresh root: verified, published, fsynced"
    fsync: bool = True
    settings: Mapping[str, Any] = field(default_factory=dict)
    role: str = "ours"
    keeps: bool = False

    @property
    def durable(self) -> bool:
        return self.fsync

    @contextmanager
    def ready(self, case: Case, folder: Path) -> Iterator[Step]:
        if not self.fsync and not shutil.which("eatmydata"):
            raise DidNotRun("eatmydata is missing, which makes fsync do nothing: apt-get install eatmydata")
        yield self.step(case, folder)

    def step(self, case: Case, folder: Path) -> Step:
        config = folder / "mirrortool.yaml"
        config.write_text(yaml.safe_dump(self._configuration(case, folder)))
        more = {} if self.fsync else {"LD_PRELOAD": "libeatmydata.so"}
        chosen = ["--all"] if len(case.repos) > 1 else ["--repo", case.repo]
        command: list[str | Path] = [MIRRORTOOL, "--config", config, "sync", *chosen, "--no-deliver", "--json"]
        return Step(command, environment(folder, **more))

    def check(self, case: Case, folder: Path, stdout: str) -> None:
        outcomes = json.loads(stdout)
        if len(outcomes) != len(case.repos) or any(outcome["error"] for outcome in outcomes):
            raise WrongBytes(f"mirrortool sync reported {stdout[:1000]}")
        check_files(case, {path: folder / "root/public/models" / case.repo / "refs/main" / path for path in case.files})

    def engine_s(self, stdout: str) -> float | None:
        outcomes = json.loads(stdout)  # several run side by side, which cannot be added up
        return float(outcomes[0]["duration_s"]) if len(outcomes) == 1 else None

    def _configuration(self, case: Case, folder: Path) -> dict[str, Any]:
        source = {"url": case.url, **({"ca_file": str(case.ca_file)} if case.ca_file else {})}
        return {
            "root": str(folder / "root"),
            "source": source,
            "min_free": 0,
            "request_budget": _MANY_REQUESTS,
            "repositories": list(case.repos),
            **self.settings,
        }


@dataclass(frozen=True, slots=True)
class OursWithoutSegments:
    """Ours without fsync, and with a stand-in for xxhash that costs nothing: what segment hashes cost.

    The product has no such switch; the stand-in lies before the real module on the path of this process alone.
    """

    ours: Ours = field(default_factory=lambda: Ours(fsync=False))
    name: str = "ours-no-segments"
    about: str = "ours-no-fsync whose segment hashes cost nothing (a stand-in for xxhash, in this process alone)"
    role: str = "ours"
    durable: bool = False
    keeps: bool = False

    @contextmanager
    def ready(self, case: Case, folder: Path) -> Iterator[Step]:
        with self.ours.ready(case, folder) as step:
            yield replace(step, env={**step.env, "PYTHONPATH": str(_STAND_IN)})

    def check(self, case: Case, folder: Path, stdout: str) -> None:
        """The bytes are right, and the segment hashes are the stand-in's: otherwise nothing was switched off."""
        self.ours.check(case, folder, stdout)
        for published in (folder / "root/public/blobs/segments").rglob("*"):
            if published.is_file() and {*json.loads(published.read_text())["xxh3_128"]} != {NO_HASH}:
                raise WrongBytes(f"{published} has real segment hashes; the stand-in was not used")

    def engine_s(self, stdout: str) -> float | None:
        return self.ours.engine_s(stdout)


@dataclass(frozen=True, slots=True)
class OursAgain:
    """`mirrortool sync` when nothing is new: the first one was not measured."""

    ours: Ours = field(default_factory=Ours)
    name: str = "ours"
    about: str = "`mirrortool sync --no-deliver` of what is all there"
    role: str = "ours"
    durable: bool = True
    keeps: bool = True

    @contextmanager
    def ready(self, case: Case, folder: Path) -> Iterator[Step]:
        if not (folder / "root").exists():
            first, *others = case.repos
            measure(self.ours.step(replace(case, repos=[first]), folder), folder)
            seed(folder / "root", first, others)
        yield self.ours.step(case, folder)

    def check(self, case: Case, folder: Path, stdout: str) -> None:
        self.ours.check(case, folder, stdout)
        if any(outcome["changed"] for outcome in json.loads(stdout)):
            raise WrongBytes("mirrortool sync saw a change where there was none")

    def engine_s(self, stdout: str) -> float | None:
        return self.ours.engine_s(stdout)


@dataclass(frozen=True, slots=True)
class Limit:
    """What a competitor cannot beat: it does a part of the work only, and leaves nothing on the disk."""

    name: str
    about: str
    role: str = "limit"
    durable: bool = True  # there is nothing to lose
    keeps: bool = False

    @contextmanager
    def ready(self, case: Case, folder: Path) -> Iterator[Step]:
        yield LIMIT_STEPS[self.name](case, folder)

    def check(self, case: Case, _folder: Path, stdout: str) -> None:
        """Hashes must be right; what went to /dev/null must have had the right size."""
        if self.name.startswith("curl-null"):
            received = sum(int(line) for line in stdout.split())
            if received != case.total_bytes:
                raise WrongBytes(f"curl received {received} bytes, expected {case.total_bytes}")
            return
        for path, (digest, _) in case.files.items():
            if digest not in stdout:
                raise WrongBytes(f"{self.name} did not find the SHA-256 of {path}")

    def engine_s(self, _stdout: str) -> float | None:
        return None


def _openssl(case: Case, folder: Path) -> Step:
    return Step(["openssl", "dgst", "-sha256", *(case.served(path) for path in case.files)], environment(folder))


def _hashlib(case: Case, folder: Path) -> Step:
    return _hashing(case, folder, threads=1)


def _hashlib_on_two(case: Case, folder: Path) -> Step:
    return _hashing(case, folder, threads=2)


def _hashing(case: Case, folder: Path, threads: int) -> Step:
    names = folder / "names"
    names.write_text("".join(f"{case.served(path)}\n" for path in case.files))
    return Step([sys.executable, "-I", "-S", _SHA256, str(threads), names], environment(folder))


def _curl_to_null(case: Case, folder: Path) -> Step:
    return curl(case, folder, {path: Path("/dev/null") for path in case.files})


def _curl_to_openssl(case: Case, folder: Path) -> Step:
    (path,) = case.files
    authority = f"--cacert {case.ca_file}" if case.ca_file else ""
    script = f"curl --silent --fail {authority} {case.link(path)} | openssl dgst -sha256"
    return Step(["sh", "-c", script], environment(folder))


def _ls_remote(case: Case, folder: Path) -> Step:
    """Git ls-remote for each repository, one after the other."""
    script = folder / "ls-remote.sh"
    script.write_text("set -e\n" + "".join(f"git ls-remote {case.url}/{repo}\n" for repo in case.repos))
    return Step(["sh", script], environment(folder))


def curl(case: Case, folder: Path, targets: Mapping[str, Path]) -> Step:
    """One curl that downloads every path to its target over one connection, and prints the sizes."""
    config = folder / "curl.config"
    config.write_text("".join(f'url = "{case.link(path)}"\noutput = "{targets[path]}"\n' for path in case.files))
    authority = ["--cacert", str(case.ca_file)] if case.ca_file else []
    words: list[str | Path] = [
        "curl",
        "--silent",
        "--fail",
        "--write-out",
        "%{size_download}\n",
        *authority,
        "--config",
        config,
    ]
    return Step(words, environment(folder))


LIMIT_STEPS = {
    "openssl": _openssl,
    "hashlib": _hashlib,
    "hashlib-2": _hashlib_on_two,
    "curl-null": _curl_to_null,
    "curl-openssl": _curl_to_openssl,
    "ls-remote": _ls_remote,
}
