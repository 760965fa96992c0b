"""From an upstream's refs to what is to be served: moved refs, tags of everything, filters that leave nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from mirrortools.errors import HostileTree, RefMovedBack, SourceMissing
from mirrortools.resolve import default_branch
from tests.worked import REPO, Worked


@pytest.fixture
def upstream(tmp_path: Path) -> Worked:
    """One with a commit."""
    made = Worked(tmp_path)
    made.commit(a_txt="one")
    return made


def test_what_was_published_is_served(upstream: Worked) -> None:
    """Nothing is new until something is."""
    place = upstream.place()
    before = upstream.serves(place)
    upstream.publish(place)
    after = upstream.serves(place)
    upstream.commit(a_txt="two")

    assert (before, after, upstream.serves(place)) == (False, True, False)


def test_a_ref_that_upstream_deleted_vanishes_and_its_commit_stays(upstream: Worked) -> None:
    """Matched by a pattern; the commit can still be had by its id."""
    upstream.git("branch", "old")
    place = upstream.place(revisions=("*",))
    upstream.publish(place)
    commit = upstream.commit(b_txt="b")
    upstream.git("branch", "--delete", "--force", "old")
    upstream.publish(place)

    assert upstream.tree.refs(REPO) == {"refs/heads/main": commit}
    assert len(upstream.tree.commits(REPO)) == 2


def test_a_ref_that_is_named_and_was_deleted_stays_and_holds_no_other(upstream: Worked) -> None:
    """The operator wanted it by name; the others go on."""
    upstream.git("branch", "release")
    place = upstream.place(revisions=("main", "release"))
    upstream.publish(place)
    kept = upstream.tree.refs(REPO)["refs/heads/release"]
    upstream.git("branch", "--delete", "--force", "release")
    commit = upstream.commit(a_txt="two")
    upstream.publish(place)

    assert place.select(upstream.look(place)).missing == ("release",)
    assert upstream.tree.refs(REPO) == {"refs/heads/main": commit, "refs/heads/release": kept}
    assert upstream.serves(place)


def test_what_is_served_no_longer_is_told(upstream: Worked) -> None:
    """A ref that vanished under a pattern, and a pattern that matches nothing."""
    upstream.git("tag", "v1")
    place = upstream.place(revisions=("main", "v*", "w*"))
    upstream.publish(place)
    upstream.git("tag", "--delete", "v1")
    remote = upstream.look(place)
    notes = place.notes(place.select(remote), remote)

    assert ["v1 is gone upstream" in note for note in notes].count(True) == 1
    assert ["matches 'w*'" in note for note in notes].count(True) == 1


@pytest.mark.parametrize("annotated", [[], ["--annotate", "--message", "x"]])
def test_a_tag_that_moved_elsewhere_is_refused_and_followed_when_allowed(
    upstream: Worked, annotated: list[str]
) -> None:
    """Tags are refs like all others: forward is fine, elsewhere is not."""
    upstream.git("tag", *annotated, "v1")
    upstream.publish(upstream.place(revisions=("v1",)))
    forward = upstream.commit(a_txt="two")
    upstream.git("tag", "--force", *annotated, "v1")
    upstream.publish(upstream.place(revisions=("v1",)))
    moved_forward = upstream.tree.refs(REPO)["refs/tags/v1"]
    upstream.git("checkout", "--quiet", "--orphan", "other")
    elsewhere = upstream.commit(a_txt="three")
    upstream.git("tag", "--force", *annotated, "v1")
    with pytest.raises(RefMovedBack, match=r"v1 went from .*force_push: accept.*job"):
        upstream.publish(upstream.place(revisions=("v1",)))
    upstream.publish(upstream.place(revisions=("v1",), force_push="accept"))

    assert moved_forward == forward
    assert upstream.tree.refs(REPO)["refs/tags/v1"] == elsewhere


def test_a_tag_that_was_annotated_anew_is_news_to_git(upstream: Worked) -> None:
    """The same commit, another tag object: clones shall see it."""
    upstream.git("tag", "--annotate", "--message", "first", "v1")
    place = upstream.place(revisions=("v1",))
    upstream.publish(place)
    upstream.git("tag", "--force", "--annotate", "--message", "second", "v1")
    news = not upstream.serves(place)
    upstream.publish(place)

    assert news
    assert upstream.tree.git(REPO).refs["refs/tags/v1"] == upstream.git("rev-parse", "v1")  # type: ignore[union-attr]
    assert upstream.serves(place)


@pytest.mark.parametrize("what", ["HEAD:a.txt", "HEAD^{tree}"])
def test_a_tag_that_leads_to_no_commit_is_told_by_name(upstream: Worked, what: str) -> None:
    """A Hub cannot serve it; the operator may leave it out."""
    upstream.git("tag", "odd", what)
    with pytest.raises(SourceMissing, match=r"acme/tiny: odd leads to .*`revisions` in job job"):
        upstream.publish(upstream.place(revisions=("*",)))


def test_a_tag_of_a_tag_is_served_as_its_commit(upstream: Worked) -> None:
    """And git shows the tags themselves, peeled."""
    upstream.git("tag", "--annotate", "--message", "one", "one")
    upstream.git("tag", "--annotate", "--message", "two", "two", "one")
    upstream.publish(upstream.place(revisions=("two",)))
    head, git = upstream.git("rev-parse", "HEAD"), upstream.tree.git(REPO)

    assert git is not None
    assert upstream.tree.refs(REPO) == {"refs/tags/two": head}
    assert git.refs == {"refs/tags/two": upstream.git("rev-parse", "two")}
    assert git.peeled == {"refs/tags/two": head}


def test_a_repository_without_commits_is_told(tmp_path: Path) -> None:
    """Nothing to mirror yet."""
    empty = Worked(tmp_path)
    with pytest.raises(SourceMissing, match="it has none"):
        empty.look(empty.place())


def test_a_default_branch_that_is_not_mirrored_gives_way_to_one_that_is() -> None:
    """A clone must find something to check out."""
    refs = {"refs/heads/b": "1" * 40, "refs/heads/a": "1" * 40, "refs/tags/0": "1" * 40}

    assert default_branch("refs/heads/b", refs) == "refs/heads/b"
    assert default_branch("refs/heads/gone", refs) == "refs/heads/a"
    assert default_branch("", {"refs/tags/0": "1" * 40}) == "refs/heads/main"


def test_rules_that_leave_no_file_are_an_error_and_no_empty_revision(upstream: Worked) -> None:
    """Most likely a slip of the pen: the message says which files there are."""
    with pytest.raises(SourceMissing, match=r"job job leave no file; there are a\.txt"):
        upstream.publish(upstream.place(include=("*.safetensor",)))

    assert upstream.tree.refs(REPO) == {}


def test_one_revision_may_be_left_without_files_when_another_has_some(upstream: Worked) -> None:
    """Old tags often lack what is mirrored today."""
    upstream.git("tag", "v0")
    upstream.commit(b_bin="b")
    upstream.publish(upstream.place(revisions=("*",), include=("*.bin",)))

    assert set(upstream.tree.refs(REPO)) == {"refs/heads/main", "refs/tags/v0"}


def test_a_commit_without_any_file_is_served_as_it_is(upstream: Worked) -> None:
    """When no rule took them away."""
    upstream.git("rm", "--quiet", "a.txt")
    upstream.commit()
    upstream.publish(upstream.place())

    assert set(upstream.tree.refs(REPO)) == {"refs/heads/main"}


def test_only_some_revisions_leave_the_others_as_they_are(upstream: Worked) -> None:
    """A run for one ref neither drops nor moves another."""
    upstream.git("branch", "dev")
    upstream.publish(upstream.place(revisions=("main", "dev")))
    old = upstream.git("rev-parse", "dev")
    main = upstream.commit(a_txt="two")
    upstream.git("branch", "--force", "dev")
    upstream.publish(upstream.place(only=("main",), revisions=("main", "dev")))

    assert upstream.tree.refs(REPO) == {"refs/heads/main": main, "refs/heads/dev": old}
    assert upstream.serves(upstream.place(only=("main",), revisions=("main", "dev")))
    assert not upstream.serves(upstream.place(revisions=("main", "dev")))


def test_a_lost_manifest_is_nothing_served_and_no_error(upstream: Worked) -> None:
    """So that a sync makes it anew."""
    place = upstream.place()
    upstream.publish(place)
    [record] = (upstream.root / "public" / "models" / "acme" / "tiny" / "meta").glob("*/manifest.json")
    record.unlink()

    assert place.published() is None


def test_hostile_names_stop_a_manifest_unless_they_are_excluded(upstream: Worked) -> None:
    """By the same rules that choose files."""
    (upstream.folder / "-option").write_text("x")
    upstream.commit()
    with pytest.raises(HostileTree, match="-option"):
        upstream.publish(upstream.place())
    upstream.publish(upstream.place(exclude=("-*",)))

    assert set(upstream.tree.refs(REPO)) == {"refs/heads/main"}
