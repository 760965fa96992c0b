"""Which edges are called as soon as a run knows what it is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from mirrortools.cli import Invocation
from mirrortools.cli.brief import Choice, DeliverOptions, SyncOptions
from mirrortools.cli.calling import _edges

EVERY = Choice(every=True)


@pytest.fixture
def invocation(tmp_path: Path) -> Invocation:
    """Three edges; one repository goes to two of them, a private one to the third."""
    path = tmp_path / "mirrortool.yaml"
    edges = "".join(f"  {name}: {{url: 'file://{tmp_path}/{name}', private: true}}\n" for name in ("a", "b", "c"))
    path.write_text(
        f"root: {tmp_path}/root\nsource: dir://{tmp_path}/source\nedges:\n{edges}repositories:\n"
        "  - {repo: org/open, edges: [a, b]}\n  - {repo: org/own, edges: [c], private: true, readers: [me]}\n"
    )
    return Invocation({}, config_path=path)


@pytest.mark.parametrize(
    ("options", "called"),
    [
        (DeliverOptions(EVERY), ["a", "b"]),
        (SyncOptions(EVERY), ["a", "b"]),
        (DeliverOptions(EVERY, edges=("b", "c", "nobody")), ["b"]),
        (DeliverOptions(Choice(repos=("org/own",))), []),
        (DeliverOptions(EVERY, dry_run=True), []),
        (SyncOptions(EVERY, no_deliver=True), []),
        (SyncOptions(EVERY, dry_run=True), []),
    ],
)
def test_those_that_public_repositories_will_be_brought_to(
    invocation: Invocation, options: SyncOptions | DeliverOptions, called: list[str]
) -> None:
    """None for a run that brings nothing; what is private goes by conversations of its own."""
    assert _edges(invocation.config, options) == called
