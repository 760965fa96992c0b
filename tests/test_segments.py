"""How blobs are cut, and the journal that remembers what is on disk."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mirrortools.segments import Segments, journal_header, journal_line, read_journal, spans
from tests.strategies import any_text, digests, trials

journals = st.dictionaries(st.integers(0, 40), digests(32), max_size=12)


@given(st.integers(0, 10_000), st.integers(1, 500))
@trials(200)
def test_segments_cover_a_blob_exactly(size: int, length: int) -> None:
    """They follow each other without a gap and end with the blob; every byte lies in the one that index names."""
    segments = Segments(size, length)
    bounds = [segments.bounds(index) for index in range(segments.count)]

    assert [start for start, _ in bounds] == [0, *(stop for _, stop in bounds)][: segments.count]
    assert (bounds[-1][1] if bounds else 0) == size
    assert all(0 < stop - start <= length for start, stop in bounds)
    assert all(segments.index(start) == segments.index(stop - 1) == i for i, (start, stop) in enumerate(bounds))


@given(st.integers(0, 60), st.sets(st.integers(0, 60)), st.integers(1, 20))
@trials(300)
def test_spans_are_what_is_not_done(count: int, done: set[int], longest: int) -> None:
    """Each missing segment is in exactly one span, done ones are in none, and no span is too long."""
    found = list(spans(count, dict.fromkeys(done, ""), longest))
    covered = [index for span in found for index in range(span.first, span.stop)]

    assert covered == [index for index in range(count) if index not in done]
    assert all(0 < span.stop - span.first <= longest for span in found)


@given(journals)
@trials(100)
def test_a_journal_reads_as_it_was_written(done: dict[int, str]) -> None:
    """Header and lines, in any order."""
    segments = Segments(41 * 64, 64)
    text = journal_header(segments) + "".join(journal_line(index, digest) for index, digest in done.items())

    assert read_journal(text, segments) == done


@given(journals, st.integers(0, 2000))
@trials(300)
def test_a_journal_that_was_cut_anywhere_loses_only_its_end(done: dict[int, str], cut: int) -> None:
    """No half line counts, and what counts is what was written."""
    segments = Segments(41 * 64, 64)
    text = journal_header(segments) + "".join(journal_line(index, digest) for index, digest in done.items())
    whole_lines = max(0, text[:cut].count("\n") - 1)

    assert read_journal(text[:cut], segments) == dict(list(done.items())[:whole_lines])


@given(journals, st.lists(any_text() | st.sampled_from(["² " + "0" * 32, "-1 " + "0" * 32, "99 " + "f" * 32])))
@trials(300)
def test_garbage_between_the_lines_is_passed_over(done: dict[int, str], garbage: list[str]) -> None:
    """A journal is read from a disk that may have lost anything: no content makes it fail."""
    segments = Segments(41 * 64, 64)
    lines = [journal_line(index, digest) for index, digest in done.items()]
    noise = [f"{text}\n" for text in garbage]
    read = read_journal(journal_header(segments) + "".join([*noise, *lines]), segments)

    assert read.items() >= done.items()
    assert all(0 <= index < segments.count for index in read)


def test_a_journal_of_other_segments_counts_for_nothing() -> None:
    """Another size of the blob or of the segments, another version, or no header."""
    segments = Segments(1000, 64)
    line = journal_line(0, "0" * 32)

    for header in (journal_header(Segments(1001, 64)), journal_header(Segments(1000, 65)), "", "x\n", "mirrortools\n"):
        assert read_journal(header + line, segments) == {}
    assert read_journal(journal_header(segments) + line, segments) == {0: "0" * 32}
