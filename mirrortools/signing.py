"""What this host signs for its edges: a statement for each publication, by the key in `<root>/state/keys`."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from mirrortools.errors import HostileTree
from mirrortools.files import alone_in, make_folder, write_json
from mirrortools.model import Publication, RepoId, quote_ref
from mirrortools.signatures import KEYS, REQUESTS, STATEMENTS, make_key, names_signer, public_key, sign
from mirrortools.statements import Signed, Statement, is_good_for, next_statement
from mirrortools.store import write_error
from mirrortools.tree import Tree

KEY_FILE: Final = "signing"
_FORMER: Final = "signing.former"


class Signer:
    """The signing key of one root, made when it is first needed. Thread-safe."""

    def __init__(self, root: Path, clock: Callable[[], float] = time.time) -> None:
        self._folder = root / "state" / "keys"
        self._shares = root / "state" / "statements"
        self._root = root
        self._clock = clock
        self._turn = threading.Lock()
        self._signer: str | None = None

    @property
    def key(self) -> Path:
        """Where the private key lies."""
        return self._folder / KEY_FILE

    @property
    def signer(self) -> str:
        """The public key that edges know this host by. Raises StoreError."""
        with self._turn:
            if self._signer is None:
                with self._alone():
                    return self._own()
            return self._signer

    def signed(self, publication: Publication, after: int = 0, share: str = "") -> Signed:
        """A statement of this publication, its serial at least `after`: the last one while it is good, or a new one.

        One that was signed with another key is signed anew: edges that never knew that key have to believe it too. A
        new one lies in the tree before it is given; one of the `share` of a name, which is not served here, beside it
        in the state. Raises StoreError, NoSpace.
        """
        with self._turn, self._alone():
            tree = Tree(self._root, publication.realm)
            last = self._share(publication.repo, share) if share else tree.statement(publication.repo)
            said = last.statement if last else None
            parts, now_s = publication.digests(), self._clock()
            if last and said and said.serial >= after and is_good_for(said, parts, now_s):
                return last if names_signer(last.signature, self._own()) else self._sign(said, tree, share)
            above = max(after, said.serial if said else 0)
            return self._sign(next_statement(publication.repo, parts, above, int(now_s)), tree, share)

    def _sign(self, statement: Statement, tree: Tree, share: str) -> Signed:
        self._own()
        signed = Signed(statement.text, sign(self.key, STATEMENTS, statement.text))
        if share:
            path = self._share_path(statement.repo, share)
            make_folder(path.parent)
            write_json(path, signed.to_json())
        else:
            tree.publish_statement(statement.repo, signed)
        return signed

    def _share(self, repo: RepoId, share: str) -> Signed | None:
        """What was said last of a share; None when nothing was, or the record is damaged."""
        try:
            signed = Signed.from_json(json.loads(self._share_path(repo, share).read_bytes()))
            return signed if signed.statement.repo == repo else None
        except (OSError, ValueError, HostileTree):
            return None

    def _share_path(self, repo: RepoId, share: str) -> Path:
        return self._shares / f"{quote_ref(repo.path)}.{share}.json"

    def seal(self, text: str) -> str:
        """The signature of what this host asks an edge for. Raises StoreError."""
        return sign(self.key, REQUESTS, text) if self.signer else ""

    def introduce(self, known: str) -> str | None:
        """The former key's signature of the present one, when `known` is the former one; None when it is not.

        With it an edge that knows the former key accepts the present one. Raises StoreError.
        """
        former = self._folder / _FORMER
        if not former.exists() or public_key(former) != known:
            return None
        return sign(former, KEYS, self.signer)

    def change_key(self) -> None:
        """Put a new key in the place of the present one, which is kept to introduce it. Raises StoreError."""
        with self._turn, self._alone():
            self._own()
            former = self._folder / _FORMER
            self.key.replace(former)
            self._signer = None
            self._own()

    def _own(self) -> str:
        if self._signer is None:
            if not self.key.exists():
                make_key(self.key)
            self._signer = public_key(self.key)
        return self._signer

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold other processes: two would make two keys, or two statements with one number."""
        try:
            with alone_in(self._folder):
                yield
        except OSError as error:
            raise write_error(self._folder, error) from error
