"""Where blobs can be read: links that are asked for by the hundred, and forgotten when many others came after them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from mirrortools.errors import UpstreamError
from mirrortools.model import Blob
from mirrortools.upstreams.http import Credential

BATCH_OBJECTS: Final = 100
# Ten answers, about half a MiB. Tens of thousands of links would be a good part of the memory of a whole sync.
_KEPT: Final = 10 * BATCH_OBJECTS
_EXPIRY_MARGIN_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Link:
    """Where a blob's bytes can be read until `expires_at` (Unix seconds), with the headers that it takes.

    `credential` is the LFS server's, for links to that server itself.
    """

    url: str
    headers: Mapping[str, str] = field(repr=False, default_factory=dict)
    expires_at: float = float("inf")
    credential: Credential | None = None


def has_expired(expires_at: float) -> bool:
    """Whether it is, or is about to be, too late."""
    return expires_at - _EXPIRY_MARGIN_S < time.time()


Answers = Mapping[str, Link | UpstreamError]
"""What was said of each blob that was asked for, by its digest."""


class Links:
    """Asks for links with `ask`, which may raise UpstreamError. Thread-safe.

    A question is about BATCH_OBJECTS blobs, in the order that `prepare` was told. Several may be under way, and none
    is about a blob that another one is about.
    """

    def __init__(self, ask: Callable[[Sequence[Blob]], Answers]) -> None:
        self._ask = ask
        self._order: Sequence[Blob] = ()
        self._digests: list[str] = []
        self._near = 0
        self._known: dict[str, Link | UpstreamError] = {}
        self._asked: set[str] = set()
        self._changed = threading.Condition()

    def prepare(self, blobs: Sequence[Blob]) -> None:
        """Remember the order in which blobs will be wanted."""
        with self._changed:
            self._order, self._near = blobs, 0
            self._digests = [blob.digest for blob in blobs]

    def get(self, blob: Blob, instead_of: Link | None = None) -> Link | UpstreamError | None:
        """A link for a blob, another one than was refused; None when the answer does not name it.

        Raises UpstreamError when the question has no answer.
        """
        with self._changed:
            while True:
                known = self._known.get(blob.digest)
                if isinstance(known, Link) and known is not instead_of and not has_expired(known.expires_at):
                    return known
                if blob.digest not in self._asked:
                    break
                self._changed.wait()
            some = [near for near in self._batch_around(blob) if near.digest not in self._asked]
            self._asked.update(each.digest for each in some)
        return self._ask_for(some).get(blob.digest)

    def _ask_for(self, some: Sequence[Blob]) -> Answers:
        answers: Answers = {}
        try:
            answers = self._ask(some)
        finally:
            with self._changed:
                self._asked.difference_update(each.digest for each in some)
                self._remember(answers)
                self._changed.notify_all()
        return answers

    def _remember(self, answers: Answers) -> None:
        """Keep answers as the newest, and let go of the oldest."""
        for digest, said in answers.items():
            self._known.pop(digest, None)
            self._known[digest] = said
        for digest in list(islice(self._known, max(0, len(self._known) - _KEPT))):
            del self._known[digest]

    def _batch_around(self, blob: Blob) -> Sequence[Blob]:
        """A blob, and those that will be wanted after it. Blobs are asked for nearly in their order."""
        for start in (self._near, 0):
            try:
                place = self._digests.index(blob.digest, start)
            except ValueError:
                continue
            self._near = max(0, place - _KEPT)
            return self._order[place : place + BATCH_OBJECTS]
        return [blob]
