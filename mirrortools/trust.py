"""Whom an edge believes: one public key in `<root>/state/keys/signer`, and what it has signed.

Only the standard library is used here, because the receiver runs this module on edges.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mirrortools.errors import EdgeRefused, IntegrityError
from mirrortools.files import make_folder, write_file
from mirrortools.model import RepoId
from mirrortools.seals import SEAL, sealed_text
from mirrortools.signatures import KEYS, REQUESTS, STATEMENTS, check_public_key, check_signature, fingerprint
from mirrortools.statements import Signed, Statement, objection


class Trust:
    """The key that the origin of one root signs with: the first that comes, then only who was introduced by it."""

    def __init__(self, root: Path) -> None:
        self._path = root / "state" / "keys" / "signer"

    @property
    def signer(self) -> str | None:
        """The public key that is believed; None before the first. Raises IntegrityError when the file is damaged."""
        try:
            text = self._path.read_text(errors="replace")
        except FileNotFoundError:
            return None
        return check_public_key(text.strip())

    def accept(self, signer: str, introduction: str | None) -> None:
        """Believe `signer` from now on. Raises EdgeRefused, IntegrityError."""
        known = self.signer
        check_public_key(signer)
        if known == signer:
            return
        if known and introduction is None:
            raise EdgeRefused(
                f"{self._path}: this edge believes another origin, with the key {fingerprint(known)}, not "
                f"{fingerprint(signer)}. If that origin's key was lost, remove this file on the edge and run again; "
                "if you do not know why it is another one, find out first"
            )
        if known and introduction is not None:
            check_signature(known, KEYS, signer, introduction)
        make_folder(self._path.parent)
        write_file(self._path, f"{signer}\n".encode(), 0o600)

    def check_request(self, request: Mapping[str, Any], challenge: str) -> None:
        """Refuse what the origin did not ask for in this conversation. Raises EdgeRefused, IntegrityError."""
        seal = request.get(SEAL)
        if not isinstance(seal, str):
            raise EdgeRefused(f"{request['ask']!r} without the origin's signature")
        check_signature(self._believed(), REQUESTS, sealed_text(request, challenge), seal)

    def _believed(self) -> str:
        signer = self.signer
        if signer is None:
            raise EdgeRefused(f"no origin is believed yet: {self._path} is not there")
        return signer

    def check(self, signed: Signed, held: Statement | None, repo: RepoId, now_s: float) -> Statement:
        """What was said of `repo`, when it was the origin who said it, now, and nothing newer was said before.

        Raises EdgeRefused, IntegrityError, HostileTree.
        """
        check_signature(self._believed(), STATEMENTS, signed.text, signed.signature)
        statement = signed.statement
        if statement.repo != repo:
            raise IntegrityError(f"{repo}: came with a statement about {statement.repo}")
        if why := objection(statement, held, now_s):
            raise EdgeRefused(f"{repo}: {why}; run `mirrortool deliver` on the origin")
        return statement
