"""What makes a request an origin's own word: its signature of the request, and of this conversation's challenge.

A push key alone does not have it, and it is good for no other conversation, so neither a number nor a time is needed.
Only the standard library is used here, because the receiver runs this module on edges.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, Final

SEAL: Final = "seal"


def new_challenge() -> str:
    """What nobody has signed yet."""
    return os.urandom(16).hex()


def needs_seal(request: Mapping[str, Any]) -> bool:
    """Whether a request says which blobs an edge is to take, to which hosts it is to connect, or who may read there."""
    return request.get("ask") in ("begin", "access") or (request.get("ask") == "draw" and bool(request.get("from")))


def sealed_text(request: Mapping[str, Any], challenge: str) -> str:
    """What is signed: all that the request says, and the challenge, as compact JSON with sorted keys."""
    said = {name: value for name, value in request.items() if name != SEAL}
    return json.dumps([challenge, said], sort_keys=True, separators=(",", ":"))
