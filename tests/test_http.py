"""The HTTP client: no trust in the other side, credentials to their origin only, connections that stay usable."""

from __future__ import annotations

import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrortools.errors import AccessDenied, RateLimited, SourceMissing, SourceUnavailable, UpstreamError
from mirrortools.upstreams import http
from mirrortools.upstreams.answers import describe, origin_of, retry_after_s, shown, version_of
from mirrortools.upstreams.http import PIPELINED, Credential, HttpClient, Request
from mirrortools.upstreams.wire import Head
from tests.delivery import noise
from tests.fakes import Heard, ScriptedServer, answer
from tests.servers.ports import free_port
from tests.strategies import any_text, trials

Script = Callable[[Heard], bytes | None]


@pytest.fixture
def serve() -> Iterator[Callable[[Script], ScriptedServer]]:
    """Starts servers that answer as their script says."""
    with ExitStack() as running:
        yield lambda script: running.enter_context(ScriptedServer(script))


@pytest.fixture
def client() -> Iterator[HttpClient]:
    """A client that does not wait long."""
    made = HttpClient(timeout_s=5)
    yield made
    made.close()


def get(client: HttpClient, url: str, credential: Credential | None = None, **headers: str) -> bytes:
    """The body of an answer."""
    with client.open(Request(url, headers=headers, credential=credential)) as body:
        return body.read_all()


def test_a_body_comes_whole_and_the_connection_serves_again(
    serve: Callable[[Script], ScriptedServer], client: HttpClient
) -> None:
    """Several requests go over one connection."""
    server = serve(lambda heard: answer(heard.target.encode()))
    bodies = [get(client, f"{server.origin}/{number}") for number in range(3)]

    assert bodies == [b"/0", b"/1", b"/2"]
    assert {heard.connection for heard in server.heard} == {0}
    assert server.heard[0].headers["accept-encoding"] == "identity"


def test_a_connection_is_kept_after_errors_and_redirects(
    serve: Callable[[Script], ScriptedServer], client: HttpClient
) -> None:
    """Short bodies that nobody wants are read, so that hundreds of refusals do not cost hundreds of connections."""

    def script(heard: Heard) -> bytes:
        if heard.target == "/gone":
            return answer(b"not here", 404)
        return answer(b"look there", 302, Location="/there") if heard.target == "/moved" else answer(b"there")

    server = serve(script)
    with pytest.raises(SourceMissing):
        get(client, f"{server.origin}/gone")

    assert get(client, f"{server.origin}/moved") == b"there"
    assert {heard.connection for heard in server.heard} == {0}


def test_a_body_that_was_left_half_way_does_not_spoil_the_next_answer(
    serve: Callable[[Script], ScriptedServer], client: HttpClient
) -> None:
    """What was not read is never taken for another answer."""
    server = serve(lambda heard: answer(noise(200_000)) if heard.target == "/long" else answer(b"short"))
    with client.open(Request(f"{server.origin}/long")) as body:
        body.readinto(memoryview(bytearray(10)))

    assert get(client, f"{server.origin}/short") == b"short"


def test_an_idle_connection_that_the_server_closed_is_replaced(
    serve: Callable[[Script], ScriptedServer], client: HttpClient
) -> None:
    """The request is made once more on a new one."""
    answers = iter([answer(b"1"), None, answer(b"2")])
    server = serve(lambda _heard: next(answers))

    assert [get(client, server.origin), get(client, server.origin)] == [b"1", b"2"]


def many(client: HttpClient, server: ScriptedServer, numbers: Iterable[int]) -> list[bytes]:
    """The bodies of pipelined requests for numbers."""
    return list(client.read_many((Request(f"{server.origin}/{number}") for number in numbers), 1000))


def closing(after: int, last: Callable[[bytes], bytes | None]) -> Script:
    """Each connection is closed when it has answered so many requests; `last` is done to the answer after these."""
    answered: Counter[int] = Counter()

    def script(heard: Heard) -> bytes | None:
        answered[heard.connection] += 1
        whole = answer(heard.target.encode() * 9, Connection="close" if answered[heard.connection] == after else "")
        return whole if answered[heard.connection] <= after else last(whole)

    return script


def test_many_small_answers_come_over_one_connection(
    serve: Callable[[Script], ScriptedServer], client: HttpClient
) -> None:
    """Whatever their number, and for the next many as well."""
    server = serve(lambda heard: answer(heard.target.encode()))
    numbers = range(3 * PIPELINED + 1)

    assert many(client, server, numbers) == many(client, server, numbers) == [b"/%d" % number for number in numbers]
    assert {heard.connection for heard in server.heard} == {0}
    assert len(server.heard) == 2 * len(numbers)


@pytest.mark.parametrize("after", [1, 2, 10, PIPELINED, PIPELINED + 1])
@pytest.mark.parametrize("last", [lambda _whole: None, lambda whole: whole], ids=["closed", "ignored"])
def test_a_connection_that_is_closed_after_some_answers_is_replaced(
    serve: Callable[[Script], ScriptedServer],
    client: HttpClient,
    after: int,
    last: Callable[[bytes], bytes | None],
) -> None:
    """As nginx does after keepalive_requests; answers behind the one that says so are not taken."""
    server = serve(closing(after, last))

    assert many(client, server, range(70)) == [b"/%d" % number * 9 for number in range(70)]


def test_an_answer_that_breaks_off_is_asked_for_again(
    serve: Callable[[Script], ScriptedServer], client: HttpClient
) -> None:
    """On a new connection, when there were others before it on this one."""
    seen: Counter[int] = Counter()

    def script(heard: Heard) -> bytes | None:
        seen[heard.connection] += 1
        whole = answer(heard.target.encode() * 9)
        if seen[heard.connection] == 4:
            _and_hang_up(server, whole[:-3])
            return None
        return whole

    server = serve(script)

    assert many(client, server, range(20)) == [b"/%d" % number * 9 for number in range(20)]
    assert max(heard.connection for heard in server.heard) > 4


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200", answer(b"12345", Content_Length="9")])
def test_connections_that_bring_no_answer_at_all_end_it(
    serve: Callable[[Script], ScriptedServer], client: HttpClient, sent: bytes
) -> None:
    """Nothing goes on for ever."""
    server = serve(lambda _heard: _and_hang_up(server, sent))
    with pytest.raises(SourceUnavailable):
        many(client, server, range(5))

    assert max(heard.connection for heard in server.heard) <= 1


def test_an_error_among_many_answers_is_raised(serve: Callable[[Script], ScriptedServer], client: HttpClient) -> None:
    """Those before it were given."""
    server = serve(lambda heard: answer(status=404) if heard.target == "/3" else answer(b"x"))
    bodies = client.read_many((Request(f"{server.origin}/{number}") for number in range(9)), 10)

    assert [next(bodies) for _ in range(3)] == [b"x"] * 3
    with pytest.raises(SourceMissing):
        next(bodies)


def test_each_of_many_answers_has_a_limit(serve: Callable[[Script], ScriptedServer], client: HttpClient) -> None:
    """However it arrives."""
    server = serve(lambda _heard: answer(b"x" * 1001))
    with pytest.raises(SourceUnavailable, match="longer than 1000"):
        many(client, server, range(3))


def test_a_body_that_is_shorter_than_it_says_is_an_error(
    serve: Callable[[Script], ScriptedServer], client: HttpClient
) -> None:
    """And says how much is lacking."""

    def script(heard: Heard) -> bytes | None:
        server.heard.clear()
        return answer(b"12345", Content_Length="9") if heard.target == "/short" else None

    server = serve(script)
    server.script = lambda heard: _and_hang_up(server, answer(b"12345", Content_Length="9"))
    with pytest.raises(SourceUnavailable, match="4 bytes too early"):
        get(client, f"{server.origin}/short")


def _and_hang_up(server: ScriptedServer, data: bytes) -> None:
    server._connections[-1].sendall(data)


def test_a_body_without_a_length_ends_with_the_connection(
    serve: Callable[[Script], ScriptedServer], client: HttpClient
) -> None:
    """HTTP/1.0 style answers are read to their end."""
    server = serve(lambda _heard: None)
    server.script = lambda _heard: _and_hang_up(server, b"HTTP/1.0 200 OK\r\n\r\nall of it")

    assert get(client, server.origin) == b"all of it"


def test_chunked_bodies_are_read(serve: Callable[[Script], ScriptedServer], client: HttpClient) -> None:
    """And their connection serves again."""
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"
    server = serve(lambda _heard: chunked)

    assert [get(client, server.origin), get(client, server.origin)] == [b"abcde", b"abcde"]
    assert {heard.connection for heard in server.heard} == {0}


def test_a_small_answer_has_a_limit(serve: Callable[[Script], ScriptedServer], client: HttpClient) -> None:
    """An endless body of what should be small is given up, whether its length is told or not."""
    server = serve(lambda _heard: answer(noise(100_000)))
    with client.open(Request(server.origin)) as body, pytest.raises(SourceUnavailable, match="longer than 50000"):
        body.read_all(50_000)


def test_a_drip_is_given_up(
    serve: Callable[[Script], ScriptedServer], client: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that sends just enough to keep the connection alive is slower than nothing."""
    monkeypatch.setattr(http, "RATE_WINDOW_S", 0.0)
    monkeypatch.setattr(http, "MINIMUM_RATE", 1 << 40)
    server = serve(lambda _heard: answer(noise(1000)))
    with pytest.raises(SourceUnavailable, match="slower than"):
        get(client, server.origin)


def test_silence_is_given_up(serve: Callable[[Script], ScriptedServer]) -> None:
    """A server that accepts and says nothing ends in a time-out that is told as that."""
    released = threading.Event()
    server = serve(lambda _heard: answer() if released.wait(20) else None)
    client = HttpClient(timeout_s=0.2)
    with pytest.raises(SourceUnavailable, match="timed out"):
        get(client, server.origin)
    released.set()
    client.close()


def test_a_reader_can_be_woken_and_the_connection_serves_nobody_afterwards(
    serve: Callable[[Script], ScriptedServer], client: HttpClient
) -> None:
    """The next request goes over a new one."""
    half = answer(noise(1000))[:-500]
    server = serve(lambda heard: half if heard.target == "/half" else answer(b"whole"))
    with client.open(Request(f"{server.origin}/half")) as body:
        threading.Timer(0.1, body.cancel).start()
        with pytest.raises(SourceUnavailable):
            body.read_all()

    assert get(client, f"{server.origin}/whole") == b"whole"
    assert [heard.connection for heard in server.heard] == [0, 1]


def test_breaking_off_wakes_who_waits_and_lets_nobody_ask_again(
    serve: Callable[[Script], ScriptedServer], client: HttpClient
) -> None:
    """Ctrl-C does not wait for a server's time-out."""
    released = threading.Event()
    server = serve(lambda _heard: answer() if released.wait(20) else None)
    errors: list[UpstreamError] = []

    def ask() -> None:
        try:
            get(client, server.origin)
        except UpstreamError as error:
            errors.append(error)

    waiting = threading.Thread(target=ask)
    waiting.start()
    while not server.heard:
        time.sleep(0.01)
    client.break_off()
    waiting.join(4)
    ended = not waiting.is_alive()
    released.set()
    with pytest.raises(SourceUnavailable):
        get(client, server.origin)

    assert ended
    assert len(errors) == 1


def test_a_range_says_where_it_begins(serve: Callable[[Script], ScriptedServer], client: HttpClient) -> None:
    """206 with its offset, 200 with 0."""
    server = serve(
        lambda heard: answer(b"cd", 206, Content_Range="bytes 2-3/6") if heard.target == "/part" else answer(b"abcdef")
    )
    starts = []
    for path in ("/part", "/all"):
        with client.open(Request(f"{server.origin}{path}", headers={"Range": "bytes=2-3"})) as body:
            starts.append(body.start)
            body.read_all()

    assert starts == [2, 0]


def test_a_host_that_does_not_answer_is_unreachable_and_one_that_fails_is_not(
    client: HttpClient, serve: Callable[[Script], ScriptedServer]
) -> None:
    """Whoever was asked in vain need not be asked by everybody else."""
    closed = f"http://127.0.0.1:{free_port()}/a"
    failing = serve(lambda _heard: answer(b"", status=500)).origin

    with pytest.raises(SourceUnavailable) as refused:
        get(client, closed)
    with pytest.raises(SourceUnavailable) as failed:
        get(client, failing)

    assert (refused.value.unreachable, failed.value.unreachable) == (True, False)


@pytest.mark.parametrize("value", ["", "bytes", "bytes */6", "bytes x-3/6", "bytes ²-3/6", "bytes -3/6", "items 2-3/6"])
def test_a_part_that_hides_where_it_begins_is_refused(
    serve: Callable[[Script], ScriptedServer], client: HttpClient, value: str
) -> None:
    """Its bytes could be put in a wrong place."""
    server = serve(lambda _heard: answer(b"cd", 206, Content_Range=value))
    with pytest.raises(SourceUnavailable, match="Content-Range"):
        get(client, server.origin)


@pytest.mark.parametrize(
    ("headers", "version"),
    [
        ({"etag": '"abc"'}, '"abc"'),
        ({"etag": 'W/"abc"', "last-modified": formatdate(0), "date": formatdate(9)}, ""),
        ({"etag": "abc"}, ""),
        ({"etag": '"a"b"'}, ""),
        ({"etag": '"a", "b"'}, ""),
        ({"last-modified": formatdate(0), "date": formatdate(9)}, formatdate(0)),
        ({"last-modified": formatdate(9), "date": formatdate(9)}, ""),
        ({"last-modified": formatdate(0)}, ""),
        ({"last-modified": "yesterday", "date": "today"}, ""),
        ({}, ""),
    ],
)
def test_a_version_is_a_strong_validator(headers: dict[str, str], version: str) -> None:
    """A weak tag says that files mean the same, not that they are; a file of this very second may change again."""
    assert version_of(Head(200, "OK", headers, keeps_alive=True)) == version


@given(st.dictionaries(st.sampled_from(["etag", "last-modified", "date"]), any_text() | st.just(formatdate(0))))
@trials(200)
def test_any_header_is_a_version_or_none(headers: dict[str, str]) -> None:
    """What a server writes there is repeated as it came, or not at all."""
    assert version_of(Head(200, "OK", headers, keeps_alive=True)) in ("", *headers.values())


@given(st.lists(st.sampled_from("ab"), max_size=5), st.sampled_from("ab"))
@trials(40)
def test_a_credential_goes_to_its_own_origin_and_to_no_other(hops: list[str], owner: str) -> None:
    """Over any chain of redirects between two hosts; headers of the request stay with the first one."""
    with ExitStack() as running:
        places: list[str] = []

        def script(heard: Heard) -> bytes:
            step = int(heard.target.strip("/"))
            return answer(status=302, Location=places[step + 1]) if step < len(hops) else answer(b"end")

        servers = {name: running.enter_context(ScriptedServer(script)) for name in "ab"}
        places += [f"{servers[name].origin}/{step}" for step, name in enumerate(["a", *hops])]
        client = HttpClient(timeout_s=5)
        running.callback(client.close)
        credential = Credential(origin_of(servers[owner].origin), "Basic secret")

        assert get(client, places[0], credential, **{"X-Token": "mine", "Range": "bytes=0-2"}) == b"end"
        for name, server in servers.items():
            expected = "Basic secret" if name == owner else None
            assert {heard.headers.get("authorization") for heard in server.heard} <= {expected}
            assert {heard.headers["range"] for heard in server.heard} <= {"bytes=0-2"}
        assert not [heard for heard in servers["b"].heard if "x-token" in heard.headers]


def test_redirects_end(serve: Callable[[Script], ScriptedServer], client: HttpClient) -> None:
    """A circle is left after a few rounds."""
    server = serve(lambda _heard: answer(status=302, Location="/"))
    with pytest.raises(SourceUnavailable, match="redirects"):
        get(client, server.origin)

    assert len(server.heard) < 10


@pytest.mark.parametrize(
    "location",
    ["", "file:///etc/passwd", "http://[::1", "http://a..b/", "//", "ftp://x/", "http://\xe4\xf6/x", "http://h:99999/"],
)
def test_a_redirect_to_nonsense_is_an_error_of_the_source(
    serve: Callable[[Script], ScriptedServer], client: HttpClient, location: str
) -> None:
    """Whatever a hostile server writes there, it is not a bug of ours."""
    server = serve(lambda heard: answer(status=302, Location=location) if heard.target == "/" else answer())
    with pytest.raises(SourceUnavailable):
        get(client, f"{server.origin}/")


@given(any_text().filter(lambda text: text.isprintable()))
@trials(100)
def test_any_location_is_followed_or_refused(location: str) -> None:
    """No redirect ends in anything but an answer or an UpstreamError."""
    head = f"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: {location}\r\n\r\n".encode("utf-8", "replace")
    with ScriptedServer(lambda heard: head if heard.target == "/" else answer(b"x")) as server:
        client = HttpClient(timeout_s=5)
        try:
            get(client, f"{server.origin}/")
        except UpstreamError:
            pass
        finally:
            client.close()


@pytest.mark.parametrize("headers", [{"X": "a\r\nEvil: 1"}, {"X": "\u20ac"}, {"a b": "x"}, {"": "x"}])
def test_a_header_that_cannot_be_sent_is_an_error_of_the_source(
    serve: Callable[[Script], ScriptedServer], client: HttpClient, headers: dict[str, str]
) -> None:
    """Batch answers name headers: a hostile one neither crashes nor adds lines, and its value is not repeated."""
    server = serve(lambda _heard: answer(b"ok"))
    with pytest.raises(SourceUnavailable) as caught:
        get(client, server.origin, **headers)

    assert "Evil" not in str(caught.value)
    assert server.heard == []


@pytest.mark.parametrize(
    ("status", "headers", "kind", "said"),
    [
        (401, {}, AccessDenied, "token_file"),
        (403, {"X_Error_Code": "GatedRepo"}, AccessDenied, "GatedRepo"),
        (404, {}, SourceMissing, "404"),
        (410, {}, SourceMissing, "410"),
        (416, {}, SourceUnavailable, "416"),
        (429, {}, RateLimited, "429"),
        (500, {}, SourceUnavailable, "500"),
        (503, {"Retry_After": "7"}, RateLimited, "503 .*left alone for 7 s"),
        (503, {}, SourceUnavailable, "503"),
        (304, {}, SourceUnavailable, "304"),
    ],
)
def test_each_status_is_the_error_that_says_what_to_do(
    serve: Callable[[Script], ScriptedServer],
    client: HttpClient,
    status: int,
    headers: dict[str, str],
    kind: type[UpstreamError],
    said: str,
) -> None:
    """With the address, without what is secret in it."""
    server = serve(lambda _heard: answer(status=status, **headers))
    with pytest.raises(kind, match=said) as caught:
        get(client, f"{server.origin}/model?X-Signature=secret")

    assert f"127.0.0.1:{server.port}/model" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("headers", "pause_s"),
    [
        ({"Retry_After": "0"}, 0.0),
        ({"Retry_After": "120"}, 120.0),
        ({"Retry_After": "9" * 400}, float("inf")),
        ({"Retry_After": "soon"}, 5.0),
        ({"Retry_After": "²"}, 5.0),
        ({"RateLimit": '"api";r=0;t=170'}, 170.0),
        ({}, 5.0),
    ],
)
def test_the_pause_that_a_server_wants_is_read(
    serve: Callable[[Script], ScriptedServer], client: HttpClient, headers: dict[str, str], pause_s: float
) -> None:
    """Retry-After, else RateLimit, else a few seconds."""
    server = serve(lambda _heard: answer(status=429, **headers))
    with pytest.raises(RateLimited) as caught:
        get(client, server.origin)

    assert caught.value.retry_after_s == pause_s


@given(st.none() | any_text() | st.integers().map(str) | st.integers(-(10**9), 10**10).map(formatdate))
@trials(200)
def test_any_retry_after_is_a_pause_or_nothing(value: str | None) -> None:
    """No value of the header breaks a sync, and no pause is negative."""
    pause_s = retry_after_s(value)

    assert pause_s is None or pause_s >= 0


def test_a_date_in_retry_after_is_a_pause() -> None:
    """An HTTP date counts from now."""
    pause_s = retry_after_s(formatdate(time.time() + 100, usegmt=True))

    assert pause_s is not None
    assert 90 < pause_s <= 100


def test_ipv6_hosts_are_asked(client: HttpClient) -> None:
    """Brackets in the URL, none in the connection, and again some in the Host header."""
    with ScriptedServer(lambda _heard: answer(b"six"), host="::1") as server:
        assert get(client, server.origin) == b"six"
        assert server.heard[0].headers["host"] == f"[::1]:{server.port}"


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("http://h/x", ("http", "h", 80)),
        ("https://H:8443/", ("https", "h", 8443)),
        ("http://user:pw@h/", ("http", "h", 80)),
        ("http://[::1]:81/", ("http", "::1", 81)),
    ],
)
def test_an_origin_is_scheme_host_and_port(url: str, origin: tuple[str, str, int]) -> None:
    """Users and paths do not belong to it."""
    assert origin_of(url) == origin


@pytest.mark.parametrize("url", ["", "x", "file:///etc/passwd", "http://", "http://h:x/", "http://[::1/", "ssh://h/"])
def test_what_is_not_a_web_address_has_no_origin(url: str) -> None:
    """Links to anything else are refused."""
    with pytest.raises(SourceUnavailable):
        origin_of(url)


def test_a_url_is_shown_without_its_secrets() -> None:
    """Neither users nor signatures get into logs."""
    assert shown("https://user:pw@h:8/a/b?sig=s#f") == "https://h:8/a/b?…"
    assert "pw" not in shown("http://user:pw@[::1/x")


def test_a_proxy_is_asked_with_its_own_password_and_the_whole_address(client: HttpClient) -> None:
    """The user in the proxy's URL goes to the proxy; the address has no fragment and no user of its own."""
    with ScriptedServer(lambda _heard: answer(b"by proxy")) as proxy:
        through = HttpClient(None, {"http": f"http://u%40x:p@127.0.0.1:{proxy.port}"}, lambda host: host == "direct")

        assert get(through, "http://me:pw@far.example/x?y=1#z") == b"by proxy"
        assert proxy.heard[0].target == "http://far.example/x?y=1"
        assert proxy.heard[0].headers["proxy-authorization"] == "Basic dUB4OnA="
        through.close()


def test_a_certificate_that_is_not_trusted_is_told_with_what_to_set() -> None:
    """The message names `ca_file`."""
    error = ssl.SSLCertVerificationError(1, "self-signed")
    error.verify_message = "self-signed certificate"

    assert "ca_file" in describe(error)
