"""Who may read what is private, as nginx looks it up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrortools.errors import HostileTree
from mirrortools.model import RepoId
from mirrortools.readers import Access, Bearer, Readership, write_access

REPO = RepoId.parse("datasets/acme/rows")
DIGESTS = st.text("0123456789abcdef", min_size=64, max_size=64)
USERS = st.text("abcXYZ019_.-", min_size=1, max_size=12)
ACCESS = st.builds(
    Access,
    st.dictionaries(DIGESTS, st.builds(Bearer, USERS, st.none() | st.integers(0, 1 << 40)), max_size=4),
    st.dictionaries(
        st.sampled_from([REPO, RepoId.parse("acme/a"), RepoId.parse("gpt2")]),
        st.builds(Readership, st.lists(USERS, max_size=3).map(tuple), st.booleans()),
    ),
)


@given(ACCESS)
def test_it_travels(access: Access) -> None:
    """What is written as JSON reads back as the same."""
    assert Access.from_json(json.loads(json.dumps(access.to_json()))) == access


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"tokens": {"../x": {"user": "a", "expires_at": None}}, "repositories": {}},
        {"tokens": {"0" * 64: {"user": "a/b", "expires_at": None}}, "repositories": {}},
        {"tokens": {"0" * 64: {"user": "a", "expires_at": "soon"}}, "repositories": {}},
        {"tokens": {}, "repositories": {"models/../x": {"readers": [], "gated": False}}},
        {"tokens": [], "repositories": {}},
    ],
)
def test_what_could_leave_its_folder_is_refused(document: dict[str, object]) -> None:
    """An origin sends it, and names of files are made of it."""
    with pytest.raises(HostileTree):
        Access.from_json(document)


def test_the_folder_is_what_was_said_last(tmp_path: Path) -> None:
    """One file for each token and repository; what is not said any more is gone, and once more changes nothing."""
    first = Access({"a" * 64: Bearer("alice"), "b" * 64: Bearer("bob", 9)}, {REPO: Readership(("alice",), gated=True)})
    second = Access({"b" * 64: Bearer("bob", 9)}, {})
    changes = [write_access(tmp_path, access) for access in (first, first)]
    folder = tmp_path / "private" / ".access"
    listed = json.loads((folder / "repositories" / "datasets%2Facme%2Frows").read_text())
    changes += [write_access(tmp_path, access) for access in (second, second)]

    told = json.loads((folder / "users" / "bob.json").read_text())

    assert changes == [True, False, True, False]
    assert told == {"repositories": []}
    assert [path.name for path in (folder / "users").iterdir()] == ["bob.json"]
    assert listed == {"readers": ["alice"], "gated": True}
    assert {path.name: json.loads(path.read_text()) for path in (folder / "tokens").iterdir()} == {
        "b" * 64: {"user": "bob", "expires_at": 9}
    }
    assert not list((folder / "repositories").iterdir())


@given(ACCESS)
def test_lists_tell_what_may_be_read_and_no_more(access: Access) -> None:
    """Each user with a token has one, and in it whatever names that user among its readers."""
    lists = access.lists()

    assert lists.keys() == {bearer.user for bearer in access.bearers.values()}
    for user, paths in lists.items():
        assert paths == sorted(repo.path for repo, known in access.readerships.items() if user in known.readers)


@pytest.mark.parametrize("user", [".", "..", "a" * 100])
def test_every_name_of_a_user_names_a_file_in_the_folder(tmp_path: Path, user: str) -> None:
    """Those of folders too."""
    write_access(tmp_path, Access({"a" * 64: Bearer(user)}, {}))

    assert [path.name for path in (tmp_path / "private" / ".access" / "users").iterdir()] == [f"{user}.json"]
