"""Deliveries with an edge whose answers a test chooses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from mirrortools.deliver import EdgeSession
from mirrortools.errors import EdgeError, EdgeRefused, EdgeUnreachable, IntegrityError, MirrorError, NoSpace, StoreError
from mirrortools.model import Publication
from mirrortools.roll import Roll
from mirrortools.said import Agenda
from mirrortools.shown import digest_of
from mirrortools.signatures import KEYS, check_signature
from mirrortools.signing import Signer
from mirrortools.statements import Signed
from mirrortools.store import Store
from mirrortools.transports import Batch, Sent
from tests.delivery import REPO, here, local_edge, noise, publication

FILES = {"model.safetensors": noise(3000), "README.md": b"# tiny\n"}


@dataclass
class FakeEdge:
    """A transport and its session; `lies` replaces parts of the answers, by request. A lie may be an error."""

    lies: dict[str, Any] = field(default_factory=dict)
    unreachable: bool = False
    opened: int = 0
    asked: list[Mapping[str, Any]] = field(default_factory=list)
    sent: list[Batch] = field(default_factory=list)

    def open(self, receiver: bytes) -> FakeEdge:
        self.opened += 1
        if self.unreachable:
            raise EdgeUnreachable("edge disk1: no way")
        return self

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        self.asked.append(request)
        lie = self.lies.get(request["ask"], {})
        if isinstance(lie, MirrorError):
            raise lie
        return {**self._honest(request), **lie}

    def ask_all(self, requests: Sequence[Mapping[str, Any]]) -> list[dict[str, Any] | MirrorError]:
        return [self._answer(request) for request in requests]

    def _answer(self, request: Mapping[str, Any]) -> dict[str, Any] | MirrorError:
        try:
            return self.ask(request)
        except MirrorError as error:
            return error

    def _honest(self, request: Mapping[str, Any]) -> dict[str, Any]:
        if request["ask"] in ("hello", "state"):
            nothing = {"serial": 0, "parts": {}}
            return {
                "rsync": "3.5.0",
                "signer": None,
                "challenge": "c",
                "state": dict.fromkeys(request["repos"], nothing),
            }
        if request["ask"] == "begin":
            missing = [[*item, 0] for item in request["blobs"]]
            return {"missing": missing, "folder": "state/incoming/x", "free_bytes": 1 << 30}
        return {"bad": []} if request["ask"] == "adopt" else {"changed": True}

    def send(self, batch: Batch) -> Sent:
        self.sent.append(batch)
        return Sent(sum(blob.size for blob in batch.blobs) + 10)

    def close(self) -> None:
        """Nothing runs."""

    abort = close


@pytest.fixture
def shown(tmp_path: Path) -> Publication:
    """What the origin publishes."""
    return publication(tmp_path, FILES)


def session(edge: FakeEdge, origin: Path, *, believes: bool = False) -> EdgeSession:
    return EdgeSession(local_edge(Path("/srv/edge")), edge, here(origin), [REPO], believes=believes)


def holding(origin: Path, shown: Publication, **more: Any) -> dict[str, Any]:
    """What an edge says that shows a publication."""
    signed = Signer(origin).signed(shown)
    return {REPO.path: {"serial": signed.statement.serial, "parts": {**shown.digests(), **more}}}


def test_a_delivery_counts_what_it_did(shown: Publication, tmp_path: Path) -> None:
    """Blobs and bytes that the edge lacked, and bytes on the wire."""
    edge = FakeEdge()
    told: list[tuple[str, int, int]] = []
    delivery = session(edge, tmp_path).deliver(shown, lambda name, _, sent, planned: told.append((name, sent, planned)))
    planned = sum(blob.size for blob in shown.blobs)

    assert (delivery.edge, delivery.repo, delivery.changed, delivery.error) == ("disk1", REPO, True, None)
    assert (delivery.blobs, delivery.bytes_planned, delivery.bytes_sent) == (3, planned, planned + 10)
    assert [request["ask"] for request in edge.asked] == ["hello", "trust", "begin", "adopt", "publish"]
    assert told == [("disk1", 0, planned)]


def test_an_edge_that_holds_everything_is_asked_once(shown: Publication, tmp_path: Path) -> None:
    """One round trip at the start, none for a repository that was named then, nothing sent."""
    said = {"state": holding(tmp_path, shown, **{"0" * 40: "an older commit"}), "signer": Signer(tmp_path).signer}
    edge = FakeEdge({"hello": said})
    edge_session = session(edge, tmp_path)
    deliveries = [edge_session.deliver(shown) for _ in range(3)]

    assert [(d.changed, d.blobs, d.error) for d in deliveries] == [(False, 0, None)] * 3
    assert [request["ask"] for request in edge.asked] == ["hello"]


def test_what_was_delivered_is_known_afterwards(shown: Publication, tmp_path: Path) -> None:
    """The same publication a second time in a run costs no request."""
    edge = FakeEdge()
    edge_session = session(edge, tmp_path)
    first, second = edge_session.deliver(shown), edge_session.deliver(shown)

    assert (first.changed, second.changed) == (True, False)
    assert len(edge.asked) == 5


@pytest.mark.parametrize(("limit", "carries"), [(None, True), (1 << 20, False)])
def test_what_is_little_goes_in_a_request(shown: Publication, tmp_path: Path, limit: int | None, carries: bool) -> None:
    """To an edge that can take it so, where no rate has to be kept; it is adopted like all else."""
    edge = FakeEdge({"hello": {"carries": True}})
    place = local_edge(Path("/srv/edge"), rate_limit_bytes_s=limit)
    delivery = EdgeSession(place, edge, here(tmp_path), [REPO]).deliver(shown)
    carried = [request for request in edge.asked if request["ask"] == "carry"]

    assert delivery.error is None
    assert [request["ask"] for request in edge.asked][-2:] == ["adopt", "publish"]
    assert (bool(carried), bool(edge.sent)) == (carries, not carries)
    assert not carried or delivery.bytes_sent == sum(size for *_, size, _ in carried[0]["contents"])


def test_what_was_carried_and_is_wrong_there_goes_once_more(shown: Publication, tmp_path: Path) -> None:
    """All of it was asked for at once, so what was refused because of it is asked for again; the reason is told."""
    [bad] = [blob for blob in shown.blobs if blob.size == 3000]
    adopt = {"bad": [[bad.algorithm, bad.digest, bad.size, "a disk that lies"]]}
    edge = FakeEdge({"hello": {"carries": True}, "adopt": adopt, "publish": EdgeRefused("1 blobs are not here")})
    delivery = session(edge, tmp_path).deliver(shown)
    carried = [len(request["contents"]) for request in edge.asked if request["ask"] == "carry"]

    assert isinstance(delivery.error, IntegrityError)
    assert "a disk that lies, twice" in str(delivery.error)
    assert carried == [len(shown.blobs), 1]


def test_what_refuses_little_blobs_is_told(shown: Publication, tmp_path: Path) -> None:
    """The first refusal counts, not what was refused because of it."""
    lies = {"hello": {"carries": True}, "carry": NoSpace("full"), "adopt": EdgeRefused("nothing arrived")}
    delivery = session(FakeEdge(lies), tmp_path).deliver(shown)

    assert isinstance(delivery.error, NoSpace)


def test_an_older_edge_is_sent_even_an_empty_file_by_rsync(shown: Publication, tmp_path: Path) -> None:
    """It does not know what a request carries, however little that is."""
    empty = publication(tmp_path, {**FILES, "empty.safetensors": b""})
    [blob] = [blob for blob in empty.blobs if not blob.size]
    edge = FakeEdge({"begin": {"missing": [[blob.algorithm, blob.digest, 0, 0]]}})
    delivery = session(edge, tmp_path).deliver(empty)

    assert delivery.error is None
    assert "carry" not in [request["ask"] for request in edge.asked]
    assert [batch.blobs for batch in edge.sent] == [[blob]]


def test_an_edge_may_answer_by_its_notes(shown: Publication, tmp_path: Path) -> None:
    """What it has noted to show is believed, where that is allowed; it is not asked for more, once it is reached."""
    signer = Signer(tmp_path)
    said = {"state": {}, "shown": {REPO.path: digest_of(signer.signed(shown).text)}, "signer": signer.signer}
    edge = FakeEdge({"hello": said})
    edge_session = session(edge, tmp_path, believes=True)
    before = edge_session.is_shown(REPO, lambda _: digest_of(signer.signed(shown).text))
    deliveries = [edge_session.deliver(shown) for _ in range(2)]

    assert [(d.changed, d.blobs, d.error) for d in deliveries] == [(False, 0, None)] * 2
    assert [request["ask"] for request in edge.asked] == ["hello"]
    assert edge.asked[0]["brief"] is True
    assert not before
    assert edge_session.is_shown(REPO, lambda _: digest_of(signer.signed(shown).text))


@pytest.mark.parametrize("why", ["another statement", "no note", "a new key", "cut off"])
def test_a_note_counts_only_for_what_is_said_now(shown: Publication, tmp_path: Path, why: str) -> None:
    """One of another statement, or of an edge that has to hear more, is as if there were none."""
    signer = Signer(tmp_path)
    noted = {"no note": {}, "another statement": {REPO.path: "0" * 64}}.get(
        why, {REPO.path: digest_of(signer.signed(shown).text)}
    )
    edge = FakeEdge({"hello": {"state": {}, "shown": noted, "signer": signer.signer}})
    edge_session = session(edge, tmp_path, believes=True)
    edge_session.deliver(shown if not noted or why == "another statement" else replace(shown, mirrors=()))
    if why == "a new key":
        signer.change_key()
        edge_session = session(edge, tmp_path, believes=True)
        edge_session.deliver(shown)
    if why == "cut off":
        edge_session.abort()
    asked = [request["ask"] for request in edge.asked]

    assert edge_session.is_shown(REPO, lambda _: digest_of(signer.signed(shown).text)) is (why == "a new key")
    assert (asked[-1] == "publish") is (why in ("another statement", "no note"))
    assert ("trust" in asked) is (why == "a new key")


def reached(tmp_path: Path, **answers: Any) -> tuple[FakeEdge, EdgeSession, bool]:
    """An edge that was asked about an agenda of two repositories."""
    said = {REPO.path: "1" * 64, "models/acme/other": "2" * 64}
    edge = FakeEdge({"hello": {"state": {}, "signer": Signer(tmp_path).signer, **answers}, "state": {"state": {}}})
    agenda = Agenda(said, Roll.of(said), ["models/acme/new"])
    place = local_edge(Path("/srv/edge"))
    edge_session = EdgeSession(place, edge, here(tmp_path), believes=True, agenda=lambda: agenda)
    return edge, edge_session, edge_session.reach()


def test_an_edge_is_asked_about_an_agenda_at_once(tmp_path: Path) -> None:
    """What differs from what is said is out of step; the others it shows, though nothing was answered of them."""
    edge, agreeing, is_reached = reached(tmp_path, differing=[], shown={})
    _, differing, _ = reached(tmp_path, differing=[0], shown={REPO.path: "1" * 64})

    assert is_reached
    assert [(request["ask"], request["repos"]) for request in edge.asked] == [("hello", ["models/acme/new"])]
    assert agreeing.out_of_step() == set()
    assert agreeing.is_shown(REPO, lambda _: "1" * 64)
    assert not agreeing.is_shown(REPO, lambda _: "3" * 64)
    assert differing.out_of_step() == {"models/acme/other"}


def test_an_older_edge_is_asked_about_each_repository(tmp_path: Path) -> None:
    """Its receiver knows no rolls, and says nothing of them."""
    edge, edge_session, _ = reached(tmp_path, shown={})

    assert [request["ask"] for request in edge.asked] == ["hello", "state"]
    assert edge.asked[1]["repos"] == ["models/acme/other", REPO.path] == sorted(edge_session.out_of_step())


@pytest.mark.parametrize("differing", [[1], [-1], ["x"], None, 17])
def test_an_answer_about_another_roll_is_refused(tmp_path: Path, differing: Any) -> None:
    """The edge is not believed then; whoever delivers hears why."""
    _, edge_session, is_reached = reached(tmp_path, differing=differing, shown={})

    assert not is_reached
    assert isinstance(edge_session.failure, EdgeRefused)


def test_an_edge_with_a_later_number_gets_a_statement_above_it(shown: Publication, tmp_path: Path) -> None:
    """An origin that was set back to an older state of its own is followed again, not refused for ever."""
    said = holding(tmp_path, shown)
    said[REPO.path]["serial"] += 100
    edge = FakeEdge({"hello": {"state": said}})
    delivery = session(edge, tmp_path).deliver(shown)
    sent = Signed.from_json(edge.asked[-1]["signed"]).statement

    assert delivery.error is None
    assert sent.serial > said[REPO.path]["serial"]


def test_manifests_that_an_edge_has_do_not_travel(shown: Publication, tmp_path: Path) -> None:
    """Only what is new goes out; a commit whose files were chosen by other rules counts as new."""
    [commit] = shown.manifests
    edges = [
        FakeEdge({"hello": {"state": {REPO.path: {"serial": 1, "parts": parts}}}})
        for parts in (shown.digests(), {commit: "other"})
    ]
    for edge in edges:
        session(edge, tmp_path).deliver(shown)
    sent = [edge.asked[-1]["publication"]["manifests"] for edge in edges]

    assert sent == [{commit: None}, {commit: shown.manifests[commit].to_json()}]


def test_an_edge_that_knows_the_former_key_is_introduced_to_the_new_one(shown: Publication, tmp_path: Path) -> None:
    """One that knows a stranger's key gets no introduction, and says what it thinks of that."""
    signer = Signer(tmp_path)
    former = signer.signer
    signer.change_key()
    edges = [FakeEdge({"hello": {"signer": known}}) for known in (former, "ssh-ed25519 " + "A" * 68)]
    for edge in edges:
        session(edge, tmp_path).deliver(shown)
    introductions = [edge.asked[1]["introduction"] for edge in edges]

    assert [edge.asked[1]["signer"] for edge in edges] == [signer.signer] * 2
    check_signature(former, KEYS, signer.signer, introductions[0])
    assert introductions[1] is None


def test_an_unreachable_edge_is_tried_once(shown: Publication, tmp_path: Path) -> None:
    """Each repository gets the reason, without a second attempt."""
    edge = FakeEdge(unreachable=True)
    edge_session = session(edge, tmp_path)
    errors = [edge_session.deliver(shown).error for _ in range(3)]

    assert edge.opened == 1
    assert [str(error) for error in errors] == ["edge disk1: no way"] * 3


def test_an_edge_that_is_lost_in_mid_run_is_not_tried_again(shown: Publication, tmp_path: Path) -> None:
    """A broken connection ends the edge's run; a refusal ends one repository only."""
    lost = FakeEdge({"begin": EdgeUnreachable("gone")})
    refusing = FakeEdge({"begin": EdgeRefused("no")})
    for edge in (lost, refusing):
        edge_session = session(edge, tmp_path)
        assert [type(edge_session.deliver(shown).error) for _ in range(2)] == [type(edge.lies["begin"])] * 2

    assert [request["ask"] for request in lost.asked] == ["hello", "trust", "begin"]
    assert [request["ask"] for request in refusing.asked] == ["hello", "trust", "begin", "begin"]


def test_an_edge_that_was_left_alone_for_long_is_called_anew(shown: Publication, tmp_path: Path) -> None:
    """A run that fetched for an hour finds its receiver ended; it starts another, and nobody hears of it."""
    edge, now = FakeEdge(), [0.0]
    edge_session = EdgeSession(local_edge(Path("/srv/edge")), edge, here(tmp_path), clock=lambda: now[0])
    newer = publication(tmp_path, {**FILES, "README.md": b"# newer\n"})
    first = edge_session.deliver(shown)
    now[0] = 3600
    second = edge_session.deliver(newer)

    assert (first.error, second.error) == (None, None)
    assert edge.opened == 2


def test_a_bad_blob_is_sent_once_more_and_then_given_up(shown: Publication, tmp_path: Path) -> None:
    """What the edge finds wrong twice is an integrity error with the edge's reason; nothing is published."""
    bad = max(shown.blobs)
    reason = f"expected sha256 {bad.digest}, got another"
    edge = FakeEdge({"adopt": {"bad": [[bad.algorithm, bad.digest, bad.size, reason]]}})
    delivery = session(edge, tmp_path).deliver(shown)

    assert isinstance(delivery.error, IntegrityError)
    assert reason in str(delivery.error)
    assert [len(batch.blobs) for batch in edge.sent] == [3, 1]
    assert "publish" not in [request["ask"] for request in edge.asked]


def test_a_blob_that_the_origin_lost_is_named(shown: Publication, tmp_path: Path) -> None:
    """Nothing is sent when the origin itself lacks a blob."""
    lost = Store(tmp_path).path(max(shown.blobs))
    lost.unlink()
    edge = FakeEdge()
    delivery = session(edge, tmp_path).deliver(shown)

    assert isinstance(delivery.error, StoreError)
    assert str(lost) in str(delivery.error)
    assert edge.sent == []


def test_an_edge_without_rsync_is_refused_at_once(shown: Publication, tmp_path: Path) -> None:
    """The first answer says whether rsync is there."""
    delivery = session(FakeEdge({"hello": {"rsync": None}}), tmp_path).deliver(shown)

    assert "rsync is not installed there" in str(delivery.error)


@pytest.mark.parametrize(
    ("ask", "lie"),
    [
        ("hello", {"state": None}),
        ("hello", {"state": {REPO.path: 7}}),
        ("hello", {"state": {REPO.path: {"serial": -1, "parts": {}}}}),
        ("hello", {"state": {REPO.path: {"serial": 1 << 50, "parts": {}}}}),
        ("hello", {"state": {REPO.path: {"serial": 1, "parts": []}}}),
        ("begin", {"missing": [["sha256", "f" * 64, 5, 0]]}),
        ("begin", {"missing": [["sha256", "../../etc", 5, 0]]}),
        ("begin", {"missing": None}),
        ("begin", {"folder": "../../etc"}),
        ("begin", {"folder": "state/incoming/../../../etc"}),
        ("begin", {"folder": "/etc"}),
        ("begin", {"free_bytes": "many"}),
        ("adopt", {"bad": [["sha256"]]}),
        ("adopt", {"bad": 7}),
    ],
)
def test_answers_that_make_no_sense_are_refused(shown: Publication, tmp_path: Path, ask: str, lie: Any) -> None:
    """An edge that was taken over can neither choose what is sent nor where to, nor stop the run."""
    edge = FakeEdge({ask: lie})
    delivery = session(edge, tmp_path).deliver(shown)

    assert isinstance(delivery.error, EdgeError)
    assert "disk1" in str(delivery.error)
    assert "publish" not in [request["ask"] for request in edge.asked]


def test_an_edge_cannot_ask_for_other_blobs_again(shown: Publication, tmp_path: Path) -> None:
    """What is called bad must have been sent."""
    edge = FakeEdge({"adopt": {"bad": [["sha256", "f" * 64, 5, "give me that"]]}})
    delivery = session(edge, tmp_path).deliver(shown)

    assert isinstance(delivery.error, EdgeRefused)
    assert len(edge.sent) == 1
