"""Fixtures: real servers that tests share, healed and with counters at zero for each test."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.servers import GitLfsUpstream, Sshd

_numbers = count(1)

# No time is asserted: a machine may be busy while an example runs.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

# What a shell starts in the background ignores SIGINT, and so would every program that tests send it to.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _no_cache_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What programs remember of the configurations of tests is forgotten with the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def new_upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], GitLfsUpstream]]:
    """Starts one more git-LFS host, which lives until the tests are over."""
    with ExitStack() as running:
        yield lambda: running.enter_context(GitLfsUpstream(tmp_path_factory.mktemp("upstream")))


@pytest.fixture(scope="session")
def new_sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Sshd]]:
    """Starts one more sshd, which lives until the tests are over."""
    with ExitStack() as running:
        yield lambda: running.enter_context(Sshd(tmp_path_factory.mktemp("sshd")))


@pytest.fixture(scope="session")
def shared_upstream(new_upstream: Callable[[], GitLfsUpstream]) -> GitLfsUpstream:
    """The git-LFS host that tests share."""
    return new_upstream()


@pytest.fixture(scope="session")
def shared_backup_upstream(new_upstream: Callable[[], GitLfsUpstream]) -> GitLfsUpstream:
    """The second git-LFS host that tests share."""
    return new_upstream()


@pytest.fixture(scope="session")
def shared_sshd(new_sshd: Callable[[], Sshd]) -> Sshd:
    """The sshd that tests share."""
    return new_sshd()


@pytest.fixture
def upstream(shared_upstream: GitLfsUpstream) -> Iterator[GitLfsUpstream]:
    """A git-LFS host without faults; take a repository of your own on it, see `repo`."""
    yield from _fresh_upstream(shared_upstream)


@pytest.fixture
def backup_upstream(shared_backup_upstream: GitLfsUpstream) -> Iterator[GitLfsUpstream]:
    """Another git-LFS host without faults."""
    yield from _fresh_upstream(shared_backup_upstream)


@pytest.fixture
def sshd(shared_sshd: Sshd) -> Iterator[Sshd]:
    """An sshd that lets the user's key do everything."""
    shared_sshd.forget()
    yield shared_sshd
    shared_sshd.heal()


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """The root of a host that syncs."""
    return tmp_path / "origin"


@pytest.fixture
def repo(request: pytest.FixtureRequest) -> str:
    """The name of a repository that no other test uses."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())[:60].strip("-")
    return f"org/{name}-{next(_numbers)}"


@pytest.fixture(scope="session")
def project() -> Path:
    """The project's folder."""
    return Path(__file__).parents[1]


def _fresh_upstream(shared: GitLfsUpstream) -> Iterator[GitLfsUpstream]:
    shared.forget()
    yield shared
    shared.heal()
