"""A real browser without a screen: what a page became in it, and the pixels of its pictures."""

from __future__ import annotations

import subprocess
import zlib
from pathlib import Path

from tests.clients import ClientError
from tests.servers.process import program

DARK = "--blink-settings=preferredColorScheme=0"


def chromium(folder: Path, *words: str) -> tuple[str, str]:
    """What a page became in the browser, and what the browser had to say of it."""
    command = [program("chromium"), "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    profile = f"--user-data-dir={folder}/profile"
    done = subprocess.run([*command, profile, *words], capture_output=True, text=True, timeout=100)
    if done.returncode:
        raise ClientError(f"chromium ended with {done.returncode}:\n{done.stderr}")
    return done.stdout, done.stderr


def pixels_of(path: Path) -> bytes:
    """The red, green and blue of every pixel of a PNG with 8 bits a channel, row after row (PNG, 9: filters)."""
    data = path.read_bytes()
    width, height = (int.from_bytes(data[at : at + 4], "big") for at in (16, 20))
    channels = {2: 3, 6: 4}[data[25]]
    packed, at = b"", 8
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        packed += data[at + 8 : at + 8 + length] if data[at + 4 : at + 8] == b"IDAT" else b""
        at += length + 12
    raw, stride, above = zlib.decompress(packed), width * channels, bytes(width * channels)
    rows = bytearray()
    for row in range(height):
        start = row * (stride + 1)
        above = _row(raw[start], raw[start + 1 : start + 1 + stride], above, channels)
        rows += bytes(value for index, value in enumerate(above) if index % channels < 3)
    return bytes(rows)


def _row(kind: int, line: bytes, above: bytes, channels: int) -> bytes:
    out = bytearray(line)
    for index in range(len(out)):
        left = out[index - channels] if index >= channels else 0
        corner = above[index - channels] if index >= channels else 0
        out[index] = (out[index] + _predicted(kind, left, above[index], corner)) & 255
    return bytes(out)


def _predicted(kind: int, left: int, up: int, corner: int) -> int:
    guess = left + up - corner
    nearest = min((left, up, corner), key=lambda value: abs(guess - value))
    return (0, left, up, (left + up) // 2, nearest)[kind]
