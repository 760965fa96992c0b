"""What would leave this host for several edges."""

from __future__ import annotations

from mirrortools.foresight import Foresight, Item, leaves_once
from mirrortools.model import RepoId
from tests.delivery import sha256_blob

REPO = RepoId.parse("acme/tiny")
NEW, OTHER, BASE, ELDER = (sha256_blob(name * 1000) for name in (b"new", b"other", b"base", b"elder"))


def delta(send_bytes: int = 100, base: bytes = b"base") -> Item:
    return Item("model", NEW, "delta", send_bytes, "changed", {b"base": BASE, b"elder": ELDER}[base])


def whole(send_bytes: int = OTHER.size) -> Item:
    return Item("other", OTHER, "whole", send_bytes, "nothing like it")


def edge(*items: Item, relays: bool = True) -> Foresight:
    return Foresight("bj1", REPO, items, relays=relays)


def test_what_several_edges_lack_leaves_once() -> None:
    """Of what arrived in part somewhere the whole leaves for those that have nothing."""
    assert leaves_once([edge(delta(), whole()), edge(delta(), whole(10)), edge(delta())]) == 100 + OTHER.size


def test_deltas_to_other_blobs_are_other_bytes() -> None:
    """So is the whole, which goes to an edge without an older one."""
    whole_new = Item("model", NEW, "whole", NEW.size, "nothing like it")

    assert leaves_once([edge(delta()), edge(delta(300, b"elder")), edge(whole_new)]) == 100 + 300 + NEW.size


def test_an_edge_that_does_not_relay_is_sent_its_own() -> None:
    """Such as a folder of this host, or one with an older receiver."""
    assert leaves_once([edge(delta()), edge(delta(), relays=False), edge(delta(), relays=False)]) == 300
    assert leaves_once([]) == 0
