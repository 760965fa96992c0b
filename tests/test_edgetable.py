"""The table at the end of a run: each edge's result, and the command that comes next."""

from __future__ import annotations

from mirrortools.cli.edgetable import edge_table, next_command
from mirrortools.errand import Delivery
from mirrortools.errors import EdgeUnreachable, Locked, MirrorError, NoSpace, StoreError
from mirrortools.model import RepoId
from mirrortools.outgoing import EdgeTally

MIB = 1 << 20


def tally(edge: str, *deliveries: Delivery) -> EdgeTally:
    """What deliveries to one edge add up to."""
    total = EdgeTally(edge)
    for delivery in deliveries:
        total.add(delivery)
    return total


def delivery(name: str, sent: int = 0, saved: int = 0, error: MirrorError | None = None) -> Delivery:
    """One delivery of two seconds."""
    repo = RepoId.parse(f"a/{name}")
    return Delivery("e", repo, bool(sent and not error), int(sent > 0), sent, sent, 2.0, error, saved)


def test_each_edge_has_its_result_bytes_rate_and_next_command() -> None:
    """What was sent, for how much, how fast; those that are up to date share a line."""
    edges = [
        tally("bj1", delivery("one", 108 * MIB, 1940 * MIB), delivery("two")),
        tally("bj2", delivery("one", 10 * MIB, error=EdgeUnreachable("gone")), delivery("two", 20 * MIB)),
        tally("bj3", delivery("one")),
    ]

    assert edge_table(edges) == [
        "edge  result       repositories              sent       for       rate        time",
        "bj1   ok           1 of 2 changed            108.0 MiB  2.0 GiB   54.0 MiB/s  2.0 s",
        "bj2   FAILED (40)  1 of 2 changed, 1 failed  30.0 MiB   20.0 MiB  7.5 MiB/s   4.0 s",
        "next, edge bj2: mirrortool deliver --repo a/one --edge bj2",
        "up to date: bj3",
    ]


def test_edges_that_are_all_up_to_date_are_one_line() -> None:
    """A timer's log does not fill with them; a run without edges says nothing."""
    assert edge_table([tally("bj1", delivery("one")), tally("bj2", delivery("one"))]) == ["2 edges: up to date"]
    assert edge_table([]) == []


def test_the_next_command_depends_on_what_failed() -> None:
    """What this host lost is synced first; who works there is waited for; many repositories are --all."""
    errors = {"one": NoSpace("full"), "two": Locked("busy"), "three": StoreError("lost")}
    commands = {name: next_command(tally("e", delivery(name, error=error))) for name, error in errors.items()}
    many = tally("e", *(delivery(f"r{number}", error=NoSpace("full")) for number in range(4)))

    assert commands["one"] == "mirrortool deliver --repo a/one --edge e"
    assert commands["two"] == "mirrortool deliver --repo a/two --edge e, when the other delivery has ended"
    assert commands["three"] == "mirrortool sync --repo a/three --edge e"
    assert next_command(many) == "mirrortool deliver --all --edge e"


def test_the_status_is_that_of_the_first_failure() -> None:
    """As for a whole run."""
    failed = tally("e", delivery("one"), delivery("two", error=NoSpace("full")), delivery("x", error=Locked("busy")))

    assert (failed.exit_status, tally("e", delivery("one")).exit_status) == (NoSpace.exit_status, 0)
