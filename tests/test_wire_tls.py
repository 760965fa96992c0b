"""HTTP inside TLS: bytes that arrive in odd pieces, and an end that nobody announced."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import cycle
from pathlib import Path

import pytest

from mirrortools.upstreams.wire import Wire
from tests.delivery import noise

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and its own certificate for `localhost`, in one file."""
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*new, *names, "-keyout", path, "-out", f"{path}.crt"], check=True, capture_output=True)
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


@contextmanager
def served(certificate: Path, version: ssl.TLSVersion, answer: bytes, pieces: Sequence[int] = ()) -> Iterator[Wire]:
    """A wire to a server that sends `answer` and then drops the connection without a word.

    What it sends is encrypted, and arrives in `pieces` (bytes, again and again) when there are any.
    """
    client, near = socket.socketpair()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.minimum_version = context.maximum_version = version
    session = context.wrap_bio(incoming, outgoing, server_side=True)

    def flush() -> None:
        data, sizes = outgoing.read(), cycle(pieces or [1 << 20])
        while data:
            size = next(sizes)
            near.sendall(data[:size])
            data = data[size:]

    def serve() -> None:
        with near, suppress(OSError):
            while True:
                try:
                    session.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    flush()
                    incoming.write(near.recv(1 << 16))
            session.write(answer)
            flush()

    trusting = ssl.create_default_context(cafile=str(certificate))
    client.settimeout(20)
    serving = threading.Thread(target=serve)
    serving.start()
    wire = Wire(trusting.wrap_socket(client, server_hostname="localhost"))
    try:
        yield wire
    finally:
        wire.close()
        serving.join()


def body_of(wire: Wire) -> bytes:
    """What comes of one answer's body, read into a buffer that fits no record."""
    wire.head()
    body, buffer = bytearray(), memoryview(bytearray(50_001))
    while count := wire.readinto(buffer):
        body += buffer[:count]
    return bytes(body)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("pieces", [(), (1, 4, 5000), (5, 16_406), (997,)])
def test_a_body_is_read_whole_however_its_records_arrive(
    certificate: Path, version: ssl.TLSVersion, pieces: Sequence[int]
) -> None:
    """Cut in a record's header, in its body, and between; TLS 1.3's session tickets come in between."""
    content = noise(100_000)
    with served(certificate, version, _HEAD % len(content) + content, pieces) as wire:
        assert body_of(wire) == content
        assert wire.reusable


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("length", [b"Content-Length: 100001\r\n", b""])
def test_an_end_without_a_farewell_is_an_error(certificate: Path, version: ssl.TLSVersion, length: bytes) -> None:
    """Somebody on the way may have cut it, so it is no end, not even of a body whose length is not told."""
    answer = b"HTTP/1.1 200 OK\r\n" + length + b"\r\n" + noise(100_000)
    with served(certificate, version, answer) as wire, pytest.raises(ssl.SSLError):
        body_of(wire)
