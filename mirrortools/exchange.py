"""The relays of one conversation with a receiver: one for each berth into which bytes come from other hosts.

What a relay is made of is loaded when the first one begins: TLS takes longer to load than all the rest of a receiver.
Only the standard library is used here, because the receiver runs this module on edges.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from mirrortools.berth import Berth
from mirrortools.bounds import Bounds
from mirrortools.errors import EdgeRefused, NoSpace
from mirrortools.inlet import Inlet
from mirrortools.model import Blob
from mirrortools.patch import Recipe
from mirrortools.store import Store
from mirrortools.tree import load_for_publishing

if TYPE_CHECKING:
    from mirrortools.making import Made
    from mirrortools.relay import Relay


@dataclass(frozen=True, slots=True)
class Terms:
    """How a relay is to listen: who shows this passport may come, on one of these ports (None: any).

    `limit_bytes_s` is the most that it passes on; by the `recipes` blobs are made of what comes.
    """

    passport: str
    ports: tuple[int, int] | None
    limit_bytes_s: int | None
    recipes: Sequence[Recipe] = ()

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Read them from a request. Raises ValueError, KeyError, TypeError."""
        first, last = (int(port) for port in document["ports"] or (0, 0))
        recipes = [Recipe.from_json(recipe) for recipe in document.get("recipes", [])]
        limit = int(document["limit"] or 0) or None
        return cls(str(document["passport"]), (first, last) if first else None, limit, recipes)


class Exchange:
    """The relays that were begun in one conversation."""

    def __init__(self, store: Store, bounds: Bounds) -> None:
        self._store = store
        self._bounds = bounds
        self._relays: dict[Berth, Relay] = {}
        self._marks: dict[Berth, str | None] = {}
        self._planned: dict[Berth, int] = {}
        self._is_loaded = False

    def begin(self, berth: Berth, blobs: Collection[Blob], begun: Collection[Blob], terms: Terms) -> dict[str, Any]:
        """Begin to take `blobs` into a berth, and to pass on what is `begun`; say where.

        Raises NoSpace, EdgeRefused.
        """
        import ssl

        from mirrortools.landing import Goods
        from mirrortools.making import Order
        from mirrortools.relay import Relay

        places = {blob.digest: self._store.path(blob) for blob in begun}
        lacking = {blob: arrived_bytes(berth.folder, blob) or 0 for blob in blobs if not self._store.has(blob)}
        needed = sum(blob.size - have for blob, have in lacking.items())
        if why := self._bounds.objection(self._root, needed):
            raise NoSpace(why)
        if old := self._relays.pop(berth, None):
            old.rest()
            old.close()
        self._marks[berth] = Inlet(berth).mark()
        orders = [
            Order(recipe, self._store.path(recipe.base))
            for recipe in terms.recipes
            if self._store.has(recipe.base) and (not recipe.fresh.size or recipe.fresh in lacking)
        ]
        goods = Goods(
            berth.folder, lacking, places.get, lambda count: self._bounds.objection(self._root, count), orders
        )
        try:
            relay = Relay(goods, terms.passport, terms.ports, terms.limit_bytes_s)
        except (ssl.SSLError, OverflowError) as error:
            raise EdgeRefused(f"malformed request: {error!r}") from error
        self._relays[berth], self._planned[berth] = relay, needed
        return {"port": relay.port, "pipe": relay.name, "address": own_address()}

    def draw(self, berth: Berth, number: int, places: Sequence[tuple[str, int]], limit_bytes_s: int | None) -> None:
        """Take blobs from another edge, or, when no place is named, from the origin as soon as it comes."""
        from mirrortools.relay import Source

        relay = self._relay(berth)
        if places:
            relay.draw(Source(number, places, limit_bytes_s))
        else:
            relay.await_feed(number)

    def flow(self, berth: Berth, wait_s: float) -> dict[str, Any]:
        """Say how far a relay is; waits so long at most for the link to change."""
        lacking_bytes, standing = self._relay(berth).flow(wait_s)
        if not self._is_loaded and lacking_bytes < self._planned[berth] // 2:
            self._is_loaded = True
            load_for_publishing()  # all edges would do that at once when the last bytes have come
        return {"lacking": lacking_bytes, "number": standing.number, "state": standing.state, "text": standing.text}

    def hashed(self, berth: Berth, mark: str) -> Callable[[Blob], str | None]:
        """Gives the digest of a blob that came by way of a relay; None of all others.

        `mark` is the inlet's: when anybody was in since the relay began, what it hashed may not be what lies there.
        """
        relay = self._relays.get(berth)
        return relay.digest if relay and self._marks[berth] == mark else lambda _: None

    def made(self, berth: Berth, mark: str) -> Callable[[Blob], Made | None]:
        """Gives a blob that was made while its new bytes came; None of all others. `mark` is as for those hashed."""
        relay = self._relays.get(berth)
        return relay.made if relay and self._marks[berth] == mark else lambda _: None

    def rest(self, berth: Berth) -> None:
        """Take nothing more into a berth, which may be somebody else's from now on; what came is still passed on."""
        if relay := self._relays.get(berth):
            relay.rest()

    def keep(self, berth: Berth) -> None:
        """Let a relay pass on what is left in incoming though that is removed: what blobs were made of."""
        if relay := self._relays.get(berth):
            relay.keep()

    def close(self) -> None:
        """End them all."""
        for relay in self._relays.values():
            relay.close()

    @property
    def _root(self) -> Path:
        return self._store.served.parent

    def _relay(self, berth: Berth) -> Relay:
        if berth not in self._relays:
            raise EdgeRefused(f"{berth.repo}: asked for without a relay")
        return self._relays[berth]


def arrived_bytes(folder: Path, blob: Blob) -> int | None:
    """How much of a blob came in an earlier, broken delivery; None for what cannot be continued."""
    try:
        status = (folder / blob.digest).lstat()
    except FileNotFoundError:
        return 0
    if stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and status.st_size <= blob.size:
        return status.st_size
    return None


def own_address() -> str:
    """The address of this host that ssh came to (ssh(1), SSH_CONNECTION); empty when nobody came by ssh."""
    words = os.environ.get("SSH_CONNECTION", "").split()
    return words[2] if len(words) == 4 else ""
