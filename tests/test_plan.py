"""Decisions of a sync: which refs, which files, what to fetch, whether there is room."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrortools.errors import HostileTree, NoSpace, SourceMissing
from mirrortools.model import Manifest, check_full_ref, check_path, quote_ref
from mirrortools.plan import Space, check_space, make_plan, select_revisions, wants_path
from tests.strategies import REPO, any_text, few_blobs, manifests, trials

OIDS = {
    "refs/heads/main": "1" * 40,
    "refs/heads/feature/x": "2" * 40,
    "refs/tags/v1.0": "3" * 40,
    "refs/tags/v1.1": "4" * 40,
    "refs/pr/1": "5" * 40,
}


@given(st.lists(manifests(), max_size=3), st.lists(manifests(), max_size=3), st.sets(few_blobs()))
@trials(200)
def test_a_plan_divides_what_is_wanted(old: list[Manifest], new: list[Manifest], held: set[object]) -> None:
    """Fetch and reuse share nothing and are together what is wanted; drop is what was and is not any more."""
    plan = make_plan(old, new, held.__contains__)
    before = {blob for manifest in old for blob in manifest.blobs}
    wanted = {blob for manifest in new for blob in manifest.blobs}

    assert set(plan.fetch) | set(plan.reuse) == wanted
    assert set(plan.fetch) & set(plan.reuse) == set()
    assert set(plan.reuse) <= held
    assert set(plan.fetch) & held == set()
    assert set(plan.drop) == before - wanted
    assert all(len(set(part)) == len(part) for part in (plan.fetch, plan.reuse, plan.drop))
    assert [blob.size for blob in plan.fetch] == sorted(blob.size for blob in plan.fetch)
    assert plan.fetch_bytes + plan.reuse_bytes == sum(blob.size for blob in wanted)
    assert plan.drop_bytes == sum(blob.size for blob in before - wanted)


@given(st.lists(manifests(), max_size=3))
@trials(50)
def test_nothing_is_planned_when_nothing_changed(same: list[Manifest]) -> None:
    """The same revisions, all of them here: nothing to fetch, nothing to drop."""
    plan = make_plan(same, same, lambda _blob: True)

    assert (plan.fetch, plan.drop) == ((), ())


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (["main"], ["refs/heads/main"]),
        (["v1.*"], ["refs/tags/v1.0", "refs/tags/v1.1"]),
        (["*"], ["refs/heads/feature/x", "refs/heads/main", "refs/tags/v1.0", "refs/tags/v1.1"]),
        (["feature/*", "main"], ["refs/heads/feature/x", "refs/heads/main"]),
        (["refs/pr/*"], ["refs/pr/1"]),
        (["refs/heads/*"], ["refs/heads/feature/x", "refs/heads/main"]),
        (["main", "nothing-*"], ["refs/heads/main"]),
        (["v1.[0]"], ["refs/tags/v1.0"]),
    ],
)
def test_patterns_choose_refs(patterns: list[str], names: list[str]) -> None:
    """Short names for branches and tags, full names for every kind of ref."""
    assert sorted(select_revisions(REPO, OIDS, patterns).refs) == names


def test_a_commit_is_chosen_besides_refs_or_alone() -> None:
    """Forty hexadecimal digits name a commit, which need not be in any ref."""
    commit = "a" * 40

    assert select_revisions(REPO, OIDS, [commit]).commits == {commit}
    assert select_revisions(REPO, {}, [commit]).refs == {}
    assert select_revisions(REPO, OIDS, ["main", commit]).commits == {commit}


@pytest.mark.parametrize("patterns", [["mian"], ["refs/pr/2"], ["x*"]])
def test_what_is_not_there_is_told_with_what_is(patterns: list[str]) -> None:
    """The message names the repository, the wish, and what could be meant."""
    with pytest.raises(SourceMissing, match=r"acme/tiny: .*v1\.0"):
        select_revisions(REPO, OIDS, patterns)


@pytest.mark.parametrize(
    ("name", "is_hinted"), [("deadbee", True), ("1" * 39, True), ("beef", False), ("v1234567", False)]
)
def test_a_commit_that_was_cut_short_gets_a_hint(name: str, is_hinted: bool) -> None:
    """Seven digits are enough for git, not here; a branch of that name would do."""
    with pytest.raises(SourceMissing) as caught:
        select_revisions(REPO, OIDS, [name])

    assert str(caught.value).endswith("a commit is named by all of its 40 digits") == is_hinted
    assert select_revisions(REPO, {f"refs/heads/{name}": "1" * 40}, [name]).refs


def test_a_repository_without_commits_has_nothing() -> None:
    """And the message says so."""
    with pytest.raises(SourceMissing, match="it has none"):
        select_revisions(REPO, {}, ["main"])
    with pytest.raises(SourceMissing, match="there is none"):
        select_revisions(REPO, {}, ["*"])


@given(
    st.dictionaries(st.sampled_from(sorted(OIDS)), st.just("1" * 40)),
    st.lists(st.sampled_from(["main", "v*", "*", "refs/pr/1", "b" * 40, "[", "v1.?"]), min_size=1, max_size=3),
)
@trials(200)
def test_a_selection_is_never_empty_and_never_invents(oids: dict[str, str], patterns: list[str]) -> None:
    """Every ref is one of upstream's; something is chosen, or an error tells that nothing is."""
    try:
        chosen = select_revisions(REPO, oids, patterns)
    except SourceMissing:
        return

    assert chosen.refs.items() <= oids.items()
    assert chosen.refs or chosen.commits


@pytest.mark.parametrize(
    ("path", "include", "exclude", "wanted"),
    [
        ("a.json", [], [], True),
        ("a.json", ["*"], [], True),
        ("deep/down/a.json", ["*.json"], [], True),
        ("a.json", ["*.bin"], [], False),
        ("onnx/a.bin", ["*"], ["onnx/"], False),
        ("my-onnx/a.bin", ["*"], ["onnx/"], True),
        ("onnx/a.bin", ["onnx/"], ["*.bin"], False),
        ("A.JSON", ["*.json"], [], False),
        ("a[1].bin", ["a[[]1].bin"], [], True),
    ],
)
def test_include_and_exclude_are_the_hub_clients(
    path: str, include: list[str], exclude: list[str], wanted: bool
) -> None:
    """A star crosses slashes, case counts, a final slash means the folder, exclude has the last word."""
    assert wants_path(path, include, exclude) == wanted


@pytest.mark.parametrize("needed", [0, 900, -5])
def test_what_fits_beside_the_reserve_may_come(needed: int) -> None:
    """1000 bytes are free, 100 must stay free; partial blobs may make the need negative."""
    check_space(needed, Space(1000, 100), Path("/srv/mirror"))
    check_space(0, Space(0, 100), Path("/srv/mirror"))


def test_what_does_not_fit_is_refused_with_numbers_and_advice() -> None:
    """Where, how much, how much there is and what is lacking, in units that people read, and what can be changed."""
    with pytest.raises(NoSpace) as caught:
        check_space(5 << 30, Space(3 << 30, 1 << 30), Path("/srv/mirror"))

    for said in (
        "5.0 GiB are to come",
        "3.0 GiB",
        "1.0 GiB",
        "3.0 GiB too little",
        "/srv/mirror",
        "min_free",
        "include",
    ):
        assert said in str(caught.value)


def test_what_is_one_byte_too_large_is_refused() -> None:
    """To the byte."""
    with pytest.raises(NoSpace, match="1 B too little"):
        check_space(901, Space(1000, 100), Path("/srv/mirror"))


@given(any_text())
@trials(500)
def test_no_accepted_path_leaves_its_folder_or_hides(path: str) -> None:
    """Whatever is accepted stays below its folder, is no option and no git folder, and can be written down."""
    try:
        check_path(path)
    except HostileTree:
        return
    parts = Path("/srv/tree", path).parts

    assert parts[:3] == ("/", "srv", "tree")
    assert "/".join(parts[3:]) == path
    assert ".." not in parts
    assert not path.startswith("-")
    assert not {part.lower() for part in parts} & {".git"}
    assert "\\" not in path
    path.encode()


@given(any_text())
@trials(300)
def test_no_accepted_ref_becomes_a_bad_file_name(name: str) -> None:
    """Any text behind refs/heads/ is refused, or its quoted form is a short name of one segment."""
    full = f"refs/heads/{name}"
    try:
        check_full_ref(full)
    except HostileTree:
        return

    assert "/" not in quote_ref(full)
    assert len(quote_ref(full)) < 240
    assert quote_ref(name) not in (".", "..", "")


@pytest.mark.parametrize("length", [60, 66, 90])
def test_a_long_chinese_branch_is_no_file_name_that_cannot_be(length: int) -> None:
    """Quoting makes three characters of each byte; the file system takes 255."""
    with pytest.raises(HostileTree):
        check_full_ref("refs/heads/" + "模" * length)
