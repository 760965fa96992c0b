"""The receiver as a zip archive in memory, and the command that runs it from standard input on an edge.

An installed one has each module's bytecode besides, as far as that lies beside the source here: to compile takes an
edge longer than all that it is asked then. A Python of another kind passes over it and compiles the source (zipimport
does so by itself).
"""

from __future__ import annotations

import importlib.util
import io
import json
import re
import struct
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Final

PYTHON_AT_LEAST: Final = (3, 11)
_PACKAGE: Final = "mirrortools"
_CALLED: Final = f"{_PACKAGE}.callers"
_GATE: Final = f"{_PACKAGE}.gate"
_IMPORT: Final = re.compile(rf"^\s*from {_PACKAGE}(?:\.([\w.]+) import| import ([\w, ]+))", re.MULTILINE)
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
# What bytecode begins with: a number of the Python that it is for, flags, and the source's time and size, or its hash.
_MADE_OF_FILE: Final = struct.Struct("<4sIII")
_NOT_COMPARED: Final = struct.Struct("<4sI8s")
_IS_HASHED: Final = 1
# Reads the archive into a file that has no name, so that nothing is written to the edge's disk.
_BOOTSTRAP: Final = f"""\
import os,sys
if sys.version_info<{PYTHON_AT_LEAST}:
    sys.exit("python3 is %d.%d there; {PYTHON_AT_LEAST[0]}.{PYTHON_AT_LEAST[1]} or newer needed"%sys.version_info[:2])
left=int(sys.argv[1])
file=os.memfd_create("mirrortools")
while left:
    data=os.read(0,min(left,65536))
    if not data:
        sys.exit("the receiver arrived incomplete")
    os.write(file,data)
    left-=len(data)
sys.path.insert(0,"/proc/self/fd/%d"%file)
from {_CALLED} import main
main(*sys.argv[2:])
"""


def receiver_command(python: str, receiver: bytes, root: str, more: Sequence[str] = ()) -> list[str]:
    """The words that run `receiver` once it has been written to standard input; requests follow behind it.

    With `more`, the name of a relay, what follows is for that relay.

    The program is one line without single quotes, so that it passes through any login shell.
    """
    return [python, "-I", "-c", f"exec({json.dumps(_BOOTSTRAP)})", str(len(receiver)), root, *more]


@cache
def receiver_archive() -> bytes:
    """The receiver and those of our modules that it imports, always the same bytes for the same code."""
    return _zipped(_sources(_CALLED))


@cache
def installed_receiver() -> bytes:
    """What a forced command runs (`python3 -I receiver.pyz …`): the receiver behind its gate."""
    return _zipped({"__main__.py": f"from {_GATE} import main\nmain()\n".encode(), **_with_bytecode(_sources(_GATE))})


def _zipped(sources: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, source in sorted(sources.items()):
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), source, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def _with_bytecode(sources: Mapping[str, bytes]) -> dict[str, bytes]:
    """The same files, and the bytecode that there is of them."""
    found = {f"{name}c": code for name, source in sources.items() if (code := _bytecode(name, source))}
    return {**sources, **found}


def _bytecode(name: str, source: bytes) -> bytes | None:
    """What Python has kept here of a module, when that is of this source, in a form that is compared with no file."""
    path = Path(str(resources.files(_PACKAGE).joinpath(name.removeprefix(f"{_PACKAGE}/"))))
    try:
        kept, status = Path(importlib.util.cache_from_source(str(path))).read_bytes(), path.stat()
    except (OSError, NotImplementedError):
        return None
    of_file = _MADE_OF_FILE.pack(importlib.util.MAGIC_NUMBER, 0, int(status.st_mtime) & 0xFFFFFFFF, len(source))
    if not kept.startswith(of_file):
        return None
    digest = importlib.util.source_hash(source)
    return _NOT_COMPARED.pack(importlib.util.MAGIC_NUMBER, _IS_HASHED, digest) + kept[len(of_file) :]


def _sources(module: str) -> dict[str, bytes]:
    """File name → text of a module and of everything of ours that it needs."""
    found = {f"{_PACKAGE}/__init__.py": _source("__init__.py")}
    waiting = [module]
    while waiting:
        name = f"{waiting.pop().replace('.', '/')}.py"
        if name not in found:
            found[name] = _source(name.removeprefix(f"{_PACKAGE}/"))
            waiting += _imports(found[name])
    return found


def _source(name: str) -> bytes:
    return resources.files(_PACKAGE).joinpath(name).read_bytes()


def _imports(source: bytes) -> Iterator[str]:
    """The modules of ours that a source imports, as `from mirrortools import x` or `from mirrortools.x import …`.

    Found by their look: every run that asks an edge waits for this, and a parser takes twenty times as long.
    """
    for module, names in _IMPORT.findall(source.decode()):
        yield from [f"{_PACKAGE}.{module}"] if module else (f"{_PACKAGE}.{name.strip()}" for name in names.split(","))
