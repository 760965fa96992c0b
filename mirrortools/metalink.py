"""Metalinks (RFC 5854): where files can be had and what they hash to, for clients that ask several mirrors at once.

Only the standard library is used here, because the receiver runs this module on edges.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from mirrortools.model import Manifest
from mirrortools.pieces import Pieces

OF_REVISION: Final = "revision.meta4"
SUFFIX: Final = ".meta4"
# A metalink of its own for a file smaller than this would be of its size: it stands in the revision's alone.
LEAST_BYTES: Final = 1 << 20
_NAMESPACE: Final = "urn:ietf:params:xml:ns:metalink"


@dataclass(frozen=True, slots=True)
class Linked:
    """One file of a metalink: its path, its size in bytes, its SHA-256, and its pieces' where they are known."""

    path: str
    size: int
    sha256: str
    pieces: Pieces | None = None


def metalink(manifest: Manifest, files: Iterable[Linked], mirrors: Sequence[str]) -> Iterator[str]:
    """The XML about `files` of a revision, one file in memory at a time. `mirrors` are base URLs, the best first."""
    published = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(max(0, manifest.committed_at)))
    yield '<?xml version="1.0" encoding="UTF-8"?>\n'
    yield f'<metalink xmlns="{_NAMESPACE}">\n<generator>mirrortools</generator>\n<published>{published}</published>\n'
    revision = manifest.revision
    bases = [f"{mirror}/{revision.repo.url_path}/resolve/{revision.commit}" for mirror in mirrors]
    for file in files:
        yield _file(file, bases)
    yield "</metalink>\n"


def _file(file: Linked, bases: Sequence[str]) -> str:
    from html import escape  # it has names for thousands of characters, which most runs do not need

    lines = [f'<file name="{escape(file.path)}">', f"<size>{file.size}</size>"]
    lines.append(f'<hash type="sha-256">{file.sha256}</hash>')
    if file.pieces:
        lines.append(f'<pieces length="{file.pieces.length}" type="sha-256">')
        lines += [f"<hash>{sha256}</hash>" for sha256 in file.pieces.hashes]
        lines.append("</pieces>")
    for priority, base in enumerate(bases, start=1):
        lines.append(f'<url priority="{priority}">{escape(f"{base}/{quote(file.path)}")}</url>')
    return "\n".join([*lines, "</file>\n"])
