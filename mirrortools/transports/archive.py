"""The receiver as a zip archive in memory, and the command that runs it on an edge.

It has each module's bytecode besides, as far as that lies beside the source here: to compile takes an edge longer than
all that it is asked then. A Python of another kind passes over it and compiles the source (zipimport does so by
itself).
"""

from __future__ import annotations

import importlib.util
import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Final

from mirrortools.frames import body_frame
from mirrortools.keeping import FOLDER, name_of

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
# What the program on the edge answers to the first request when the receiver is not kept there (`keeping`). It has read
# past that request then, and expects the receiver, and the request once more.
LACKS: Final = {"lacks": "receiver"}
# What runs lies in a file without a name, so that it is what was hashed, whatever becomes of the kept one.
_BOOTSTRAP: Final = f"""\
import os,sys
if sys.version_info<{PYTHON_AT_LEAST}:
    sys.exit("python3 is %d.%d there; {PYTHON_AT_LEAST[0]}.{PYTHON_AT_LEAST[1]} or newer needed"%sys.version_info[:2])
import hashlib
name,root="{{name}}",sys.argv[2]
def take(size):
    data=b""
    while len(data)<size:
        more=os.read(0,min(size-len(data),65536))
        if not more:
            sys.exit("the receiver arrived incomplete")
        data+=more
    return data
def body():
    return take(int.from_bytes(take(8)[4:],"big"))
def is_right(archive):
    return hashlib.sha256(archive).hexdigest()==name
sent=b""
try:
    with open(os.path.join(root,"{FOLDER}",name),"rb") as file:
        archive=file.read()
except OSError:
    archive=b""
if not is_right(archive):
    import zlib
    body()
    lacks=b{json.dumps(json.dumps(LACKS))}
    os.write(1,b"mtf1"+len(lacks).to_bytes(4,"big")+lacks)
    archive=sent=zlib.decompress(body())
    if not is_right(archive):
        sys.exit("the receiver arrived damaged")
memory=os.memfd_create("mirrortools")
with open(memory,"wb",closefd=False) as file:
    file.write(archive)
del archive
sys.path.insert(0,"/proc/self/fd/%d"%memory)
from {_CALLED} import main
main(root,sent)
"""


def receiver_command(python: str, receiver: bytes, root: str) -> list[str]:
    """The words that run `receiver`, which the edge keeps or asks for; requests come on standard input.

    The program is one line without single quotes, so that it passes through any login shell. The number is how much of
    a receiver comes in front of the first request: nothing any more. Forced commands read past so much (`gate`).
    """
    return _words(python, _BOOTSTRAP.replace("{name}", name_of(receiver)), root)


def hand_over_command(python: str, root: str, relay: str) -> list[str]:
    """The words that hand standard input and output over to the relay of that name."""
    program = _source("handover.py").decode()
    return [*_words(python, f"{program}\nimport sys\nhand_over(sys.argv[3])\n", root), relay]


def _words(python: str, program: str, root: str) -> list[str]:
    return [python, "-I", "-c", f"exec({json.dumps(program)})", "0", root]


def packed(receiver: bytes) -> bytes:
    """A receiver as it travels to an edge that lacks it."""
    return body_frame(zlib.compress(receiver))


@cache
def receiver_archive() -> bytes:
    """The receiver and those of our modules that it imports, always the same bytes for the same code.

    Nothing in it is compressed: it is packed for each run that asks an edge, and travels once for many of them.
    """
    return _zipped(_with_bytecode(_sources(_CALLED)), zipfile.ZIP_STORED)


@cache
def installed_receiver() -> bytes:
    """What a forced command runs (`python3 -I receiver.pyz …`): the receiver behind its gate."""
    main = f"from {_GATE} import main\nmain()\n".encode()
    return _zipped({"__main__.py": main, **_with_bytecode(_sources(_GATE))}, zipfile.ZIP_DEFLATED)


def _zipped(sources: Mapping[str, bytes], compression: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, source in sorted(sources.items()):
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), source, compression)
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
