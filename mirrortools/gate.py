"""What an installed receiver lets a push key do: talk with the receiver of one root, and rsync into its incoming.

sshd runs this as the forced command of the key, `receiver.pyz --edge=NAME … ROOT`, with what the caller wanted to run
in SSH_ORIGINAL_COMMAND. The origin asks for the same as on an edge where nothing is installed: a Python that reads the
receiver from its input, or an rsync that writes into a folder of state/incoming. The first gets our own receiver, and
the one that was sent is read past; for the second rsync is run with words of our own. Nothing that the caller wrote is
ever run, and no shell sees it.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import select
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mirrortools.berth import Berth
from mirrortools.bounds import Bounds
from mirrortools.callers import serve_caller
from mirrortools.errors import EdgeRefused, Locked, MirrorError, NoSpace
from mirrortools.frames import RELAY_NAME
from mirrortools.inlet import Inlet
from mirrortools.receiver import Receiver

_ARCHIVE_LIMIT_BYTES: Final = 4 << 20
_WORDS_LIMIT_BYTES: Final = 8192
_SILENCE_S: Final = 60
_LOOK_S: Final = 0.1
_MOST_BYTES: Final = 1 << 62
_FLAGS: Final = re.compile(r"-([spz]{1,3})e([0-9]{0,3}\.[0-9]{0,3}[A-Za-z]{0,24})\Z")
# What an origin's rsync says of itself besides; we say it ourselves, or it does not matter on this side.
_PASSED_OVER: Final = re.compile(r"--(?:append|stats|compress-level=[0-9]|timeout=[0-9]{1,6}|bwlimit=[0-9]{1,12})\Z")
_OWN_OPTIONS: Final = ("--append", "--stats", "--timeout=120", "--chmod=F600")
_ENVIRONMENT: Final = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C"}

Read = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class Talk:
    """The wish to talk with the receiver, or to reach a relay, after so many bytes of a receiver that is not needed."""

    archive_bytes: int
    relay: str = ""


@dataclass(frozen=True, slots=True)
class Bulk:
    """The wish to bring files by rsync; `flags` is what the caller's rsync can, as it says it (`.LsfxCIvu`).

    `is_compressed` is whether they come compressed.
    """

    flags: str
    is_compressed: bool = False


@dataclass(frozen=True, slots=True)
class Post:
    """What stands in authorized_keys: the edge's name on the origin, its root, and how much may come."""

    edge: str
    root: Path
    bounds: Bounds

    @classmethod
    def parse(cls, words: Sequence[str]) -> Post:
        """Read the words behind the program's name. Ends the process when they make no sense, as argparse does."""
        parser = argparse.ArgumentParser("receiver.pyz", allow_abbrev=False)
        parser.add_argument("--edge", required=True)
        parser.add_argument("--incoming-limit", type=int)
        parser.add_argument("--min-free", type=int, default=0)
        parser.add_argument("root", type=Path)
        found = parser.parse_args(words)
        return cls(found.edge, found.root, Bounds(found.incoming_limit, found.min_free))


def wish(command: str, root: Path) -> Talk | Bulk:
    """What a caller wants. Raises EdgeRefused for everything but the two things that an origin asks for."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise EdgeRefused(f"{command[:200]!r}: {error}") from error
    if len(words) == 3 and words[:2] == ["rsync", "--server"] and (match := _FLAGS.match(words[2])):
        return Bulk(match[2], "z" in match[1])
    relay = words.pop() if len(words) == 7 and re.fullmatch(RELAY_NAME, words[6]) else ""
    if len(words) == 6 and words[1:3] == ["-I", "-c"] and re.fullmatch(r"[0-9]{1,7}", words[4]):
        if words[5] != str(root):
            raise EdgeRefused(f"this key is for the root {root}, not for {words[5][:200]!r}")
        if int(words[4]) <= _ARCHIVE_LIMIT_BYTES:
            return Talk(int(words[4]), relay)
    raise EdgeRefused(f"this key lets a mirror's origin deliver to {root}, and nothing else; got {command[:200]!r}")


def incoming_name(words: Sequence[str], root: Path) -> str:
    """The folder of state/incoming that the words on an rsync's input name. Raises EdgeRefused."""
    if len(words) < 3 or words[0] != "rsync" or words[-2] != ".":
        raise EdgeRefused(f"not the words of an origin's rsync: {list(words)!r:.300}")
    if strangers := [word for word in words[1:-2] if not _PASSED_OVER.match(word)]:
        raise EdgeRefused(f"an option that an origin's rsync does not have: {strangers[0][:200]!r}")
    start, name = f"{root}/state/incoming/", words[-1].removesuffix("/")
    name = name.removeprefix(start)
    if f"{start}{name}/" != words[-1] or not _is_open_to_rsync(root, name):
        raise EdgeRefused(f"files may come into the folders of {start} alone, not to {words[-1][:200]!r}")
    return name


def _is_open_to_rsync(root: Path, name: str) -> bool:
    """Whether that is a repository's folder; what goes ahead goes by relays alone."""
    try:
        return not Berth.named(root, name).is_ahead
    except MirrorError:
        return False


def read_words(read: Read) -> list[str]:
    """The words that rsync writes in front of its protocol (its --secluded-args), and not a byte more.

    Raises EdgeRefused.
    """
    data = bytearray()
    while not data.endswith(b"\0\0"):
        byte = read(1)
        if not byte or len(data) >= _WORDS_LIMIT_BYTES:
            raise EdgeRefused(f"rsync's words do not end within {_WORDS_LIMIT_BYTES:,} bytes")
        data += byte
    return [word.decode(errors="replace") for word in data[:-2].split(b"\0")]


def open_incoming(root: Path, name: str) -> int:
    """A descriptor of a folder of state/incoming that `begin` has made; no symlink below `root` is followed.

    Raises EdgeRefused.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    folder = -1
    try:
        folder = os.open(root, flags)
        for part in ("state", "incoming", name):
            above, folder = folder, os.open(part, flags | os.O_NOFOLLOW, dir_fd=folder)
            os.close(above)
    except OSError as error:
        raise EdgeRefused(f"{root}/state/incoming/{name}: {error.strerror}; a delivery begins it") from error
    return folder


def bring(post: Post, wanted: Bulk, read: Read) -> int:
    """Let rsync write into one folder, as long as there is room; its exit status.

    The inlet is open for as long as that rsync lives, whatever becomes of this process. Raises EdgeRefused, NoSpace,
    Locked.
    """
    name = incoming_name(read_words(read), post.root)
    os.fchdir(open_incoming(post.root, name))
    entered = Inlet(Berth.named(post.root, name)).enter()
    if why := post.bounds.objection(post.root):
        raise NoSpace(why)
    # A file goes on where it ends, so it may get as large as what is there and what there is room for.
    largest = max((entry.stat(follow_symlinks=False).st_size for entry in os.scandir(".")), default=0)
    limit_bytes = min(_MOST_BYTES, largest + post.bounds.room_bytes(post.root))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))
    words = ["rsync", "--server", f"-{'pz' if wanted.is_compressed else 'p'}e{wanted.flags}", *_OWN_OPTIONS, ".", "."]
    with subprocess.Popen(words, env=_ENVIRONMENT, start_new_session=True, pass_fds=[entered]) as rsync:
        return _watched(rsync, post)


def _watched(rsync: subprocess.Popen[bytes], post: Post) -> int:
    try:
        while True:
            try:
                status = rsync.wait(_LOOK_S)
            except subprocess.TimeoutExpired:
                status = None
            # When it failed, the reason may be that there was no room for a byte more.
            if (status != 0) and (why := post.bounds.objection(post.root, more_bytes=1 if status else 0)):
                raise NoSpace(why)
            if status is not None:
                return status
    finally:
        if rsync.returncode is None:
            os.killpg(rsync.pid, signal.SIGKILL)


def skip(read: Read, size_bytes: int) -> None:
    """Read past a receiver that was sent. Raises EdgeRefused."""
    while size_bytes:
        data = read(min(size_bytes, 1 << 16))
        if not data:
            raise EdgeRefused("the receiver arrived incomplete")
        size_bytes -= len(data)


def _read(size_bytes: int) -> bytes:
    poll = select.poll()
    poll.register(0, select.POLLIN)
    if not poll.poll(_SILENCE_S * 1000):
        raise EdgeRefused(f"nothing came for {_SILENCE_S} s")
    return os.read(0, size_bytes)


def answer(post: Post, command: str) -> int:
    """Do what a caller wants, at standard input and output; the exit status. Raises EdgeRefused, NoSpace."""
    wanted = wish(command, post.root)
    if isinstance(wanted, Bulk):
        return bring(post, wanted, _read)
    skip(_read, wanted.archive_bytes)
    if wanted.relay:
        from mirrortools.handover import hand_over

        hand_over(wanted.relay)
        return 0
    serve_caller(Receiver(post.root, bounds=post.bounds, installed_as=post.edge))
    return 0


def main() -> None:
    """Be the forced command."""
    os.umask(0o022)
    post = Post.parse(sys.argv[1:])
    try:
        sys.exit(answer(post, os.environ.get("SSH_ORIGINAL_COMMAND", "")))
    except (NoSpace, Locked) as error:
        sys.exit(f"mirrortools: {error}")
    except MirrorError as error:
        sys.exit(f"mirrortools: {error}; after an update: `mirrortool edge provision {post.edge}` on the origin")
