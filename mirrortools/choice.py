"""Whom to ask for one blob: who may have it, and after wrong bytes one source alone, until it is told who was wrong."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection

from mirrortools.sources import Sources
from mirrortools.upstreams import ByteSource


class Choice:
    """That of one blob. After wrong bytes `alone` names the only source that is asked. Thread-safe."""

    def __init__(self, sources: Sources) -> None:
        self.alone: str | None = None
        self._sources = sources
        self._refused: set[str] = set()
        self._lacking: set[str] = set()
        self._suspect = ""
        self._turn = threading.Lock()

    def in_turn(self, lead: str = "") -> list[ByteSource]:
        """The sources to ask one after the other, `lead` first."""
        left = [source for source in self._sources.in_order(self._refused) if self.alone in (None, source.name)]
        return sorted(left, key=lambda source: source.name != lead) if lead else left

    def may_lead(self, source: ByteSource) -> bool:
        """Whether a source may be asked before the others: it has not failed, and any may be asked for this blob."""
        return self.alone is None and source in self._ready() and source.name not in self._sources.cannot_seek

    def has_another(self, source: ByteSource) -> bool:
        """Whether another source than this may have the blob, and has not failed lately."""
        return self.alone is None and bool(self._ready(source.name))

    def _ready(self, *besides: str) -> list[ByteSource]:
        return self._sources.ready({*self._refused, *self._lacking, *besides})

    def lacks(self, source: ByteSource) -> None:
        """A source does not have the blob, or does not give it to us."""
        self._lacking.add(source.name)

    def ask_another_alone(self, failed: str | None) -> bool:
        """After wrong bytes the sources are tried one by one: whether there is another one, when one has failed."""
        with self._turn:
            if failed is None:
                return False
            if self.alone == failed:
                rest = self._sources.in_order({*self._refused, failed})
                if not rest:
                    return False
                self._refused.add(failed)
                self.alone = rest[0].name
            return True

    def doubt(self, givers: Counter[str]) -> str:
        """Whose segments to fetch again, when several gave bytes that are wrong together; empty: nobody's.

        It is the one that gave fewest, and they are fetched from the one that gave most; when it is still wrong, those
        of the next one are, until all are of one source. That costs no more than all of the blob, and tells which one
        was wrong.
        """
        if len(givers) < 2 or (self.alone is not None and not self._suspect):
            return ""
        self.alone = self.alone or givers.most_common(1)[0][0]
        self._suspect = min(givers.keys() - {self.alone}, key=lambda name: (givers[name], name))
        return self._suspect

    def convict(self) -> str:
        """The bytes are right by now: distrust who had given others, and tell whom; empty: nobody."""
        if self._suspect in ("", self.alone):
            return ""
        self._sources.distrust({self._suspect})
        return self._suspect

    def refuse(self, contributors: Collection[str]) -> list[ByteSource]:
        """Wrong bytes came from these: one that was alone is not asked for this blob again. Gives who is left."""
        self._suspect = ""
        if len(contributors) == 1:
            self._refused.update(contributors)
            self._sources.distrust(contributors)
        return self._sources.in_order(self._refused)
