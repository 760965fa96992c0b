"""The gate: what it takes for an origin's wish, and what it refuses, whatever the caller writes."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrortools.bounds import Bounds, held_bytes
from mirrortools.errors import EdgeRefused
from mirrortools.files import make_folder
from mirrortools.frames import PROTOCOL_VERSION
from mirrortools.gate import Bulk, Post, Talk, incoming_name, open_incoming, read_words, skip, wish
from mirrortools.locks import RepositoryLock
from mirrortools.receiver import Receiver
from mirrortools.signing import Signer
from mirrortools.transports.archive import hand_over_command, receiver_command
from tests.delivery import REPO, sealed, small_disk

ROOT = Path("/srv/mirrortools")
INCOMING = f"{ROOT}/state/incoming"
FOLDER = "models%2Facme%2Ftiny"


def test_an_origins_own_words_are_understood() -> None:
    """The same that it asks of an edge where nothing is installed."""
    relay = f"mirrortools-{'a' * 32}"

    assert wish(shlex.join(receiver_command("python3", b"", str(ROOT))), ROOT) == Talk(0)
    assert wish(shlex.join(hand_over_command("python3", str(ROOT), relay)), ROOT) == Talk(0, relay)
    assert wish("rsync --server -spe.LsfxCIvu", ROOT) == Bulk(".LsfxCIvu")
    assert wish("rsync --server -pse31.14LsfxCIvu", ROOT) == Bulk("31.14LsfxCIvu")
    assert wish("rsync --server -spze.LsfxCIvu", ROOT) == Bulk(".LsfxCIvu", is_compressed=True)


@pytest.mark.parametrize(
    "command",
    [
        "",
        "sh",
        "internal-sftp",
        "/usr/lib/openssh/sftp-server",
        "scp -t /srv/mirrortools/public",
        "git-upload-pack x",
        "rsync --server --daemon .",
        "rsync --server --sender -spe.LsfxCIvu",
        "rsync --server -logDtpre.iLsfxCIvu . /etc",
        "rsync --server -spe.LsfxCIvu --log-file=/etc/cron.d/x",
        "rsync --server -spe.Ls;id",
        "rsync --server '-spe.Ls id'",
        "rsync --server -sple.LsfxCIvu",
        "rsync --server -se",
        "/tmp/rsync --server -spe.LsfxCIvu",
        "python3 -I -c 'import os' 5 /etc",
        "python3 -I -c 'import os' 5 /srv/mirrortools/../other",
        "python3 -I -c 'import os' -5 /srv/mirrortools",
        "python3 -I -c 'import os' 9999999 /srv/mirrortools",
        "python3 -c 'import os' 5 /srv/mirrortools x",
        "python3 -I -c 'import os' 5 /srv/mirrortools; id",
        "python3 -I -c 'unfinished",
    ],
)
def test_everything_else_is_refused(command: str) -> None:
    """Another program, another root, an rsync that reads, or that has an option more."""
    with pytest.raises(EdgeRefused):
        wish(command, ROOT)


@given(st.text(max_size=300))
def test_no_text_is_a_wish_by_accident(command: str) -> None:
    """Whatever comes is understood or refused, and nothing else happens."""
    with contextlib.suppress(EdgeRefused):
        wish(command, ROOT)


WORDS = ["rsync", "--timeout=120", "--bwlimit=100", "--stats", "--append", ".", f"{INCOMING}/{FOLDER}/"]


def test_rsyncs_words_name_a_folder() -> None:
    """What stands between is passed over, because our own words take its place."""
    assert incoming_name(WORDS, ROOT) == FOLDER


@pytest.mark.parametrize(
    "option",
    [
        "--delete",
        "--remove-source-files",
        "--sender",
        "--daemon",
        "--config=/etc/x",
        "--log-file=/etc/cron.d/x",
        "--files-from=/etc/shadow",
        "--temp-dir=/",
        "--partial-dir=/etc",
        "--backup-dir=/etc",
        "--copy-dest=/etc",
        "--link-dest=/etc",
        "--write-batch=/etc/x",
        "--rsync-path=id",
        "--rsh=id",
        "-e",
        "-rl",
        "--links",
        "--devices",
        "--write-devices",
        "--copy-dirlinks",
        "--keep-dirlinks",
        "--fake-super",
        "--chmod=u+s",
        "--timeout=1 --delete",
        "--append\n--delete",
        "--append\n",
        "-M--delete",
        "-",
        "",
    ],
)
def test_an_option_that_no_origin_has_is_refused(option: str) -> None:
    """Each of them has been a way out of some wrapper around rsync."""
    with pytest.raises(EdgeRefused):
        incoming_name([*WORDS[:3], option, *WORDS[3:]], ROOT)


@pytest.mark.parametrize(
    "place",
    [
        "/",
        "/etc/",
        ".",
        "",
        f"{INCOMING}/",
        f"{INCOMING}//",
        f"{INCOMING}/../",
        f"{INCOMING}/./",
        f"{INCOMING}/..%2F..%2Fpublic/",
        f"{INCOMING}/{FOLDER}",
        f"{INCOMING}/{FOLDER}/../",
        f"{INCOMING}/{FOLDER}/x/",
        f"{INCOMING}/{FOLDER}//",
        f"{INCOMING}/models/acme/tiny/",
        f"{INCOMING}/models%2facme%2ftiny/",
        f"{INCOMING}/{FOLDER}@ahead/",
        f"{INCOMING}/acme%2Ftiny/",
        f"{INCOMING}/models%2F..%2F../",
        f"{INCOMING}/models%2Facme%2Ftiny%00/",
        f"{ROOT}/public/{FOLDER}/",
        f"/srv/other/state/incoming/{FOLDER}/",
        f"state/incoming/{FOLDER}/",
        f"{ROOT}/../mirrortools/state/incoming/{FOLDER}/",
    ],
)
def test_files_may_come_into_the_folder_of_a_repository_alone(place: str) -> None:
    """One exact spelling; no dots, no second slash, no other root."""
    with pytest.raises(EdgeRefused):
        incoming_name([*WORDS[:-1], place], ROOT)


@pytest.mark.parametrize("words", [[], ["rsync"], ["rsync", "."], ["sh", ".", WORDS[-1]], [*WORDS, "/etc/"]])
def test_other_numbers_of_words_are_refused(words: list[str]) -> None:
    """A second place to write to among them."""
    with pytest.raises(EdgeRefused):
        incoming_name(words, ROOT)


def test_rsyncs_words_are_read_without_a_byte_of_what_follows() -> None:
    """The protocol begins right behind them, for rsync to read."""
    pipe = io.BytesIO(b"rsync\0--append\0.\0/x/\0\0protocol")

    assert read_words(pipe.read) == ["rsync", "--append", ".", "/x/"]
    assert pipe.read() == b"protocol"


@pytest.mark.parametrize("data", [b"", b"rsync\0.", b"x" * 10_000])
def test_words_that_do_not_end_are_refused(data: bytes) -> None:
    """Memory does not grow with what a caller sends."""
    with pytest.raises(EdgeRefused, match="do not end"):
        read_words(io.BytesIO(data).read)


def test_a_receiver_that_was_sent_is_read_past() -> None:
    """Frames follow right behind it; one that ends early is an error."""
    pipe = io.BytesIO(b"x" * 100_000 + b"frame")
    skip(pipe.read, 100_000)

    assert pipe.read() == b"frame"
    with pytest.raises(EdgeRefused, match="incomplete"):
        skip(io.BytesIO(b"x").read, 2)


@pytest.mark.parametrize("link", ["state", "state/incoming", f"state/incoming/{FOLDER}"])
def test_a_folder_behind_a_symlink_is_not_opened(tmp_path: Path, link: str) -> None:
    """Not even when the account itself made it."""
    make_folder(tmp_path / "root" / "state" / "incoming" / FOLDER)
    os.close(open_incoming(tmp_path / "root", FOLDER))
    (tmp_path / "root" / link).rename(tmp_path / "elsewhere")
    (tmp_path / "root" / link).symlink_to(tmp_path / "elsewhere")

    with pytest.raises(EdgeRefused, match=FOLDER):
        open_incoming(tmp_path / "root", FOLDER)


def test_a_folder_that_no_delivery_began_is_not_made(tmp_path: Path) -> None:
    """`begin` makes it, under the repository's lock."""
    with pytest.raises(EdgeRefused, match="a delivery begins it"):
        open_incoming(tmp_path, FOLDER)


def test_what_stands_in_authorized_keys_is_read() -> None:
    """Sizes are bytes there."""
    post = Post.parse(["--edge=bj1", "--incoming-limit=5", "--min-free=7", "/srv/a b"])

    assert post == Post("bj1", Path("/srv/a b"), Bounds(5, 7))
    assert Post.parse(["--edge=bj1", "/srv/x"]) == Post("bj1", Path("/srv/x"), Bounds())


def test_an_installed_receiver_that_is_older_than_its_origin_says_what_to_do(tmp_path: Path) -> None:
    """Which version speaks which, and the command that brings the new one."""
    hello = {"ask": "hello", "version": PROTOCOL_VERSION + 1, "repos": []}
    answer = Receiver(tmp_path, installed_as="bj1").answer(hello)

    assert f"speaks version {PROTOCOL_VERSION}, the origin {PROTOCOL_VERSION + 1}" in answer["text"]
    assert "run `mirrortool edge provision bj1` on the origin" in answer["text"]
    assert "provision" not in Receiver(tmp_path).answer(hello)["text"]


def test_what_is_free_is_told_within_the_bounds(tmp_path: Path) -> None:
    """So that the origin refuses before it sends what would not fit."""
    bounds = Bounds(incoming_bytes=1000)
    receiver, origin = Receiver(tmp_path, bounds=bounds), Signer(tmp_path / "origin")
    receiver.answer({"ask": "hello", "version": PROTOCOL_VERSION, "repos": []})
    receiver.answer({"ask": "trust", "signer": origin.signer, "introduction": None})
    folder = tmp_path / "state" / "incoming" / FOLDER
    make_folder(folder)
    (folder / "x").write_bytes(b"x" * 300)
    begin = {"ask": "begin", "repo": "models/acme/other", "blobs": []}
    first = receiver.answer(sealed(origin, receiver.challenge, begin))["free_bytes"]
    (folder / "y").write_bytes(b"y" * 800)
    with contextlib.closing(RepositoryLock(tmp_path, REPO, "a delivery that goes on")):
        refused = receiver.answer(sealed(origin, receiver.challenge, begin))
    held = held_bytes(tmp_path)
    accepted = receiver.answer(sealed(origin, receiver.challenge, begin))
    receiver.close()

    assert (first, held) == (700, 1100)
    assert refused["error"] == "NoSpace"
    assert "holds 1.1 KiB and may hold 1000 B (incoming_limit)" in refused["text"]
    assert accepted["free_bytes"] == 1000  # what nobody is at makes room


def test_what_must_stay_free_stays_free(tmp_path: Path) -> None:
    """A disk that is fuller than that takes nothing; one with room takes what is above it."""
    with small_disk(tmp_path / "disk", 2 << 20) as disk:
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize

        assert Bounds(min_free_bytes=free - 4096).room_bytes(disk) == 4096
        assert Bounds(min_free_bytes=free - 4096).objection(disk) is None
        assert Bounds(min_free_bytes=free - 4096).objection(disk, more_bytes=4097) is not None
        assert Bounds(min_free_bytes=free + 1).room_bytes(disk) == 0
        assert "No space left on device" in (Bounds(min_free_bytes=free + 1).objection(disk) or "")
        for number in range(int(os.statvfs(disk).f_favail * 0.99)):
            (disk / str(number)).touch()
        assert "inodes" in (Bounds(min_free_bytes=1).objection(disk) or "")
