"""HTTP/1.1 from bytes: what is understood, what is refused, and that nothing hangs or crashes."""

from __future__ import annotations

import socket
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrortools.upstreams.wire import HEAD_BYTES, NotHttp, Wire, parse_head


def read(answer: bytes, pieces: Sequence[int] = ()) -> tuple[int, bytes, bool]:
    """Status, body and reusability of an answer that arrives in pieces and then ends."""
    wire = Wire(fake_socket(answer, pieces))
    head = wire.head()
    body = bytearray()
    buffer = memoryview(bytearray(7))
    while count := wire.readinto(buffer):
        body += buffer[:count]
    return head.status, bytes(body), wire.reusable


class Arriving(socket.socket):
    """A socket on which bytes arrive in pieces that a test chose."""

    def __init__(self, data: bytes, pieces: Sequence[int]) -> None:
        self._data, self._pieces = data, list(pieces)

    def recv(self, size: int, _flags: int = 0) -> bytes:
        step = min(size, self._pieces.pop(0) if self._pieces else size)
        taken, self._data = self._data[:step], self._data[step:]
        return taken

    def recv_into(self, buffer: memoryview, _size: int = 0, _flags: int = 0) -> int:  # type: ignore[override]
        taken = self.recv(len(buffer))
        buffer[: len(taken)] = taken
        return len(taken)

    def setsockopt(self, *_option: object) -> None:  # type: ignore[override]
        """Nothing acknowledges anything."""

    def close(self) -> None:
        """Nothing is open."""


def fake_socket(data: bytes, pieces: Sequence[int] = ()) -> socket.socket:
    return Arriving(data, pieces)


sizes = st.lists(st.integers(1, 9), max_size=40)


@given(st.binary(max_size=100), sizes)
def test_a_body_with_a_length_is_read_to_its_end_however_it_arrives(body: bytes, pieces: list[int]) -> None:
    """What follows belongs to the next answer."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)

    assert read(answer + b"HTTP/1.1 404", pieces) == (200, body, True)


@given(st.lists(st.binary(min_size=1, max_size=30), max_size=6), sizes)
def test_a_chunked_body_is_put_together(chunks: list[bytes], pieces: list[int]) -> None:
    """Chunk extensions and trailers are passed over."""
    body = b"".join(b"%x;ext=1\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body + b"0\r\nTrailer: x\r\n\r\n"

    assert read(answer, pieces) == (200, b"".join(chunks), True)


def test_answers_to_several_requests_come_one_after_the_other() -> None:
    """Pipelined answers are told apart by their lengths."""
    wire = Wire(fake_socket(b"".join(b"HTTP/1.1 206 P\r\nContent-Length: 1\r\n\r\n%d" % n for n in range(5))))
    buffer = memoryview(bytearray(10))
    bodies = []
    for _ in range(5):
        wire.head()
        bodies.append(bytes(buffer[: wire.readinto(buffer)]))

    assert bodies == [b"0", b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize(
    ("head", "keeps_alive"),
    [
        (b"HTTP/1.1 200 OK", True),
        (b"HTTP/1.1 200 OK\r\nConnection: close", False),
        (b"HTTP/1.0 200 OK", False),
        (b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive", True),
        (b"HTTP/1.1 200", True),
    ],
)
def test_whether_a_connection_serves_again(head: bytes, keeps_alive: bool) -> None:
    """HTTP/1.1 keeps it unless told otherwise, HTTP/1.0 closes it unless told otherwise."""
    assert parse_head(head).keeps_alive is keeps_alive


def test_interim_answers_are_passed_over() -> None:
    """A 103 with hints comes before the answer."""
    answer = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

    assert read(answer) == (200, b"ok", True)


@pytest.mark.parametrize(
    "head",
    [
        b"ICY 200 OK",
        b"HTTP/2 200",
        b"HTTP/1.1 20 OK",
        b"HTTP/1.1 200 OK\r\nno colon",
        b"HTTP/1.1 200 OK\r\nbad name: x",
        b"HTTP/1.1 200 OK\r\n folded: x",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0x10",
        "HTTP/1.1 200 OK\r\nContent-Length: ٣".encode(),
    ],
)
def test_what_is_not_http_is_refused(head: bytes) -> None:
    """Two readings of one answer are how bytes are smuggled, so only one is allowed."""
    with pytest.raises(NotHttp):
        _ = parse_head(head).length


def test_equal_lengths_count_as_one() -> None:
    """RFC 9112, 6.3 allows that."""
    assert parse_head(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5").length == 5


def test_a_head_without_end_is_given_up() -> None:
    """Memory is bounded."""
    with pytest.raises(NotHttp, match="more than"):
        Wire(fake_socket(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * HEAD_BYTES)).head()


@given(st.binary(max_size=200), sizes)
def test_any_bytes_end_in_an_answer_or_an_error(data: bytes, pieces: list[int]) -> None:
    """Nothing else is raised and nothing goes on for ever."""
    for answer in (data, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + data):
        try:
            status, body, _ = read(answer, pieces)
        except (NotHttp, OSError):
            continue
        assert 200 <= status <= 999
        assert len(body) <= len(answer)
