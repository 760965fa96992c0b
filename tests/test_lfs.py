"""The batch API: links of any kind and age, answers of any type, and never more trust than needed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrortools.errors import AccessDenied, RateLimited, SourceMissing, SourceUnavailable, UpstreamError
from mirrortools.model import Blob
from mirrortools.upstreams.answers import origin_of
from mirrortools.upstreams.http import Credential, HttpClient
from mirrortools.upstreams.lfs import LfsBytes, LfsServer, expiry, read_batch
from mirrortools.upstreams.links import Link, has_expired
from tests.delivery import noise, sha256_blob
from tests.fakes import Heard, ScriptedServer, answer
from tests.strategies import trials

CONTENTS = [noise(100 + number, number) for number in range(130)]
BLOBS = [sha256_blob(content) for content in CONTENTS]
BY_OID = {blob.digest: content for blob, content in zip(BLOBS, CONTENTS, strict=True)}
SERVER = LfsServer("https://h.example/org/name.git/info/lfs")


class Shelf:
    """An HTTP host with one file; `versions` has the ETag for each answer, the last one for all that follow.

    It compares If-Range as `honours` says: always right, never equal, or not at all.
    """

    def __init__(self, running: ExitStack, *versions: str, honours: str = "right", ranges: bool = True) -> None:
        self._versions = list(versions)
        self._honours = honours
        self._ranges = ranges
        self.server = running.enter_context(ScriptedServer(self._script))

    @property
    def asked(self) -> list[str | None]:
        """The If-Range of each request for bytes."""
        return [heard.headers.get("if-range") for heard in self.server.heard if heard.method == "GET"]

    def _script(self, heard: Heard) -> bytes:
        if heard.method == "POST":
            oids = [o["oid"] for o in json.loads(heard.body)["objects"]]
            links = [{"oid": oid, "actions": {"download": {"href": f"{self.server.origin}/{oid}"}}} for oid in oids]
            return answer(json.dumps({"objects": links}).encode())
        version = self._versions.pop(0) if len(self._versions) > 1 else self._versions[0]
        content, condition = BY_OID[heard.target.strip("/")], heard.headers.get("if-range")
        fits = condition is None or {"right": condition == version, "never": False, "ignored": True}[self._honours]
        if not ("range" in heard.headers and fits and self._ranges):
            return answer(content, ETag=version)
        first, last = (int(number) for number in heard.headers["range"].removeprefix("bytes=").split("-"))
        return answer(content[first : last + 1], 206, ETag=version, Content_Range=f"bytes {first}-{last}/9999")


class Host:
    """An LFS host whose links carry a generation; those of generations before `valid_from` are refused."""

    def __init__(self, running: ExitStack) -> None:
        self.generation = 0
        self.valid_from = 0
        self.token: str | None = None
        self.action: dict[str, Any] = {}
        self.server = running.enter_context(ScriptedServer(self._script))

    @property
    def batches(self) -> list[list[str]]:
        """The digests that each batch request asked for."""
        posts = [heard for heard in self.server.heard if heard.method == "POST"]
        return [[o["oid"] for o in json.loads(heard.body)["objects"]] for heard in posts]

    def _script(self, heard: Heard) -> bytes:
        if heard.method == "POST":
            if self.token is not None and heard.headers.get("authorization") != self.token:
                return answer(status=401)
            self.generation += 1
            asked = json.loads(heard.body)["objects"]
            return answer(json.dumps({"objects": [self._link(o["oid"]) for o in asked]}).encode())
        _, generation, oid = heard.target.split("/")
        if int(generation) < self.valid_from:
            return answer(status=403)
        content = BY_OID[oid]
        if asked_range := heard.headers.get("range"):
            first, last = (int(number) for number in asked_range.removeprefix("bytes=").split("-"))
            span = content[first : last + 1]
            return answer(span, 206, Content_Range=f"bytes {first}-{last}/{len(content)}")
        return answer(content)

    def _link(self, oid: str) -> dict[str, Any]:
        href = f"{self.server.origin}/{self.generation}/{oid}"
        return {"oid": oid, "actions": {"download": {"href": href, **self.action}}}


@pytest.fixture
def host() -> Iterator[Host]:
    """A host on loopback."""
    with ExitStack() as running:
        yield Host(running)


@pytest.fixture
def client() -> Iterator[HttpClient]:
    """A client that does not wait long."""
    made = HttpClient(timeout_s=5)
    yield made
    made.close()


def lfs(host: Host, client: HttpClient, credential: Credential | None = None) -> LfsBytes:
    """The bytes of that host."""
    return LfsBytes("the host", lambda: LfsServer(f"{host.server.origin}/lfs", credential), client)


def read(source: LfsBytes, blob: Blob, start: int = 0, stop: int | None = None) -> bytes:
    """A range of a blob."""
    buffer = memoryview(bytearray(1000))
    read_bytes = b""
    with source.open(blob, start, blob.size if stop is None else stop) as reader:
        while count := reader.readinto(buffer):
            read_bytes += buffer[:count]
    return read_bytes


def test_ranges_and_wholes_come_with_one_batch_a_hundred(host: Host, client: HttpClient) -> None:
    """Links are had in the order that was announced, and used for every range."""
    source = lfs(host, client)
    source.prepare(BLOBS)
    got = [read(source, blob, 3, 50) for blob in BLOBS] + [read(source, blob) for blob in BLOBS]

    assert got == [content[3:50] for content in CONTENTS] + CONTENTS
    assert host.batches == [[blob.digest for blob in BLOBS[:100]], [blob.digest for blob in BLOBS[100:]]]


def test_a_blob_that_was_not_announced_is_asked_for_alone(host: Host, client: HttpClient) -> None:
    """`prepare` is a help, no condition."""
    assert read(lfs(host, client), BLOBS[0]) == CONTENTS[0]
    assert host.batches == [[BLOBS[0].digest]]


def test_a_refused_link_is_asked_for_once_more_and_then_no_more(host: Host, client: HttpClient) -> None:
    """A new one replaces it for everybody; a host that refuses that too denies access."""
    source = lfs(host, client)
    source.prepare(BLOBS[:3])
    read(source, BLOBS[0])
    host.valid_from = 2
    renewed = [read(source, blob) for blob in BLOBS[:3]]
    batches = len(host.batches)
    host.valid_from = 99

    assert renewed == CONTENTS[:3]
    assert batches == 2
    with pytest.raises(AccessDenied):
        read(source, BLOBS[0])
    assert len(host.batches) == 3


@pytest.mark.parametrize(
    ("action", "expired"),
    [
        ({"expires_in": 5}, True),
        ({"expires_in": 900}, False),
        ({"expires_at": "2001-01-01T00:00:00Z"}, True),
        ({"expires_at": "2001-01-01T00:00:00"}, True),
        ({"expires_at": "2999-01-01T00:00:00.123456789+01:00"}, False),
        ({"expires_at": "0001-01-01T00:00:00Z"}, False),
        ({"expires_at": "next Tuesday"}, False),
        ({"expires_at": 12}, False),
        ({"expires_in": "soon"}, False),
        ({"expires_in": [1]}, False),
        ({"expires_in": 1e400}, False),
        ({"expires_in": None, "expires_at": None}, False),
        ({}, False),
    ],
)
def test_the_age_of_links_is_read_with_patience(action: dict[str, Any], expired: bool) -> None:
    """Zones may lack, zero times mean none, and what cannot be read is tried: a refusal tells in time."""
    assert has_expired(expiry(action)) == expired


def test_a_time_without_a_zone_is_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever this host is."""
    monkeypatch.setenv("TZ", "Asia/Shanghai")
    time.tzset()
    try:
        assert expiry({"expires_at": "2030-01-01T00:00:00"}) == expiry({"expires_at": "2030-01-01T00:00:00Z"})
    finally:
        monkeypatch.undo()
        time.tzset()


def test_links_that_expire_are_replaced_before_they_are_refused(host: Host, client: HttpClient) -> None:
    """A host that says when gets asked in time."""
    host.action = {"expires_in": 3}
    source = lfs(host, client)
    read(source, BLOBS[0])
    read(source, BLOBS[0])

    assert len(host.batches) == 2


def test_a_credential_that_expired_is_fetched_anew(host: Host, client: HttpClient) -> None:
    """Hosts behind ssh give a token for a while; a sync may take longer."""
    found: list[str] = []

    def find() -> LfsServer:
        found.append(f"Bearer {len(found)}")
        return LfsServer(f"{host.server.origin}/lfs", headers={"Authorization": found[-1]})

    source = LfsBytes("the host", find, client)
    host.token = "Bearer 0"
    read(source, BLOBS[0])
    host.token = "Bearer 1"
    again = read(source, BLOBS[1])
    host.token = "another one"

    assert again == CONTENTS[1]
    with pytest.raises(AccessDenied):
        read(source, BLOBS[2])
    assert len(found) == 3


def test_a_token_is_not_sent_to_links_elsewhere(host: Host, client: HttpClient) -> None:
    """A link to another host gets the headers of the link and nothing of ours."""
    credential = Credential(origin_of(host.server.origin), "Basic mine")
    host.token = "Basic mine"
    with ScriptedServer(lambda _heard: answer(CONTENTS[0])) as other:
        host.action = {"href": f"{other.origin}/x", "header": {"X-Signed": "yes"}}
        read(lfs(host, client, credential), BLOBS[0])

        assert "authorization" not in other.heard[0].headers
        assert other.heard[0].headers["x-signed"] == "yes"


def shelf_reads(client: HttpClient, shelf: Shelf, times: int = 4) -> list[tuple[int, str]]:
    """Where each of several answers about the bytes [10, 20) of a blob begins, and its version."""
    source = LfsBytes("the shelf", lambda: LfsServer(f"{shelf.server.origin}/lfs"), client)
    met = []
    for _ in range(times):
        with source.open(BLOBS[0], 10, 20) as reader:
            met.append((reader.start, reader.version))
            buffer = memoryview(bytearray(10))
            assert reader.readinto(buffer) == 10
            assert bytes(buffer) == CONTENTS[0][reader.start : reader.start + 10]
    return met


def test_later_ranges_are_asked_of_the_version_that_came_first(client: HttpClient) -> None:
    """One request for each range, with its ETag from the second on."""
    with ExitStack() as running:
        shelf = Shelf(running, '"1"')

        assert shelf_reads(client, shelf) == [(10, '"1"')] * 4
        assert shelf.asked == [None, '"1"', '"1"', '"1"']


def test_a_file_that_changed_is_asked_for_as_it_is_now(client: HttpClient) -> None:
    """All of it, which the server sends then, is not wanted; the range of the new version is."""
    with ExitStack() as running:
        shelf = Shelf(running, '"1"', '"1"', '"2"')

        assert shelf_reads(client, shelf) == [(10, '"1"'), (10, '"1"'), (10, '"2"'), (10, '"2"')]
        assert shelf.asked == [None, '"1"', '"1"', None, '"2"']


@pytest.mark.parametrize(
    ("versions", "honours"), [(['"1"'], "never"), ([f'"{n}"' for n in range(20)], "right"), (['W/"1"'], "right")]
)
def test_a_host_that_cannot_keep_to_a_version_is_not_asked_for_one(
    client: HttpClient, versions: list[str], honours: str
) -> None:
    """Hosts that name the same file differently, do If-Range wrong, or have weak tags alone: ranges still come."""
    with ExitStack() as running:
        shelf = Shelf(running, *versions, honours=honours)

        assert [start for start, _ in shelf_reads(client, shelf, 8)] == [10] * 8
        assert shelf.asked[-5:] == [None] * 5
        assert len(shelf.asked) <= 10


def test_a_host_without_ranges_is_still_read_from_the_beginning(client: HttpClient) -> None:
    """A version does not make a range of what has none."""
    with ExitStack() as running:
        shelf = Shelf(running, '"1"', ranges=False)

        assert shelf_reads(client, shelf) == [(0, '"1"')] * 4
        assert len(shelf.asked) <= 6


def test_an_error_for_one_object_is_that_object_s(host: Host) -> None:
    """Each kind by its code; the others have their links."""
    objects = [
        {"oid": BLOBS[0].digest, "error": {"code": 404, "message": "not there"}},
        {"oid": BLOBS[1].digest, "error": {"code": 403, "message": "no"}},
        {"oid": BLOBS[2].digest, "error": {"code": 429, "message": "slowly"}},
        {"oid": BLOBS[3].digest, "error": {"message": "something"}},
        {"oid": BLOBS[4].digest, "actions": {"download": {"href": "https://x/y"}}},
    ]
    read_objects = read_batch(SERVER, BLOBS[:5], json.dumps({"objects": objects}).encode())

    kinds = [type(read_objects[blob.digest]) for blob in BLOBS[:5]]
    assert kinds == [SourceMissing, AccessDenied, RateLimited, SourceUnavailable, Link]
    assert "not there" in str(read_objects[BLOBS[0].digest])


@pytest.mark.parametrize(
    "bad",
    [
        {},
        {"actions": {}},
        {"actions": None},
        {"actions": {"download": {}}},
        {"actions": {"download": {"href": "https://x", "header": ["no", "map"]}}},
        {"error": "a text"},
        {"error": {"code": "many"}},
        {"error": {"code": 1e400}},
    ],
)
def test_one_malformed_object_does_not_spoil_the_others(bad: dict[str, Any]) -> None:
    """It is an error of its own."""
    good = {"oid": BLOBS[1].digest, "actions": {"download": {"href": "https://x/y"}}}
    objects = [{"oid": BLOBS[0].digest, **bad}, good]
    read_objects = read_batch(SERVER, BLOBS[:2], json.dumps({"objects": objects}).encode())

    assert isinstance(read_objects[BLOBS[0].digest], UpstreamError)
    assert isinstance(read_objects[BLOBS[1].digest], Link)


def test_objects_that_nobody_asked_for_are_passed_over() -> None:
    """A host cannot slip in links for other blobs."""
    objects = [{"oid": BLOBS[5].digest, "actions": {"download": {"href": "https://x"}}}]

    assert read_batch(SERVER, BLOBS[:2], json.dumps({"objects": objects}).encode()) == {}


@pytest.mark.parametrize(
    "text",
    ["", "x", "[]", "{}", "null", '{"objects": 5}', '{"objects": [5]}', '{"objects": [{"oid": []}]}', "[" * 9**5],
)
def test_what_is_no_batch_answer_is_told_as_that(text: str) -> None:
    """With the address, and not as a bug of ours."""
    with pytest.raises(SourceUnavailable, match=r"h\.example.*not a batch answer"):
        read_batch(SERVER, BLOBS[:2], text.encode())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(BLOBS[0].digest),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["objects", "oid", "actions", "download", "href", "header", "error", "code", "expires_at"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(JSON)
@trials(400)
def test_any_json_is_read_or_refused(document: Any) -> None:
    """Answers of any type end in links, errors for objects, or SourceUnavailable."""
    for shape in (document, {"objects": document}, {"objects": [{"oid": BLOBS[0].digest, "actions": document}]}):
        try:
            found = read_batch(SERVER, BLOBS[:2], json.dumps(shape).encode())
        except SourceUnavailable:
            continue
        assert found.keys() <= {blob.digest for blob in BLOBS[:2]}
        assert all(isinstance(value, Link | UpstreamError) for value in found.values())


def test_what_a_host_says_of_a_link_never_shows_in_a_representation() -> None:
    """Headers of links and servers are credentials."""
    link = Link("https://x/y", {"Authorization": "secret"})

    assert "secret" not in repr(link)
    assert "secret" not in repr(LfsServer("https://x", headers={"Authorization": "secret"}))
    assert "secret" not in repr(LfsServer("https://x", Credential(("https", "x", 443), "Basic secret")))
