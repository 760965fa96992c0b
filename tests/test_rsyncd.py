"""rsyncd's configuration: what is refused, what is installed, and that nobody's files are overwritten."""

from __future__ import annotations

from pathlib import Path

import pytest

from mirrortools.errors import ServeError, StoreError
from mirrortools.rsyncd import Installed, Modules, install, render

ROOT = Path("/srv/mirrortools")


def test_modules_that_can_be_read(tmp_path: Path) -> None:
    """Each module stays below public/, as the account that was named, for reading alone."""
    text = render(Modules(ROOT, "mirrortool"))
    paths = [line.strip() for line in text.splitlines() if line.strip().startswith("path")]

    assert paths == [
        "path = /srv/mirrortools/public",
        "path = /srv/mirrortools/public/./latest/models",
        "path = /srv/mirrortools/public/./latest/datasets",
        "path = /srv/mirrortools/public/./latest/spaces",
    ]
    assert {"read only = yes", "use chroot = yes", "uid = mirrortool"} <= {*text.splitlines()}


@pytest.mark.parametrize("root", ["/srv/with space", "/srv/%RSYNC_USER%", "relative", "/srv/a\nuid = root"])
def test_a_root_that_rsyncd_would_read_otherwise_is_refused(root: str) -> None:
    """What would end the line, or be replaced."""
    with pytest.raises(ServeError, match="absolute path"):
        Modules(Path(root))


@pytest.mark.parametrize("user", ["root", "", "a b", "nobody\n[x]"])
def test_only_another_account_than_root_reads(user: str) -> None:
    """And its name is one word."""
    with pytest.raises(ServeError, match="account"):
        Modules(ROOT, user)


def test_a_new_rsyncd_gets_a_main_file(tmp_path: Path) -> None:
    """It includes the modules; a second installation changes nothing."""
    first, second = install(Modules(ROOT), tmp_path), install(Modules(ROOT), tmp_path)

    assert first == Installed((tmp_path / "rsyncd.d/mirrortools.conf", tmp_path / "rsyncd.conf"), None)
    assert second == Installed((), None)


def test_a_main_file_that_is_there_stays(tmp_path: Path) -> None:
    """What has to be added to it is told until it is there."""
    main = tmp_path / "rsyncd.conf"
    main.write_text("[other]\npath = /srv/other\n")
    done = install(Modules(ROOT), tmp_path)

    assert done.line == f"&include {tmp_path}/rsyncd.d"
    assert main.read_text() == "[other]\npath = /srv/other\n"
    main.write_text(f"{main.read_text()}{done.line}\n")
    assert install(Modules(ROOT), tmp_path).line is None


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """The file is named, and what to do."""
    (tmp_path / "rsyncd.d").write_text("in the way")

    with pytest.raises(StoreError, match="--prefix DIR"):
        install(Modules(ROOT), tmp_path)


@pytest.mark.parametrize("private", [False, True])
def test_what_is_asked_for_is_logged_where_few_can_read(tmp_path: Path, private: bool) -> None:
    """Where there are names that are not for everybody, for modules and for what is said of none."""
    install(Modules(ROOT, private=private), tmp_path)
    texts = [(tmp_path / name).read_text() for name in ("rsyncd.conf", "rsyncd.d/mirrortools.conf")]

    assert ["syslog facility = authpriv" in text.split("[")[0].splitlines() for text in texts] == [private, private]
