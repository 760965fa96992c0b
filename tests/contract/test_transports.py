"""What every transport does, over every entry of KINDS, with the real receiver, rsync and OpenSSH."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from mirrortools.config import EdgeConfig
from mirrortools.errors import ConfigError, EdgeError, EdgeRefused, EdgeUnreachable, NoSpace, StoreError
from mirrortools.frames import PROTOCOL_VERSION, frame, read_frame
from mirrortools.keeping import FOLDER, name_of
from mirrortools.model import Blob
from mirrortools.sealing import SealedSession
from mirrortools.signing import Signer
from mirrortools.store import Store
from mirrortools.transports import KINDS, Batch, Session, receiver_archive, transport_to
from mirrortools.transports.archive import LACKS, hand_over_command, packed, receiver_command
from mirrortools.transports.local import LocalTransport
from mirrortools.transports.session import ProcessSession
from mirrortools.transports.ssh import SshTransport, control_path, rsh
from tests.delivery import REPO, local_edge, noise, put, sha256_blob, small_disk, ssh_edge
from tests.servers.sshd import Sshd

MIB = 1 << 20
Edge = Callable[[Path], EdgeConfig]


@pytest.fixture(params=list(KINDS))
def edge(request: pytest.FixtureRequest, sshd: Sshd) -> Edge:
    """Makes an edge of each kind out of a root."""
    makers: dict[str, Edge] = {"ssh": lambda root: ssh_edge(sshd, root), "file": local_edge}
    return makers[request.param]


@contextmanager
def session_with(edge: EdgeConfig, origin: Path) -> Iterator[Session]:
    """An open session, greeted, on an edge that believes the origin."""
    with closing(transport_to(edge, origin / "state").open(receiver_archive())) as session:
        answer = session.ask({"ask": "hello", "version": PROTOCOL_VERSION, "caller": "origin", "repos": []})
        session.ask({"ask": "trust", "signer": Signer(origin).signer, "introduction": None})
        yield SealedSession(session, Signer(origin), answer["challenge"])


def content(origin: Path, *contents: bytes) -> list[Blob]:
    """Put contents into the origin's store."""
    for each in contents:
        put(origin, sha256_blob(each), each)
    return [sha256_blob(each) for each in contents]


def begin(session: Session, blobs: Sequence[Blob]) -> str:
    """Take the repository's lock; the folder to send to."""
    items = [[blob.algorithm, blob.digest, blob.size] for blob in blobs]
    return str(session.ask({"ask": "begin", "repo": REPO.path, "blobs": items})["folder"])


def test_several_things_are_asked_at_once(edge: Edge, tmp_path: Path) -> None:
    """Requests and answers pass each other, however large; what is refused stands in its place and ends nothing."""
    many = [["sha256", f"{number:064x}", 1] for number in range(10_000)]
    have = {"ask": "have", "repo": REPO.path, "blobs": many}
    with session_with(edge(tmp_path / "edge"), tmp_path / "origin") as session:
        first, refused, second, last = session.ask_all([have, {"ask": "sing"}, have, {"ask": "ping"}])

    assert isinstance(first, dict)
    assert len(first["missing"]) == len(many)
    assert isinstance(refused, EdgeRefused)
    assert isinstance(second, dict)
    assert second["missing"] == first["missing"]
    assert last == {}


def test_an_edge_that_ends_while_much_is_asked_is_told_of(edge: Edge, tmp_path: Path) -> None:
    """Nobody waits for what can no longer be written."""
    large = {"ask": "have", "repo": REPO.path, "blobs": [["sha256", "0" * 64, 1]] * 100_000}
    with session_with(edge(tmp_path / "edge"), tmp_path / "origin") as session:
        session.abort()
        with pytest.raises((EdgeRefused, EdgeUnreachable)):
            session.ask_all([large, large])


def test_the_receiver_answers(edge: Edge, tmp_path: Path) -> None:
    """The edge needs nothing of ours: the receiver arrives with the call and leaves nothing outside its root."""
    with closing(transport_to(edge(tmp_path / "edge"), tmp_path / "state").open(receiver_archive())) as session:
        answer = session.ask({"ask": "hello", "version": PROTOCOL_VERSION, "caller": "origin", "repos": [REPO.path]})

    assert answer["version"] == PROTOCOL_VERSION
    assert answer["state"] == {REPO.path: {"serial": 0, "parts": {}}}
    assert answer["free_bytes"] > 0
    assert answer["rsync"]
    assert {path.name for path in tmp_path.iterdir()} <= {"edge", "state"}


def test_what_the_receiver_refuses_is_raised_with_the_name_of_the_edge(edge: Edge, tmp_path: Path) -> None:
    """An error that comes as an answer leaves the session usable."""
    config = edge(tmp_path / "edge")
    with session_with(config, tmp_path) as session:
        with pytest.raises(EdgeRefused, match=f"edge {config.name}: unknown request 'nonsense'"):
            session.ask({"ask": "nonsense"})

        assert session.ask({"ask": "ping"}) == {}


def test_files_arrive_under_their_digests(edge: Edge, tmp_path: Path) -> None:
    """Content is exact, files can be written again by their owner alone, and the wire is counted."""
    contents = [noise(3 * MIB, seed) for seed in range(3)] + [b""]
    blobs = content(tmp_path / "origin", *contents)
    told: list[int] = []
    with session_with(edge(tmp_path / "edge"), tmp_path / "origin") as session:
        folder = begin(session, blobs)
        sent = session.send(Batch(blobs, tmp_path / "origin" / "public", folder, told.append))

    for blob, expected in zip(blobs, contents, strict=True):
        path = tmp_path / "edge" / folder / blob.digest
        assert path.read_bytes() == expected
        assert path.stat().st_mode & 0o777 == 0o600
    assert 9 * MIB < sent.bytes_on_wire < 9 * MIB * 1.01
    assert told == sorted(told)
    assert told[-1] == 9 * MIB


def test_a_file_that_is_there_in_part_goes_on_where_it_ends(edge: Edge, tmp_path: Path) -> None:
    """Only what is lacking goes over the wire; a complete file costs nothing."""
    whole, part = noise(3 * MIB, 1), noise(4 * MIB, 2)
    blobs = content(tmp_path / "origin", whole, part)
    with session_with(edge(tmp_path / "edge"), tmp_path / "origin") as session:
        folder = tmp_path / "edge" / begin(session, blobs)
        (folder / blobs[0].digest).write_bytes(whole)
        (folder / blobs[1].digest).write_bytes(part[: 3 * MIB])
        sent = session.send(Batch(blobs, tmp_path / "origin" / "public", begin(session, blobs)))

    assert (folder / blobs[0].digest).read_bytes() == whole
    assert (folder / blobs[1].digest).read_bytes() == part
    assert MIB < sent.bytes_on_wire < 1.02 * MIB


@pytest.mark.parametrize("name", ["a root's $HOME;`id`", 'quoted "root" %41 +', "模型 \\ root"])
def test_a_root_with_an_odd_name_is_taken_as_it_is(edge: Edge, tmp_path: Path, name: str) -> None:
    """No shell on the way gives spaces, quotes, backslashes and dollars a meaning."""
    blobs = content(tmp_path / "origin", b"content")
    with session_with(edge(tmp_path / name), tmp_path / "origin") as session:
        folder = begin(session, blobs)
        session.send(Batch(blobs, tmp_path / "origin" / "public", folder))

    assert (tmp_path / name / folder / blobs[0].digest).read_bytes() == b"content"
    assert {path.name for path in tmp_path.iterdir()} == {"origin", name}


def test_a_full_disk_of_the_edge_is_no_space(edge: Edge, tmp_path: Path) -> None:
    """Rsync's error becomes NoSpace; what had arrived is kept for the next time."""
    blobs = content(tmp_path / "origin", noise(4 * MIB))
    with (
        small_disk(tmp_path / "disk", 2 * MIB) as disk,
        session_with(edge(disk / "edge"), tmp_path / "origin") as session,
    ):
        folder = begin(session, blobs)
        with pytest.raises(NoSpace, match="No space left on device"):
            session.send(Batch(blobs, tmp_path / "origin" / "public", folder))

        assert (disk / "edge" / folder / blobs[0].digest).stat().st_size > MIB


def test_a_file_that_vanished_from_the_origin_is_named(edge: Edge, tmp_path: Path) -> None:
    """The fault is the origin's, and the message says which file."""
    blobs = content(tmp_path / "origin", b"stays", b"goes")
    gone = Store(tmp_path / "origin").path(blobs[1])
    gone.unlink()
    with session_with(edge(tmp_path / "edge"), tmp_path / "origin") as session:
        folder = begin(session, blobs)
        with pytest.raises(StoreError, match=gone.name):
            session.send(Batch(blobs, tmp_path / "origin" / "public", folder))


def test_an_edge_that_cannot_write_says_so(edge: Edge, tmp_path: Path) -> None:
    """A folder that is not there is a refusal, not a lost connection."""
    blobs = content(tmp_path / "origin", b"content")
    with session_with(edge(tmp_path / "edge"), tmp_path / "origin") as session:
        (tmp_path / "edge" / "state" / "incoming").write_bytes(b"a file in the place of a folder")
        with pytest.raises(EdgeRefused, match="status"):
            session.send(Batch(blobs, tmp_path / "origin" / "public", "state/incoming/x"))


def test_abort_ends_what_runs_from_another_thread(edge: Edge, tmp_path: Path) -> None:
    """A transfer that would take a minute ends at once, as an edge that was cut off; the part stays."""
    blobs = content(tmp_path / "origin", noise(60 * MIB))
    slow = replace(edge(tmp_path / "edge"), rate_limit_bytes_s=MIB)
    with session_with(slow, tmp_path / "origin") as session:
        folder = begin(session, blobs)
        with pytest.raises(EdgeUnreachable):
            session.send(Batch(blobs, tmp_path / "origin" / "public", folder, lambda _: session.abort()))
        with pytest.raises(EdgeError):
            session.ask({"ask": "ping"})

    assert 0 < (tmp_path / "edge" / folder / blobs[0].digest).stat().st_size < 60 * MIB


def test_every_kind_has_its_scheme() -> None:
    """A URL of another scheme is refused with the known ones."""
    with pytest.raises(ConfigError, match="begins with ssh or file"):
        transport_to(EdgeConfig("x", "ftp://x/srv", None, None, None, ""), Path("/state"))


# The receiver on its way


def test_the_archive_holds_only_what_the_receiver_needs() -> None:
    """The archive runs in a bare interpreter without site-packages, and is the same each time."""
    names = zipfile.ZipFile(BytesIO(receiver_archive())).namelist()
    receiver_archive.cache_clear()
    again = receiver_archive()
    command = [sys.executable, "-I", "-S", *receiver_command("", again, "/nowhere/at/all")[2:]]
    run = subprocess.run(command, input=frame({}) + packed(again), capture_output=True, check=True)

    assert zipfile.ZipFile(BytesIO(again)).namelist() == names
    assert "mirrortools/receiver.py" in names
    assert not any("transports" in name or "config" in name for name in names)
    assert (read_frame(BytesIO(run.stdout).read), run.stderr) == (LACKS, b"")


def test_an_old_python_is_named() -> None:
    """The bootstrap itself runs on old interpreters, and says what is needed."""
    words = receiver_command(sys.executable, b"", "/nowhere")
    words[3] = words[3].replace("(3, 11)", "(99, 0)")
    run = subprocess.run(words, capture_output=True, text=True)

    assert run.returncode == 1
    assert "3.11 or newer needed" in run.stderr


@pytest.mark.parametrize(
    ("sent", "problem"),
    [(packed(receiver_archive())[:5000], b"incomplete"), (packed(b"another one"), b"damaged")],
)
def test_a_receiver_that_arrives_otherwise_is_not_run(sent: bytes, problem: bytes) -> None:
    """A connection that ends in the middle of the archive runs nothing, and nobody runs what was not named."""
    words = receiver_command(sys.executable, receiver_archive(), "/nowhere")
    run = subprocess.run(words, input=frame({}) + sent, capture_output=True)

    assert run.returncode == 1
    assert problem in run.stderr


def test_the_programs_pass_any_login_shell() -> None:
    """They are one line each, which a shell takes as it is between single quotes."""
    for words in (receiver_command("", b"", "/srv"), hand_over_command("", "/srv", "relay")):
        assert not set("'\n") & set(words[3])


def greet(edge: EdgeConfig, folder: Path, version: int = PROTOCOL_VERSION) -> dict[str, Any]:
    """Say hello to an edge, in a conversation of its own."""
    with closing(transport_to(edge, folder / "state").open(receiver_archive())) as session:
        return session.ask({"ask": "hello", "version": version, "caller": "origin", "repos": []})


def kept(root: Path) -> dict[str, bytes]:
    """The receivers that lie below a root: name → content."""
    return {path.name: path.read_bytes() for path in (root / FOLDER).iterdir()}


RIGHT = {name_of(receiver_archive()): receiver_archive()}


def test_the_receiver_is_kept_for_the_next_call(edge: Edge, tmp_path: Path) -> None:
    """It is the account's own, and former ones go."""
    former = tmp_path / "edge" / FOLDER / "former"
    former.parent.mkdir(parents=True)
    former.write_bytes(b"of another release")
    greet(edge(tmp_path / "edge"), tmp_path)

    assert kept(tmp_path / "edge") == RIGHT
    assert (former.parent / name_of(receiver_archive())).stat().st_mode & 0o777 == 0o600


def test_what_is_kept_does_not_travel(sshd: Sshd, tmp_path: Path) -> None:
    """The second call costs a login and what is asked."""
    edge, costs = ssh_edge(sshd, tmp_path / "edge"), []
    for _ in range(2):
        sshd.forget()
        greet(edge, tmp_path)
        costs.append(sshd.received_bytes())

    assert costs[0] > len(packed(receiver_archive()))
    assert costs[1] < 16 << 10


def test_nothing_is_run_but_what_the_origin_named(edge: Edge, tmp_path: Path) -> None:
    """What lies in its place, damaged or put there by somebody else, is replaced."""
    with BytesIO() as made:
        with zipfile.ZipFile(made, "w") as archive:
            archive.writestr("mirrortools/__init__.py", "")
            archive.writestr("mirrortools/callers.py", f"open({str(tmp_path / 'trap')!r}, 'w')\nmain = print\n")
        strangers = made.getvalue()
    for content in (strangers, receiver_archive()[:-1], b""):
        greet(edge(tmp_path / "edge"), tmp_path)
        (tmp_path / "edge" / FOLDER / name_of(receiver_archive())).write_bytes(content)
        greet(edge(tmp_path / "edge"), tmp_path)

        assert kept(tmp_path / "edge") == RIGHT
    assert not (tmp_path / "trap").exists()


def test_where_it_cannot_be_kept_it_is_sent_each_time(edge: Edge, tmp_path: Path) -> None:
    """Something else in the place of the folder stops no delivery."""
    (tmp_path / "edge" / "state").mkdir(parents=True)
    (tmp_path / "edge" / FOLDER).write_text("not a folder")
    answers = [greet(edge(tmp_path / "edge"), tmp_path) for _ in range(2)]

    assert [answer["version"] for answer in answers] == [PROTOCOL_VERSION] * 2
    assert (tmp_path / "edge" / FOLDER).read_text() == "not a folder"


def test_nothing_is_kept_where_nothing_was_begun(edge: Edge, tmp_path: Path) -> None:
    """A caller that is refused at once leaves no root behind."""
    with pytest.raises(EdgeRefused, match="version"):
        greet(edge(tmp_path / "edge"), tmp_path, version=99)

    assert not (tmp_path / "edge").exists()


class NoisyTransport(LocalTransport):
    """A login shell that greets everybody."""

    def command(self, words: Sequence[str]) -> list[str]:
        return ["sh", "-c", 'echo "Welcome to bj1!"; exec "$@"', "sh", *words]


class BrokenTransport(LocalTransport):
    """A receiver that ends at once."""

    def command(self, words: Sequence[str]) -> list[str]:
        return ["sh", "-c", "echo 'cannot allocate memory' >&2; exit 3"]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [(NoisyTransport, "Welcome.*login shell"), (BrokenTransport, "status 3.*cannot allocate memory")],
)
def test_what_else_a_login_may_do_is_explained(kind: type[LocalTransport], reason: str, tmp_path: Path) -> None:
    """Noise before the first answer and an early end are refusals that show what was said."""
    transport = kind(local_edge(tmp_path / "edge"), tmp_path / "state")
    with (
        closing(ProcessSession(transport, receiver_archive())) as session,
        pytest.raises(EdgeRefused, match=reason),
    ):
        session.ask({"ask": "hello", "version": PROTOCOL_VERSION, "repos": []})


# ssh alone


def test_rsync_uses_the_connection_of_the_receiver(sshd: Sshd, tmp_path: Path) -> None:
    """Two transfers and a conversation are one login, and the socket is gone afterwards."""
    blobs = content(tmp_path / "o", b"one", b"two")
    sshd.forget()
    with session_with(ssh_edge(sshd, tmp_path / "edge"), tmp_path / "o") as session:
        folder = begin(session, blobs)
        for blob in blobs:
            session.send(Batch([blob], tmp_path / "o" / "public", folder))

    assert sshd.logins() == 1
    assert list((tmp_path / "o" / "state" / "ssh").iterdir()) == []


def test_a_state_folder_whose_path_is_too_long_costs_logins_only(sshd: Sshd, tmp_path: Path) -> None:
    """A socket's name is short; without one, rsync logs in by itself."""
    origin = tmp_path / ("deep" * 20)
    blobs = content(origin, b"one")
    sshd.forget()
    with session_with(ssh_edge(sshd, tmp_path / "edge"), origin) as session:
        session.send(Batch(blobs, origin / "public", begin(session, blobs)))

    assert sshd.logins() == 2
    assert control_path(origin / "state") is None


def test_an_edge_without_python_is_told_apart(sshd: Sshd, tmp_path: Path) -> None:
    """The shell's answer becomes advice."""
    transport = SshTransport(ssh_edge(sshd, tmp_path / "edge"), tmp_path / "state")
    transport.python = "python3-that-is-not-there"
    with closing(transport.open(receiver_archive())) as session, pytest.raises(EdgeRefused, match="not installed"):
        session.ask({"ask": "ping"})


def test_the_key_exchange_is_none_that_takes_long(sshd: Sshd, tmp_path: Path) -> None:
    """OpenSSH's first choice would take most of a login; all others that this host's ssh has are offered."""
    ours, private, all_of_them = (_offered(words) for words in _kex(ssh_edge(sshd, tmp_path / "edge"), tmp_path))

    assert "curve25519-sha256" in ours
    assert ours == [name for name in all_of_them if "sntrup" not in name]
    assert private == all_of_them


def _kex(edge: EdgeConfig, folder: Path) -> list[list[str]]:
    """What shows the key exchanges that ssh would offer: to an edge, to one with private repositories, and its own."""
    found = []
    for private in (False, True):
        words = SshTransport(replace(edge, private=private), folder / "state").command(["true"])
        found.append(["ssh", "-G", *words[1 : words.index("--")], "host"])
    return [*found, ["ssh", "-G", "-F", "none", "host"]]


def _offered(words: list[str]) -> list[str]:
    told = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return next(line for line in told.splitlines() if line.startswith("kexalgorithms ")).split()[1].split(",")


def test_a_cut_connection_is_unreachable(sshd: Sshd, tmp_path: Path) -> None:
    """When sshd's processes die in mid-transfer, the message says what to do."""
    blobs = content(tmp_path / "origin", noise(20 * MIB))
    slow = ssh_edge(sshd, tmp_path / "edge", rate_limit_bytes_s=MIB)
    with session_with(slow, tmp_path / "origin") as session:
        batch = Batch(
            blobs, tmp_path / "origin" / "public", begin(session, blobs), lambda _: _none(sshd.kill_sessions())
        )
        with pytest.raises(EdgeUnreachable, match="edge bj1"):
            session.send(batch)
        with pytest.raises(EdgeUnreachable, match="try by hand: ssh"):
            session.ask({"ask": "ping"})


def _none(_: object) -> None:
    """Drop a result."""


@pytest.mark.parametrize("url", ["ssh://-oProxyCommand=id/srv", "ssh://-l@host/srv", "ssh://a;b/srv", "ssh:///srv"])
def test_hosts_and_users_that_ssh_would_take_for_something_else_are_refused(url: str, tmp_path: Path) -> None:
    """A name that begins with a dash is an option to ssh."""
    with pytest.raises(ConfigError, match="not a host or user name"):
        transport_to(EdgeConfig("x", url, None, None, None, ""), tmp_path)


def test_words_survive_the_way_rsync_splits_its_remote_shell(tmp_path: Path) -> None:
    """Rsync itself takes the text apart again into the same words."""
    words = ["-o", 'IdentityFile="/a b/c"', "it's", "%%", "\\", ""]
    script = tmp_path / "remote shell"
    script.write_text(f"#!/bin/sh\nprintf '%s\\0' \"$@\" > '{tmp_path}/seen'\nexit 1\n")
    script.chmod(0o755)
    command = ["rsync", f"--rsh={rsh([str(script), *words])}", f"{tmp_path}/", "host:/x/"]
    subprocess.run(command, capture_output=True)

    assert (tmp_path / "seen").read_text().split("\0")[: len(words)] == words
