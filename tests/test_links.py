"""Links: a hundred a question, no blob by two questions at once, forgotten when many others came after them."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from mirrortools.errors import SourceUnavailable, UpstreamError
from mirrortools.model import Blob
from mirrortools.upstreams.links import BATCH_OBJECTS, Link, Links

BLOBS = [Blob("sha256", f"{number:064x}", 1) for number in range(25 * BATCH_OBJECTS)]


class Host:
    """Answers every question, and keeps them. Each waits for `at_once` others to be under way."""

    def __init__(self, at_once: int = 1) -> None:
        self.questions: list[list[Blob]] = []
        self._meeting = threading.Barrier(at_once)

    def ask(self, blobs: Sequence[Blob]) -> Mapping[str, Link | UpstreamError]:
        self.questions.append(list(blobs))
        self._meeting.wait(10)
        return {blob.digest: Link(f"http://h/{blob.digest}") for blob in blobs}


def links(host: Host) -> Links:
    """Links of that host, for BLOBS in their order."""
    made = Links(host.ask)
    made.prepare(BLOBS)
    return made


def url(made: Links, blob: Blob) -> str:
    """Where a blob is said to be."""
    link = made.get(blob)
    assert isinstance(link, Link)
    return link.url


def test_each_link_is_asked_for_once_by_whoever_goes_through_all() -> None:
    """A question is about a hundred, so that a host's budget goes far."""
    host = Host()
    made = links(host)

    assert [url(made, blob) for blob in BLOBS] == [f"http://h/{blob.digest}" for blob in BLOBS]
    assert [blob for question in host.questions for blob in question] == BLOBS
    assert {len(question) for question in host.questions} == {BATCH_OBJECTS}


def test_links_that_were_forgotten_are_asked_for_again() -> None:
    """And the newest are remembered: memory does not grow with the number of blobs."""
    host = Host()
    made = links(host)
    for blob in BLOBS:
        made.get(blob)
    before = len(host.questions)
    newest = [url(made, blob) for blob in BLOBS[-BATCH_OBJECTS:]]

    assert newest == [f"http://h/{blob.digest}" for blob in BLOBS[-BATCH_OBJECTS:]]
    assert len(host.questions) == before
    assert url(made, BLOBS[0]) == f"http://h/{BLOBS[0].digest}"
    assert host.questions[before:] == [BLOBS[:BATCH_OBJECTS]]


def test_questions_about_different_blobs_do_not_wait_for_each_other() -> None:
    """Three are under way before the first is answered."""
    made = links(Host(at_once=3))
    wanted = [BLOBS[group * BATCH_OBJECTS] for group in range(3)]
    with ThreadPoolExecutor(3) as threads:
        urls = list(threads.map(lambda blob: url(made, blob), wanted))

    assert urls == [f"http://h/{blob.digest}" for blob in wanted]


def test_a_link_that_is_being_asked_for_is_waited_for() -> None:
    """However many threads need it: no blob is in two questions."""
    host = Host()
    made = links(host)
    with ThreadPoolExecutor(8) as threads:
        urls = list(threads.map(lambda blob: url(made, blob), [BLOBS[0]] * 8 + BLOBS[:40]))

    assert len(set(urls)) == 40
    asked = [blob for question in host.questions for blob in question]
    assert len(asked) == len(set(asked))


def test_an_answer_that_does_not_come_is_the_trouble_of_whoever_asked() -> None:
    """The next one asks anew."""
    host = Host()
    troubles = [SourceUnavailable("down")]

    def ask(blobs: Sequence[Blob]) -> Mapping[str, Link | UpstreamError]:
        if troubles:
            raise troubles.pop()
        return host.ask(blobs)

    made = Links(ask)
    with pytest.raises(SourceUnavailable):
        made.get(BLOBS[0])

    assert url(made, BLOBS[0]) == f"http://h/{BLOBS[0].digest}"


def test_a_blob_that_was_not_announced_is_asked_for_alone() -> None:
    """So is one behind which nothing was announced."""
    host = Host()
    made = Links(host.ask)
    made.prepare(BLOBS[:3])
    for blob in (BLOBS[2], BLOBS[7], BLOBS[0]):
        made.get(blob)

    assert host.questions == [[BLOBS[2]], [BLOBS[7]], BLOBS[:3]]
