"""What a run does not need it does not import: loading takes longer than the work of a run that finds nothing new."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
# What brings bytes in, publishes them and takes them to edges, and what the standard library has for other cases.
FOR_NEWS = (
    "mirrortools.update",
    "mirrortools.pull",
    "mirrortools.fetch",
    "mirrortools.publish",
    "mirrortools.bulk",
    "mirrortools.partial",
    "mirrortools.progress",
    "mirrortools.cli.speed",
)
FOR_WRITING = ("mirrortools.revision", "mirrortools.pages", "mirrortools.metalink", "mirrortools.client", "markdown_it")
FOR_EDGES = (
    "mirrortools.dispatch",
    "mirrortools.pool",
    "mirrortools.deliver",
    "mirrortools.transports",
    "mirrortools.receiver",
)
FOR_TROUBLE = ("mirrortools.standing", "mirrortools.places", "mirrortools.statements", "mirrortools.cli.edgemeter")
FOR_OTHERS = ("http.client", "urllib.request", "rich", "jinja2", "concurrent", "difflib", "asyncio", "base64")
FOR_BYTES = ("mirrortools.upstreams.lfs", "mirrortools.desk", "mirrortools.abreast", "subprocess", "shutil", "ctypes")
# What reads command lines that timers do not have.
WORDS = ("click", "mirrortools.cli.group", "mirrortools.cli.sync", "gettext")
FORMS = ("pydantic", "yaml", "mirrortools.config.schema", "mirrortools.config.parse")


def imported(*command: str) -> set[str]:
    """Run Python and give the modules that it imported."""
    return set(in_order(*command))


def in_order(*command: str) -> list[str]:
    """Run Python and give the modules that it imported, one behind all that it imports itself."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *command], capture_output=True, text=True, cwd=PROJECT, check=True
    )
    return re.findall(r"^import time:.*\| *(\S+)$", done.stderr, re.MULTILINE)


def of(names: tuple[str, ...], modules: set[str]) -> set[str]:
    """Those of `modules` that are, or lie in, one of `names`."""
    return {module for module in modules if any(f"{module}.".startswith(f"{name}.") for name in names)}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A mirror of one folder, with an edge, that was synced."""
    model = tmp_path / "source" / "org" / "model"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    (model / "model.bin").write_bytes(b"\0" * 1000)
    path = tmp_path / "mirrortool.yaml"
    path.write_text(
        f"root: {tmp_path}/root\nsource: dir://{tmp_path}/source\nmin_free: 0\n"
        f"edges: {{near: {{url: 'file://{tmp_path}/edge'}}}}\nrepositories: [org/model]\n"
    )
    sync(path)
    return path


def sync(config: Path) -> set[str]:
    """Sync without delivering, and give the modules that were imported."""
    return imported("-m", "mirrortools", "--config", str(config), "sync", "--all", "--no-deliver")


def test_a_sync_without_news_imports_nothing_that_only_news_need(config: Path) -> None:
    """Neither fetching, publishing, delivering and click are loaded, nor bars, proxies, threads, the form of files."""
    modules = sync(config)

    assert "mirrortools.sync" in modules
    for_others = (*FOR_NEWS, *FOR_WRITING, *FOR_EDGES, *FOR_TROUBLE, *FOR_OTHERS, *WORDS, *FORMS)
    assert of(for_others, modules) == set()


def test_a_sync_with_news_is_seen(config: Path) -> None:
    """The test above looks at what it means to look at: with news, the same command imports more."""
    (config.parent / "source" / "org" / "model" / "config.json").write_text('{"changed": true}')

    modules = sync(config)

    assert {"mirrortools.pull", "mirrortools.publish"} <= modules
    assert of(FOR_EDGES, modules) == set()


def test_edges_are_called_before_the_rest_is_loaded(config: Path) -> None:
    """The login goes on meanwhile; what calls needs nothing of a run, and reads no command line with click."""
    modules = in_order("-m", "mirrortools", "--config", str(config), "deliver", "--all")
    called = modules.index("mirrortools.transports")

    assert called < modules.index("mirrortools.pool")
    assert of(("mirrortools.sync", "mirrortools.tree", "mirrortools.state"), set(modules[:called])) == set()
    assert of(WORDS, set(modules)) == set()


def test_a_source_on_http_needs_neither_http_client_nor_mail() -> None:
    """Tunnels through proxies need http.client, dates email, https ssl; news alone need programs and bytes."""
    modules = imported("-c", "import mirrortools.upstreams.gitlfs, mirrortools.sync")

    assert "mirrortools.upstreams.http" in modules
    assert of((*FOR_OTHERS, *FOR_BYTES, "email", "ssl"), modules) == set()


def test_who_uses_a_configuration_needs_not_know_its_form() -> None:
    """The modules for it, with pydantic and yaml, are loaded where files are read."""
    modules = imported("-c", "import mirrortools.sync")

    assert of(FORMS, modules) == set()
