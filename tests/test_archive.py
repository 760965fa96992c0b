"""The receiver as an archive: made by several threads at once, with the bytecode that lies here."""

from __future__ import annotations

import gc
import os
import py_compile
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import pytest

from mirrortools import bounds
from mirrortools.transports import installed_receiver, receiver_archive
from mirrortools.transports.archive import packed

MODULE = "mirrortools/bounds.py"


class Busy:
    """Something that is found by the collector, and has other threads run when it goes."""

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        sum(range(50))


@pytest.fixture
def eager_collector() -> Iterator[None]:
    """A collector that comes by all the time, also in the middle of parsing, and threads that take turns often."""
    before = gc.get_threshold(), sys.getswitchinterval()
    gc.set_threshold(5, 2, 2)
    sys.setswitchinterval(1e-6)
    yield
    gc.set_threshold(*before[0])
    sys.setswitchinterval(before[1])


@pytest.mark.usefixtures("eager_collector")
def test_edges_are_reached_side_by_side() -> None:
    """Python 3.11 loses count when two threads parse at once, and says that it is broken."""
    made: list[bytes] = []

    def make() -> None:
        for _ in range(4):
            busy = Busy()
            receiver_archive.cache_clear()
            made.append(receiver_archive())
            del busy

    with ThreadPoolExecutor(4) as threads:
        for work in [threads.submit(make) for _ in range(4)]:
            work.result()

    assert len(made) == 16
    assert len(set(made)) == 1


@pytest.fixture
def compiled() -> Iterator[Path]:
    """The bytecode of one module, as it lies beside its source."""
    path = Path(py_compile.compile(bounds.__file__, doraise=True) or "")
    installed_receiver.cache_clear()
    yield path
    py_compile.compile(bounds.__file__, doraise=True)
    installed_receiver.cache_clear()


def run_with(tmp_path: Path, change: Callable[[bytes], bytes]) -> str:
    """Import a module from the archive, whose bytecode was changed so; says whether it came from bytecode."""
    path = tmp_path / "receiver.zip"
    with zipfile.ZipFile(BytesIO(installed_receiver())) as archive, zipfile.ZipFile(path, "w") as changed:
        for name in archive.namelist():
            changed.writestr(name, change(archive.read(name)) if name.endswith(".pyc") else archive.read(name))
    words = f"import sys; sys.path.insert(0, {str(path)!r}); import mirrortools.bounds as b; print(b.__file__)"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", words], capture_output=True, text=True, check=True)
    return Path(done.stdout.strip()).name


@pytest.mark.usefixtures("compiled")
def test_bytecode_travels_and_is_used_by_a_python_of_the_same_kind(tmp_path: Path) -> None:
    """To compile takes an edge longer than what it is asked."""
    assert run_with(tmp_path, lambda bytecode: bytecode) == "bounds.pyc"


@pytest.mark.usefixtures("compiled")
def test_a_python_of_another_kind_compiles_the_source(tmp_path: Path) -> None:
    """It passes over bytecode that begins with another number than its own."""
    assert run_with(tmp_path, lambda bytecode: b"\0\0\r\n" + bytecode[4:]) == "bounds.py"


def test_bytecode_of_another_source_stays_here(compiled: Path) -> None:
    """What is older or newer than the source, or not there, does not travel; the source does."""
    os.truncate(compiled, 10)
    names = zipfile.ZipFile(BytesIO(installed_receiver())).namelist()
    installed_receiver.cache_clear()
    compiled.unlink()
    without = zipfile.ZipFile(BytesIO(installed_receiver())).namelist()

    assert MODULE in names
    assert f"{MODULE}c" not in names
    assert f"{MODULE}c" not in without


def test_the_receiver_that_travels_stays_small() -> None:
    """It goes out to each edge that has another one, or cannot keep it."""
    assert len(packed(receiver_archive())) < 512 << 10
