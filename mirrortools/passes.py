"""The tokens that this origin gave out, in `<root>/state/tokens.json`: whose they are, until when; of each its hash."""

from __future__ import annotations

import hashlib
import json
import secrets
import string
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from mirrortools.config import Config
from mirrortools.errors import StoreError
from mirrortools.files import alone_in, write_file
from mirrortools.model import Realm
from mirrortools.readers import Access, Bearer, Readership, write_access
from mirrortools.store import write_error
from mirrortools.tree import Tree

# The form of the Hub's own, which some clients look for: 34 letters and digits are 202 bits.
PREFIX: Final = "hf_"
_LETTERS: Final = string.ascii_letters + string.digits
_LENGTH: Final = 34
_ID_LENGTH: Final = 8


@dataclass(frozen=True, slots=True)
class Pass:
    """One token: whom it names, its SHA-256, when it was made and until when it counts (Unix seconds; None: always)."""

    user: str
    sha256: str
    created_at: int
    expires_at: int | None = None

    @property
    def id(self) -> str:
        """What it is called where it must not be told."""
        return self.sha256[:_ID_LENGTH]

    def counts(self, now_s: float) -> bool:
        """Whether it is good at that time."""
        return self.expires_at is None or now_s < self.expires_at


def new_token() -> str:
    """A token that nobody can guess."""
    return PREFIX + "".join(secrets.choice(_LETTERS) for _ in range(_LENGTH))


class Passes:
    """The tokens of one root. Raises StoreError, NoSpace."""

    def __init__(self, root: Path) -> None:
        self._path = root / "state" / "tokens.json"

    def all(self) -> list[Pass]:
        """Every token that was not revoked, expired ones too, in the order in which they were made."""
        try:
            return [Pass(**item) for item in json.loads(self._path.read_bytes())["tokens"]]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise write_error(self._path, error) from error
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{self._path}: damaged ({error!r}); put it back from a backup, or remove it") from error

    def add(self, user: str, now_s: int, lifetime_s: int | None) -> tuple[str, Pass]:
        """Make a token for a user; give it, which is the only time, and what is kept of it."""
        token = new_token()
        digest = hashlib.sha256(token.encode()).hexdigest()
        made = Pass(user, digest, now_s, None if lifetime_s is None else now_s + lifetime_s)
        with self._alone():
            self._keep([*self.all(), made])
        return token, made

    def revoke(self, name: str) -> list[Pass]:
        """Forget all tokens of a user, or the one with this id; give them."""
        with self._alone():
            known = self.all()
            revoked = [each for each in known if name in (each.user, each.id)]
            if revoked:
                self._keep([each for each in known if each not in revoked])
        return revoked

    def _keep(self, passes: Sequence[Pass]) -> None:
        document = {"tokens": [asdict(each) for each in passes]}
        write_file(self._path, json.dumps(document, indent=1).encode(), 0o600)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold other processes: one would forget what the other adds."""
        try:
            with alone_in(self._path.parent):
                yield
        except OSError as error:
            raise write_error(self._path, error) from error


def access_of(config: Config, passes: Sequence[Pass], now_s: float, edge: str | None = None) -> Access:
    """Who may read what of all that is configured as private, or of what of it an edge is to have.

    An edge learns of no other repository, and of no token that is of no use there.
    """
    private = [known for known in config.repositories() if known.private and (edge is None or edge in known.edges)]
    users = {user for repository in private for user in repository.readers}
    everybody = edge is None or any(repository.gated for repository in private)
    good = [each for each in passes if each.counts(now_s) and (everybody or each.user in users)]
    bearers = {each.sha256: Bearer(each.user, each.expires_at) for each in good}
    return Access(bearers, {known.repo: Readership(known.readers, known.gated) for known in private})


def edge_access(config: Config, edge: str, now_s: float) -> Access:
    """Who may read what on an edge. Raises StoreError."""
    return access_of(config, Passes(config.root).all(), now_s, edge)


def grant(config: Config, now_s: float) -> None:
    """Let this host's nginx go by the tokens and the configuration as they are now. Raises StoreError, NoSpace."""
    Tree(config.root, Realm.PRIVATE).make()
    try:
        write_access(config.root, access_of(config, Passes(config.root).all(), now_s))
    except OSError as error:
        raise write_error(config.root / Realm.PRIVATE.value, error) from error
