"""Bytes that go from a socket into a file past this process are the same bytes, and errors are told apart."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirrortools.errors import SourceUnavailable
from mirrortools.upstreams.http import HttpClient, Request
from mirrortools.upstreams.pipe import Pipe
from tests.delivery import noise
from tests.fakes import ScriptedServer, answer

CONTENT = noise(900_000)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """A pipe that is closed afterwards."""
    made = Pipe()
    yield made
    made.close()


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    """A file to write into."""
    opened = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield opened
    os.close(opened)


def content_of(file: int) -> bytes:
    """All that a file holds."""
    return os.pread(file, 1 << 24, 0)


def through(pipe: Pipe, content: bytes, file: int, offset: int) -> bool:
    """Send bytes over a socket, and through the pipe into the file."""
    here, there = socket.socketpair()
    with here, there:
        here.sendall(content)
        assert pipe.fill(there.fileno(), 1 << 20) == len(content)
        return pipe.pour(file, offset, len(content))


def download(server: ScriptedServer, client: HttpClient, file: int) -> int:
    """Put an answer's body into a file, by `splice` where that goes; how many bytes had to be read."""
    offset, was_read, buffer = 0, 0, memoryview(bytearray(1 << 16))
    with client.open(Request(server.origin)) as body:
        while (moved := body.splice(file, offset, 1 << 20)) != 0:
            if moved is None:
                moved = body.readinto(buffer)
                os.pwrite(file, buffer[:moved], offset)
                was_read += moved
                if moved == 0:
                    break
            offset += moved
    return was_read


def test_bytes_land_where_they_belong(pipe: Pipe, file: int) -> None:
    """At their offset, and nowhere else."""
    os.pwrite(file, b"before....after", 0)

    assert through(pipe, b"1234", file, 6)
    assert content_of(file) == b"before1234after"


def test_a_file_that_cannot_be_spliced_into_is_written(pipe: Pipe, tmp_path: Path) -> None:
    """One that is open for appending, for example; whoever asks is told."""
    appended = os.open(tmp_path / "appended", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    went_through = through(pipe, noise(100_000), appended, 0)
    os.close(appended)

    assert not went_through
    assert (tmp_path / "appended").read_bytes() == noise(100_000)


def test_a_full_disk_is_the_files_error(pipe: Pipe) -> None:
    """It is not taken for trouble with the network."""
    full = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(OSError, match="No space") as caught:
        through(pipe, b"x", full, 0)
    os.close(full)

    assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_is_the_same_by_either_way(file: int, chunked: bool) -> None:
    """What came with the head, and chunks, are read; the rest goes past this process."""
    body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(CONTENT), CONTENT) if chunked else CONTENT
    said = answer(body, Content_Length="", Transfer_Encoding="chunked") if chunked else answer(body)
    client = HttpClient(timeout_s=5)
    with ScriptedServer(lambda _heard: said) as server:
        was_read = [download(server, client, file), download(server, client, file)]
        client.close()

    assert content_of(file) == CONTENT
    assert {heard.connection for heard in server.heard} == {0}
    if not chunked:
        assert max(was_read) < len(CONTENT)


def test_a_body_that_ends_too_early_is_an_error(file: int) -> None:
    """As when it is read."""
    answers = iter([answer(CONTENT, Content_Length=str(len(CONTENT) + 1)), None])
    client = HttpClient(timeout_s=1)
    with ScriptedServer(lambda _heard: next(answers)) as server:
        with pytest.raises(SourceUnavailable, match="timed out"):
            download(server, client, file)
        client.close()


def test_a_connection_whose_bytes_did_not_fit_on_the_disk_is_given_up(file: int) -> None:
    """The rest of the answer is still in it."""
    client = HttpClient(timeout_s=5)
    full = os.open("/dev/full", os.O_WRONLY)
    with ScriptedServer(lambda _heard: answer(CONTENT)) as server:
        with pytest.raises(OSError, match="No space"):
            download(server, client, full)
        download(server, client, file)
        client.close()
    os.close(full)

    assert content_of(file) == CONTENT
    assert [heard.connection for heard in server.heard] == [0, 1]
