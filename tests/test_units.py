"""The systemd units: the shipped files are what is printed, systemd accepts them, and they confine what they run."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePath

import pytest

from mirrortools.access import Account
from mirrortools.cli import run
from mirrortools.cli.init import sample_files
from mirrortools.config import load
from mirrortools.errors import ConfigError, StoreError
from mirrortools.units import (
    ACCOUNT_FILE,
    UNIT_FOLDER,
    UNITS,
    UnitSettings,
    install_units,
    obstacles,
    preparations,
    render_units,
)

SHIPPED = Path(__file__).parent.parent / "systemd"
SAMPLE = UnitSettings(executable=Path("/bin/true"), intervals_s={"qwen": 1800, "Qwen-Qwen2.7B": 86400})


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze, which needs no running systemd for this."""
    environ = {**os.environ, "SYSTEMD_LOG_LEVEL": "notice", "LC_ALL": "C.UTF-8"}
    return subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, env=environ, check=False, timeout=60
    )


def config_file(folder: Path, root: str = "/srv/mirrortools") -> Path:
    """Write the sample configuration; the path of the main file."""
    (folder / "conf.d").mkdir(parents=True)
    for name, text in sample_files(root=root).items():
        (folder / name).write_text(text)
    return folder / "mirrortool.yaml"


@pytest.mark.parametrize("name", [*UNITS, "sysusers.d/mirrortools.conf"])
def test_the_shipped_units_are_what_is_printed(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`systemd print` gives the files of the project's systemd folder, but for the place of the configuration."""
    path = config_file(tmp_path)
    arguments = ["--config", str(path), "systemd", "print", "--executable", "/usr/bin/mirrortool", PurePath(name).name]

    assert run(arguments, {}) == 0
    assert capsys.readouterr().out.replace(f" --config {path}", "") == (SHIPPED / name).read_text()


def test_nothing_else_is_shipped() -> None:
    """A unit that is no longer printed does not stay behind in the folder."""
    shipped = {str(path.relative_to(SHIPPED)) for path in SHIPPED.rglob("*") if path.is_file()}

    assert shipped == {*UNITS, "sysusers.d/mirrortools.conf"}


@pytest.mark.parametrize(
    "unit",
    ["mirrortool-sync@qwen.service", "mirrortool-sync@qwen.timer", "mirrortool-sync@Qwen-Qwen2.7B.timer", UNITS[2]],
)
def test_systemd_finds_nothing_wrong(unit: str, tmp_path: Path) -> None:
    """systemd-analyze verify is silent about each unit, a job's own interval included."""
    install_units(SAMPLE, tmp_path)
    result = analyze("verify", "--man=no", str(tmp_path / UNIT_FOLDER / unit))

    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_systemd_reads_the_interval_of_a_job(tmp_path: Path) -> None:
    """The test above would notice a mistake in a drop-in."""
    install_units(SAMPLE, tmp_path)
    drop_in = tmp_path / UNIT_FOLDER / "mirrortool-sync@qwen.timer.d/interval.conf"
    drop_in.write_text(drop_in.read_text() + "OnUnitActiveSecs=1\n")
    result = analyze("verify", "--man=no", str(tmp_path / UNIT_FOLDER / "mirrortool-sync@qwen.timer"))

    assert "OnUnitActiveSecs" in result.stderr


@pytest.mark.parametrize("unit", ["mirrortool-sync@.service", "mirrortool-serve.service"])
@pytest.mark.parametrize("user", ["mirrortool", "root"])
def test_units_are_confined(unit: str, user: str, tmp_path: Path) -> None:
    """The score of exposure that systemd gives them stays below 1.5 of 10, with root below 2."""
    install_units(UnitSettings(executable=Path("/bin/true"), user=user), tmp_path)
    limit = "15" if user == "mirrortool" else "20"
    result = analyze(
        "security", "--offline=true", f"--threshold={limit}", "--no-pager", str(tmp_path / UNIT_FOLDER / unit)
    )

    assert result.returncode == 0, result.stdout + result.stderr


def test_each_job_has_its_interval() -> None:
    """A job's sync_interval becomes its timer; the spread is a tenth of it, at most a quarter of an hour."""
    files = render_units(SAMPLE)
    often = files[f"{UNIT_FOLDER}/mirrortool-sync@qwen.timer.d/interval.conf"]
    daily = files[f"{UNIT_FOLDER}/mirrortool-sync@Qwen-Qwen2.7B.timer.d/interval.conf"]

    assert "OnUnitActiveSec=1800s\n" in often
    assert "RandomizedDelaySec=180s\n" in often
    assert "OnUnitActiveSec=86400s\n" in daily
    assert "RandomizedDelaySec=900s\n" in daily


def test_a_short_interval_is_kept() -> None:
    """The first run of a job that is synced every few seconds does not wait for a minute, nor is it put off."""
    text = render_units(UnitSettings(intervals_s={"hot": 5}))[
        f"{UNIT_FOLDER}/mirrortool-sync@hot.timer.d/interval.conf"
    ]

    assert "OnActiveSec=5s\nOnUnitActiveSec=5s\n" in text
    assert "RandomizedDelaySec=0s\n" in text
    assert "AccuracySec=1s\n" in text


def test_only_the_root_can_be_written() -> None:
    """The sandbox names the mirror's root, and a mirror in a home folder is not hidden from its own service."""
    usual = render_units(UnitSettings(root=Path("/data/mirror")))[f"{UNIT_FOLDER}/mirrortool-sync@.service"]
    home = render_units(UnitSettings(root=Path("/home/mirror")))[f"{UNIT_FOLDER}/mirrortool-sync@.service"]

    assert "ReadWritePaths=/data/mirror\n" in usual
    assert "ProtectHome=yes\n" in usual
    assert "ProtectHome=read-only\n" in home


def test_local_edges_and_sources_are_within_reach(tmp_path: Path) -> None:
    """An edge that is a folder can be written though it may be unplugged, and a source in a home folder can be read."""
    main = "root: /srv/m\nsource: dir:///home/me/own\nedges: {usb: {url: file:///mnt/usb/m}}\nrepositories: [a/b]\n"
    (tmp_path / "mirrortool.yaml").write_text(main)
    config = load(tmp_path / "mirrortool.yaml", {})
    files = render_units(UnitSettings.of(config, Path("/bin/true"), "mirrortool"))
    unit = files[f"{UNIT_FOLDER}/mirrortool-sync@.service"]

    assert "ReadWritePaths=/srv/m\nReadWritePaths=-/mnt/usb/m\nInaccessible" in unit
    assert "ProtectHome=read-only\n" in unit


def test_a_program_whose_interpreter_lies_in_a_home_can_be_run(tmp_path: Path) -> None:
    """The script of a virtual environment is run by the Python that its first line leads to."""
    script, python = tmp_path / "mirrortool", tmp_path / "python"
    python.symlink_to("/root/python3.11/bin/python3.11")
    script.write_text(f"#!{python} -I\n")
    unit = render_units(UnitSettings(executable=script))[f"{UNIT_FOLDER}/mirrortool-sync@.service"]

    assert "ProtectHome=read-only\n" in unit


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that every account can reach; `tmp_path` is closed to others."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_what_an_account_lacks_is_prepared(public_folder: Path) -> None:
    """Missing folders are made, those that root filled are handed over, secrets are made readable."""
    root, edge, key = public_folder / "root", public_folder / "edge", public_folder / "key"
    (root / "state" / "locks").mkdir(parents=True)
    key.touch(mode=0o600)
    settings = UnitSettings(root=root, local_edges=(edge,), secrets=(key,))
    stranger = preparations(settings, Account("mirrortool"))
    owner = preparations(settings, Account("me", os.getuid()))

    assert stranger == [
        "systemd-sysusers",
        f"chown -hR mirrortool:mirrortool {root}",
        f"install -d -o mirrortool -g mirrortool {edge}",
        f"chown mirrortool: {key}",
    ]
    assert owner == [f"install -d -o me -g me {edge}"]


def test_what_an_account_cannot_reach_is_named(public_folder: Path) -> None:
    """A configuration or program in a folder that is closed to the account is told before a service fails."""
    closed = public_folder / "closed"
    closed.mkdir(mode=0o700)
    program, config = closed / "mirrortool", public_folder / "mirrortool.yaml"
    program.touch(mode=0o755)
    config.touch(mode=0o640)
    settings = UnitSettings(executable=program, config_path=config)

    assert obstacles(settings, Account("me", os.getuid())) == {}
    assert obstacles(settings, Account("root", 0)) == {}
    assert obstacles(settings, Account("mirrortool")) == {program: closed, config: config}


def test_root_needs_no_account() -> None:
    """With --user root no account is made."""
    assert ACCOUNT_FILE in render_units(UnitSettings())
    assert ACCOUNT_FILE not in render_units(UnitSettings(user="root"))


@pytest.mark.parametrize("path", ["/srv/my models", "/srv/%i", "/srv/a;b", "/srv/$HOME", "srv/mirror"])
def test_a_path_that_units_cannot_hold_is_refused(path: str) -> None:
    """A path that systemd would read in another way is refused instead of quoted."""
    with pytest.raises(ConfigError, match="a unit needs an absolute path"):
        UnitSettings(root=Path(path))


def test_installing_twice_writes_once(tmp_path: Path) -> None:
    """A second installation finds everything right and touches nothing."""
    first = install_units(SAMPLE, tmp_path)
    times = {path: path.stat().st_mtime_ns for path in first.written}
    second = install_units(SAMPLE, tmp_path)

    assert len(first.written) == len(render_units(SAMPLE))
    assert second.written == ()
    assert set(second.unchanged) == set(first.written)
    assert {path: path.stat().st_mtime_ns for path in first.written} == times


def test_installing_tells_of_jobs_that_are_gone(tmp_path: Path) -> None:
    """The timer of a job that was deleted is named, with what to do about it, and not touched."""
    install_units(SAMPLE, tmp_path)
    result = install_units(UnitSettings(executable=Path("/bin/true"), intervals_s={"qwen": 3600}), tmp_path)

    assert [path.name for path in result.written] == ["interval.conf"]
    assert [path.name for path in result.left_over] == ["mirrortool-sync@Qwen-Qwen2.7B.timer.d"]
    assert result.left_over[0].is_dir()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """The message says what to do, not only what failed."""
    (tmp_path / "etc").write_text("a file where a folder should be")

    with pytest.raises(StoreError, match="run this as root, or with --prefix DIR"):
        install_units(SAMPLE, tmp_path)


def test_install_says_what_comes_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command names every file that it wrote and the commands that start the timers, once."""
    path, prefix = config_file(tmp_path / "etc"), tmp_path / "prefix"
    arguments = [
        "--config",
        str(path),
        "systemd",
        "install",
        "--prefix",
        str(prefix),
        "--executable",
        "/opt/m/mirrortool",
    ]
    statuses = [run(arguments, {})]
    first = capsys.readouterr().out
    statuses.append(run(arguments, {}))
    second = capsys.readouterr().out

    assert statuses == [0, 0]
    assert f"wrote {prefix}/etc/systemd/system/mirrortool-sync@.service" in first
    assert "systemctl daemon-reload && systemctl enable --now mirrortool-sync@example.timer" in first
    assert "install -d -o mirrortool -g mirrortool /srv/mirrortools" in first
    assert second == "5 files were right already\n"
    assert "ExecStart=/opt/m/mirrortool" in (prefix / UNIT_FOLDER / UNITS[0]).read_text()


def test_a_unit_that_is_not_there_is_answered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Asking for an unknown unit gives the nearest name."""
    status = run(["--config", str(config_file(tmp_path)), "systemd", "print", "mirrortool-sync.timer"], {})

    assert status == 2
    assert "did you mean 'mirrortool-sync@.timer'?" in capsys.readouterr().err
