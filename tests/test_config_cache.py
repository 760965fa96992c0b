"""The remembered configuration: it says what the files say, or it is as if there were none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mirrortools.config import Config, load
from mirrortools.config.cache import Cache, decoded, encoded
from mirrortools.config.parse import parse
from mirrortools.errors import ConfigError
from mirrortools.files import write_file
from tests.strategies import trials

PROJECT = Path(__file__).parent.parent
MAIN = "root: /srv/m\nsource: {url: 'https://h.example', token_file: token}\nrepositories: [a/b, datasets/c]\n"


@pytest.fixture
def environ(tmp_path: Path) -> Mapping[str, str]:
    """A user with a home of his own."""
    (tmp_path / "home").mkdir()
    return {"HOME": str(tmp_path / "home")}


@pytest.fixture
def main(tmp_path: Path, environ: Mapping[str, str]) -> Path:
    """A main file with a token, which was loaded once."""
    path = tmp_path / "mirrortool.yaml"
    path.write_text(MAIN)
    (tmp_path / "token").write_text("secret-word")
    (tmp_path / "token").chmod(0o600)
    load(path, environ)
    return path


def kept(environ: Mapping[str, str]) -> Path:
    """The only file that is remembered."""
    (path,) = (Path(environ["HOME"]) / ".cache" / "mirrortools").iterdir()
    return path


def remembered(main: Path, environ: Mapping[str, str]) -> Config | None:
    """What is known without reading YAML."""
    return Cache(main, environ).get()


def test_what_was_loaded_is_remembered(main: Path, environ: Mapping[str, str]) -> None:
    """The second time the answer is the same, by the cache alone; it is private, and has no secret in it."""
    assert remembered(main, environ) == parse(main)[0] == load(main, environ)
    assert kept(environ).stat().st_mode & 0o777 == 0o600
    assert kept(environ).parent.stat().st_mode & 0o777 == 0o700
    assert b"secret-word" not in kept(environ).read_bytes()


def test_the_examples_are_remembered(tmp_path: Path, environ: Mapping[str, str]) -> None:
    """The configuration that the project ships comes out of the cache as it went in."""
    shutil.copytree(PROJECT / "conf.d", tmp_path / "conf.d")
    path = Path(shutil.copy(PROJECT / "mirrortool.yaml", tmp_path))
    loaded = load(path, environ)

    assert remembered(path, environ) == loaded == parse(path)[0]


def test_any_change_of_any_file_is_seen(main: Path, environ: Mapping[str, str]) -> None:
    """A main file of the same length and time, a job that comes, changes or goes: each is read."""
    times = main.stat()
    main.write_text(MAIN.replace("a/b", "a/x"))
    os.utime(main, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert remembered(main, environ) is None
    assert [str(known.repo) for known in load(main, environ).repositories()] == ["a/x", "datasets/c"]

    job = main.parent / "conf.d" / "more.yaml"
    job.parent.mkdir()
    for text in ("repositories: [e/f]\n", "repositories: [e/g]\n"):
        job.write_text(text)
        assert remembered(main, environ) is None
        assert load(main, environ) == remembered(main, environ)
    job.unlink()
    assert remembered(main, environ) is None


def test_a_file_that_would_be_passed_over_is_told_as_ever(main: Path, environ: Mapping[str, str]) -> None:
    """What makes reading fail is not covered by what was remembered before."""
    (main.parent / "conf.d").mkdir()
    (main.parent / "conf.d" / "job.yml").write_text("")

    with pytest.raises(ConfigError, match=r"rename it to job\.yaml"):
        load(main, environ)


def test_a_token_is_looked_at_each_time(main: Path, environ: Mapping[str, str]) -> None:
    """What lies outside of the files is not remembered: a token that everybody may read now is refused."""
    (main.parent / "token").chmod(0o644)

    with pytest.raises(ConfigError, match=r"every account of this host can read .*token; run: chmod o= "):
        load(main, environ)


def test_another_program_reads_again(
    main: Path, environ: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an older or newer program understood does not count."""
    shutil.copytree(PROJECT / "mirrortools" / "config", tmp_path / "program" / "config")
    shutil.copy(PROJECT / "mirrortools" / "model.py", tmp_path / "program")
    (tmp_path / "program" / "config" / "schema.py").write_text("# other defaults\n")
    monkeypatch.setattr("mirrortools.config.cache._PROGRAM", tmp_path / "program" / "config")

    assert remembered(main, environ) is None


@pytest.mark.parametrize("harm", ["cut", "flip", "empty", "text", "readable", "link", "folder", "pipe"])
def test_what_is_damaged_or_not_ours_is_written_anew(main: Path, environ: Mapping[str, str], harm: str) -> None:
    """Half a file, a turned bit, a file that others can read, a link: nothing is said, and it is well afterwards."""
    path, right = kept(environ), load(main, environ)
    spoil(path, harm)

    assert remembered(main, environ) is None
    assert load(main, environ) == right
    assert harm == "folder" or remembered(main, environ) == right


def spoil(path: Path, harm: str) -> None:
    """Do something to the remembered file."""
    content = path.read_bytes()
    path.unlink()
    if harm == "folder":
        path.mkdir()
    elif harm == "pipe":
        os.mkfifo(path, 0o600)
    elif harm == "link":
        path.with_name("elsewhere").write_bytes(content)
        path.with_name("elsewhere").chmod(0o600)
        path.symlink_to("elsewhere")
    else:
        half = len(content) // 2
        flipped = content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :]
        write_file(
            path, {"cut": content[:half], "flip": flipped, "empty": b"", "text": b"x\n{}"}.get(harm, content), 0o600
        )
        path.chmod(0o644 if harm == "readable" else 0o600)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_somebody_elses_file_is_not_believed(main: Path, environ: Mapping[str, str]) -> None:
    """Neither a cache that another account owns, nor a home of which another account could move the parts."""
    os.chown(kept(environ), 12345, 12345)
    assert remembered(main, environ) is None

    load(main, environ)
    assert remembered(main, environ)
    os.chown(environ["HOME"], 12345, 12345)
    assert remembered(main, environ) is None
    assert load(main, environ) == parse(main)[0]


@pytest.mark.parametrize("home", ["", "/nonexistent/home", "relative", "/dev/null"])
def test_who_has_no_place_for_it_does_without(main: Path, home: str) -> None:
    """An account without a home, or with one that cannot be written, reads the files each time."""
    assert load(main, {"HOME": home}) == parse(main)[0]
    assert load(main, {"XDG_CACHE_HOME": home} if home else {}) == parse(main)[0]


def test_systemd_and_the_user_say_where(main: Path, environ: Mapping[str, str], tmp_path: Path) -> None:
    """CACHE_DIRECTORY of a unit comes first, then XDG_CACHE_HOME, then the home."""
    for name, below in (("XDG_CACHE_HOME", "mirrortools"), ("CACHE_DIRECTORY", ".")):
        place = tmp_path / name
        place.mkdir()
        environ = {**environ, name: str(place)}
        load(main, environ)

        assert [*(place / below).glob("config-*.json")]
        assert remembered(main, environ)


def test_the_oldest_are_forgotten(tmp_path: Path, environ: Mapping[str, str]) -> None:
    """However many main files there were, only some are kept."""
    for number in range(40):
        path = tmp_path / f"{number}.yaml"
        path.write_text(MAIN)
        load(path, environ)

    assert len([*(Path(environ["HOME"]) / ".cache" / "mirrortools").iterdir()]) == 32
    assert remembered(path, environ)


NAMES = st.text("abz", min_size=1, max_size=4)
SOURCES = st.sampled_from(
    ["https://h.example", "dir:///srv/own", {"url": "http://h:81", "token_file": "t", "ca_file": "/c"}]
)
REPOSITORY = st.fixed_dictionaries(
    {"repo": st.builds("{}/{}".format, NAMES, NAMES)},
    optional={
        "revisions": st.lists(st.sampled_from(["main", "v*", "a" * 40, "refs/pr/1", "ü"]), min_size=1, max_size=3),
        "include": st.lists(st.sampled_from(["*.json", "a/", "😀*"]), min_size=1, max_size=2),
        "exclude": st.lists(st.sampled_from(["*.bin", "*"]), max_size=2),
        "edges": st.lists(st.sampled_from(["bj1", "usb"]), max_size=2),
        "source": SOURCES,
        "backup_source": SOURCES | st.none(),
        "force_push": st.sampled_from(["accept", "refuse"]),
        "hot": st.booleans(),
    },
)
REPOSITORIES = st.lists(REPOSITORY, min_size=1, max_size=4, unique_by=lambda known: known["repo"])
EDGES = {
    "bj1": {"url": "ssh://m@h:23/srv/m", "http": "https://b.example", "identity_file": "id", "rate_limit": "8Mbit"},
    "usb": {"url": "file:///mnt/usb"},
}
MAINS = st.fixed_dictionaries(
    {"root": st.just("/srv/m"), "source": SOURCES, "edges": st.just(EDGES)},
    optional={
        "backup_source": SOURCES,
        "sync_interval": st.sampled_from(["1h", 90]),
        "max_parallel": st.sampled_from(["auto", 8]),
        "request_budget": st.sampled_from([500, "unlimited"]),
        "seeds": st.just(["/srv/seed", "/srv/ö"]),
        "min_free": st.just("10GiB"),
        "force_push": st.just("accept"),
        "repositories": REPOSITORIES,
    },
)
JOBS = st.fixed_dictionaries(
    {"repositories": REPOSITORIES},
    optional={"sync_interval": st.just("2h"), "hot": st.booleans(), "edges": st.just(["usb"]), "source": SOURCES},
)


@given(MAINS, JOBS)
@trials(60)
def test_the_cache_gives_what_the_files_give(main: object, job: object) -> None:
    """For any configuration, what is loaded the second time equals what reading gives, or is refused as the first."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "mirrortool.yaml"
        path.write_text(yaml.safe_dump(main))
        (path.parent / "conf.d").mkdir()
        (path.parent / "conf.d" / "job.yaml").write_text(yaml.safe_dump(job))
        environ = {"HOME": folder}
        right = answer(lambda: parse(path)[0])

        assert [answer(lambda: load(path, environ)) for _ in range(2)] == [right, right]
        assert isinstance(right, str) or repr(remembered(path, environ)) == repr(right)


def answer(read: Callable[[], Config]) -> Config | str:
    """A configuration, or why it is refused."""
    try:
        return read()
    except ConfigError as error:
        return str(error)


def test_equal_values_are_kept_once() -> None:
    """Ten thousand repositories of one job share all but their names, in the file and in memory."""
    value = tuple(("main", Path("/srv/m"), number) for number in range(100))
    again = decoded(encoded(value))

    assert again == value
    assert len({id(path) for _, path, _ in again}) == 1
    assert all(text is sys.intern("main") for text, _, _ in again)


def test_reading_leaves_nothing_in_memory(main: Path, environ: Mapping[str, str]) -> None:
    """A child reads changed files: the run itself has neither pydantic nor yaml, and the right answer."""
    main.write_text(MAIN.replace("a/b", "a/x"))
    script = (
        "import os, sys; from pathlib import Path; from mirrortools.config import load\n"
        "print(*(known.repo for known in load(Path(sys.argv[1]), os.environ).repositories()))\n"
        "print({'pydantic', 'yaml'} & sys.modules.keys())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, main], env={**os.environ, **environ}, capture_output=True, text=True, check=True
    )

    assert done.stdout == "a/x datasets/c\nset()\n"


def test_beside_other_threads_no_child_is_made(main: Path, environ: Mapping[str, str]) -> None:
    """It would have their locks; the files are read here."""
    main.write_text(MAIN.replace("a/b", "a/x"))
    with ThreadPoolExecutor(1) as pool:
        loaded = pool.submit(load, main, environ).result()

    assert loaded == parse(main)[0] == remembered(main, environ)
