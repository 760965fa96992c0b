"""The frame of the command line: every failure is a line and a status, and help is quick."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
import yaml

from mirrortools import __version__
from mirrortools.cli import exit_statuses, group, run
from mirrortools.cli.group import COMMANDS, mirrortool
from mirrortools.cli.init import sample_files
from mirrortools.config import load
from mirrortools.errors import EdgeUnreachable, IntegrityError, Locked

PROJECT = Path(__file__).parent.parent
MINIMAL = "root: /srv/m\nsource: https://h.example\nrepositories: [a/b]\n"


@pytest.fixture
def trial() -> Iterator[Callable[[Callable[[], object]], None]]:
    """Lets a test put a function of its own into the group, as the command `trial`."""

    def put(function: Callable[[], object]) -> None:
        mirrortool.add_command(click.Command("trial", callback=function))

    yield put
    mirrortool.commands.pop("trial", None)


@pytest.fixture(autouse=True)
def _quiet_logging() -> Iterator[None]:
    """The log handlers of one test are not those of the next."""
    yield
    logger = logging.getLogger("mirrortools")
    logger.handlers, logger.propagate = [], True
    logger.setLevel(logging.NOTSET)


def program(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the real command."""
    return subprocess.run(
        [sys.executable, "-m", "mirrortools", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environ},
        cwd=PROJECT,
        check=False,
        timeout=60,
    )


def commands(group: click.Group, *names: str) -> Iterator[list[str]]:
    """The words of every command below `group`."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        yield [*names, name]
        if isinstance(command, click.Group):
            yield from commands(command, *names, name)


def test_every_help_ends_with_its_exit_statuses(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever scripts a command finds in its help what its statuses mean."""
    for words in [[], *commands(mirrortool)]:
        assert run([*words, "--help"], {}) == 0
        text = capsys.readouterr().out
        tail = text.partition("Exit status:\n")[2].splitlines()

        assert tail[0].split() == ["0", "done", "and", "durable"], words
        assert all(line.split()[0].isdigit() for line in tail), words


def test_exit_statuses_come_from_the_errors() -> None:
    """The table of a command is sorted, and written once: in the docstrings of the errors."""
    lines = exit_statuses(Locked, IntegrityError).splitlines()

    assert lines[2:] == [
        "  0  done and durable",
        "  1  anything else, such as a bug",
        "  2  a configuration or command line that cannot be used",
        " 20  bytes do not hash to their name",
        " 31  another run works on this repository",
        "130  stopped by Ctrl-C",
        "143  stopped by SIGTERM",
    ]


def test_help_imports_no_command() -> None:
    """`mirrortool --help` reads neither pydantic nor YAML nor any command."""
    code = (
        "import sys; from mirrortools.cli import run; run(['--help'], {}); "
        "print([m for m in sys.modules if m.split('.')[0] in ('pydantic', 'yaml', 'jinja2', 'rich') "
        "or m.startswith('mirrortools.cli.')], file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PROJECT, check=True)

    assert result.stderr == "['mirrortools.cli.brief', 'mirrortools.cli.group']\n"
    assert "config" in result.stdout


def test_a_missing_module_does_not_break_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A command whose module is not installed is unknown; the rest works."""
    monkeypatch.setattr(group, "COMMANDS", {**COMMANDS, "gone": ("gone", "gone", "Not there.")})
    statuses = [run(["--help"], {}), run(["gone"], {})]
    captured = capsys.readouterr()

    assert statuses == [0, 2]
    assert "Not there." not in captured.out
    assert "there is no command 'gone'" in captured.err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["confg"], "mirrortool: there is no command 'confg'; did you mean 'config'?"),
        (["config", "chek"], "mirrortool: No such command 'chek'."),
        (["--colour"], "mirrortool: No such option '--colour'."),
        (["init", "a", "b"], "mirrortool: Got unexpected extra argument"),
        (["init", "--root", "srv"], "expected an absolute path such as /srv/mirrortools, got 'srv'"),
        (["init", "--source", "https://u:hf_x@h"], "credentials do not belong into a URL"),
    ],
)
def test_a_wrong_command_line_is_status_2(arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The mistake is named, and where the help is."""
    status = run(arguments, {})
    err = capsys.readouterr().err

    assert status == 2
    assert text in err
    assert "--help`." in err


def test_an_expected_failure_is_its_text_and_status(
    trial: Callable[[Callable[[], object]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """An error of the tree becomes one line on stderr; its class decides the status."""

    def fail() -> None:
        raise EdgeUnreachable("bj1: no route")

    trial(fail)
    status = run(["trial"], {})

    assert (status, capsys.readouterr()) == (40, ("", "mirrortool: bj1: no route\n"))


def test_a_bug_is_called_a_bug(
    trial: Callable[[Callable[[], object]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody has to read a traceback to learn that it is not his fault; with -v it is there."""

    def fail() -> None:
        raise KeyError("x")

    trial(fail)
    statuses = [run(["trial"], {})]
    short = capsys.readouterr().err
    statuses.append(run(["-v", "trial"], {}))
    long = capsys.readouterr().err

    assert statuses == [1, 1]
    assert short.startswith(f"mirrortool: this is a bug in mirrortool {__version__}: KeyError: 'x' (test_cli.py:")
    assert len(short.splitlines()) == 1
    assert long.startswith("Traceback")
    assert long.splitlines()[-1].startswith("mirrortool: this is a bug")


def test_an_error_of_the_operating_system_names_the_file(
    trial: Callable[[Callable[[], object]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder without permission is no bug; who was refused is said."""

    def fail() -> None:
        raise PermissionError(13, "Permission denied", "/srv/m")

    trial(fail)
    status = run(["trial"], {})

    assert status == 1
    assert capsys.readouterr().err.startswith("mirrortool: /srv/m: Permission denied for the account ")


def test_an_interrupt_is_status_130(
    trial: Callable[[Callable[[], object]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C ends with a line and the usual status, without a traceback."""

    def fail() -> None:
        raise KeyboardInterrupt

    trial(fail)
    status = run(["trial"], {})

    assert status == 130
    assert capsys.readouterr().err.strip() == "mirrortool: stopped (SIGINT)"


def test_a_command_may_choose_its_status(trial: Callable[[Callable[[], object]], None]) -> None:
    """What a command returns as a number is the exit status, anything else is success."""
    trial(lambda: 7)
    chosen = run(["trial"], {})
    trial(lambda: "text")

    assert (chosen, run(["trial"], {})) == (7, 0)


def test_a_reader_that_goes_away_is_no_error() -> None:
    """`mirrortool config schema | head -1` says nothing on stderr, and the status is that of SIGPIPE."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "wb") as stdout:
        result = subprocess.run(
            [sys.executable, "-m", "mirrortools", "config", "schema"],
            stdout=stdout,
            stderr=subprocess.PIPE,
            cwd=PROJECT,
            check=False,
        )

    assert (result.returncode, result.stderr) == (128 + signal.SIGPIPE, b"")


def test_sigterm_unwinds() -> None:
    """`systemctl stop` lets locks and children go: finally blocks run, a line tells, the status is SIGTERM's."""
    code = (
        "import os, signal, sys, click\n"
        "from mirrortools.cli import group, main\n"
        "def wait():\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        signal.pause()\n"
        "    finally:\n"
        "        print('let go')\n"
        "group.mirrortool.add_command(click.Command('wait', callback=wait))\n"
        "sys.argv = ['mirrortool', 'wait']\n"
        "main()\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PROJECT, check=False)

    assert (result.returncode, result.stdout) == (128 + signal.SIGTERM, "let go\n")
    assert result.stderr == "mirrortool: stopped (SIGTERM)\n"


@pytest.mark.parametrize(("option", "lines"), [([], 2), (["-q"], 1), (["-v"], 3)])
def test_verbosity(
    option: list[str],
    lines: int,
    trial: Callable[[Callable[[], object]], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """-q leaves warnings, -v adds details, which say when; all of it goes to stderr, without other decoration."""

    def speak() -> None:
        logger = logging.getLogger("mirrortools.sync")
        logger.warning("slow")
        logger.info("done")
        logger.debug("detail")

    trial(speak)
    run([*option, "trial"], {})

    said = capsys.readouterr()
    assert said.out == ""
    assert re.sub(r"[0-9]+\.[0-9]{3} s: ", "", said.err) == "".join(["slow\n", "done\n", "detail\n"][:lines])
    assert (" s: detail" in said.err) == (option == ["-v"])


@pytest.mark.parametrize("words", [["-q", "sync"], ["sync", "-q"], ["sync", "--all", "--quiet"]])
def test_the_shared_options_may_stand_behind_the_command(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`mirrortool sync --all -q --config FILE` is what people write; the last word on a file counts."""
    (tmp_path / "own").mkdir()
    config = tmp_path / "mirrortool.yaml"
    config.write_text(f"root: {tmp_path}/root\nsource: dir://{tmp_path}/own\nrepositories: [a/b, a/c]\n")
    status = run(["--config", "/nowhere", *words, "--repo", "a/b", "--repo", "a/c", "--config", str(config)], {})
    said = capsys.readouterr()

    assert status == 11
    assert said.out == ""
    assert "a/b" in said.err


def test_the_shared_options_reach_the_commands_of_a_group(capsys: pytest.CaptureFixture[str]) -> None:
    """`config check --config FILE -v` names the file, and shows where the error came from."""
    status = run(["config", "check", "--config", "/nowhere/x.yaml", "-v"], {})
    said = capsys.readouterr().err

    assert status == 2
    assert "Traceback" in said
    assert "/nowhere/x.yaml: no such file" in said


def test_journald_gets_priorities(tmp_path: Path) -> None:
    """When stderr is the journal, each line carries its priority; when it is a file, none does."""
    with (tmp_path / "log").open("w") as log:
        info = os.fstat(log.fileno())
        for stream in (f"{info.st_dev}:{info.st_ino}", "1:1"):
            subprocess.run(
                [sys.executable, "-m", "mirrortools", "--config", "/nowhere/x.yaml", "config", "check"],
                stderr=log,
                env={**os.environ, "JOURNAL_STREAM": stream},
                cwd=PROJECT,
                check=False,
            )
    first, second = (tmp_path / "log").read_text().splitlines()

    assert first.startswith("<3>mirrortool: /nowhere/x.yaml: no such file")
    assert second == first.removeprefix("<3>")


def test_version() -> None:
    """The program, its module form and its version agree."""
    result = program("--version")

    assert (result.returncode, result.stdout) == (0, f"mirrortool {__version__}\n")


def test_config_check_says_fine_or_all_that_is_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`config check` reads the file that MIRRORTOOL_CONFIG names and looks for the files that it names."""
    path = tmp_path / "mirrortool.yaml"
    path.write_text(MINIMAL)
    environ = {"MIRRORTOOL_CONFIG": str(path)}
    fine = run(["config", "check"], environ)
    said = capsys.readouterr().out
    path.write_text(MINIMAL.replace("https://h.example", "{url: 'https://h.example', token_file: t}"))
    wrong = run(["config", "check"], environ)

    assert (fine, wrong) == (0, 2)
    assert said == f"{path}: fine: 1 repository in 1 job, 0 edges\n"
    assert f"{tmp_path}/t, does not exist" in capsys.readouterr().err


def test_config_show_is_yaml_or_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both forms hold the same, one document per file."""
    path = tmp_path / "mirrortool.yaml"
    path.write_text(MINIMAL)
    run(["--config", str(path), "config", "show"], {})
    documents = list(yaml.safe_load_all(capsys.readouterr().out))
    run(["--config", str(path), "config", "show", "--json"], {})
    as_json = json.loads(capsys.readouterr().out)

    assert list(as_json) == ["mirrortool.yaml"]
    assert documents == list(as_json.values())
    assert documents[0]["repositories"][0]["revisions"] == ["main"]


@pytest.mark.parametrize(("option", "key"), [([], "root"), (["--job"], "repositories")])
def test_config_schema_is_json_schema(option: list[str], key: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The schema of each kind of file names its keys with descriptions and examples."""
    run(["config", "schema", *option], {})
    schema = json.loads(capsys.readouterr().out)

    assert schema["properties"][key]["description"]
    assert schema["properties"][key]["examples"]
    assert key in schema["required"]


def test_init_writes_a_start_that_loads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The files are valid as they are, the output names them and the next commands, and no root is made."""
    folder, root = tmp_path / "etc", tmp_path / "mirror"
    status = run(["init", str(folder), "--root", str(root), "--source", "https://h.example"], {})
    said = capsys.readouterr().out
    config = load(folder / "mirrortool.yaml", {})

    assert status == 0
    assert (config.root, list(config.jobs)) == (root, ["example"])
    assert config.repositories()[0].source.url == "https://h.example"
    assert f"wrote {folder}/conf.d/example.yaml" in said
    assert f"mirrortool --config {folder}/mirrortool.yaml config check" in said
    assert not root.exists()


def test_init_makes_the_root_when_asked(tmp_path: Path) -> None:
    """--create-root makes the served folder, and a state folder that nobody else can enter."""
    root = tmp_path / "mirror"
    status = run(["init", str(tmp_path / "etc"), "--root", str(root), "--create-root"], {})

    assert status == 0
    assert (root / "public").is_dir()
    assert (root / "state").stat().st_mode & 0o777 == 0o700


def test_init_overwrites_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where one of the files is there already, none is written."""
    (tmp_path / "mirrortool.yaml").write_text(MINIMAL)
    status = run(["init", str(tmp_path)], {})

    assert status == 2
    assert "exist already; nothing was written" in capsys.readouterr().err
    assert (tmp_path / "mirrortool.yaml").read_text() == MINIMAL
    assert not (tmp_path / "conf.d").exists()


def test_the_shipped_main_file_is_what_init_writes() -> None:
    """The example in the project and the start on a new host come from one template."""
    assert (PROJECT / "mirrortool.yaml").read_text() == sample_files()["mirrortool.yaml"]


def test_what_init_comments_out_is_valid(tmp_path: Path) -> None:
    """Who removes the comment signs from the sample gets a configuration that loads."""
    lines = sample_files()["mirrortool.yaml"].splitlines()
    start = lines.index("# edges:")
    uncommented = lines[:start] + [line.removeprefix("# ") for line in lines[start:]]
    text = "\n".join(uncommented).replace("# backup_source:", "backup_source:", 1)
    (tmp_path / "mirrortool.yaml").write_text(text)
    config = load(tmp_path / "mirrortool.yaml", {})

    assert config.edge("bj1").rate_limit_bytes_s == 12_500_000
    assert config.edge("bj1").identity_file == tmp_path / "id_ed25519"
