"""What a stolen push key can do: each line of the table in docs/threat-model.md, tried over a real sshd."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
import threading
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mirrortools.config import EdgeConfig
from mirrortools.errors import EdgeError, EdgeRefused, MirrorError, NoSpace
from mirrortools.frames import PROTOCOL_VERSION
from mirrortools.model import Blob, Publication, quote_ref
from mirrortools.passport import new_passport
from mirrortools.pool import EdgePool, Scope
from mirrortools.sealing import SealedSession
from mirrortools.seals import SEAL, sealed_text
from mirrortools.signing import Signer
from mirrortools.store import Store
from mirrortools.transports import Batch, Session, receiver_archive, transport_to
from mirrortools.tree import Tree
from tests.delivery import REPO, TALK_BYTES, bound_edge, noise, publication, put, run, sealed, served_files, sha256_blob
from tests.servers.ports import free_port
from tests.servers.sshd import Sshd

MIB = 1 << 20
LIMIT_BYTES = 24 * MIB
FILES = {"model.safetensors": noise(3 * MIB, 1), "config.json": b"{}", "empty": b""}
INCOMING = f"state/incoming/{quote_ref(REPO.path)}"
TIMEOUT_S = 20
# Within that a relay that has been told to connect has done so, long since.
CALL_S = 0.5


@pytest.fixture
def edge(sshd: Sshd, tmp_path: Path) -> EdgeConfig:
    """An edge whose key is bound to an installed receiver, as provisioning binds it."""
    return bound_edge(sshd, tmp_path / "edge", "bj1", f"--incoming-limit={LIMIT_BYTES}")


@pytest.fixture
def shown(origin: Path, edge: EdgeConfig) -> Publication:
    """What the edge shows before the key is stolen."""
    shown = publication(origin, FILES)
    Tree(origin).publish(shown)
    delivery = run(edge, origin, shown)
    assert delivery.error is None
    assert served_files(edge.root, shown) == FILES
    return shown


def everything(folder: Path) -> dict[str, tuple[int, bytes | str | None]]:
    """What lies below a folder: path → mode and content."""
    found: dict[str, tuple[int, bytes | str | None]] = {}
    for path in folder.rglob("*"):
        content = path.readlink().as_posix() if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[path.relative_to(folder).as_posix()] = (path.lstat().st_mode, content)
    return found


def ssh(sshd: Sshd, *words: str, options: Sequence[str] = (), data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run ssh with the stolen key."""
    command = ["ssh", *sshd.options, *options, "-l", sshd.user, "--", "127.0.0.1", *words]
    return subprocess.run(command, input=data, capture_output=True, timeout=TIMEOUT_S)


def rsync(sshd: Sshd, *words: str) -> subprocess.CompletedProcess[str]:
    """Run an rsync with the stolen key; `EDGE:` in front of a path is the edge."""
    shell = shlex.join(["ssh", *[option.replace('"', "") for option in sshd.options], "-l", sshd.user])
    command = ["rsync", f"--rsh={shell}", *[word.replace("EDGE:", "127.0.0.1:") for word in words]]
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)


LIAR = """\
import os, subprocess, sys, threading
edge = subprocess.Popen({ssh}, stdin=subprocess.PIPE, bufsize=0)
edge.stdin.write({words})
def pass_on():
    while data := os.read(0, 65536):
        edge.stdin.write(data)
    edge.stdin.close()
threading.Thread(target=pass_on, daemon=True).start()
os._exit(edge.wait())
"""


def liar(folder: Path, sshd: Sshd, edge: EdgeConfig) -> Path:
    """A remote shell that tells the edge what an origin would, whatever the rsync that uses it wants to do."""
    command = ["ssh", *sshd.options, "-l", sshd.user, "127.0.0.1", "rsync --server -spe.LsfxCIvu"]
    words = "".join(f"{word}\0" for word in ("rsync", "--append", ".", f"{edge.root}/{INCOMING}/", ""))
    (folder / "liar").write_text(f"#!{sys.executable}\n{LIAR.format(ssh=command, words=repr(words.encode()))}")
    (folder / "liar").chmod(0o755)
    return folder / "liar"


def opened(stack: ExitStack, edge: EdgeConfig, state: Path) -> tuple[Session, str]:
    """A conversation with the receiver, and its challenge."""
    session = stack.enter_context(closing(transport_to(edge, state).open(receiver_archive())))
    hello = {"ask": "hello", "version": PROTOCOL_VERSION, "caller": "a thief", "repos": [REPO.path]}
    return session, session.ask(hello)["challenge"]


def greeted(stack: ExitStack, edge: EdgeConfig, root: Path) -> Session:
    """A conversation of somebody who signs with the key of a root: the origin's, or a thief's."""
    session, challenge = opened(stack, edge, root / "state")
    return SealedSession(session, Signer(root), challenge)


def items(*blobs: Blob) -> list[list[Any]]:
    """Blobs as they travel."""
    return [[blob.algorithm, blob.digest, blob.size] for blob in blobs]


def begin(session: Session, *blobs: Blob, repo: str = REPO.path) -> dict[str, Any]:
    """Take the lock, and have the folder made."""
    return session.ask({"ask": "begin", "repo": repo, "blobs": items(*blobs)})


@contextmanager
def nobody_calls() -> Iterator[int]:
    """A port at which nobody may have called in the end."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        yield door.getsockname()[1]
        door.settimeout(CALL_S)
        with pytest.raises(TimeoutError):
            door.accept()


# The key does what it is for


def test_deliveries_go_on_as_with_a_receiver_that_is_sent(
    sshd: Sshd, edge: EdgeConfig, origin: Path, shown: Publication
) -> None:
    """The same commands; a changed blob travels as a delta; a broken delivery goes on where it stopped."""
    changed = {**FILES, "model.safetensors": FILES["model.safetensors"][: 2 * MIB] + noise(MIB, 9)}
    newer = publication(origin, {**changed, "new.safetensors": noise(2 * MIB, 5)})
    Tree(origin).publish(newer)
    whole = origin / "public" / sha256_blob(noise(2 * MIB, 5)).path
    (edge.root / INCOMING).mkdir()
    (edge.root / INCOMING / whole.name).write_bytes(whole.read_bytes()[:MIB])
    sshd.forget()
    delivery = run(edge, origin, newer)

    assert delivery.error is None
    assert served_files(edge.root, newer) == {**changed, "new.safetensors": noise(2 * MIB, 5)}
    assert delivery.bytes_saved >= 2 * MIB - (64 << 10)
    assert sshd.received_bytes() < 2 * MIB + TALK_BYTES
    assert sshd.logins() == 1


def test_an_older_receiver_names_the_command_that_brings_the_new_one(edge: EdgeConfig, tmp_path: Path) -> None:
    """Its protocol version, the origin's, and `mirrortool edge provision`."""
    session = transport_to(edge, tmp_path / "state").open(receiver_archive())
    with closing(session), pytest.raises(EdgeRefused, match=f"version {PROTOCOL_VERSION}, the origin 99") as refused:
        session.ask({"ask": "hello", "version": 99, "caller": "origin", "repos": []})

    assert "mirrortool edge provision bj1" in str(refused.value)


# The table


@pytest.mark.parametrize("options", [(), ("-tt",)])
def test_no_shell_and_no_other_program(sshd: Sshd, edge: EdgeConfig, options: Sequence[str]) -> None:
    """Nor a terminal: whatever is asked for, the receiver answers that it is not for that."""
    asked: Sequence[Sequence[str]] = (
        (),
        ("sh",),
        ("cat", "/etc/passwd"),
        ("bash", "-c", "'id >&2'"),
        ("python3", "-I", "-c", "'import os; os.system(\"id\")'", "0", "/"),
        ("`id`", ";", "id"),
    )
    for words in asked:
        done = ssh(sshd, *words, options=options, data=b"id\n")

        assert done.returncode != 0
        assert b"uid=" not in done.stdout + done.stderr
        assert b"root:" not in done.stdout + done.stderr
        assert b"mirrortools: this key" in done.stderr or b"PTY allocation request failed" in done.stderr


def test_what_is_sent_as_a_receiver_is_not_run(sshd: Sshd, edge: EdgeConfig, tmp_path: Path) -> None:
    """A program in the place of the receiver, and one in the place of what would start it, are read past."""
    evil = f"open({str(tmp_path / 'was-here')!r}, 'w')".encode()
    words = ["python3", "-I", "-c", shlex.quote(evil.decode()), str(len(evil)), str(edge.root)]
    done = ssh(sshd, *words, data=evil)

    assert done.returncode == 0
    assert not (tmp_path / "was-here").exists()


def test_no_sftp_and_no_scp(sshd: Sshd, edge: EdgeConfig, tmp_path: Path) -> None:
    """The subsystem ends at the same door."""
    place = f"{sshd.user}@127.0.0.1:/etc/passwd"
    port = ["-P" if option == "-p" else option for option in sshd.options]
    for program in (["sftp", *port], ["scp", *port], ["scp", "-O", *port]):
        done = subprocess.run([*program, place, str(tmp_path / "got")], capture_output=True, timeout=TIMEOUT_S)
        assert done.returncode != 0

    assert not (tmp_path / "got").exists()


def test_no_forwarding_and_no_terminal(sshd: Sshd, edge: EdgeConfig, tmp_path: Path) -> None:
    """Of ports in both directions, of sockets, of agents, of X11; no tun device; no pty for the receiver."""
    target, listening = free_port(), free_port()
    asked = [
        ("-W", f"127.0.0.1:{sshd.port}"),
        ("-o", "ExitOnForwardFailure=yes", "-R", f"127.0.0.1:{listening}:127.0.0.1:{target}"),
        ("-o", "ExitOnForwardFailure=yes", "-R", f"{tmp_path}/socket:127.0.0.1:{target}"),
        ("-w", "any"),
    ]
    for options in asked:
        done = ssh(sshd, options=options)
        assert done.returncode != 0, options
        assert b"SSH-2.0" not in done.stdout
    assert not (tmp_path / "socket").exists()

    said = ssh(sshd, "true", options=("-v", "-A", "-X", "-tt")).stderr.decode(errors="replace")
    assert "PTY allocation request failed" in said
    assert "SSH_AUTH_SOCK" not in said


def test_no_file_is_read(sshd: Sshd, edge: EdgeConfig, shown: Publication, tmp_path: Path) -> None:
    """An rsync that would send is never started."""
    got = tmp_path / "got"
    asked = (
        ("EDGE:/etc/passwd",),
        ("-s", "EDGE:/etc/passwd"),
        ("-a", f"EDGE:{edge.root}/state/"),
        ("-s", "-a", f"EDGE:{edge.root}/{INCOMING}/"),
        ("--files-from=:/etc/passwd", "EDGE:/"),
        ("-s", "EDGE::module/"),
    )
    for words in asked:
        done = rsync(sshd, *words, f"{got}/")

        assert done.returncode != 0
        assert not got.exists() or list(got.iterdir()) == []


@pytest.mark.parametrize("options", [("-s", "--append", "--perms"), ("--inplace", "-R")])
def test_nothing_is_written_elsewhere(
    sshd: Sshd, edge: EdgeConfig, shown: Publication, tmp_path: Path, options: Sequence[str]
) -> None:
    """Public files, keys, other folders of the root and of the host are as they were."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "evil").write_bytes(b"evil")
    before = everything(edge.root), everything(tmp_path / "outside")
    places = (
        f"{edge.root}/public/blobs/",
        f"{edge.root}/public/models/acme/tiny/refs/",
        f"{edge.root}/state/keys/",
        f"{edge.root}/state/incoming/",
        f"{edge.root}/{INCOMING}/../../keys/",
        f"{tmp_path}/outside/",
        "/etc/",
        "",
    )
    for place in places:
        done = rsync(sshd, *options, str(tmp_path / "evil"), f"EDGE:{place}")

        assert done.returncode != 0
        assert (everything(edge.root), everything(tmp_path / "outside")) == before


def test_options_of_the_other_sides_rsync_cannot_be_chosen(
    sshd: Sshd, edge: EdgeConfig, origin: Path, shown: Publication, tmp_path: Path
) -> None:
    """Even where it may write: an option that no origin has ends the call."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (tmp_path / "evil").write_bytes(b"evil")
    with ExitStack() as stack:
        begin(greeted(stack, edge, origin), sha256_blob(b"evil"))
    before = everything(edge.root), everything(outside)
    asked = (
        ("--delete", "-r"),
        ("-l",),
        ("-K",),
        (f"--remote-option=--log-file={outside}/log",),
        (f"--remote-option=--partial-dir={outside}", "--partial"),
        (f"--remote-option=--backup-dir={outside}", "--backup"),
        ("--remote-option=--write-devices",),
        ("--remote-option=--fake-super",),
        (f"--remote-option=--files-from={outside}/secret",),
        (f"--link-dest={outside}",),
        (f"--temp-dir={outside}",),
        ("--rsync-path=id;rsync",),
    )
    for options in asked:
        words = ["-s", "--append", *options, str(tmp_path / "evil")]
        done = rsync(sshd, *words, f"EDGE:{edge.root}/{INCOMING}/")

        assert done.returncode != 0
        assert "uid=" not in done.stdout
        assert (everything(edge.root), everything(outside)) == before


def test_what_rsync_may_bring_are_plain_files_in_one_folder(
    sshd: Sshd, edge: EdgeConfig, origin: Path, shown: Publication, tmp_path: Path
) -> None:
    """A client that claims other options than the edge runs with: no links, no devices, no folders, no set-user-id."""
    evil = tmp_path / "evil"
    (evil / "folder").mkdir(parents=True)
    (evil / "plain").write_bytes(b"evil")
    (evil / "plain").chmod(0o6777)
    (evil / "folder" / "below").write_bytes(b"evil")
    (evil / "link").symlink_to("/etc/passwd")
    os.mkfifo(evil / "pipe")
    with ExitStack() as stack:
        begin(greeted(stack, edge, origin), sha256_blob(b"evil"))
    before = everything(edge.root / "public")
    shell = liar(tmp_path, sshd, edge)
    for options in ([], ["-l"], ["-R"]):
        words = ["rsync", f"--rsh={shell}", "--append", "-p", *options, f"{evil}/plain", f"{evil}/link", f"{evil}/pipe"]
        words += [f"{evil}/folder", "x:y"]
        # Both wait for ever when one has understood the other's list otherwise.
        subprocess.run(["timeout", "3", *words], capture_output=True, timeout=TIMEOUT_S)
    made = everything(edge.root / INCOMING)

    assert {mode for mode, _ in made.values()} <= {0o100600}
    assert set(made) <= {"plain"}
    assert everything(edge.root / "public") == before


def test_a_link_in_incoming_leads_nowhere(
    sshd: Sshd, edge: EdgeConfig, origin: Path, shown: Publication, tmp_path: Path
) -> None:
    """Should one ever come to be there, it is removed before rsync may write, and is no way to adopt a file."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    blob = sha256_blob(b"secret")
    with ExitStack() as stack:
        session = greeted(stack, edge, origin)
        folder = edge.root / begin(session, blob)["folder"]
        (folder / blob.digest).symlink_to(secret)
        [[_, _, _, problem]] = session.ask(
            {"ask": "adopt", "repo": REPO.path, "blobs": [[blob.algorithm, blob.digest, blob.size]]}
        )["bad"]
        (folder / blob.digest).symlink_to(secret)
        begin(session, blob)

    assert "plain file" in problem
    assert list(folder.iterdir()) == []
    assert secret.read_bytes() == b"secret"


def test_nothing_is_published_moved_back_or_removed_without_the_origins_signature(
    edge: EdgeConfig, origin: Path, shown: Publication, tmp_path: Path
) -> None:
    """Not even in a delivery that the origin began: by another's, by an older one of the origin, nor by a repair."""
    older = Signer(origin).signed(shown)
    newer = publication(origin, {**FILES, "config.json": b'{"newer": true}'})
    Tree(origin).publish(newer)
    delivery = run(edge, origin, newer)
    assert delivery.changed
    before = everything(edge.root / "public")
    thief = tmp_path / "thief"
    evil = publication(thief, {**FILES, "config.json": b"evil"})
    attempts = [
        {"publication": evil.to_json(), "signed": Signer(thief).signed(evil).to_json()},
        {"publication": evil.to_json(), "signed": older.to_json()},
        {"publication": shown.to_json(), "signed": older.to_json()},
    ]
    with ExitStack() as stack:
        session = greeted(stack, edge, origin)
        with pytest.raises(EdgeError, match="believes another origin"):
            session.ask({"ask": "trust", "signer": Signer(thief).signer, "introduction": None})
        begin(session)
        for attempt in attempts:
            with pytest.raises(MirrorError):
                session.ask({"ask": "publish", **attempt})
        held = [[blob.algorithm, blob.digest, blob.size] for blob in sorted(newer.blobs)]
        assert session.ask({"ask": "audit", "blobs": held, "set_aside": True}) == {"bad": []}
        assert session.ask({"ask": "links", "repo": REPO.path, "set_aside": True}) == {"wrong": {}}

    assert everything(edge.root / "public") == before


def test_no_delivery_begins_without_the_origins_signature(
    sshd: Sshd, edge: EdgeConfig, origin: Path, shown: Publication, tmp_path: Path
) -> None:
    """None, a thief's, the origin's of another conversation or of other blobs: no lock, no folder, no blob."""
    evil = sha256_blob(b"evil")
    put(tmp_path / "thief", evil, b"evil")
    request = {"ask": "begin", "repo": REPO.path, "blobs": items(evil)}
    before = everything(edge.root)
    with ExitStack() as stack:
        session, challenge = opened(stack, edge, tmp_path / "thief" / "state")
        _, another = opened(stack, edge, tmp_path / "thief" / "state")
        seals: list[object] = [None, 7, "", Signer(tmp_path / "thief").seal(sealed_text(request, challenge))]
        seals += [sealed(Signer(origin), another, request)[SEAL]]
        seals += [sealed(Signer(origin), challenge, {**request, "blobs": []})[SEAL]]
        for seal in seals:
            with pytest.raises(EdgeRefused, match="sign"):
                session.ask({**request, SEAL: seal})
        carried = {"contents": [[*items(evil)[0], b64encode(b"evil").decode()]]}
        for ask in ("adopt", "patch", "carry", "relay", "publish"):
            with pytest.raises(EdgeRefused):
                session.ask(
                    {**request, **carried, "ask": ask, "passport": new_passport(), "ports": None, "limit": None}
                )
        batch = Batch([evil], tmp_path / "thief" / "public", INCOMING)
        with pytest.raises(EdgeError, match="a delivery begins it"):
            session.send(batch)
        assert everything(edge.root) == before
        begin(greeted(stack, edge, origin))  # nobody holds the lock


def test_no_blob_comes_in_that_the_origin_did_not_name(
    edge: EdgeConfig, origin: Path, shown: Publication, tmp_path: Path
) -> None:
    """What lies in incoming beside a delivery of the origin's is not adopted, whatever it hashes to."""
    good, evil = sha256_blob(b"good"), sha256_blob(b"evil")
    with ExitStack() as stack:
        session = greeted(stack, edge, origin)
        folder = edge.root / begin(session, good)["folder"]
        for content in (b"good", b"evil"):
            (folder / sha256_blob(content).digest).write_bytes(content)
        carried = {"contents": [[*items(evil)[0], b64encode(b"evil").decode()]]}
        for ask, more in (
            ("adopt", {}),
            ("carry", carried),
            ("relay", {"passport": new_passport(), "ports": None, "limit": None}),
        ):
            with pytest.raises(EdgeRefused, match="was not named when the delivery began"):
                session.ask({"ask": ask, "repo": REPO.path, "blobs": items(good, evil), **more})
        assert session.ask({"ask": "adopt", "repo": REPO.path, "blobs": items(good)}) == {"bad": []}

    assert Store(edge.root).missing([good, evil]) == [evil]


def test_nobody_writes_into_what_is_being_adopted(
    sshd: Sshd, edge: EdgeConfig, origin: Path, shown: Publication
) -> None:
    """A thief's rsync, which may hold any file in incoming open, has ended before the edge hashes what came."""
    blob, content = sha256_blob(noise(MIB, 9)), noise(MIB, 9)
    words = "".join(f"{word}\0" for word in ("rsync", "--append", ".", f"{edge.root}/{INCOMING}/", ""))
    command = ["ssh", *sshd.options, "-l", sshd.user, "127.0.0.1", "rsync --server -spe.LsfxCIvu"]
    adopted = threading.Event()
    with ExitStack() as stack:
        session = greeted(stack, edge, origin)
        begin(session, blob)
        thief = stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        assert thief.stdin
        assert thief.stdout
        thief.stdin.write(words.encode())
        thief.stdin.flush()
        assert thief.stdout.read(4)  # its version of the protocol: it is in
        (edge.root / INCOMING / blob.digest).write_bytes(content)
        answers: list[dict[str, Any]] = []

        def adopt() -> None:
            answers.append(session.ask({"ask": "adopt", "repo": REPO.path, "blobs": items(blob)}))
            adopted.set()

        threading.Thread(target=adopt, daemon=True).start()
        is_early = adopted.wait(CALL_S)
        thief.kill()

        assert adopted.wait(TIMEOUT_S)
    assert (is_early, answers) == (False, [{"bad": []}])
    assert Store(edge.root).has(blob)


def test_a_relay_connects_to_whom_the_origin_names(
    edge: EdgeConfig, origin: Path, shown: Publication, tmp_path: Path
) -> None:
    """A thief cannot have it listen, nor call anybody; nor is an address exchanged in what the origin has signed."""
    passport, blob = new_passport(), sha256_blob(noise(MIB, 77))
    with ExitStack() as stack:
        thief, _ = opened(stack, edge, tmp_path / "thief" / "state")
        session, challenge = opened(stack, edge, origin / "state")
        begin(SealedSession(session, Signer(origin), challenge), blob)
        relay = {"ask": "relay", "repo": REPO.path, "blobs": items(blob), "passport": passport}
        relay |= {"ports": None, "limit": None}
        with pytest.raises(EdgeRefused, match="without a begin"):
            thief.ask(relay)
        session.ask(relay)
        named = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        draw = {"ask": "draw", "repo": REPO.path, "number": 1, "limit": None}
        signed = sealed(Signer(origin), challenge, {**draw, "from": [["127.0.0.1", named.getsockname()[1]]]})
        with nobody_calls() as port:
            place = {"from": [["127.0.0.1", port]]}
            for talk, request in ((thief, draw), (session, draw), (thief, signed), (session, signed)):
                with pytest.raises(EdgeRefused, match="sign"):
                    talk.ask({**request, **place})
        session.ask(signed)
        named.settimeout(TIMEOUT_S)
        named.accept()[0].close()


def test_the_disk_is_not_filled_beyond_the_limit(
    sshd: Sshd, edge: EdgeConfig, origin: Path, shown: Publication, tmp_path: Path
) -> None:
    """The origin is told before it sends; a thief who sends all the same is stopped, and the message says by what."""
    content = noise(64 * MIB)
    put(tmp_path / "thief", sha256_blob(content), content)
    with ExitStack() as stack:
        session = greeted(stack, edge, origin)
        answer = begin(session, sha256_blob(content))
        batch = Batch([sha256_blob(content)], tmp_path / "thief" / "public", answer["folder"])
        with pytest.raises(NoSpace, match=r"may hold 24.0 MiB \(incoming_limit\)"):
            session.send(batch)
        arrived = sum(path.stat().st_size for path in (edge.root / answer["folder"]).iterdir())
        (edge.root / INCOMING / "more").write_bytes(b"x" * (LIMIT_BYTES + 1 - arrived))
        with pytest.raises(NoSpace, match=r"may hold 24.0 MiB \(incoming_limit\)"):
            session.send(batch)
        begin(session, sha256_blob(content))
        assert not (edge.root / INCOMING / "more").exists()

    assert answer["free_bytes"] <= LIMIT_BYTES
    assert arrived <= LIMIT_BYTES


def test_many_small_files_are_stopped_too(edge: EdgeConfig, origin: Path, shown: Publication, tmp_path: Path) -> None:
    """No single one is large; their sum is looked at while they come."""
    contents = [noise(MIB, seed) for seed in range(40)]
    for content in contents:
        put(tmp_path / "thief", sha256_blob(content), content)
    blobs = [sha256_blob(content) for content in contents]
    slow = replace(edge, rate_limit_bytes_s=30 * MIB)
    with ExitStack() as stack:
        session = greeted(stack, slow, origin)
        answer = begin(session, *blobs)
        with pytest.raises(NoSpace, match="incoming_limit"):
            session.send(Batch(blobs, tmp_path / "thief" / "public", answer["folder"]))

    assert Store(edge.root).missing(blobs) == sorted(blobs)


def test_a_gate_takes_what_comes_compressed(sshd: Sshd, edge: EdgeConfig, shown: Publication, origin: Path) -> None:
    """On a slow way texts come at a fraction of their size, and arrive as they are."""
    files = {**FILES, "data.safetensors": b"".join(b'{"id": %d, "text": "a line"}\n' % n for n in range(100_000))}
    newer = publication(origin, files)
    sshd.forget()
    with EdgePool(Scope({"bj1": replace(edge, rate_limit_bytes_s=8 * MIB)}, origin, [shown.repo])) as pool:
        [delivery] = pool.deliver(newer, ["bj1"])

    assert delivery.error is None
    assert served_files(edge.root, newer) == files
    assert delivery.bytes_sent < len(files["data.safetensors"]) // 2
