"""Writing so that readers see the old or the new, and nothing between."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from mirrortools import files
from mirrortools.files import (
    is_full,
    make_folder,
    move_file,
    move_folder,
    point_link,
    sync_contents,
    write_file,
    write_json,
)


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    """With its mode, and without a trace of the writing."""
    write_file(tmp_path / "a", b"old")
    write_file(tmp_path / "a", b"new", 0o600)

    assert (tmp_path / "a").read_bytes() == b"new"
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    """And nothing beside it."""
    (tmp_path / "a").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_file(tmp_path / "a", b"new")

    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_reader_never_sees_half_a_document(tmp_path: Path) -> None:
    """While it is replaced a hundred times."""
    path, stopped, seen = tmp_path / "a.json", threading.Event(), set[int]()
    write_json(path, [0] * 1000)

    def read() -> None:
        while not stopped.is_set():
            seen.update(json.loads(path.read_text()))

    reading = threading.Thread(target=read)
    reading.start()
    for number in range(100):
        write_json(path, [number] * 1000)
    stopped.set()
    reading.join()

    assert seen <= set(range(100))


def test_a_link_is_pointed_elsewhere_at_once(tmp_path: Path) -> None:
    """Also when a killed run left its half-made one."""
    (tmp_path / f".main.{os.getpid()}.new").symlink_to("left")
    point_link(tmp_path / "main", "one")
    point_link(tmp_path / "main", "two")

    assert str((tmp_path / "main").readlink()) == "two"
    assert [path.name for path in tmp_path.iterdir()] == ["main"]


@pytest.mark.parametrize("exchange", [True, False])
def test_a_folder_takes_the_place_of_another(tmp_path: Path, exchange: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole; the former content is gone. Also on file systems that cannot swap two folders."""
    if not exchange:
        monkeypatch.setattr(files, "_RENAME_EXCHANGE", 1 << 30)  # EINVAL, as NFS says
    for name in ("old", "new"):
        make_folder(tmp_path / name / "sub")
        (tmp_path / name / "sub" / name).write_text(name)
    move_folder(tmp_path / "old", tmp_path / "deep" / "target")
    move_folder(tmp_path / "new", tmp_path / "deep" / "target")

    assert [path.name for path in (tmp_path / "deep" / "target" / "sub").iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["target"]


def test_a_file_is_moved_into_a_folder_that_is_made_for_it(tmp_path: Path) -> None:
    """Parents too."""
    (tmp_path / "a").write_text("a")
    move_file(tmp_path / "a", tmp_path / "x" / "y" / "b")

    assert (tmp_path / "x" / "y" / "b").read_text() == "a"


@pytest.mark.parametrize("many", [0, 1, 40])
def test_contents_are_made_durable_one_by_one_or_all_at_once(tmp_path: Path, many: int) -> None:
    """Files and folders."""
    paths = [tmp_path / str(number) for number in range(many)]
    for path in paths:
        path.write_text("x")
    sync_contents([*paths, tmp_path])

    assert sorted(tmp_path.iterdir()) == sorted(paths)


def test_making_a_folder_twice_is_fine_and_over_a_file_is_not(tmp_path: Path) -> None:
    """The error names the path."""
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    (tmp_path / "f").write_text("x")
    with pytest.raises(OSError, match="f"):
        make_folder(tmp_path / "f" / "b")

    assert not is_full(tmp_path)
