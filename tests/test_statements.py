"""Statements: what they say, which are followed, when a new one is due."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrortools.errors import HostileTree
from mirrortools.statements import LIFETIME_S, Signed, Statement, is_good_for, next_statement, objection
from tests.strategies import REPO, any_text, digests

NOW_S = 1_800_000_000
part_names = st.just("refs") | digests(40)
statements = st.builds(
    lambda serial, issued_at, life_s, parts: Statement(REPO, serial, issued_at, issued_at + life_s, parts),
    st.integers(1, 1 << 40),
    st.integers(1, 1 << 33),
    st.integers(1, LIFETIME_S),
    st.dictionaries(part_names, digests(), max_size=4),
)


@given(statements)
def test_a_statement_is_read_as_it_was_written(statement: Statement) -> None:
    """The text is the whole of it, and the same for the same statement."""
    assert Statement.parse(statement.text) == statement
    assert Statement.parse(statement.text).text == statement.text
    assert Signed.from_json(Signed(statement.text, "x").to_json()).statement == statement


@given(any_text() | st.from_type(int).map(str) | statements.map(lambda s: s.text[:-3]))
def test_any_other_text_is_refused(text: str) -> None:
    """No text makes the reader fail in another way."""
    with pytest.raises(HostileTree):
        Statement.parse(text)


NUMBERS = [("serial", 0), ("serial", True), ("serial", 1.0), ("serial", 1 << 60), ("expires_at", -1)]
PARTS = [("parts", {"../x": "a" * 64}), ("parts", {"refs": "a"}), ("parts", {"refs": 7}), ("parts", [])]


@pytest.mark.parametrize(("key", "value"), [*NUMBERS, *PARTS, ("repo", 7), ("repo", "../x")])
def test_values_that_no_origin_writes_are_refused(key: str, value: object) -> None:
    """Numbers are whole, positive and exact for every reader of JSON; names, parts and digests have their form."""
    document = json.loads(Statement(REPO, 1, 1, 2, {}).text)
    with pytest.raises(HostileTree):
        Statement.parse(json.dumps({**document, key: value}))


@given(st.integers(0, 1 << 40), st.integers(1, 1 << 33))
def test_numbers_only_grow(after: int, now_s: int) -> None:
    """Whatever the clock says, the next number is above the last; it is the time where that is possible."""
    statement = next_statement(REPO, {}, after, now_s)

    assert statement.serial > after
    assert statement.serial == now_s or after >= now_s


@given(statements, statements, st.integers(0, 1 << 34))
def test_what_is_followed_is_newer_or_the_same(new: Statement, held: Statement, now_s: int) -> None:
    """Never an older number, never another statement with the same one, never one whose time ran out."""
    if objection(new, held, now_s) is None:
        assert new.expires_at > now_s
        assert new.serial > held.serial or new == held
    elif new.expires_at > now_s:
        assert new.serial <= held.serial


def test_the_same_statement_may_come_again() -> None:
    """A delivery that broke off is repeated with the words that it had."""
    statement = next_statement(REPO, {"refs": "a" * 64}, 0, NOW_S)

    assert objection(statement, statement, NOW_S) is None
    assert objection(statement, None, NOW_S) is None
    assert objection(next_statement(REPO, {}, 0, NOW_S), statement, NOW_S)


@pytest.mark.parametrize(
    ("age_s", "good"), [(-1, False), (0, True), (LIFETIME_S // 2 - 1, True), (LIFETIME_S // 2, False)]
)
def test_a_statement_is_renewed_at_half_its_life(age_s: int, good: bool) -> None:
    """Edges that are away for two weeks are in time; a clock that was set back makes a new one."""
    parts = {"refs": "a" * 64}
    statement = next_statement(REPO, parts, 0, NOW_S)

    assert is_good_for(statement, parts, NOW_S + age_s) is good
    assert not is_good_for(statement, {**parts, "a" * 40: "b" * 64}, NOW_S)
