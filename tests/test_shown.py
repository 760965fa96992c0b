"""Notes of what an edge shows: what is believed, and that nothing is that was taken back."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirrortools.model import Realm, RepoId
from mirrortools.notes import BELIEVED_S
from mirrortools.roll import Roll
from mirrortools.shown import Shown, digest_of

REPOS = [RepoId.parse(f"acme/m{number}") for number in range(4)]
PATHS = [repo.path for repo in REPOS]
NOW_S = 1_700_000_000


def notes(root: Path, realm: Realm = Realm.PUBLIC) -> Shown:
    return Shown(root, realm, lambda _: 17)


def record(root: Path) -> Path:
    return root / "state" / "shown" / "public"


def test_a_note_is_believed_until_it_is_taken_back(tmp_path: Path) -> None:
    """The latest one counts, of each repository by itself."""
    shown = notes(tmp_path)
    for repo in REPOS:
        shown.note(repo, f"{repo} of before", NOW_S)
    shown.note(REPOS[1], "now", NOW_S)
    shown.forget(REPOS[2])

    assert notes(tmp_path).believed(PATHS[:3], NOW_S) == {
        REPOS[0].path: digest_of(f"{REPOS[0]} of before"),
        REPOS[1].path: digest_of("now"),
    }


def test_realms_have_notes_of_their_own(tmp_path: Path) -> None:
    """What is private is named in no file of the public realm."""
    notes(tmp_path, Realm.PRIVATE).note(REPOS[0], "secret", NOW_S)

    assert notes(tmp_path).believed(PATHS, NOW_S) == {}
    assert not record(tmp_path).exists()


def test_all_can_be_taken_back(tmp_path: Path) -> None:
    """Also when there are none."""
    shown = notes(tmp_path)
    shown.forget_all()
    shown.forget(REPOS[0])
    shown.note(REPOS[0], "x", NOW_S)
    shown.forget_all()

    assert shown.believed(PATHS, NOW_S) == {}


STEPS = st.lists(
    st.tuples(
        st.sampled_from(REPOS), st.sampled_from(["note", "forget", "forget torn", "note torn"]), st.integers(1, 90)
    ),
    max_size=12,
)


@settings(deadline=None)
@given(steps=STEPS)
def test_what_was_taken_back_is_never_believed(steps: Sequence[tuple[RepoId, str, int]]) -> None:
    """Whatever was torn off in between: a lost note costs a look, a lost withdrawal must not be lost."""
    with TemporaryDirectory() as folder:
        root, true = Path(folder), dict[str, str]()
        for number, (repo, step, cut) in enumerate(steps):
            before = record(root).read_bytes() if record(root).exists() else b""
            if step.startswith("note"):
                true[repo.path] = f"statement {number}"
                notes(root).note(repo, true[repo.path], NOW_S)
            else:
                true.pop(repo.path, None)
                notes(root).forget(repo)
            if step.endswith("torn") and record(root).exists():
                written = len(record(root).read_bytes()) - len(before)
                record(root).write_bytes(record(root).read_bytes()[: len(before) + max(0, written - cut)])
                if step == "forget torn" and written <= cut:
                    notes(root).forget(repo)  # it was not durable, so nothing went on behind it
        believed = notes(root).believed(PATHS, NOW_S)

    assert all(believed[path] == digest_of(true.get(path, "")) for path in believed)


@pytest.mark.parametrize("damage", [b"\0" * 100, b"no note\n", b"17 17 abc models/acme/m0\n", b"17", b"\xff\n"])
def test_a_file_that_is_not_as_it_was_written_is_begun_anew(tmp_path: Path, damage: bytes) -> None:
    """Nothing of it counts, and what is noted from then on does."""
    shown = notes(tmp_path)
    shown.note(REPOS[0], "x", NOW_S)
    with record(tmp_path).open("ab") as file:
        file.write(damage)
    before = shown.believed(PATHS, NOW_S)
    shown.note(REPOS[1], "y", NOW_S)

    assert before == {}
    assert shown.believed(PATHS, NOW_S) == {REPOS[1].path: digest_of("y")}


def test_the_file_stays_as_long_as_what_counts(tmp_path: Path) -> None:
    """Thousands of deliveries leave what the latest ones said, while others note theirs."""
    shown = notes(tmp_path)
    for number in range(1500):
        shown.note(REPOS[0], f"{number}", NOW_S)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda repo: (shown.believed(PATHS, NOW_S), shown.note(repo, "last", NOW_S)), REPOS))

    assert len(record(tmp_path).read_bytes().splitlines()) <= 2 * len(REPOS)
    assert shown.believed(PATHS, NOW_S) == {repo.path: digest_of("last") for repo in REPOS}


def test_a_roll_is_compared_with_what_is_believed(tmp_path: Path) -> None:
    """What is noted as another statement, was noted a day ago or is not noted at all differs."""
    written = dict.fromkeys(PATHS, 17)
    shown = Shown(tmp_path, Realm.PUBLIC, written.__getitem__)
    for repo in REPOS[:3]:
        shown.note(repo, "said", NOW_S)
    rolls = [
        Roll.of({path: digest_of(text)}) for path, text in zip(PATHS, ["said", "newer", "said", "said"], strict=True)
    ]
    first = [shown.differing(roll, NOW_S) for roll in rolls]
    written[PATHS[2]] = 18
    second = [shown.differing(roll, NOW_S) for roll in rolls]

    assert first == [[], [0], [], [0]]
    assert second == [[], [0], [0], [0]]
    assert shown.differing(rolls[0], NOW_S + BELIEVED_S) == [0]
