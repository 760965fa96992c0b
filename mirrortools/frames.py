"""Requests and answers between origin and edge: JSON objects, each behind its length.

A frame is four bytes that say what it is, four bytes of length (big-endian), and so many bytes of JSON in
UTF-8. Only the standard library is used here, because the receiver runs this module on edges.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn

from mirrortools.errors import EdgeRefused

PROTOCOL_VERSION: Final = 3
# Which kind of relay a receiver has: to one without, or with another, an origin sends by rsync.
RELAY_VERSION: Final = 1
# What a relay is called on its host, where the origin reaches it through ssh.
RELAY_NAME: Final = "mirrortools-[0-9a-f]{32}"
LIMIT_BYTES: Final = 64 << 20
_HEADER: Final = struct.Struct(">4sI")
_MAGIC: Final = b"mtf1"
_CHUNK_BYTES: Final = 1 << 16

Read = Callable[[int], bytes]
"""Give between one and n bytes; none at the end."""


def read_frame(read: Read, limit_bytes: int = LIMIT_BYTES) -> dict[str, Any] | None:
    """Read one frame; None when the other side ended between two. Raises EdgeRefused when malformed."""
    header = _read_exactly(read, _HEADER.size)
    if not header:
        return None
    magic, size_bytes = _HEADER.unpack(header) if len(header) == _HEADER.size else (header, 0)
    if magic != _MAGIC:
        raise EdgeRefused(f"expected a frame, got {header!r}")
    if size_bytes > limit_bytes:
        raise EdgeRefused(f"a frame of {size_bytes:,} bytes; the limit is {limit_bytes:,}")
    body = _read_exactly(read, size_bytes)
    if len(body) < size_bytes:
        raise EdgeRefused(f"a frame ended after {len(body):,} of {size_bytes:,} bytes")
    return _document(body)


def frame(document: Mapping[str, Any], limit_bytes: int = LIMIT_BYTES) -> bytes:
    """`document` as a frame. Raises EdgeRefused when it is larger than the other side would read."""
    body = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    if len(body) > limit_bytes:
        raise EdgeRefused(f"a frame of {len(body):,} bytes; the limit is {limit_bytes:,}")
    return body_frame(body)


def body_frame(body: bytes) -> bytes:
    """Any bytes as a frame, for who knows what comes."""
    return _HEADER.pack(_MAGIC, len(body)) + body


def _read_exactly(read: Read, size_bytes: int) -> bytes:
    """Up to `size_bytes`; less at the end only. Memory grows with what arrives, not with what is announced."""
    data = bytearray()
    while len(data) < size_bytes:
        chunk = read(min(size_bytes - len(data), _CHUNK_BYTES))
        if not chunk:
            break
        data += chunk
    return bytes(data)


def _document(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body.decode(), parse_float=_no_number, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise EdgeRefused(f"a frame that is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise EdgeRefused(f"a frame with {type(document).__name__} instead of an object")
    return document


def _no_number(text: str) -> NoReturn:
    """Refuse fractions and infinities: the protocol has none, and whole numbers are made of what it has."""
    raise ValueError(f"expected whole numbers, got {text}")
