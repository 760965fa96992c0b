"""What a run came to at each edge, and what to do about those that failed: a table, and commands."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from mirrortools.errors import Locked, MirrorError, NoSpace, StoreError
from mirrortools.model import RepoId
from mirrortools.outgoing import EdgeTally
from mirrortools.text import count, size, span

_HEAD: Final = ("edge", "result", "repositories", "sent", "for", "rate", "time")
_FEW_REPOS: Final = 3


def edge_table(edges: Collection[EdgeTally]) -> list[str]:
    """A line for each edge where something happened, one for all others; nothing when there are no edges."""
    busy = [tally for tally in edges if tally.is_remarkable]
    lines = _aligned([_HEAD, *map(_row, busy)]) if busy else []
    lines += [line for tally in busy for line in _left_out(tally)]
    lines += [f"next, edge {tally.edge}: {next_command(tally)}" for tally in busy if tally.failures]
    idle = [tally.edge for tally in edges if not tally.is_remarkable]
    if idle and busy:
        lines.append(f"up to date: {', '.join(idle)}")
    elif idle:
        lines.append(f"{count(len(idle), 'edge')}: up to date")
    return lines


def _row(tally: EdgeTally) -> tuple[str, ...]:
    result = f"FAILED ({tally.exit_status})" if tally.failures else "ok"
    done = f"{tally.changed:,} of {tally.repositories:,} changed"
    done += f", {len(tally.failures):,} failed" if tally.failures else ""
    rate = f"{size(round(tally.rate_bytes_s))}/s" if tally.sent_bytes else "-"
    wanted = size(tally.wanted_bytes) if tally.wanted_bytes else "-"
    return (tally.edge, result, done, size(tally.sent_bytes), wanted, rate, span(tally.duration_s))


def _left_out(tally: EdgeTally) -> list[str]:
    """What did not fit on an edge, and how much room it would need."""
    lacking = {repo: e.needed_bytes for repo, e in tally.failures.items() if isinstance(e, NoSpace) and e.needed_bytes}
    if not lacking:
        return []
    named = ", ".join(f"{repo} ({size(needed)})" for repo, needed in lacking.items())
    return [f"left out, edge {tally.edge}: {named}; {size(sum(lacking.values()))} in all"]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def next_command(tally: EdgeTally) -> str:
    """What to run when the reason of its first failure is gone."""
    error = next(iter(tally.failures.values()))
    again = f"mirrortool {_verb(error)}{_which(tally.failures)} --edge {tally.edge}"
    return f"{again}, when the other delivery has ended" if isinstance(error, Locked) else again


def _verb(error: MirrorError) -> str:
    """What the origin lacks has to be fetched first."""
    return "sync" if isinstance(error, StoreError) else "deliver"


def _which(failures: Mapping[RepoId, MirrorError]) -> str:
    if len(failures) > _FEW_REPOS:
        return " --all"
    return "".join(f" --repo {repo}" for repo in failures)
