"""Relays that feed each other over real sockets on loopback."""

from __future__ import annotations

import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path

import pytest

from mirrortools.bounds import Bounds, held_bytes
from mirrortools.errors import NoSpace
from mirrortools.feeding import SocketLink, Want, feed, read_some
from mirrortools.frames import frame, read_frame
from mirrortools.landing import Goods
from mirrortools.model import Blob
from mirrortools.passport import calling, new_passport
from mirrortools.relay import Relay, Source, Standing, call, wants_of
from mirrortools.stock import Stock
from tests.delivery import git_blob, noise, sha256_blob

MIB = 1 << 20
CONTENTS = [noise(3 * MIB + 17, 1), b"", b"{}", noise(MIB, 2), *(b"%d" % n for n in range(300))]
BLOBS = {(git_blob if len(c) < 100 else sha256_blob)(c): c for c in CONTENTS}
WAIT_S = 20


@pytest.fixture(scope="module")
def passport() -> str:
    """One delivery's certificate."""
    return new_passport()


@pytest.fixture
def relays(tmp_path: Path, passport: str) -> Iterator[Callable[..., Relay]]:
    """Makes a relay of an edge that has so much of each blob in incoming."""
    made: list[Relay] = []

    def make(name: str, have: Mapping[Blob, int] | None = None, mine: str = passport) -> Relay:
        folder = tmp_path / name
        folder.mkdir()
        for blob, count in (have or {}).items():
            (folder / blob.digest).write_bytes(BLOBS[blob][:count])
        lacking = {blob: (have or {}).get(blob, 0) for blob in sorted(BLOBS)}
        made.append(Relay(Goods(folder, lacking, lambda _: None), mine, None, None))
        return made[-1]

    yield make
    for relay in made:
        relay.close()


def stock(folder: Path) -> Stock:
    """The origin's: all is there."""
    folder.mkdir()
    found = Stock()
    for blob, content in BLOBS.items():
        (folder / blob.digest).write_bytes(content)
        found.put(blob.digest, blob.size, folder / blob.digest)
    return found


def feed_from(folder: Path, relay: Relay, passport: str, number: int = 1, most_bytes: int = 1 << 40) -> None:
    """Do what the origin does, until so much went out."""
    relay.await_feed(number)
    link = call([("127.0.0.1", relay.port)], calling(passport))
    try:
        link.write(memoryview(frame({"feed": number})))
        words = read_frame(lambda count: read_some(link, count))
        sent = 0
        for count in feed(link, stock(folder), wants_of(words or {})):
            sent += count
            if sent >= most_bytes:
                return
        read_some(link, 1)
    finally:
        link.release()


def at(relay: Relay, number: int = 1, limit_bytes_s: int | None = None) -> Source:
    return Source(number, [("127.0.0.1", relay.port)], limit_bytes_s)


def until_done(relay: Relay) -> Standing:
    """Wait until a relay lacks nothing, or its link ended otherwise."""
    for _ in range(WAIT_S * 2):
        lacking, standing = relay.flow(0.5)
        if not lacking or standing.state in ("refused", "broken"):
            return standing
    raise AssertionError(f"it still lacks {lacking} bytes: {standing}")


def arrived(tmp_path: Path, name: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}


ALL = {blob.digest: content for blob, content in BLOBS.items()}


def test_bytes_go_down_a_chain(relays: Callable[..., Relay], tmp_path: Path, passport: str) -> None:
    """The last of three has all files, large, small and empty ones, and the hashes were taken on the way."""
    first, second, third = relays("first"), relays("second"), relays("third")
    third.draw(at(second))
    second.draw(at(first))
    feed_from(tmp_path / "origin", first, passport)
    assert [until_done(relay).state for relay in (first, second, third)] == ["done"] * 3

    for name in ("first", "second", "third"):
        assert arrived(tmp_path, name) == ALL
    large = [blob for blob in BLOBS if blob.size >= MIB]
    assert [third.digest(blob) for blob in large] == [blob.digest for blob in large]
    assert [third.digest(blob) for blob in large] == [None] * len(large)  # a file that comes later is another one
    assert third.digest(min(BLOBS)) in (None, min(BLOBS).digest)


def test_what_is_there_does_not_travel_again(relays: Callable[..., Relay], tmp_path: Path, passport: str) -> None:
    """A relay goes on behind what an earlier delivery left, by whatever way that came."""
    blob = max(BLOBS, key=lambda each: each.size)
    first, second = relays("first"), relays("second", {blob: 2 * MIB})
    marked = tmp_path / "second" / blob.digest
    marked.write_bytes(b"x" * (2 * MIB))
    second.draw(at(first))
    feed_from(tmp_path / "origin", first, passport)
    until_done(second)

    assert marked.read_bytes() == b"x" * (2 * MIB) + BLOBS[blob][2 * MIB :]
    assert second.digest(blob) != blob.digest


def test_an_edge_goes_on_with_another_feeder(relays: Callable[..., Relay], tmp_path: Path, passport: str) -> None:
    """Its feeder dies in the middle; from the next one it takes the rest."""
    first, second = relays("first"), relays("second")
    feed_from(tmp_path / "origin", first, passport, most_bytes=2 * MIB)
    second.draw(at(first))
    while second.flow(0.1)[0] > sum(map(len, CONTENTS)) - MIB:
        continue
    first.close()
    broken = until_done(second)
    feed_from(tmp_path / "again", second, passport, number=2)
    done = until_done(second)

    assert (broken.number, broken.state) == (1, "broken")
    assert (done.number, done.state) == (2, "done")
    assert arrived(tmp_path, "second") == ALL


def test_a_relay_that_rests_takes_nothing_more(relays: Callable[..., Relay], tmp_path: Path, passport: str) -> None:
    """What came is written then, nobody can feed it any more, and it passes on what it has."""
    first, second, third = relays("first"), relays("second"), relays("third")
    total = sum(map(len, CONTENTS))
    feed_from(tmp_path / "origin", first, passport)
    second.draw(at(first, limit_bytes_s=2 * MIB))
    while second.flow(0.1)[0] > total - MIB:
        continue
    second.rest()
    came = sum(map(len, arrived(tmp_path, "second").values()))
    lacking, _ = second.flow(0)
    with suppress(OSError, KeyError):
        feed_from(tmp_path / "again", second, passport, number=2)
    third.draw(at(second))
    while third.flow(0.1)[0] > total - came:
        continue

    assert MIB <= came == total - lacking < total
    assert sum(map(len, arrived(tmp_path, "second").values())) == came


def test_what_was_adopted_meanwhile_is_passed_on(relays: Callable[..., Relay], tmp_path: Path, passport: str) -> None:
    """An edge that is done moves its files into the store, and feeds on from there."""
    store = tmp_path / "store"
    store.mkdir()
    first = Relay(
        Goods(store, {}, {blob.digest: store / blob.digest for blob in BLOBS}.get),
        passport,
        None,
        None,
    )
    for blob, content in BLOBS.items():
        (store / blob.digest).write_bytes(content)
    with closing(first):
        second = relays("second")
        second.draw(at(first))

        assert until_done(second).state == "done"
    assert arrived(tmp_path, "second") == ALL


def test_who_has_another_passport_gets_nothing(relays: Callable[..., Relay], tmp_path: Path, passport: str) -> None:
    """Neither as taker nor as feeder; and who has none is not even answered."""
    first, stranger = relays("first"), relays("stranger", mine=new_passport())
    stranger.draw(at(first))
    with pytest.raises(OSError, match=r"."):
        feed_from(tmp_path / "origin", stranger, passport)
    with closing(socket.create_connection(("127.0.0.1", first.port))) as plain:
        plain.sendall(frame({"draw": True, "wants": []}))
        with suppress(ConnectionError):
            assert b"wants" not in plain.recv(100)

    assert until_done(stranger).state in ("refused", "broken", "waiting")
    assert not any(path.stat().st_size for path in (tmp_path / "stranger").iterdir())


def test_an_edge_that_cannot_be_reached_is_told(relays: Callable[..., Relay]) -> None:
    """The origin hears why, and orders something else."""
    first, second = relays("first"), relays("second")
    port = first.port
    first.close()
    second.draw(Source(7, [("127.0.0.1", port)], None))
    standing = until_done(second)

    assert (standing.number, standing.state) == (7, "refused")
    assert f"127.0.0.1 port {port}" in standing.text


@pytest.mark.parametrize("lie", ["gap", "stranger", "too much"])
def test_pieces_that_nobody_asked_for_end_the_link(
    relays: Callable[..., Relay], tmp_path: Path, passport: str, lie: str
) -> None:
    """A feeder can neither leave a gap nor write what does not belong to the delivery, nor behind an end."""
    relay = relays("edge")
    blob = max(BLOBS, key=lambda each: each.size)
    wants = {
        "gap": Want(blob.digest, blob.size, 1000),
        "stranger": Want("ab" * 32, 5, 0),
        "too much": Want(blob.digest, blob.size + 5, blob.size),
    }
    content = tmp_path / "content"
    content.write_bytes(BLOBS[blob] + b"12345")
    found = Stock()
    found.put(wants[lie].digest, wants[lie].size, content)
    relay.await_feed(1)
    link = call([("127.0.0.1", relay.port)], calling(passport))
    with suppress(OSError):
        link.write(memoryview(frame({"feed": 1})))
        read_frame(lambda count: read_some(link, count))
        list(feed(link, found, [wants[lie]]))
        read_some(link, 1)
    link.release()

    assert until_done(relay).state == "broken"
    assert all(path.stat().st_size == 0 for path in (tmp_path / "edge").iterdir())


def test_a_link_can_be_handed_over(relays: Callable[..., Relay], tmp_path: Path) -> None:
    """What ssh brings to another process of the same user is taken from there: no port is needed."""
    relay = relays("edge")
    relay.await_feed(3)
    near, far = socket.socketpair()
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as door, closing(near):
        door.connect(f"\0{relay.name}")
        out = os.dup(far.fileno())
        socket.send_fds(door, [b"\n"], [far.fileno(), out])
        os.close(out)
        far.close()
        link = SocketLink(near)
        link.write(memoryview(frame({"feed": 3})))
        words = read_frame(lambda count: read_some(link, count))
        list(feed(link, stock(tmp_path / "origin"), wants_of(words or {})))

        assert until_done(relay) == Standing(3, "done", "")
    assert arrived(tmp_path, "edge") == ALL


def test_the_port_is_one_of_those_allowed(tmp_path: Path, passport: str) -> None:
    """A taken one is passed over; when none is left, that is an error."""
    with closing(socket.create_server(("", 0))) as taken:
        port = taken.getsockname()[1]
        goods = Goods(tmp_path, {}, lambda _: None)
        with pytest.raises(OSError, match=r"."):
            Relay(goods, passport, (port, port), None)
        with closing(Relay(goods, passport, (port, port + 20), None)) as relay:
            assert port < relay.port <= port + 20


def test_who_waits_is_woken_at_the_end(tmp_path: Path, passport: str) -> None:
    """A question about a relay that is closed is answered at once."""
    relay = Relay(Goods(tmp_path, dict.fromkeys(BLOBS, 0), lambda _: None), passport, None, None)
    answers: list[object] = []
    asking = threading.Thread(target=lambda: answers.append(relay.flow(60)))
    asking.start()
    relay.close()
    asking.join(WAIT_S)

    assert len(answers) == 1


def test_nobody_waits_for_a_hash_that_does_not_come(tmp_path: Path, passport: str) -> None:
    """What came by another way behind the relay's back is hashed by whoever adopts it."""
    blobs = sorted(blob for blob in BLOBS if blob.size >= MIB)
    first, second = blobs
    (tmp_path / second.digest).write_bytes(BLOBS[second])
    with closing(
        Relay(Goods(tmp_path, {first: 0, second: second.size}, lambda _: None), passport, None, None)
    ) as relay:
        assert relay.digest(second) is None
        assert relay.digest(first) is None


def test_relays_of_several_deliveries_keep_one_limit(tmp_path: Path, passport: str) -> None:
    """What the others have brought meanwhile counts; whoever asks how far it is hears why it goes no further."""
    bounds = Bounds(incoming_bytes=6 * MIB)
    relays = []
    for name in ("one", "two"):
        folder = tmp_path / "state" / "incoming" / name
        folder.mkdir(parents=True)
        goods = Goods(folder, dict.fromkeys(BLOBS, 0), lambda _: None, lambda n: bounds.objection(tmp_path, n))
        relays.append(Relay(goods, passport, None, None))
    with closing(relays[0]), closing(relays[1]):
        feed_from(tmp_path / "origin", relays[0], passport)
        with suppress(OSError):
            feed_from(tmp_path / "origin-again", relays[1], passport)
        with pytest.raises(NoSpace, match="incoming_limit"):
            until_done(relays[1])

        assert until_done(relays[0]).state == "done"
    assert held_bytes(tmp_path) <= 6 * MIB


def test_what_is_removed_can_still_be_passed_on(tmp_path: Path, passport: str) -> None:
    """New bytes that a blob was made of go when it is adopted; who draws from here afterwards gets them."""
    lacking = [blob for blob in BLOBS if blob.size >= MIB]
    relays = []
    for name, have in (("first", True), ("second", False)):
        (tmp_path / name).mkdir()
        for blob in lacking if have else ():
            (tmp_path / name / blob.digest).write_bytes(BLOBS[blob])
        goods = Goods(tmp_path / name, {blob: blob.size * have for blob in lacking}, lambda _: None)
        relays.append(Relay(goods, passport, None, None))
    with closing(relays[0]) as first, closing(relays[1]) as second:
        first.keep()
        shutil.rmtree(tmp_path / "first")
        second.draw(at(first))
        standing = until_done(second)

    assert standing.state == "done", standing
    assert arrived(tmp_path, "second") == {blob.digest: BLOBS[blob] for blob in lacking}
