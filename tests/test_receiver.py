"""The receiver: what it says, what it refuses, and that nothing unverified becomes visible."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirrortools.berth import Berth
from mirrortools.bounds import Bounds
from mirrortools.callers import serve
from mirrortools.errors import EdgeRefused
from mirrortools.feeding import read_some
from mirrortools.frames import LIMIT_BYTES, PROTOCOL_VERSION, frame, read_frame
from mirrortools.inlet import Inlet
from mirrortools.model import Blob, Publication, Realm
from mirrortools.notes import BELIEVED_S
from mirrortools.passport import calling, new_passport
from mirrortools.receiver import Receiver
from mirrortools.relay import call
from mirrortools.roll import Roll
from mirrortools.shown import digest_of
from mirrortools.signatures import fingerprint
from mirrortools.signing import Signer
from mirrortools.statements import LIFETIME_S, Signed
from mirrortools.store import Store
from mirrortools.tree import Tree
from tests.delivery import REPO, noise, publication, put, sealed, served_files, sha256_blob

PROJECT = Path(__file__).parent.parent
FILES = {"model.safetensors": noise(5000), "README.md": b"# tiny\n", "empty.txt": b""}


def hello(receiver: Receiver, **more: Any) -> dict[str, Any]:
    return receiver.answer({"ask": "hello", "version": PROTOCOL_VERSION, "caller": "origin", "repos": [], **more})


def items(*blobs: Blob) -> list[list[Any]]:
    return [[blob.algorithm, blob.digest, blob.size] for blob in sorted(blobs)]


def begin(receiver: Receiver, *blobs: Blob) -> dict[str, Any]:
    """As the origin does that lies beside the edge."""
    request = {"ask": "begin", "repo": REPO.path, "blobs": items(*blobs)}
    return receiver.answer(sealed(Signer(receiver.root.with_name("origin")), receiver.challenge, request))


def adopt(receiver: Receiver, *blobs: Blob) -> dict[str, Any]:
    return receiver.answer({"ask": "adopt", "repo": REPO.path, "blobs": items(*blobs)})


def publish(receiver: Receiver, shown: Publication, signed: Signed, **more: Any) -> dict[str, Any]:
    document = {**shown.to_json(), **more}
    return receiver.answer({"ask": "publish", "publication": document, "signed": signed.to_json()})


def trust(receiver: Receiver, signer: str, introduction: str | None = None) -> dict[str, Any]:
    return receiver.answer({"ask": "trust", "signer": signer, "introduction": introduction})


def state(receiver: Receiver) -> dict[str, Any]:
    answer = receiver.answer({"ask": "state", "repos": [REPO.path]})["state"][REPO.path]
    assert isinstance(answer, dict)
    return answer


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where the edge's tree will be."""
    return tmp_path / "edge"


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    """The origin's key."""
    return Signer(tmp_path / "origin")


@pytest.fixture
def receiver(root: Path, signer: Signer) -> Iterator[Receiver]:
    """A receiver that was greeted, and believes the origin."""
    receiver = Receiver(root)
    assert "error" not in hello(receiver)
    assert trust(receiver, signer.signer) == {}
    yield receiver
    receiver.close()


@pytest.fixture
def shown(tmp_path: Path) -> Publication:
    """What the origin publishes."""
    return publication(tmp_path / "origin", FILES)


def bring(receiver: Receiver, shown: Publication, origin: Path) -> dict[str, Any]:
    """Do what an origin does, with a copy in the place of rsync."""
    begun = begin(receiver, *shown.blobs)
    for _, digest, _, _ in begun["missing"]:
        blob = next(blob for blob in shown.blobs if blob.digest == digest)
        (receiver.root / begun["folder"] / digest).write_bytes(Store(origin).path(blob).read_bytes())
    assert adopt(receiver, *shown.blobs) == {"bad": []}
    return publish(receiver, shown, Signer(origin).signed(shown))


def test_a_whole_delivery_is_served_and_leaves_nothing_in_incoming(
    receiver: Receiver, shown: Publication, signer: Signer, tmp_path: Path
) -> None:
    """begin, adopt, publish: the files are served, state says so, incoming is empty, the statement can be read."""
    answer = bring(receiver, shown, tmp_path / "origin")
    signed = signer.signed(shown)

    assert answer == {"changed": True, "state": {"serial": signed.statement.serial, "parts": shown.digests()}}
    assert served_files(receiver.root, shown) == FILES
    assert state(receiver) == answer["state"]
    assert Tree(receiver.root).statement(REPO) == signed
    assert list((receiver.root / "state" / "incoming").iterdir()) == []


# What comes in a request


def carry(receiver: Receiver, *contents: tuple[Blob, bytes]) -> dict[str, Any]:
    carried = [[blob.algorithm, blob.digest, blob.size, b64encode(content).decode()] for blob, content in contents]
    return receiver.answer({"ask": "carry", "repo": REPO.path, "contents": carried})


def test_blobs_that_are_carried_are_hashed_like_others(receiver: Receiver) -> None:
    """They take the place of what lay in incoming; one that is wrong is gone, and the reason told."""
    contents = [b"%d" % number for number in range(20)]
    blobs = [sha256_blob(content) for content in contents]
    folder = receiver.root / begin(receiver, *blobs)["folder"]
    (folder / blobs[0].digest).write_bytes(b"an older part")
    lied = [(blobs[0], b"X"), *zip(blobs[1:], contents[1:], strict=True)]
    answers = [
        carry(receiver, *lied),
        adopt(receiver, *blobs),
        carry(receiver, (blobs[0], b"0")),
        adopt(receiver, *blobs),
    ]

    assert answers[0] == answers[2] == {}
    assert [digest for _, digest, _, _ in answers[1]["bad"]] == [blobs[0].digest]
    assert answers[3] == {"bad": []}
    assert Store(receiver.root).missing(blobs) == []
    assert [Store(receiver.root).path(blob).read_bytes() for blob in blobs] == contents
    assert Store(receiver.root).path(blobs[3]).stat().st_mode & 0o777 == 0o444
    assert list(folder.iterdir()) == []


def test_what_is_carried_follows_no_link(receiver: Receiver, tmp_path: Path) -> None:
    """A link in incoming is replaced, not written through."""
    (tmp_path / "outside").write_bytes(b"kept")
    blob = sha256_blob(b"good")
    folder = receiver.root / begin(receiver, blob)["folder"]
    (folder / blob.digest).symlink_to(tmp_path / "outside")
    answer = carry(receiver, (blob, b"good"))

    assert answer == {}
    assert (tmp_path / "outside").read_bytes() == b"kept"
    assert adopt(receiver, blob) == {"bad": []}


def test_carried_blobs_are_those_that_were_named_and_keep_to_the_bounds(root: Path, signer: Signer) -> None:
    """Without a begin, of another name or size, or where there is no room, nothing is written."""
    receiver = Receiver(root, bounds=Bounds(incoming_bytes=10))
    hello(receiver)
    trust(receiver, signer.signer)
    good, evil, large = b"good", b"evil", noise(20)
    early = carry(receiver, (sha256_blob(good), good))
    folder = root / begin(receiver, sha256_blob(good), sha256_blob(large))["folder"]
    answers = [carry(receiver, (sha256_blob(c), c)) for c in (evil, large)] + [
        carry(receiver, (sha256_blob(good), evil * 2))
    ]
    answers.append(
        receiver.answer({"ask": "carry", "repo": REPO.path, "contents": [[*items(sha256_blob(good))[0], "?"]]})
    )
    receiver.close()

    assert [answer["error"] for answer in (early, *answers)] == [
        "EdgeRefused",
        "EdgeRefused",
        "NoSpace",
        "EdgeRefused",
        "EdgeRefused",
    ]
    assert list(folder.iterdir()) == []


# What goes ahead of a publication


def begin_ahead(receiver: Receiver, *blobs: Blob) -> dict[str, Any]:
    request = {"ask": "begin", "ahead": True, "repo": REPO.path, "blobs": items(*blobs)}
    return receiver.answer(sealed(Signer(receiver.root.with_name("origin")), receiver.challenge, request))


@pytest.fixture
def another(receiver: Receiver) -> Iterator[Receiver]:
    """A second conversation of the same origin's."""
    another = Receiver(receiver.root)
    hello(another)
    yield another
    another.close()


CONTENT = noise(3000, 7)
BLOB = sha256_blob(CONTENT)


def part(receiver: Receiver, begun: dict[str, Any], count: int) -> Path:
    """Let so much of the blob arrive."""
    place: Path = receiver.root / begun["folder"] / BLOB.digest
    place.write_bytes(CONTENT[:count])
    return place


def arrived(begun: dict[str, Any]) -> list[int]:
    return [have for _, _, _, have in begun["missing"]]


def test_what_goes_ahead_keeps_nobody_from_the_repository(
    receiver: Receiver, another: Receiver, shown: Publication, tmp_path: Path
) -> None:
    """Meanwhile it is delivered from elsewhere, described and noted; what came ahead stays, and shows nothing."""
    came = part(receiver, begin_ahead(receiver, BLOB), 1000)
    bring(another, shown, tmp_path / "origin")
    described = another.answer({"ask": "describe", "repo": REPO.path})
    refused = publish(receiver, shown, Signer(tmp_path / "origin").signed(shown))

    assert served_files(receiver.root, shown) == FILES
    assert "error" not in described
    assert list(noted(another)["shown"]) == [REPO.path]
    assert refused["error"] == "EdgeRefused"
    assert "to go ahead" in refused["text"]
    assert came.stat().st_size == 1000
    part(receiver, {"folder": came.parent.relative_to(receiver.root)}, len(CONTENT))
    assert adopt(receiver, BLOB) == {"bad": []}
    assert Store(receiver.root).has(BLOB)


def test_a_delivery_goes_on_with_what_came_ahead(receiver: Receiver, another: Receiver) -> None:
    """When nobody is at it any more, in the same conversation or after it; before that each has what came to itself."""
    ahead = begin_ahead(receiver, BLOB)
    came = part(receiver, ahead, 1000)
    during = begin(another, BLOB)
    told = another.answer({"ask": "have", "repo": REPO.path, "blobs": items(BLOB)})
    another.close()
    same = begin(receiver, BLOB)
    part(receiver, same, 2000)
    receiver.close()
    later = begin_ahead(another, BLOB)

    assert [arrived(each) for each in (ahead, during, told, same, later)] == [[0], [0], [1000], [1000], [2000]]
    assert (ahead["folder"], same["folder"]) == (f"{during['folder']}@ahead", during["folder"])
    assert came.read_bytes() == CONTENT[:2000]
    assert [path.name for path in (receiver.root / "state" / "incoming").iterdir()] == [came.parent.name]


def test_of_a_blob_in_both_berths_the_longer_part_is_kept(receiver: Receiver) -> None:
    """Wherever that is; what the store has by now is needed nowhere."""
    other = sha256_blob(b"other")
    found = []
    for first, second in ((1000, 2000), (2000, 1000)):
        ahead = begin_ahead(receiver, BLOB, other)
        folder = part(receiver, ahead, second).parent
        (folder / other.digest).write_bytes(b"other")
        plain = folder.with_name(folder.name.removesuffix("@ahead"))
        plain.mkdir(exist_ok=True)
        (plain / BLOB.digest).write_bytes(CONTENT[:first])
        put(receiver.root, other, b"other")
        found.append((arrived(begin(receiver, BLOB, other)), folder.exists()))

    assert found == [([2000], False), ([2000], False)]


def test_a_word_that_a_receiver_does_not_know_is_passed_over(receiver: Receiver) -> None:
    """So an edge that is older than what goes ahead begins as it always did; the origin's seal is over all words."""
    request = {"ask": "begin", "a word of later": True, "repo": REPO.path, "blobs": items(BLOB)}
    begun = receiver.answer(sealed(Signer(receiver.root.with_name("origin")), receiver.challenge, request))

    assert arrived(begun) == [0]


def test_what_a_delivery_does_not_name_waits_where_it_came_ahead(
    receiver: Receiver, shown: Publication, tmp_path: Path
) -> None:
    """A fetch that failed is made good later; until then what was published before is delivered as ever."""
    came = part(receiver, begin_ahead(receiver, BLOB), 1000)
    bring(receiver, shown, tmp_path / "origin")

    assert served_files(receiver.root, shown) == FILES
    assert came.stat().st_size == 1000
    assert arrived(begin_ahead(receiver, BLOB)) == [1000]


def test_what_goes_ahead_twice_does_not_mix(receiver: Receiver, another: Receiver) -> None:
    """The second is told who is at it, and is let in when the first has gone."""
    part(receiver, begin_ahead(receiver, BLOB), 1000)
    refused = begin_ahead(another, BLOB)
    receiver.close()

    assert refused["error"] == "Locked"
    assert "what goes ahead of a delivery from 'origin'" in refused["text"]
    assert arrived(begin_ahead(another, BLOB)) == [1000]


def test_what_an_rsync_may_still_write_does_not_go_ahead(receiver: Receiver) -> None:
    """It stays where it is as long as anybody is in the inlet."""
    came = part(receiver, begin(receiver, BLOB), 1000)
    entered = Inlet(Berth(receiver.root, REPO)).enter()
    during = begin_ahead(receiver, BLOB)
    os.close(entered)
    after = begin_ahead(receiver, BLOB)

    assert (arrived(during), arrived(after)) == ([0], [1000])
    assert not came.exists()


def test_what_comes_ahead_counts_among_what_may_come(root: Path, signer: Signer) -> None:
    """Who delivers at the same time is refused when both are too much; when it was broken off it makes room."""
    receivers = [Receiver(root, bounds=Bounds(incoming_bytes=4000)) for _ in range(2)]
    for receiver in receivers:
        hello(receiver)
        trust(receiver, signer.signer)
    other = noise(3500, 8)
    part(receivers[0], begin_ahead(receivers[0], BLOB), 2000)
    begun = begin(receivers[1], sha256_blob(other))
    full = carry(receivers[1], (sha256_blob(other), other))
    receivers[0].close()
    again = begin(receivers[1], sha256_blob(other))
    taken = carry(receivers[1], (sha256_blob(other), other))
    receivers[1].close()

    assert (begun["free_bytes"], again["free_bytes"]) == (2000, 4000)
    assert (full["error"], taken) == ("NoSpace", {})


# What was noted to be shown


def noted(receiver: Receiver, *names: str) -> dict[str, Any]:
    """What an origin hears that believes notes."""
    return receiver.answer({"ask": "state", "repos": [*names] or [REPO.path], "brief": True})


def test_what_was_published_is_told_by_its_note(receiver: Receiver, shown: Publication, tmp_path: Path) -> None:
    """No blob is looked at then; who does not believe notes has them looked at, as before."""
    answer = bring(receiver, shown, tmp_path / "origin")
    digest = digest_of(Signer(tmp_path / "origin").signed(shown).text)
    told = noted(receiver)
    Store(receiver.root).path(max(shown.blobs)).unlink()

    assert told == noted(receiver) == {"shown": {REPO.path: digest}, "state": {}}
    assert state(receiver) == {"serial": answer["state"]["serial"], "parts": {}}


def test_a_note_is_taken_back_before_anything_changes(receiver: Receiver, shown: Publication, tmp_path: Path) -> None:
    """From `begin` to the end of `publish` there is none, and a repository that somebody works on gets none."""
    bring(receiver, shown, tmp_path / "origin")
    newer = publication(tmp_path / "origin", {**FILES, "README.md": b"# newer\n"})
    second = Receiver(receiver.root)
    hello(second)
    begin(receiver, *newer.blobs)
    during = [noted(second), noted(second)]
    receiver.close()
    after = [noted(second), noted(second)]

    assert [list(each["shown"]) for each in (*during, *after)] == [[], [], [], [REPO.path]]
    assert during[0]["state"][REPO.path]["parts"] == shown.digests()


def test_what_was_told_of_is_not_read_again(receiver: Receiver, shown: Publication, tmp_path: Path) -> None:
    """A manifest that need not travel is the one that `state` told of, and is put right with what is published."""
    bring(receiver, shown, tmp_path / "origin")
    state(receiver)
    (commit,) = shown.manifests
    record = receiver.root / "public" / REPO.path / "meta" / commit / "manifest.json"
    whole = record.read_bytes()
    record.write_bytes(b"{")
    begin(receiver, *shown.blobs)
    request = {"ask": "publish", "publication": shown.to_json([commit])}
    answer = receiver.answer({**request, "signed": Signer(tmp_path / "origin").signed(shown).to_json()})

    assert answer["changed"]
    assert record.read_bytes() == whole


@pytest.mark.parametrize(("size_bytes", "loads"), [(5000, True), (3 << 20, False)])
def test_who_is_sent_little_loads_meanwhile_what_publishing_needs(tmp_path: Path, size_bytes: int, loads: bool) -> None:
    """Of much they come later, when not all edges are at it."""
    program = (
        "import sys\nfrom pathlib import Path\nfrom mirrortools.signing import Signer\n"
        "from tests.test_receiver import Receiver, begin, hello, noise, sha256_blob, trust\n"
        "signer, receiver = Signer(Path(sys.argv[1], 'origin')), Receiver(Path(sys.argv[1], 'edge'))\n"
        f"hello(receiver), trust(receiver, signer.signer), begin(receiver, sha256_blob(noise({size_bytes})))\n"
        "before = 'mirrortools.revision' in sys.modules\nreceiver.prepare()\n"
        "print(before, 'mirrortools.revision' in sys.modules)"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=PROJECT)

    assert done.stdout == f"False {loads}\n"


def test_a_begin_that_lacks_nothing_leaves_the_note(receiver: Receiver, shown: Publication, tmp_path: Path) -> None:
    """So it costs an edge nothing to lend; one that lacks a blob takes the note back, as a publication does."""
    bring(receiver, shown, tmp_path / "origin")
    before = noted(receiver)
    begin(receiver, *shown.blobs)
    lending = noted(receiver)
    publish(receiver, replace(shown, mirrors=("http://m",)), Signer(tmp_path / "origin").signed(shown))
    refused = noted(receiver)
    Store(receiver.root).path(max(shown.blobs)).unlink()
    begin(receiver, *shown.blobs)

    assert before == lending == refused
    assert list(before["shown"]) == [REPO.path]
    assert noted(receiver)["shown"] == {}


def test_a_roll_is_answered_by_what_differs(receiver: Receiver, shown: Publication, tmp_path: Path) -> None:
    """Of what is as noted nothing is said; of the others what is noted, or what a look finds."""
    bring(receiver, shown, tmp_path / "origin")
    digest = noted(receiver)["shown"][REPO.path]
    other = {"models/acme/never": "0" * 64}
    rolls = [Roll.of(said) for said in ({REPO.path: digest}, {REPO.path: "0" * 64}, {REPO.path: digest, **other})]
    answers = [hello(receiver, brief=True, roll=roll.to_json()) for roll in rolls]
    told = [{name: answer[name] for name in ("differing", "shown", "state")} for answer in answers]

    assert told == [
        {"differing": [], "shown": {}, "state": {}},
        {"differing": [0], "shown": {REPO.path: digest}, "state": {}},
        {
            "differing": [0],
            "shown": {REPO.path: digest},
            "state": {"models/acme/never": {"serial": 0, "parts": {}}},
        },
    ]
    assert hello(receiver, brief=True, roll={"names": "?", "digests": []})["error"] == "EdgeRefused"
    assert hello(receiver, brief=True, roll=Roll.of({"../x": digest}).to_json())["error"] in (
        "EdgeRefused",
        "ConfigError",
    )


def test_a_close_look_takes_back_a_note_that_says_more(receiver: Receiver, shown: Publication, tmp_path: Path) -> None:
    """Then the next plain run brings what is lost, should the delivery behind the look break off."""
    bring(receiver, shown, tmp_path / "origin")
    whole, kept = state(receiver), noted(receiver)
    Store(receiver.root).path(max(shown.blobs)).unlink()
    before, lacking, after = noted(receiver), state(receiver), noted(receiver)

    assert kept == before
    assert whole["parts"]
    assert (lacking["parts"], after["shown"]) == ({}, {})


def test_a_look_makes_a_note_of_what_is_whole_alone(receiver: Receiver, shown: Publication, tmp_path: Path) -> None:
    """An edge from before the notes gets them by looking once; what lacks a blob, or was never here, gets none."""
    bring(receiver, shown, tmp_path / "origin")
    shutil.rmtree(receiver.root / "state" / "shown")
    first, second = noted(receiver), noted(receiver)
    shutil.rmtree(receiver.root / "state" / "shown")
    Store(receiver.root).path(max(shown.blobs)).unlink()
    lacking = [noted(receiver, REPO.path, "models/acme/never") for _ in range(2)]

    assert (first["shown"], list(second["shown"])) == ({}, [REPO.path])
    assert first["state"][REPO.path]["parts"] == shown.digests()
    assert (
        lacking
        == [
            {
                "shown": {},
                "state": {
                    REPO.path: {"serial": first["state"][REPO.path]["serial"], "parts": {}},
                    "models/acme/never": {"serial": 0, "parts": {}},
                },
            }
        ]
        * 2
    )
    assert not list((receiver.root / "state" / "locks").glob("*never*"))


def test_notes_are_believed_for_a_day(root: Path, shown: Publication, tmp_path: Path) -> None:
    """What was lost behind their back is seen then, by a plain run."""
    now = [time.time()]
    receiver = Receiver(root, lambda: now[0])
    hello(receiver)
    trust(receiver, Signer(tmp_path / "origin").signer)
    bring(receiver, shown, tmp_path / "origin")
    Store(root).path(max(shown.blobs)).unlink()
    answers = []
    for later_s in (BELIEVED_S - 5, BELIEVED_S + 5, -60):
        answers.append(noted(receiver))
        now[0] += later_s
    receiver.close()

    assert [list(answer["shown"]) for answer in answers] == [[REPO.path], [REPO.path], []]
    assert answers[2]["state"][REPO.path]["parts"] == {}


@pytest.mark.parametrize("damage", ["blob", "link"])
def test_what_an_audit_finds_takes_notes_back(
    receiver: Receiver, shown: Publication, tmp_path: Path, damage: str
) -> None:
    """So that the next plain run sees what has to be mended."""
    bring(receiver, shown, tmp_path / "origin")
    blob = max(shown.blobs)
    if damage == "blob":
        Store(receiver.root).path(blob).unlink()
        receiver.answer({"ask": "audit", "blobs": items(blob), "set_aside": False})
    else:
        next((receiver.root / "public").glob("models/**/commits/*/README.md")).unlink()
        receiver.answer({"ask": "links", "repo": REPO.path, "set_aside": True})
    answer = noted(receiver)

    assert answer["shown"] == {}
    assert answer["state"][REPO.path]["parts"] != shown.digests()


def test_a_tree_that_was_put_back_or_away_is_not_what_was_noted(
    receiver: Receiver, shown: Publication, tmp_path: Path
) -> None:
    """The statement's own file is looked at: notes and tree may come from different days."""
    bring(receiver, shown, tmp_path / "origin")
    statement = next((receiver.root / "public").glob("models/**/statement.json"))
    os.utime(statement, (1, 1))
    older = noted(receiver)
    shutil.rmtree(receiver.root / "public")
    gone = noted(receiver)

    assert older["shown"] == gone["shown"] == {}
    assert gone["state"][REPO.path]["parts"] == {}


def test_an_edge_that_keeps_an_older_commit_holds_the_new_publication_too(
    receiver: Receiver, shown: Publication, tmp_path: Path
) -> None:
    """The digests of a publication are a part of the digests of an edge that has older commits besides."""
    bring(receiver, shown, tmp_path / "origin")
    newer = publication(tmp_path / "origin", {**FILES, "README.md": b"# newer\n"})
    bring(receiver, newer, tmp_path / "origin")
    parts = state(receiver)["parts"]

    assert newer.digests().items() < parts.items()
    assert not shown.digests().items() <= parts.items()


def test_begin_says_how_much_of_each_missing_blob_arrived_before(receiver: Receiver, shown: Publication) -> None:
    """A part of a blob is counted; what is too long, or belongs to another revision, is removed."""
    first, second = sorted(blob for blob in shown.blobs if blob.size > 100)
    folder = receiver.root / begin(receiver, *shown.blobs)["folder"]
    (folder / first.digest).write_bytes(b"x" * 50)
    (folder / second.digest).write_bytes(b"x" * (second.size + 1))
    (folder / ("0" * 64)).write_bytes(b"of another revision")
    again = begin(receiver, *shown.blobs)

    arrived = {digest: have for _, digest, _, have in again["missing"]}
    assert (arrived[first.digest], arrived[second.digest]) == (50, 0)
    assert [path.name for path in folder.iterdir()] == [first.digest]


def test_a_blob_that_does_not_hash_to_its_name_is_reported_and_removed(receiver: Receiver) -> None:
    """The answer says expected and got; the store does not have it, incoming neither."""
    blob = sha256_blob(b"good")
    folder = receiver.root / begin(receiver, blob)["folder"]
    (folder / blob.digest).write_bytes(b"evil")
    answer = adopt(receiver, blob)

    [[_, digest, _, reason]] = answer["bad"]
    assert digest == blob.digest
    assert f"expected sha256 {blob.digest}, got {sha256_blob(b'evil').digest}" in reason
    assert not Store(receiver.root).has(blob)
    assert list(folder.iterdir()) == []


def test_links_in_incoming_are_not_adopted(receiver: Receiver, tmp_path: Path) -> None:
    """A symlink or a second hard link, whose target could change after it was hashed, is reported and removed."""
    content, other = b"right bytes", b"right bytes too"
    outside = tmp_path / "outside"
    outside.write_bytes(content)
    (tmp_path / "other").write_bytes(other)
    folder = receiver.root / begin(receiver, sha256_blob(content), sha256_blob(other))["folder"]
    (folder / sha256_blob(content).digest).symlink_to(outside)
    (folder / sha256_blob(other).digest).hardlink_to(tmp_path / "other")
    answer = adopt(receiver, sha256_blob(content), sha256_blob(other))

    assert len(answer["bad"]) == 2
    assert not Store(receiver.root).has(sha256_blob(content))
    assert not Store(receiver.root).has(sha256_blob(other))
    assert outside.read_bytes() == content


def test_an_incoming_folder_that_leads_elsewhere_is_refused(receiver: Receiver, tmp_path: Path) -> None:
    """A symlink in the place of the incoming folder is never followed."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_bytes(b"kept")
    folder = receiver.root / begin(receiver)["folder"]
    folder.rmdir()
    folder.symlink_to(elsewhere)
    answer = begin(receiver)

    assert answer["error"] == "EdgeRefused"
    assert (elsewhere / "precious").exists()


def test_publishing_without_the_blobs_is_refused_and_shows_nothing(
    receiver: Receiver, shown: Publication, signer: Signer
) -> None:
    """What was not hashed here does not become visible, rightly signed or not."""
    begin(receiver, *shown.blobs)
    answer = publish(receiver, shown, signer.signed(shown))

    assert answer["error"] == "EdgeRefused"
    assert "blobs are not here" in answer["text"]
    assert Tree(receiver.root).refs(REPO) == {}


@pytest.mark.parametrize("ask", ["adopt", "publish"])
def test_nothing_is_changed_without_a_begin(receiver: Receiver, shown: Publication, signer: Signer, ask: str) -> None:
    """Adopt and publish need the repository's lock."""
    answer = adopt(receiver) if ask == "adopt" else publish(receiver, shown, signer.signed(shown))

    assert answer["error"] == "EdgeRefused"
    assert "without a begin" in answer["text"]


def test_a_second_delivery_of_a_repository_hears_who_holds_it(receiver: Receiver, root: Path) -> None:
    """One writer per repository; the other is told who; it may begin when the first has ended."""
    second = Receiver(root)
    hello(second, caller="other-origin")
    begin(receiver)
    refused = begin(second)
    receiver.close()
    accepted = begin(second)
    second.close()

    assert refused["error"] == "Locked"
    assert "'origin' (process" in refused["text"]
    assert "error" not in accepted


def test_hello_comes_first_and_the_versions_must_agree(tmp_path: Path) -> None:
    """Another version of the protocol gets both numbers, and nothing is written."""
    receiver = Receiver(tmp_path / "edge")
    early = begin(receiver)
    newer = hello(receiver, version=PROTOCOL_VERSION + 1)

    assert "before hello" in early["text"]
    assert f"version {PROTOCOL_VERSION}" in newer["text"]
    assert str(PROTOCOL_VERSION + 1) in newer["text"]
    assert not (tmp_path / "edge").exists()


@pytest.mark.parametrize("root", ["/", "relative/root", "/no-such-disk/mirror"])
def test_a_root_that_cannot_be_meant_is_refused(root: str) -> None:
    """The file system's root, a relative path, and a root whose disk is not mounted."""
    answer = hello(Receiver(Path(root)))

    assert answer["error"] == "EdgeRefused"
    assert not Path("/no-such-disk").exists()


def test_a_damaged_publication_counts_as_absent(receiver: Receiver, shown: Publication, tmp_path: Path) -> None:
    """When the tree's own record cannot be read, the edge says that it holds nothing, and is filled again."""
    bring(receiver, shown, tmp_path / "origin")
    next((receiver.root / "public").glob("models/**/manifest.json")).write_bytes(b"{")
    damaged = state(receiver)["parts"]
    bring(receiver, shown, tmp_path / "origin")

    assert damaged == {}
    assert state(receiver)["parts"] == shown.digests()


# Who is believed


def test_nothing_is_shown_that_the_origin_did_not_sign(
    receiver: Receiver, shown: Publication, signer: Signer, tmp_path: Path
) -> None:
    """Another key, another publication, changed words, no signature: who has the push key alone can show nothing."""
    bring(receiver, shown, tmp_path / "origin")
    other = publication(tmp_path / "thief", {**FILES, "README.md": b"# evil\n"})
    stolen, forged = signer.signed(shown), Signer(tmp_path / "thief").signed(other)
    later = stolen.text.replace(f'"expires_at":{stolen.statement.expires_at}', '"expires_at":9999999999')
    answers = []
    for what, said in [
        (other, forged),
        (other, stolen),
        (other, Signed(forged.text, stolen.signature)),
        (shown, Signed(later, stolen.signature)),
        (shown, Signed(stolen.text, "")),
        (shown, Signed("{}", stolen.signature)),
    ]:
        begin(receiver)
        answers.append(publish(receiver, what, said))

    assert {answer["error"] for answer in answers} == {"IntegrityError"}
    assert served_files(receiver.root, shown) == FILES
    assert Tree(receiver.root).statement(REPO) == stolen


def test_an_older_statement_is_not_followed(
    receiver: Receiver, shown: Publication, signer: Signer, tmp_path: Path
) -> None:
    """What the origin said before is rightly signed, and refused: the state of then cannot be replayed."""
    bring(receiver, shown, tmp_path / "origin")
    before = signer.signed(shown)
    newer = publication(tmp_path / "origin", {**FILES, "README.md": b"# newer\n"})
    bring(receiver, newer, tmp_path / "origin")
    begin(receiver)
    answer = publish(receiver, shown, before)

    assert answer["error"] == "EdgeRefused"
    assert f"number {before.statement.serial}, and number {signer.signed(newer).statement.serial} was" in answer["text"]
    assert served_files(receiver.root, newer)["README.md"] == b"# newer\n"


def test_a_statement_whose_time_ran_out_is_not_followed(
    root: Path, shown: Publication, signer: Signer, tmp_path: Path
) -> None:
    """Who holds an edge back cannot fill it with an old state a year later."""
    receiver = Receiver(root, lambda: signer.signed(shown).statement.issued_at + LIFETIME_S + 5)
    hello(receiver)
    trust(receiver, signer.signer)
    answer = bring(receiver, shown, tmp_path / "origin")
    receiver.close()

    assert answer["error"] == "EdgeRefused"
    assert "ran out 5 s ago" in answer["text"]
    assert Tree(root).refs(REPO) == {}


def test_the_first_key_is_kept_and_another_needs_its_introduction(
    receiver: Receiver, shown: Publication, signer: Signer, tmp_path: Path
) -> None:
    """A stranger's key is refused with both fingerprints; a new key of the same origin comes signed by the former."""
    stranger = Signer(tmp_path / "thief")
    refused = trust(receiver, stranger.signer)
    lied = trust(receiver, stranger.signer, stranger.introduce(stranger.signer) or "nobody's word")
    known = signer.signer
    signer.change_key()
    accepted = trust(receiver, signer.signer, signer.introduce(known))
    shown_now = bring(receiver, shown, tmp_path / "origin")

    assert (refused["error"], lied["error"]) == ("EdgeRefused", "IntegrityError")
    assert fingerprint(known) in refused["text"]
    assert fingerprint(stranger.signer) in refused["text"]
    assert accepted == {}
    assert shown_now["changed"]


def test_manifests_that_are_here_need_not_travel(receiver: Receiver, shown: Publication, tmp_path: Path) -> None:
    """A publication with a commit that the edge has names it only; one that it has not must come."""
    bring(receiver, shown, tmp_path / "origin")
    signed = Tree(receiver.root).statement(REPO)
    assert signed
    answers = []
    for document in (shown.to_json(held=set(shown.manifests)), {**shown.to_json(), "manifests": {"0" * 40: None}}):
        begin(receiver)
        answers.append(receiver.answer({"ask": "publish", "publication": document, "signed": signed.to_json()}))

    assert "error" not in answers[0]
    assert answers[1]["error"] == "HostileTree"


HOSTILE_REQUESTS: list[dict[str, Any]] = [
    {},
    {"ask": None},
    {"ask": ["begin"]},
    {"ask": "__init__"},
    {"ask": "state", "repos": ["../../etc"]},
    {"ask": "state", "repos": ["models/acme/../.."]},
    {"ask": "state", "repos": "models/acme/tiny"},
    {"ask": "state", "repos": 7},
    {"ask": "begin", "repo": "acme/tiny", "blobs": []},
    {"ask": "begin", "repo": REPO.path},
    {"ask": "begin", "repo": REPO.path, "blobs": [["sha256", "../" * 20 + "etc/passwd0", 1]]},
    {"ask": "begin", "repo": REPO.path, "blobs": [["sha256", "a" * 64, -1]]},
    {"ask": "begin", "repo": REPO.path, "blobs": [["sha256", "a" * 64]]},
    {"ask": "begin", "repo": REPO.path, "blobs": {"sha256": 1}},
    {"ask": "adopt", "repo": REPO.path, "blobs": [["md5", "a" * 32, 1]]},
    {"ask": "publish"},
    {"ask": "publish", "publication": []},
    {"ask": "publish", "publication": {"repo": REPO.path, "refs": {}, "manifests": {}, "git": None}},
    {"ask": "publish", "publication": {"repo": REPO.path}, "signed": {"statement": 7, "signature": None}},
    {"ask": "patch", "repo": REPO.path},
    {
        "ask": "patch",
        "repo": REPO.path,
        **{key: ["sha256", "a" * 64, 9] for key in ("blob", "base", "fresh")},
        "steps": [],
    },
    {"ask": "audit", "blobs": [["sha256", "../x", 1]], "set_aside": False},
    {"ask": "audit", "blobs": []},
    {"ask": "links", "repo": "models/../..", "set_aside": True},
    {"ask": "prove", "nonce": "x", "samples": [["sha256", "a" * 64, 9, 5, 5]]},
    {"ask": "prove", "samples": []},
    {"ask": "trust"},
    {"ask": "trust", "signer": "ssh-ed25519 AAAA"},
    {"ask": "trust", "signer": 'x" cert-authority ssh-ed25519 ' + "A" * 68},
    {"ask": "trust", "signer": "ssh-ed25519 " + "A" * 68, "introduction": 7},
]


@pytest.mark.parametrize("request_", HOSTILE_REQUESTS, ids=repr)
def test_hostile_requests_are_refused(receiver: Receiver, request_: dict[str, Any]) -> None:
    """Paths, types and numbers that no origin sends are answered by an error, and the receiver goes on."""
    answer = receiver.answer(request_)

    assert answer["error"] in ("EdgeRefused", "HostileTree", "ConfigError", "IntegrityError")
    assert receiver.answer({"ask": "ping"}) == {}


def test_a_publication_with_a_path_that_leaves_its_folder_is_refused(
    receiver: Receiver, shown: Publication, signer: Signer
) -> None:
    """The edge checks the manifest's paths itself."""
    manifests = shown.to_json()["manifests"]
    [manifest] = manifests.values()
    manifest["files"]["../../../escape"] = manifest["files"].pop("README.md")
    begin(receiver, *shown.blobs)
    answer = publish(receiver, shown, signer.signed(shown), manifests=manifests)

    assert answer["error"] == "HostileTree"
    assert "../../../escape" in answer["text"]


def test_text_that_cannot_be_written_is_refused(receiver: Receiver, shown: Publication, signer: Signer) -> None:
    """Half a surrogate pair in a title is JSON, but not text."""
    manifests = shown.to_json()["manifests"]
    [manifest] = manifests.values()
    manifest["title"] = "\ud800"
    begin(receiver, *shown.blobs)
    answer = publish(receiver, shown, signer.signed(shown), manifests=manifests)

    assert answer["error"] == "EdgeRefused"


def test_a_patch_makes_nothing_outside_of_a_delivery(receiver: Receiver) -> None:
    """It needs the repository's lock, the older blob, and new bytes that are a plain file of their size."""
    base, blob, fresh = (sha256_blob(content) for content in (b"old content", b"old CONTENT", b"CONTENT"))
    request = {"ask": "patch", "repo": REPO.path, "steps": [[0, 0, 4], [1, 0, 7]]}
    request |= {name: items(each)[0] for name, each in (("blob", blob), ("base", base), ("fresh", fresh))}
    early = receiver.answer(request)
    folder = receiver.root / begin(receiver, blob)["folder"]
    without = receiver.answer(request)
    put(receiver.root, base, b"old content")
    (folder / fresh.digest).symlink_to("/etc/hostname")
    linked = receiver.answer(request)
    (folder / fresh.digest).unlink()
    (folder / fresh.digest).write_bytes(b"CONTENT")
    done = receiver.answer(request)

    assert "without a begin" in early["text"]
    assert (without, linked, done) == ({"patched": False}, {"patched": False}, {"patched": True})
    assert adopt(receiver, blob) == {"bad": []}
    assert Store(receiver.root).path(blob).read_bytes() == b"old CONTENT"


def drawn(port: int, passport: str, blob: Blob) -> bytes:
    """What a relay gives to one who shows the passport and asks for a blob."""
    link, parts = call([("127.0.0.1", port)], calling(passport)), [b""]
    try:
        link.write(memoryview(frame({"draw": True, "wants": [[blob.digest, blob.size, 0]]})))
        while part := read_some(link, 1 << 20):
            parts.append(part)
    except OSError:
        pass  # the other side has ended without a word
    finally:
        link.release()
    return b"".join(parts)


def test_an_edge_that_lacks_nothing_passes_on_what_was_named_and_no_more(receiver: Receiver, root: Path) -> None:
    """To those of the delivery: not what else it has, and not what is private, though a delivery names it."""
    named, other, secret = (sha256_blob(content) for content in (b"named", b"other", b"secret"))
    put(root, named, b"named")
    put(root, other, b"other")
    incoming = root / "state" / "secret"
    incoming.write_bytes(b"secret")
    Store(root, Realm.PRIVATE).verify_and_adopt(incoming, secret)
    assert [item[1] for item in begin(receiver, named, secret)["missing"]] == [secret.digest]
    passport = new_passport()
    relay = {"ask": "relay", "repo": REPO.path, "blobs": [], "passport": passport, "ports": None, "limit": None}
    port = receiver.answer(relay)["port"]

    assert drawn(port, passport, named).endswith(b"named")
    assert drawn(port, passport, other) == b""
    assert drawn(port, passport, secret) == b""


def test_an_edge_that_cannot_be_written_says_where_and_why(receiver: Receiver, root: Path) -> None:
    """An OSError becomes an answer with the path."""
    (root / "state" / "locks").mkdir(parents=True)
    (root / "state" / "locks" / "models%2Facme%2Ftiny.lock").mkdir()
    answer = begin(receiver)

    assert answer["error"] == "StoreError"
    assert "tiny.lock" in answer["text"]


# Frames


def reader(data: bytes) -> Any:
    return io.BytesIO(data).read


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=8,
)
documents = st.dictionaries(st.text(max_size=9), json_values, max_size=4)


@settings(max_examples=50)
@given(st.lists(documents, max_size=3))
def test_frames_are_read_as_they_were_written(sent: list[dict[str, Any]]) -> None:
    """Any number of documents, one behind the other, then a clean end."""
    read = reader(b"".join(frame(document) for document in sent))
    received = [read_frame(read) for _ in sent]

    assert received == sent
    assert read_frame(read) is None


@settings(max_examples=300)
@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda body: b"mtf1\0\0\0" + bytes([len(body)]) + body))
def test_any_bytes_give_a_document_the_end_or_a_refusal(data: bytes) -> None:
    """The reader of frames never fails in another way."""
    try:
        document = read_frame(reader(data))
    except EdgeRefused:
        return

    assert document is None or isinstance(document, dict)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"mtf1\xff\xff\xff\xff{}", "the limit is"),
        (b"mtf1\x00\x00\x00\x09{}", "ended after 2 of 9 bytes"),
        (b"mtf1\x00\x00", "expected a frame"),
        (b"Welcome to bj1!\n", "expected a frame, got b'Welcome '"),
        (b"mtf1\x00\x00\x00\x02[]", "list instead of an object"),
        (b'mtf1\x00\x00\x00\x0a{"a": 1.5}', "whole numbers"),
        (b'mtf1\x00\x00\x00\x0a{"a": NaN}', "whole numbers"),
        (b"mtf1\x00\x00\x00\x02\xff\xfe", "not JSON"),
        (b"mtf1\x00\x03\x0d\x40" + b"[" * 200_000, "not JSON"),
    ],
)
def test_malformed_frames_are_refused(data: bytes, reason: str) -> None:
    """Too long, cut off, noise, other JSON, deep nesting."""
    with pytest.raises(EdgeRefused, match="frame") as refused:
        read_frame(reader(data))

    assert reason in str(refused.value)


def test_a_giant_frame_is_refused_before_it_is_read() -> None:
    """The length alone decides: nothing behind the header is asked for."""
    asked = []

    def read(size_bytes: int) -> bytes:
        asked.append(size_bytes)
        return b"mtf1" + (LIMIT_BYTES + 1).to_bytes(4, "big")

    with pytest.raises(EdgeRefused):
        read_frame(read)

    assert asked == [8]


def test_a_malformed_frame_gets_a_last_word(root: Path) -> None:
    """Where the next frame begins is unknown then, so the receiver answers and ends."""
    written: list[bytes] = []
    serve(Receiver(root), reader(frame({"ask": "ping"}) + b"not a frame" + frame({"ask": "ping"})), written.append)
    read = reader(b"".join(written))

    assert "before hello" in (read_frame(read) or {})["text"]
    assert "expected a frame" in (read_frame(read) or {})["text"]
    assert read_frame(read) is None


requests = st.fixed_dictionaries(
    {"ask": st.sampled_from(["hello", "state", "begin", "adopt", "publish", "trust", "ping", "else"]) | json_values},
    optional={
        "version": st.just(PROTOCOL_VERSION) | json_values,
        "repo": st.just(REPO.path) | json_values,
        "repos": st.lists(st.just(REPO.path) | st.text()) | json_values,
        "blobs": st.lists(st.tuples(st.just("sha256"), st.just("a" * 64), json_values).map(list)) | json_values,
        "publication": json_values | st.just({"repo": REPO.path}),
        "signed": json_values | st.just({"statement": "{}", "signature": ""}),
        "signer": json_values,
    },
)


@settings(max_examples=60, deadline=None)
@given(st.lists(requests, max_size=5))
def test_no_request_makes_the_receiver_fail_or_write_outside_its_root(asked: list[dict[str, Any]]) -> None:
    """Whatever is asked, there is an answer for each, and only the root has changed."""
    with TemporaryDirectory() as folder:
        written: list[bytes] = []
        receiver = Receiver(Path(folder, "edge"))
        hello(receiver)
        serve(receiver, reader(b"".join(frame(request) for request in asked)), written.append)
        read = reader(b"".join(written))

        assert all(isinstance(read_frame(read), dict) for _ in asked)
        assert os.listdir(folder) == ["edge"]  # noqa: PTH208  (names, as they are)
