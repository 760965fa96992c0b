"""docs/clients.md: the cells of a run as tables for people."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tests.matrix.cells import PLACES, Cell, Client, Operation
from tests.matrix.places import WAYS

_HEADINGS = {"origin": "origin", "edge": "edge", "redirect 307": "edge behind a redirect"}
_INTRODUCTION = """# Clients

Which client does what on a mirror. `scripts/clients` made this file; nothing in it is written by hand.

{summary}

The **origin** is served by `mirrortool serve`. The **edge** was filled by a delivery over ssh, and is served by plain
nginx with the configuration that `mirrortool nginx` generates. The **edge behind a redirect** is a plain nginx that
knows nothing of models: it answers `307` with the same path on the edge, and passes HEAD on to it (the last tables
compare other ways).

*works*: the client ended well, and what it got is right: files by their SHA-256, answers by their content.
*does not*: the first line of what it said, with a number that says why.
"""


@dataclass(slots=True)
class _Reasons:
    """Numbers for the reasons of a table, in the order in which they come."""

    numbers: dict[str, int] = field(default_factory=dict)

    def number(self, why: str) -> int:
        return self.numbers.setdefault(why, len(self.numbers) + 1)

    def lines(self) -> Iterator[str]:
        if self.numbers:
            yield ""
        yield from (f"{number}. {why[0].upper()}{why[1:]}." for why, number in self.numbers.items())


def report(clients: Sequence[Client], cells: Sequence[Cell], about: Sequence[str]) -> str:
    """The whole text; `about` says when, of what and with what the run was made."""
    lines = [_INTRODUCTION.format(summary=_summary(cells)), *(f"- {line}" for line in about)]
    found = defaultdict(list)
    for cell in cells:
        found[cell.client, cell.operation, cell.place].append(cell)
    for client in clients:
        lines += ["", f"## {client.name}", "", f"{', '.join(client.versions)}", ""]
        lines += _table(client, client.operations, {place: _HEADINGS[place] for place in PLACES}, found)
    lines += ["", "## Ways to redirect", "", _ABOUT_WAYS]
    for client in clients:
        compared = [operation for operation in client.operations if set(WAYS) <= set(operation.places)]
        if compared:
            lines += ["", f"### {client.name}", ""]
            lines += _table(client, compared, {way: _way(way) for way in WAYS}, found)
    return "\n".join(lines) + "\n"


_ABOUT_WAYS = (
    "What a front answers, with the same path on the edge. *HEAD passed on*: it asks the edge itself when a client "
    "sends HEAD. *all*: it redirects that too."
)


def _way(way: str) -> str:
    kind, status = WAYS[way]
    return f"{status}, HEAD passed on" if kind == "redirect" else f"{status}, all"


def _summary(cells: Sequence[Cell]) -> str:
    failed = [cell for cell in cells if cell.error]
    surprises = [cell for cell in cells if cell.surprise]
    text = (
        f"{len(cells):,} cells: {len(cells) - len(failed):,} work, {len(failed):,} do not, for reasons that are given"
    )
    return f"{text}; **{len(surprises)} are not as expected**." if surprises else f"{text}."


def _table(
    client: Client,
    operations: Sequence[Operation],
    places: Mapping[str, str],
    found: Mapping[tuple[str, str, str], Sequence[Cell]],
) -> Iterator[str]:
    reasons = _Reasons()
    yield f"| operation | {' | '.join(places.values())} |"
    yield "|---" * (len(places) + 1) + "|"
    for operation in operations:
        texts = [_text(client, found[client.name, operation.name, place], reasons) for place in places]
        yield f"| {_escaped(operation.row)} | {' | '.join(texts)} |"
    yield from reasons.lines()


def _text(client: Client, cells: Sequence[Cell], reasons: _Reasons) -> str:
    """One cell for all versions when they agree, else one for each kind of outcome."""
    if not cells:
        return "–"
    outcomes = defaultdict(list)
    for cell in cells:
        outcomes[_outcome(cell, reasons)].append(cell.version)
    if len(outcomes) == 1:
        return next(iter(outcomes))
    return "<br>".join(f"{', '.join(versions)}: {outcome}" for outcome, versions in outcomes.items())


def _outcome(cell: Cell, reasons: _Reasons) -> str:
    if cell.error:
        number = f" ({reasons.number(cell.why)})" if cell.why else ""
        text = f"does not: `{_escaped(cell.error.replace('`', chr(39)))}`{number}"
    else:
        text = f"works: {_escaped(cell.note)}" if cell.note else "works"
    return f"**not as expected:** {text}" if cell.surprise else text


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
