"""The words of the matrix: what a client is to do, where, and how that ended."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import TimeoutExpired

from tests.clients import ClientError, Expected, Files, HubSession, read_folder
from tests.matrix.places import WAYS, Place, World

# Where every client is sent; the ways to redirect are compared by a few operations.
PLACES = ("origin", "edge", "redirect 307")
EVERYWHERE = ("origin", "edge", *WAYS)
_LONGEST_LINE = 160


class Wrong(Exception):  # noqa: N818  (says what happened; docs/clients.md shows its text)
    """What a client got is not what it must get."""


@dataclass(frozen=True, slots=True)
class Visit:
    """A client in one version at one place. `folder` is empty, and of this operation alone."""

    world: World
    place: Place
    version: str
    folder: Path
    hub: HubSession

    @property
    def url(self) -> str:
        """Where the client looks."""
        return self.place.url

    def expected(self, repo: str) -> Expected:
        """What must be served of a repository."""
        return self.world.repos[repo]


@dataclass(frozen=True, slots=True)
class Limit:
    """What a client cannot do, and why that is not ours to mend. Its error matches `says`.

    It holds in `versions` and at `places`, everywhere when there are none.
    """

    says: str
    why: str
    versions: Sequence[str] = ()
    places: Sequence[str] = ()

    def holds(self, version: str, place: str) -> bool:
        """Whether the client is expected to fail."""
        return (not self.versions or version in self.versions) and (not self.places or place in self.places)


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that a client does. `act` does it, checks what came of it, and may return a note for readers.

    It is tried in `versions` (of the client, all when there are none) and at `places`. `long` means that the
    tests of every change leave it to `scripts/clients`.
    """

    name: str
    act: Callable[[Visit], str | None]
    limits: Sequence[Limit] = ()
    versions: Sequence[str] = ()
    places: Sequence[str] = PLACES
    long: bool = False

    @property
    def row(self) -> str:
        """How tables name it."""
        match self.versions:
            case []:
                return self.name
            case [only]:
                return f"{self.name} ({only})"
            case [first, *_]:
                return f"{self.name} (from {first} on)"


@dataclass(frozen=True, slots=True)
class Client:
    """A program that users have, in the versions that are looked at."""

    name: str
    versions: Sequence[str]
    operations: Sequence[Operation]

    @property
    def places(self) -> Sequence[str]:
        """Every place where one of its operations is tried."""
        return [place for place in EVERYWHERE if any(place in operation.places for operation in self.operations)]

    def tried(self, operation: Operation, version: str, place: str) -> bool:
        """Whether the operation is for this version and place."""
        return (not operation.versions or version in operation.versions) and place in operation.places


@dataclass(frozen=True, slots=True)
class Cell:
    """How an operation of a client ended: with a note, with an error, or simply well.

    `why` says of an error that was expected what causes it. `surprise` tells that it was not, or that an expected
    one did not come.
    """

    client: str
    operation: str
    version: str
    place: str
    note: str = ""
    error: str = ""
    why: str = ""
    surprise: bool = False


def visit_all(client: Client, version: str, place: Place, world: World, scratch: Path, *, whole: bool) -> list[Cell]:
    """Do every operation of a client in one version at one place, one after the other."""
    cells = []
    folder = Path(tempfile.mkdtemp(prefix="visit-", dir=scratch))
    with HubSession(version, place.url, folder / "cache") as hub:
        for operation in client.operations:
            if client.tried(operation, version, place.name) and (whole or not operation.long):
                own = Path(tempfile.mkdtemp(dir=folder))
                cells.append(_cell(client, operation, Visit(world, place, version, own, hub)))
    return cells


def _cell(client: Client, operation: Operation, visit: Visit) -> Cell:
    where = client.name, operation.name, visit.version, visit.place.name
    expected = [limit for limit in operation.limits if limit.holds(visit.version, visit.place.name)]
    try:
        note = operation.act(visit) or ""
    except (ClientError, Wrong, AssertionError, TimeoutExpired, OSError) as error:
        text = str(error) or repr(error)
        why = next((limit.why for limit in expected if re.search(limit.says, text)), "")
        return Cell(*where, error=_first_line(text), why=why, surprise=not why)
    return Cell(*where, note=note, surprise=bool(expected))


def _first_line(text: str) -> str:
    """The first line that says something, without what differs from run to run."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = next((line for line in lines if _SAYS.search(line)), lines[0] if lines else "")
    for pattern, word in _PASSING.items():
        said = re.sub(pattern, word, said)
    return said if len(said) <= _LONGEST_LINE else f"{said[:_LONGEST_LINE]}…"


_SAYS = re.compile(r"(?i)error|fatal|refused|expected|wrong|not ")
_PASSING: Mapping[str, str] = {
    r"https?://127\.0\.0\.\d:\d+": "http://…",
    r"/\S*/visit-\S+?/(?=[^/\s]*(?:\s|$))": "…/",
    r"/\S*/(\.venvs|venvs)/": "",
    r"/resolve/[0-9a-f]{40}/[^' ]*": "/resolve/…",
    r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ": "",
    r" ?\(Request ID: [^)]*\)": "",
}


def same(what: str, got: object, wanted: object) -> None:
    """Raises Wrong when they differ."""
    if got != wanted:
        raise Wrong(f"{what}: expected {_short(wanted)}, got {_short(got)}")


def same_files(got: Files | Path, wanted: Files) -> None:
    """Compare names, and contents by their SHA-256. Raises Wrong."""
    files = read_folder(got) if isinstance(got, Path) else got
    same("files", sorted(files), sorted(wanted))
    for path, content in wanted.items():
        same(f"sha256 of {path}", sha256(files[path]), sha256(content))


def sha256(content: bytes) -> str:
    """The SHA-256 of some bytes."""
    return hashlib.sha256(content).hexdigest()


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_LINE else f"{text[:_LONGEST_LINE]}…"
