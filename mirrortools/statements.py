"""What an origin says, and signs, about one repository: these are its parts, until then, and nothing older counts.

Only the standard library is used here, because the receiver runs this module on edges.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from mirrortools.errors import ConfigError, HostileTree
from mirrortools.model import RepoId

LIFETIME_S: Final = 30 * 86400
# Beyond this a number in JSON is not the same for every reader (RFC 8259, 6).
_MOST: Final = 2**53
_PART: Final = re.compile(r"(refs|[0-9a-f]{40})\Z")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True, slots=True)
class Statement:
    """What a publication consists of: `Publication.digests()`, good from `issued_at` to `expires_at` (Unix seconds).

    `serial` only grows, so that an edge can tell an older statement from a newer one. Raises HostileTree.
    """

    repo: RepoId
    serial: int
    issued_at: int
    expires_at: int
    parts: Mapping[str, str]

    def __post_init__(self) -> None:
        numbers = (self.serial, self.issued_at, self.expires_at)
        if not all(type(number) is int and 0 < number < _MOST for number in numbers):
            raise HostileTree(f"{self.repo}: a statement with the numbers {numbers!r}")
        for part, digest in self.parts.items():
            if not (_PART.match(part) and _DIGEST.match(digest)):
                raise HostileTree(f"{self.repo}: a statement with the part {part!r}: {digest!r}")

    @property
    def text(self) -> str:
        """What is signed: compact JSON with sorted keys."""
        document = {
            "repo": self.repo.path,
            "serial": self.serial,
            "issued_at": self.issued_at,
            "expires_at": self.expires_at,
            "parts": dict(self.parts),
        }
        return json.dumps(document, sort_keys=True, separators=(",", ":"))

    @classmethod
    def parse(cls, text: str) -> Statement:
        """Read `text`. Raises HostileTree on anything malformed."""
        try:
            document = json.loads(text)
            parts = {str(part): str(digest) for part, digest in document["parts"].items()}
            times = document["issued_at"], document["expires_at"]
            return cls(RepoId.parse(document["repo"]), document["serial"], *times, parts)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ConfigError) as error:
            raise HostileTree(f"not a statement: {error!r}") from error


class Signed(NamedTuple):
    """A statement's text with its signature (the armoured form of `ssh-keygen -Y sign`). Made of strings alone."""

    text: str
    signature: str

    @property
    def statement(self) -> Statement:
        """What was signed; whether rightly is for `signatures` to say. Raises HostileTree."""
        return Statement.parse(self.text)

    def to_json(self) -> dict[str, str]:
        """The form in which it travels and lies in `meta/statement.json`."""
        return {"statement": self.text, "signature": self.signature}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Signed:
        """Read what `to_json` wrote. Raises HostileTree on anything malformed."""
        try:
            text, signature = document["statement"], document["signature"]
        except (KeyError, TypeError) as error:
            raise HostileTree(f"not a signed statement: {error!r}") from error
        if not (isinstance(text, str) and isinstance(signature, str)):
            raise HostileTree("not a signed statement: it is not text")
        return cls(text, signature)


def next_statement(repo: RepoId, parts: Mapping[str, str], after: int, now_s: int) -> Statement:
    """A new statement with a serial above `after`.

    Serials are times where that is possible, so that an origin that lost what it had said begins above it.
    """
    return Statement(repo, max(after + 1, now_s), now_s, now_s + LIFETIME_S, parts)


def is_good_for(statement: Statement, parts: Mapping[str, str], now_s: float) -> bool:
    """Whether a statement says just `parts`, and has more than half of its life before it."""
    return statement.parts == parts and statement.issued_at <= now_s < good_until(statement)


def good_until(statement: Statement) -> float:
    """When a new statement is to take the place of this one (Unix seconds): half of its life before its end."""
    return (statement.issued_at + statement.expires_at) / 2


def objection(statement: Statement, held: Statement | None, now_s: float) -> str | None:
    """Why an edge that holds `held` must not follow a rightly signed statement; None when it may."""
    if statement.expires_at <= now_s:
        late_s = now_s - statement.expires_at
        return f"the statement's time ran out {late_s:.0f} s ago: an old one is sent again, or a clock is wrong"
    if held and statement.serial < held.serial:
        return f"the statement is number {statement.serial}, and number {held.serial} was here already"
    if held and statement.serial == held.serial and statement != held:
        return f"there are two different statements with the number {statement.serial}"
    return None
