"""Edges that are called before anybody needs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mirrortools.errors import EdgeUnreachable, MirrorError
from mirrortools.transports import Batch, Pipe, Sent, called
from mirrortools.transports.early import KEPT_S, Early


@dataclass(eq=False)
class Line:
    """A session that remembers how it ended."""

    how: list[str] = field(default_factory=list)
    ended: bool = False

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        return dict(request)

    def ask_all(self, requests: Sequence[Mapping[str, Any]]) -> list[dict[str, Any] | MirrorError]:
        return [dict(request) for request in requests]

    def send(self, batch: Batch) -> Sent:
        raise NotImplementedError

    def pipe(self, relay: str) -> Pipe:
        raise NotImplementedError

    def close(self) -> None:
        self.how.append("close")

    def abort(self) -> None:
        self.how.append("abort")


@dataclass
class Host:
    """A way that counts who came; the first `failures` do not get through."""

    failures: int = 0
    lines: list[Line] = field(default_factory=list)

    def open(self, receiver: bytes) -> Line:
        assert receiver
        if self.failures:
            self.failures -= 1
            raise EdgeUnreachable("nobody answers")
        self.lines.append(Line())
        return self.lines[-1]


def test_who_needs_an_edge_finds_it_called_and_later_ones_call_anew() -> None:
    """The session that was begun goes to the first who opens one, and is then no other's to end."""
    host = Host()
    with called([("near", host)]) as ways:
        begun = list(host.lines)
        first, second = ways["near"].open(b"receiver"), ways["near"].open(b"receiver")

    assert begun == [first]
    assert host.lines == [first, second]
    assert host.lines[0].how == host.lines[1].how == []


def test_what_nobody_needed_is_ended_at_once() -> None:
    """Nothing waits for a host that does not answer."""
    host = Host()
    with called([("near", host)]):
        pass

    assert [line.how for line in host.lines] == [["abort", "close"]]


def test_what_failed_is_tried_when_it_is_needed() -> None:
    """A host that could not be called at first is called once more, and tells then what is wrong."""
    host = Host(failures=1)
    early = Early(host)

    assert early.open(b"receiver") is host.lines[0]


def test_a_receiver_that_has_waited_for_long_is_not_relied_on() -> None:
    """It may have ended by itself; another one is called."""
    host, now_s = Host(), [0.0]
    early = Early(host, lambda: now_s[0])
    now_s[0] = KEPT_S + 1
    session = early.open(b"receiver")

    assert host.lines[0].how == ["abort", "close"]
    assert session is host.lines[1]


def test_a_receiver_that_has_ended_meanwhile_is_called_anew() -> None:
    """A host that was started again while others were at work is no failure of the run."""
    host = Host()
    early = Early(host)
    host.lines[0].ended = True
    session = early.open(b"receiver")

    assert host.lines[0].how == ["abort", "close"]
    assert session is host.lines[1]
