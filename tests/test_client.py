"""The script that sets clients up: what it writes, and that undo leaves every byte as it was."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirrortools import cli
from mirrortools.client import SCRIPT, run, script_for, written_mirror
from mirrortools.errors import ConfigError, StoreError

MIRROR = "https://mirror.example:8443"
STARTED = (".profile", ".bash_profile", ".bashrc", ".zshenv")


class Home:
    """A user's home, in which the script is run."""

    def __init__(self, folder: Path, files: Mapping[str, bytes] = {}) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)

    @property
    def env(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "XDG_", "HF_"))}
        return {**kept, "HOME": str(self.folder), "MIRRORTOOLS_ETC": str(self.folder / "etc"), "ENV": ""}

    def run(self, *words: str, url: str = MIRROR) -> str:
        command = ["sh", "-s", "--", *words]
        done = subprocess.run(command, input=script_for(url), env=self.env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def says(self, *command: str) -> str:
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=60, cwd=self.folder)
        return done.stdout.strip()

    def files(self) -> dict[str, tuple[bytes, int]]:
        found = [path for path in self.folder.rglob("*") if path.is_file()]
        return {str(path.relative_to(self.folder)): (path.read_bytes(), path.stat().st_mode) for path in found}


def git_url(home: Home) -> str:
    """What git makes of a URL of the hub."""
    return home.says("git", "ls-remote", "--get-url", "https://huggingface.co/org/name")


def test_an_empty_home(tmp_path: Path) -> None:
    """A login shell has the endpoint, git goes to the mirror; undo leaves nothing behind."""
    home = Home(tmp_path / "home")
    home.run()

    assert home.says("sh", "-lc", "echo $HF_ENDPOINT") == MIRROR
    assert home.says("bash", "-lc", "echo $HF_ENDPOINT") == MIRROR
    assert git_url(home) == f"{MIRROR}/org/name"
    home.run("undo")
    assert home.files() == {}
    assert git_url(home) == "https://huggingface.co/org/name"


@settings(max_examples=25, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([*STARTED, ".gitconfig", ".config/git/config"]),
        st.sampled_from([b"", b"\n", b"# x", b"# x\n", b"# x\n\n\n", b"# \xff\xfe \xe4\xbd\xa0\n# y", b"\n\n# end"]),
    )
)
def test_undo_leaves_every_byte_as_it_was(tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]) -> None:
    """Whatever is there: no file, an empty one, one whose last line has no end; and after two set-ups too."""
    home = Home(tmp_path_factory.mktemp("home") / "home", files)
    before = home.files()
    home.run(url="https://other.example")
    home.run()

    assert git_url(home) == f"{MIRROR}/org/name"
    assert b"other.example" not in b"".join(content for content, _ in home.files().values())
    home.run("undo")
    assert home.files() == before
    assert "wrote" not in home.run("undo")


def test_what_was_added_behind_stays(tmp_path: Path) -> None:
    """Lines that somebody wrote below ours are not ours."""
    home = Home(tmp_path / "home", {".profile": b"# mine"})
    home.run()
    with (home.folder / ".profile").open("ab") as file:
        file.write(b"export LATER=1")
    home.run("undo")

    assert (home.folder / ".profile").read_bytes() == b"# mine\nexport LATER=1"


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    """Many keep such files elsewhere."""
    home = Home(tmp_path / "home", {"dotfiles/profile": b"# kept elsewhere\n"})
    (home.folder / ".profile").symlink_to("dotfiles/profile")
    home.run()
    assert (home.folder / ".profile").is_symlink()
    home.run("undo")

    assert (home.folder / ".profile").is_symlink()
    assert (home.folder / "dotfiles/profile").read_bytes() == b"# kept elsewhere\n"


def test_a_damaged_block_is_left_to_its_owner(tmp_path: Path) -> None:
    """Without its last line nobody knows where it ends."""
    home = Home(tmp_path / "home")
    home.run()
    damaged = (home.folder / ".profile").read_text().replace("# <<<", "# ")
    (home.folder / ".profile").write_text(damaged)
    done = subprocess.run(["sh", "-s", "undo"], input=SCRIPT, env=home.env, capture_output=True, text=True)

    assert done.returncode == 1
    assert "by hand" in done.stderr
    assert (home.folder / ".profile").read_text() == damaged


def test_for_a_whole_machine(tmp_path: Path) -> None:
    """Files below /etc, which shells and git read for everybody; print writes none."""
    home = Home(tmp_path / "home", {"etc/gitconfig": b"[core]\n\tpager = less\n"})
    before = home.files()
    printed = home.run("--system", "print")
    assert home.files() == before
    home.run("--system", "setup")
    system = {"GIT_CONFIG_SYSTEM": str(home.folder / "etc/gitconfig"), **home.env}
    url = subprocess.run(
        ["git", "ls-remote", "--get-url", "https://huggingface.co/a/b"], env=system, capture_output=True, text=True
    )

    assert url.stdout.strip() == f"{MIRROR}/a/b"
    assert f"export HF_ENDPOINT='{MIRROR}'" in (home.folder / "etc/profile.d/mirrortools.sh").read_text()
    assert f"# {home.folder}/etc/gitconfig" in printed
    home.run("--system", "undo")
    assert home.files() == before


@pytest.mark.parametrize(
    "url", ["mirror.example", "ftp://a", "https://a'b", "https://a/$(id)", "https://a b", "https://"]
)
def test_only_plain_urls(url: str) -> None:
    """What would end the quotes of the script is refused."""
    with pytest.raises(ConfigError, match="URL of a mirror"):
        script_for(url)


def test_words_that_mean_nothing() -> None:
    """The script says what it knows."""
    with pytest.raises(StoreError, match="say setup, undo or print"):
        run(SCRIPT, "dance")


def test_the_command_does_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`mirrortool client` runs that script: what one wrote the other takes back."""
    home = Home(tmp_path / "home", {".profile": b"# mine"})
    before = home.files()
    monkeypatch.setenv("HOME", str(home.folder))

    assert cli.run(["client", "setup", MIRROR, "--print"], home.env) == 0
    assert home.files() == before
    assert cli.run(["client", "setup", f"{MIRROR}/"], home.env) == 0
    assert git_url(home) == f"{MIRROR}/org/name"
    assert "wrote" in capsys.readouterr().out
    home.run("undo")
    assert home.files() == before
    home.run()
    assert cli.run(["client", "undo"], home.env) == 0
    assert home.files() == before
    assert cli.run(["client", "setup", "nonsense"], home.env) == ConfigError.exit_status


def test_what_was_written_is_known_to_programs_that_no_shell_started(tmp_path: Path) -> None:
    """The user's mirror before the machine's; none after undo, and none where nobody wrote one."""
    home = Home(tmp_path / "home", {".bashrc": b"export HF_ENDPOINT='https://own.example'\n"})
    etc = home.folder / "etc"
    nothing = written_mirror(home.folder, etc)
    home.run("--system", "setup", url="https://machine.example")
    machine = written_mirror(home.folder, etc)
    home.run()
    user = written_mirror(home.folder, etc)
    home.run("undo")
    home.run("--system", "undo")

    assert (nothing, machine, user) == (None, "https://machine.example", MIRROR)
    assert written_mirror(home.folder, etc) is None
