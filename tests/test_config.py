"""The configuration: what is right becomes one frozen value, what is wrong is named with file, line and advice."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import yaml
from hypothesis import example as explicit
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from mirrortools.config import Config, Source, config_path, did_you_mean, load
from mirrortools.config.schema import EdgeForm, JobForm, MainForm, RepositoryForm, SourceForm
from mirrortools.config.show import as_documents, job_schema, main_schema, missing_files
from mirrortools.errors import ConfigError
from mirrortools.model import RepoId

PROJECT = Path(__file__).parent.parent
MAIN = """\
root: /srv/mirrortools
source: https://huggingface.co
listen: 0.0.0.0:80
backup_source: https://hf-mirror.example
sync_interval: 3600
max_parallel: 8
edges:
  bj1: {url: "ssh://mirror@bj1.example:22/srv/mirrortools", http: "https://b.ex", identity_file: id, known_hosts: /k}
tls: {certificate: /c.pem, key: /k.pem, hsts: 1d}
git_socket: /run/fcgiwrap.socket
"""
JOB = """\
repositories:
  - {repo: Qwen/Qwen2-7B, revisions: [main, "v*"], include: ["*.safetensors", "*.json"], exclude: [], edges: [bj1]}
"""


def write(folder: Path, main: str = MAIN, **jobs: str) -> Path:
    """Write a main file and its jobs; the path of the main file."""
    (folder / "conf.d").mkdir(parents=True, exist_ok=True)
    (folder / "mirrortool.yaml").write_text(main)
    for name, text in jobs.items():
        (folder / "conf.d" / f"{name}.yaml").write_text(text)
    return folder / "mirrortool.yaml"


def read(folder: Path, main: str = MAIN, **jobs: str) -> Config:
    """Write files and load them."""
    return load(write(folder, main, **jobs), {})


def refusal(folder: Path, main: str = MAIN, **jobs: str) -> str:
    """The text of the ConfigError for these files, with the folder's name taken out."""
    with pytest.raises(ConfigError) as caught:
        read(folder, main, **jobs)
    assert caught.value.exit_status == 2
    return str(caught.value).replace(f"{folder}/", "")


def job(repository: str) -> str:
    """A job of one repository, given as YAML in one line."""
    return f"repositories:\n  - {repository}\n"


def test_the_contract_form_is_read(tmp_path: Path) -> None:
    """The keys of the mission keep their names, and every value arrives resolved."""
    config = read(tmp_path, qwen=JOB)
    (repository,) = config.repositories()

    assert (config.root, config.listen, config.max_parallel) == (Path("/srv/mirrortools"), "0.0.0.0:80", 8)
    assert config.min_free_bytes == 1 << 30
    assert config.jobs["qwen"].sync_interval_s == 3600
    assert repository.repo == RepoId("models", "Qwen/Qwen2-7B")
    assert repository.job == "qwen"
    assert repository.revisions == ("main", "v*")
    assert repository.include == ("*.safetensors", "*.json")
    assert (repository.exclude, repository.edges, repository.force_push) == ((), ("bj1",), "refuse")
    assert repository.source == Source("https://huggingface.co")
    assert repository.backup_source == Source("https://hf-mirror.example")


def test_an_edge_is_taken_apart(tmp_path: Path) -> None:
    """An edge's URL gives user, host, port and root; relative files are relative to the configuration."""
    edge = read(tmp_path).edge("bj1")

    assert (edge.scheme, edge.user, edge.host, edge.port) == ("ssh", "mirror", "bj1.example", 22)
    assert edge.root == Path("/srv/mirrortools")
    assert (edge.identity_file, edge.known_hosts) == (tmp_path / "id", Path("/k"))
    assert (edge.listen, edge.rate_limit_bytes_s) == ("0.0.0.0:80", None)


def test_a_plain_name_is_a_repository(tmp_path: Path) -> None:
    """The short form means branch main, every file, all edges."""
    (repository,) = read(tmp_path, qwen=job("datasets/squad")).repositories()

    assert repository.repo == RepoId("datasets", "squad")
    assert (repository.revisions, repository.include, repository.edges) == (("main",), ("*",), ("bj1",))


def test_a_folder_pattern_means_what_is_below(tmp_path: Path) -> None:
    """As with the Hub's client, a trailing slash stands for everything in the folder."""
    (repository,) = read(tmp_path, qwen=job("{repo: a/b, exclude: [onnx/]}")).repositories()

    assert repository.exclude == ("onnx/*",)


def test_scalars_are_not_guessed(tmp_path: Path) -> None:
    """A tag that looks like a number or a date, and a commit of digits only, stay what was written."""
    revisions = ["1.0", "2024-01-01", "1e10", "0" * 40, "no"]
    (repository,) = read(tmp_path, qwen=job(f"{{repo: a/b, revisions: [{', '.join(revisions)}]}}")).repositories()

    assert repository.revisions == tuple(revisions)


def test_a_job_gives_defaults_to_its_repositories(tmp_path: Path) -> None:
    """sync_interval, source and edges of a job hold for its repositories unless they say otherwise."""
    text = "sync_interval: 30m\nsource: https://a.example\nedges: []\nrepositories: [a/b, {repo: c/d, edges: [bj1]}]\n"
    config = read(tmp_path, qwen=text)
    first, second = config.repositories()

    assert config.job("qwen").sync_interval_s == 1800
    assert (first.source.url, first.edges, second.edges) == ("https://a.example", (), ("bj1",))


def test_a_source_may_have_a_limit_of_its_own(tmp_path: Path) -> None:
    """Of connections, over all repositories; `auto` is none besides the run's."""
    source = "source: {url: 'https://a.example', max_parallel: 2}"
    backup = "backup_source: {url: 'https://b.example', max_parallel: auto}"
    (repository,) = read(tmp_path, qwen=f"{source}\n{backup}\nrepositories: [a/b]\n").repositories()

    assert repository.source == Source("https://a.example", max_parallel=2)
    assert repository.backup_source == Source("https://b.example")


def test_the_minimum_rate_is_the_sources_own_or_the_jobs_or_the_main_files(tmp_path: Path) -> None:
    """The nearest one that is said; 1 Mbit/s when nobody says any."""
    own = "{url: 'https://x.example', minimum_rate: 2MB/s}"
    text = f"minimum_rate: 8Mbit\nrepositories: [a/b, {{repo: c/d, source: {own}}}]\n"
    config = read(tmp_path, qwen=text, other="repositories: [e/f]\n")

    rates = {str(known.repo): known.source.minimum_rate_bytes_s for known in config.repositories()}
    assert rates == {"a/b": 1_000_000, "c/d": 2_000_000, "e/f": 125_000}


def test_a_backup_source_may_be_used_together_with_the_source(tmp_path: Path) -> None:
    """It waits for a failure when nothing is said; the source itself has no such key."""
    together = "backup_source: {url: 'https://b.example', use: together}"
    (repository,) = read(tmp_path, qwen=f"{together}\nrepositories: [a/b]\n").repositories()

    assert repository.backup_source == Source("https://b.example", use="together")
    assert Source("https://b.example").use == "failover"
    with pytest.raises(ConfigError, match="unknown key"):
        read(tmp_path, qwen="source: {url: 'https://b.example', use: together}\nrepositories: [a/b]\n")


def test_a_job_or_a_repository_is_hot(tmp_path: Path) -> None:
    """The repository has the last word; what says nothing is cold."""
    hot = "hot: true\nrepositories: [a/b, {repo: c/d, hot: false}]\n"
    config = read(tmp_path, hot=hot, plain="repositories: [e/f, {repo: g/h, hot: true}]\n")

    assert {str(known.repo): known.hot for known in config.repositories()} == {
        "a/b": True,
        "c/d": False,
        "e/f": False,
        "g/h": True,
    }


def test_an_own_source_does_not_inherit_the_backup(tmp_path: Path) -> None:
    """Names of private models are not asked of the public backup; a backup of one's own may be named."""
    text = "source: dir:///srv/own\nrepositories: [a/b, {repo: c/d, backup_source: https://b.example}]\n"
    first, second = read(tmp_path, own=text).repositories()

    assert first.backup_source is None
    assert second.backup_source == Source("https://b.example")


def test_a_backup_can_be_switched_off(tmp_path: Path) -> None:
    """`backup_source: null` means none."""
    (repository,) = read(tmp_path, qwen=job("{repo: a/b, backup_source: null}")).repositories()

    assert repository.backup_source is None


def test_repositories_of_the_main_file_form_a_job(tmp_path: Path) -> None:
    """A small mirror needs no conf.d; the job is called like the file."""
    config = read(tmp_path, MAIN + job("a/b"))

    assert list(config.jobs) == ["mirrortool"]
    assert config.repository(RepoId.parse("a/b")).job == "mirrortool"


def test_where_the_file_is_looked_for(tmp_path: Path) -> None:
    """--config comes before MIRRORTOOL_CONFIG, which comes before /etc."""
    environ = {"MIRRORTOOL_CONFIG": "/b.yaml"}

    assert config_path(Path("/a.yaml"), environ) == Path("/a.yaml")
    assert config_path(None, environ) == Path("/b.yaml")
    assert config_path(None, {}) == Path("/etc/mirrortools/mirrortool.yaml")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """Who has no configuration yet is told how to get one."""
    with pytest.raises(ConfigError, match=r"nothing\.yaml: no such file; `mirrortool init` writes one"):
        load(tmp_path / "nothing.yaml", {})


def test_an_unknown_key_names_line_and_nearest_key(tmp_path: Path) -> None:
    """A typing mistake is answered with the place and the key that was meant."""
    text = "repositories:\n  - repo: a/b\n    revisons: [main]\n"

    assert refusal(tmp_path, MAIN.replace("max_parallel", "max_paralel")) == (
        "mirrortool.yaml:6: max_paralel: unknown key; did you mean 'max_parallel'?"
    )
    assert refusal(tmp_path, MAIN.replace("http:", "htttp:")) == (
        "mirrortool.yaml:8: edges.bj1.htttp: unknown key; did you mean 'http'?"
    )
    assert refusal(tmp_path, qwen=text) == (
        "conf.d/qwen.yaml:3: repositories[0].revisons: unknown key; did you mean 'revisions'?"
    )


def test_a_key_of_the_other_file_is_explained(tmp_path: Path) -> None:
    """A key of the main file in a job is told where it belongs."""
    text = refusal(tmp_path, qwen="min_free: 1GiB\nrepositories: [a/b]\n")

    assert text == "conf.d/qwen.yaml:1: min_free: this key belongs into the main file, not into a job"


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ("max_parallel: eight", "max_parallel: expected a number from 1 to 64, or auto, got 'eight'"),
        ("max_parallel: 65", "max_parallel: expected a number from 1 to 64, or auto, got '65'"),
        ("sync_interval: soon", "sync_interval: expected a duration such as 3600 (seconds), 30m, 1h or 1d, got 'soon'"),
        ("sync_interval: 0", "sync_interval: expected a duration such as 3600 (seconds), 30m, 1h or 1d, got '0'"),
        ("min_free: [1]", "min_free: expected a size such as 10GiB, 500MB or a number of bytes, got a list"),
        ("listen: 0.0.0.0", "listen: expected address:port such as 0.0.0.0:80 or [::]:80, got '0.0.0.0'"),
        ("listen: [80]", "listen: expected text, got a list"),
        ("edges: [bj1]", "edges: expected a mapping (key: value), got a list"),
        ("edges: {bj1: null}", "edges.bj1: expected a mapping (key: value), got nothing"),
        ("force_push: maybe", "force_push: expected 'refuse' or 'accept', got 'maybe'"),
        ("source: huggingface.co", "source: expected a URL with http://, https://, "),
        ("source: file://relative", "source: expected file:///absolute/path, got 'file://relative'"),
        ("source: 'ssh://-oProxyCommand=x/y'", "source: expected a host after ssh://, got 'ssh://-oProxyCommand=x/y'"),
        ("source: https://h/a?b", "source: https://h/a: a URL with ? or # cannot be a base"),
        ("source: 'https://h:port'", "source: 'https://h:port' is not a URL: a bracket or a port that is no number"),
        ("edges: {a: {url: ssh://h}}", "edges.a.url: name the edge's root folder too: ssh://h/srv/mirrortools"),
        ("edges: {a b: {url: file:///x}}", "edges.a b: a name is made of letters, digits, '.', '_' and '-', got 'a b'"),
        ("repositories: []", "repositories: the list is empty; name at least one, or leave the key out"),
        ("repositories: a/b", "repositories: expected a list such as [a, b], got 'a/b'"),
    ],
)
def test_a_wrong_value_is_told_what_was_expected(tmp_path: Path, wrong: str, text: str) -> None:
    """Every kind of wrong value has its place and its advice in one line."""
    main = f"root: /srv/m\n{wrong}\n"

    assert refusal(tmp_path, main).startswith(f"mirrortool.yaml:2: {text}")


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ("../x", ": models/../x: not a repository name (org/name or datasets/org/name)"),
        ("{revisions: [main]}", ": the key 'repo' is missing"),
        ("{repo: a/b, revisions: main}", ".revisions: expected a list such as [a, b], got 'main'"),
        ("{repo: a/b, revisions: ['a..b']}", ".revisions[0]: expected a branch, tag, pattern such as 'v*'"),
        ("{repo: a/b, include: []}", ".include: the list is empty; name at least one, or leave the key out"),
        ("{repo: a/b, include: [/etc]}", ".include[0]: expected a pattern of paths inside the repository"),
        ("{repo: a/b, edges: [bj2]}", ".edges[0]: there is no edge 'bj2'; did you mean 'bj1'?"),
        ("{repo: a/b, listen: '80'}", ".listen: this key does not belong here; known: backup_source, edges"),
    ],
)
def test_a_wrong_repository_is_refused(tmp_path: Path, wrong: str, text: str) -> None:
    """What is wrong inside a repository is named down to the item."""
    assert refusal(tmp_path, qwen=job(wrong)).startswith(f"conf.d/qwen.yaml:2: repositories[0]{text}")


def test_a_missing_root_is_named(tmp_path: Path) -> None:
    """Required keys are named when they are not there, and the root must be absolute."""
    assert refusal(tmp_path, "source: https://a.example\n") == "mirrortool.yaml:1: the key 'root' is missing"
    assert "expected an absolute path" in refusal(tmp_path, "root: srv\n")
    assert "expected an absolute path" in refusal(tmp_path, "root: /\n")


def test_all_problems_of_all_files_come_at_once(tmp_path: Path) -> None:
    """Nobody has to mend one line to learn of the next."""
    text = refusal(tmp_path, "roots: /x\n", one=job("{repo: a/b, x: 1}"), two="[")

    head, *lines = text.splitlines()

    assert head == "4 problems in the configuration"
    assert [line.split(": ")[0] for line in lines] == [
        "mirrortool.yaml:1",
        "mirrortool.yaml:1",
        "conf.d/one.yaml:2",
        "conf.d/two.yaml:1",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("root: /a\nroot: /b\n", "mirrortool.yaml:2: not YAML: the key 'root' stands here twice, first in line 1"),
        ("root: /a\n\tsource: x\n", "mirrortool.yaml:2: not YAML: found character '\\t' that"),
        ("root: *.json\n", "but found '.' (a value that begins with * needs quotes: '*.json')"),
        ("root: [*]\n", "but found ']' (a value that begins with * needs quotes: '*.json')"),
        ("alias: a\nalias: b\n", "mirrortool.yaml:2: not YAML: the key 'alias' stands here twice, first in line 1"),
        (
            "root: *json\n",
            "mirrortool.yaml:1: not YAML: found undefined alias 'json' (a value that begins with * needs",
        ),
        ("root: !!python/name:os.system\n", "mirrortool.yaml:1: not YAML: could not determine a constructor"),
        ("a: &x [*x]\n", "mirrortool.yaml:1: a: unknown key"),
        ("root: \x00", "mirrortool.yaml: not YAML: unacceptable character"),
        ("[a]: b\n", "mirrortool.yaml:1: not YAML: found unhashable key"),
        ("[" * 5000, "mirrortool.yaml: not YAML: "),
        ("- a\n", "mirrortool.yaml:1: expected a mapping (key: value), got a list"),
        ("", "mirrortool.yaml:1: the key 'root' is missing"),
    ],
)
def test_a_syntax_error_has_its_line(tmp_path: Path, text: str, problem: str) -> None:
    """What is no YAML, or no mapping, is refused with line and reason; tags run no code."""
    assert problem in refusal(tmp_path, text)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    """A file in another encoding is named, not crashed on."""
    path = write(tmp_path)
    path.write_bytes(b"root: /srv/\xff\n")

    with pytest.raises(ConfigError, match="not UTF-8 at byte 11"):
        load(path, {})


def test_a_repository_stands_once(tmp_path: Path) -> None:
    """The second place says where the first one is, also when they are written differently."""
    text = refusal(tmp_path, one=job("Qwen/Qwen2"), two=job("{repo: models/Qwen/Qwen2}"))

    assert text == (
        f"conf.d/two.yaml:2: repositories[0]: Qwen/Qwen2 is mirrored already by {tmp_path}/conf.d/one.yaml:2; "
        "keep one of the two"
    ).replace(f"{tmp_path}/", "")


def test_a_repository_needs_a_source(tmp_path: Path) -> None:
    """Without a source at any level the repository is named."""
    text = refusal(tmp_path, "root: /srv/m\n", qwen=job("a/b"))

    assert text.endswith("repositories[0]: no source; set `source` here, in the job or in the main file")


def test_jobs_have_different_names(tmp_path: Path) -> None:
    """A job file cannot be called like the job of the main file."""
    assert "a second job called 'mirrortool'" in refusal(tmp_path, MAIN + job("a/b"), mirrortool=job("c/d"))


def test_a_file_that_would_be_passed_over_is_named(tmp_path: Path) -> None:
    """A job in a .yml file is not silently forgotten; editors' copies and hidden files are."""
    path = write(tmp_path, qwen=JOB)
    for name in ("qwen.yaml~", ".qwen.yaml", "README"):
        (tmp_path / "conf.d" / name).write_text("[")
    before = load(path, {})
    (tmp_path / "conf.d" / "other.yml").write_text(JOB)

    assert list(before.jobs) == ["qwen"]
    with pytest.raises(ConfigError, match=r"other\.yml: job files end in \.yaml; rename it to other\.yaml"):
        load(path, {})


@pytest.mark.parametrize("key", ["source", "backup_source"])
@pytest.mark.parametrize(
    "url", ["https://user:hf_secret@h.example", "https://hf_secret@h.example", "ssh://a:hf_secret@h/x"]
)
def test_a_credential_in_a_url_is_refused_and_not_repeated(tmp_path: Path, key: str, url: str) -> None:
    """The advice is token_file, and the message does not spread the secret."""
    text = refusal(tmp_path, f"root: /srv/m\n{key}: {url}\n")

    assert "credentials do not belong into a URL" in text
    assert "token_file" in text
    assert "hf_secret" not in text


def test_a_token_file_that_is_a_folder_is_told(tmp_path: Path) -> None:
    """Nobody is sent to change the mode of a folder."""
    text = refusal(tmp_path, "root: /srv/m\nsource: {url: https://h.example, token_file: .}\n", j=job("a/b"))

    assert (
        text == f"mirrortool.yaml:2: source.token_file: {tmp_path} is a folder; name the file that has the token in it"
    )


def test_a_token_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """The message has the command that mends it; owner and group may read."""
    token = tmp_path / "hub.token"
    token.write_text("hf_secret")
    token.chmod(0o644)
    main = "root: /srv/m\nsource: {url: https://h.example, token_file: hub.token}\n"
    text = refusal(tmp_path, main, qwen=job("a/b"))
    token.chmod(0o640)
    (repository,) = read(tmp_path, main, qwen=job("a/b")).repositories()

    assert text.startswith("mirrortool.yaml:2: source.token_file: every account of this host can read hub.token")
    assert text.endswith("; run: chmod o= hub.token")
    assert repository.source == Source("https://h.example", token)


def test_an_edge_is_not_the_origin(tmp_path: Path) -> None:
    """A delivery must not overwrite the origin, nor two edges each other."""
    same = "root: /srv/m\nedges: {a: {url: file:///srv/m}}\n"
    below = "root: /srv/m\nedges: {a: {url: file:///srv/m/public}}\n"
    twice = "root: /srv/m\nedges: {a: {url: ssh://h/x}, b: {url: ssh://h:22/x/}}\n"

    assert "edges.a.url: this edge lies in the origin's own root /srv/m" in refusal(tmp_path, same)
    assert "this edge lies in the origin's own root" in refusal(tmp_path, below)
    assert "edges.b.url: the same place as the edge 'a'" in refusal(tmp_path, twice)


def test_files_that_are_missing_are_listed(tmp_path: Path) -> None:
    """`config check` can tell of keys and tokens that are named but not there."""
    missing = missing_files(read(tmp_path, qwen=job("{repo: a/b, source: {url: 'https://h', token_file: t}}")))

    assert [line.partition(": ")[2] for line in missing] == [
        f"the identity_file of the edge bj1, {tmp_path}/id, does not exist",
        "the known_hosts of the edge bj1, /k, does not exist",
        f"the token_file of https://h, {tmp_path}/conf.d/t, does not exist",
    ]


def test_asking_for_something_unknown_names_the_nearest(tmp_path: Path) -> None:
    """What a user types on the command line gets the same help."""
    config = read(tmp_path, qwen=JOB)

    with pytest.raises(ConfigError, match="no job has the repository Qwen/Qwen2-8B; did you mean 'Qwen/Qwen2-7B'"):
        config.repository(RepoId.parse("Qwen/Qwen2-8B"))
    with pytest.raises(ConfigError, match="there is no job 'qwn'; did you mean 'qwen'"):
        config.job("qwn")
    with pytest.raises(ConfigError, match="there is no edge 'sh9'; known: bj1"):
        config.edge("sh9")


def _written_again(config: Config, folder: Path) -> Config:
    for name, document in as_documents(config).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(document))
    again = load(folder / config.path.name, {})
    jobs = {job.name: replace(job, path=config.jobs[job.name].path) for job in again.jobs.values()}
    return replace(again, path=config.path, jobs=jobs)


def test_what_show_prints_loads_as_the_same(tmp_path: Path) -> None:
    """`config show` gives files that mean what the first ones meant, every default written out."""
    main = MAIN.replace("known_hosts: /k", "rate_limit: 100Mbit, incoming_limit: 200GiB") + job("main/one")
    text = (
        "sync_interval: 90m\nrepositories: [a/b, {repo: c/d, source: {url: 'https://h', token_file: /t}, edges: []}]\n"
    )
    own = "private: true\nreaders: [bob, alice]\nrepositories: [{repo: e/f, gated: true, edges: []}]\n"
    config = read(tmp_path / "first", main, qwen=JOB, other=text, own=own)

    assert _written_again(config, tmp_path / "second") == replace(config, jobs=dict(config.jobs))


def test_the_examples_load(tmp_path: Path) -> None:
    """The jobs and the main file that the project ships are right, and what they say is what they get."""
    shutil.copytree(PROJECT / "conf.d", tmp_path / "conf.d")
    shutil.copy(PROJECT / "mirrortool.yaml", tmp_path)
    config = load(tmp_path / "mirrortool.yaml", {})
    own = config.job("own-models").repositories[0]

    hidden = config.job("private").repositories[-1]

    assert sorted(config.jobs) == ["datasets", "own-models", "private", "qwen"]
    assert (hidden.private, hidden.readers, hidden.gated, hidden.edges) == (True, ("alice",), True, ())
    assert (own.source.scheme, own.backup_source) == ("dir", None)


@pytest.mark.parametrize("form", [MainForm, JobForm, RepositoryForm, EdgeForm, SourceForm])
def test_every_key_is_described_with_an_example_that_works(form: type[BaseModel]) -> None:
    """`config schema` documents each key, and each example passes the validation of its key."""
    required = {
        name: field.examples[0] for name, field in form.model_fields.items() if field.is_required() and field.examples
    }

    for name, field in form.model_fields.items():
        assert field.description
        assert field.examples
        for example in field.examples:
            form.model_validate({**required, name: example})


def test_schemas_know_the_short_forms() -> None:
    """An editor that uses the schema accepts a plain URL for a source and a plain name for a repository."""
    for schema in (main_schema(), job_schema()):
        for form in ("SourceForm", "RepositoryForm"):
            assert {"type": "string"} in schema["$defs"][form]["anyOf"]


def test_the_nearest_word_is_only_named_when_near() -> None:
    """A hint that is far off would mislead; then the known words are listed."""
    assert did_you_mean("syc", ["sync", "status"]) == "; did you mean 'sync'?"
    assert did_you_mean("xyzzy", ["sync", "status"]) == "; known: status, sync"
    assert did_you_mean("xyzzy", []) == ""


@given(st.text(max_size=40))
def test_any_text_as_a_source_is_an_answer_or_a_config_error(text: str) -> None:
    """Whatever stands in a source, the result is a URL or a refusal."""
    try:
        form = SourceForm.model_validate(text)
    except ValueError:
        return

    assert form.url.split("://")[0] in ("http", "https", "ssh", "file", "dir")


_keys = st.sampled_from([*MainForm.model_fields, *RepositoryForm.model_fields, *EdgeForm.model_fields, "x"]) | st.text(
    max_size=5
)
_values = st.recursive(
    st.none()
    | st.integers()
    | st.text(max_size=8)
    | st.sampled_from(["a/b", "main", "1h", "https://h.example", "/srv/m"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner, max_size=4),
    max_leaves=12,
)


@given(_values, _values)
@explicit(None, {"repositories": ["\r"]})
@explicit({"root": "/srv/m", "repositories": ["a\u2028b", "c\x0cd"]}, None)
@explicit({"root": "/srv/m", "source": {"url": "https://h.example", "token_file": "a\0b"}}, {"repositories": ["a/b"]})
def test_any_yaml_is_a_config_or_a_config_error(main: object, job_value: object) -> None:
    """No file, however odd, ends in anything but a configuration or a ConfigError whose lines name the file."""
    with TemporaryDirectory() as folder:
        path = write(Path(folder), yaml.safe_dump(main), job=yaml.safe_dump(job_value))
        try:
            load(path, {})
        except ConfigError as error:
            lines = str(error).splitlines()

            assert all(line.startswith(folder) for line in lines[1 if len(lines) > 1 else 0 :])


@given(st.text(max_size=60))
def test_any_text_is_a_config_or_a_config_error(text: str) -> None:
    """The same for what is no YAML at all."""
    with TemporaryDirectory() as folder, suppress(ConfigError):
        load(write(Path(folder), text), {})
