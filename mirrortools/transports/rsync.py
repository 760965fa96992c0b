"""One run of rsync: which words, how far it is, what its exit status means.

Files are named by their content and hashed on the edge afterwards, so rsync compares nothing: `--append` sends
what is lacking behind the bytes that are there, and nothing of a file that is complete. (`--whole-file` excludes
`--append`; `--partial-dir` keeps nothing when the edge's rsync is killed.)
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from typing import IO, Final

from mirrortools.errors import EdgeRefused, EdgeUnreachable, MirrorError, NoSpace, StoreError
from mirrortools.transports.base import Batch, Sent
from mirrortools.transports.child import Child
from mirrortools.transports.way import Way

TIMEOUT_S: Final = 120
_OPTIONS: Final = (
    "--append",
    "--files-from=-",
    "--from0",
    "--no-relative",
    "--perms",
    "--chmod=F600",  # the writer must be able to go on with a file that is there in part
    "-s",  # no shell there reads file names; the long name differs between versions
    "--no-human-readable",
    "--info=progress2",
    "--stats",
    f"--timeout={TIMEOUT_S}",
)
# Both sides agree on the best way that they have in common: zstd since rsync 3.2.
_COMPRESSED: Final = ("--compress", "--compress-level=1")
_PROGRESS: Final = re.compile(r"\s*([0-9,]+)\s+[0-9]+%")
_SENT: Final = re.compile(r"Total bytes sent: ([0-9,]+)")
_NO_SPACE: Final = ("No space left on device", "Disk quota exceeded")
_CUT_OFF: Final = {
    10: "a socket failed",
    12: "the stream broke",
    20: "it was ended",
    30: "nothing moved",
    35: "no answer",
}
_VANISHED: Final = 24
_NOT_FOUND: Final = 127


class Rsync:
    """A run that puts one batch on an edge."""

    def __init__(self, way: Way, batch: Batch) -> None:
        self._way = way
        self._batch = batch
        self._progress = batch.progress
        with _names(batch) as names:
            self.child = Child(_words(way, batch), way.env, names)

    def finish(self) -> Sent:
        """Report progress until the end. Raises EdgeUnreachable, EdgeRefused, NoSpace, StoreError."""
        sent_bytes = 0
        for line in self._lines():
            if match := _PROGRESS.match(line):
                self._batch.progress(_number(match[1]))
            elif match := _SENT.match(line):
                sent_bytes = _number(match[1])
        status, said = self.child.wait()
        if status:
            raise self._failure(status, said)
        return Sent(sent_bytes)

    def close(self) -> None:
        """End the run if it has not ended."""
        self.child.end()
        self.child.close()

    def _lines(self) -> Iterator[str]:
        rest = ""
        while data := os.read(self.child.stdout, 1 << 16):
            *lines, rest = re.split(r"[\r\n]", rest + data.decode(errors="replace"))
            yield from lines
        yield rest

    def _failure(self, status: int, said: str) -> MirrorError:
        what = f"edge {self._way.edge}: rsync ended with status {status}: {said}"
        if any(words in said for words in _NO_SPACE):
            return NoSpace(f"{what}; free some space there and run again, it goes on where it stopped")
        unreachable = self._way.unreachable(status, said)
        if unreachable:
            return unreachable
        if status in _CUT_OFF or status < 0:
            return EdgeUnreachable(f"{what}; run again, it goes on where it stopped")
        vanished = [blob for blob in self._batch.blobs if not (self._batch.source / blob.path).is_file()]
        if status == _VANISHED or vanished:
            lost = f"{self._batch.source / vanished[0].path} is gone from the origin; " if vanished else ""
            return StoreError(f"{what}; {lost}`mirrortool sync` fetches it again")
        if status == _NOT_FOUND:
            return EdgeRefused(f"{what}; install rsync there")
        return EdgeRefused(f"{what}; see whether {self._way.root} there can be written, and rsync's version")


def _words(way: Way, batch: Batch) -> list[str]:
    options, target = way.rsync_words(way.root / batch.folder)
    limit = [f"--bwlimit={max(1, way.rate_limit_bytes_s // 1024)}"] if way.rate_limit_bytes_s else []
    squeeze = _COMPRESSED if batch.compress else ()
    return ["rsync", *_OPTIONS, *squeeze, *limit, *options, "--", f"{batch.source}/", f"{target}/"]


def _names(batch: Batch) -> IO[bytes]:
    """A file that lists what to send, for rsync's standard input."""
    names = tempfile.TemporaryFile()  # noqa: SIM115  (the caller closes it)
    names.write(b"".join(blob.path.encode() + b"\0" for blob in batch.blobs))
    names.seek(0)
    return names


def _number(text: str) -> int:
    return int(text.replace(",", ""))
