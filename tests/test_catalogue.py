"""What is kept of all repositories: always what a look at each would give, with few looks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrortools.catalogue import Catalogue, Listed
from mirrortools.notes import BELIEVED_S

NOW_S = 1_700_000_000
TICK_S = 0.004
PATHS = [f"models/acme/{name}" for name in "abcd"]


class World:
    """Repositories with records that change, on a file system whose clock ticks; it counts how often each is read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now_s = float(NOW_S)
        self.says: dict[str, Listed | None] = {}
        self.changed_s: dict[str, float] = {}
        self.looks: Counter[str] = Counter()

    def change(self, path: str, size_bytes: int | None) -> None:
        """Publish a repository with that size; None: its refs are not published yet."""
        self.says[path] = (
            None if size_bytes is None else Listed(path, f'{{"é\\t":{size_bytes}}}', (2, size_bytes, NOW_S))
        )
        self.changed_s[path] = self.now_s // TICK_S * TICK_S

    def remove(self, path: str) -> None:
        self.says.pop(path, None)

    def listed(self) -> list[Listed]:
        return Catalogue(self.path, self._look).listed(self._places(), self.now_s)

    @property
    def truth(self) -> list[Listed]:
        return [says for _, says in sorted(self.says.items()) if says]

    def _places(self) -> Iterator[tuple[str, str]]:
        for path in sorted(self.says):
            yield path, f"7.{int(self.changed_s[path] * 10**9)}"

    def _look(self, path: str) -> Listed | None:
        self.looks[path] += 1
        return self.says[path]


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Four repositories that were published long ago."""
    (tmp_path / "catalogue").mkdir()
    found = World(tmp_path / "catalogue" / "public")
    for path in PATHS:
        found.change(path, 5)
    found.now_s += 60
    return found


changes = st.tuples(st.just("change"), st.sampled_from(PATHS), st.none() | st.integers(0, 1 << 40))
removals = st.tuples(st.just("remove"), st.sampled_from(PATHS), st.none())
waits = st.tuples(st.just("wait"), st.just(""), st.sampled_from([0, 1, 1000, 5000, 10**8]))
looks = st.tuples(st.just("look"), st.just(""), st.none())
losses = st.tuples(st.sampled_from(["lose", "tear", "spoil"]), st.just(""), st.none())


@given(st.lists(changes | removals | waits | looks | losses, max_size=30))
def test_what_is_kept_is_what_a_look_would_give(steps: list[tuple[str, str, int | None]]) -> None:
    """Whatever was published, hidden or removed, within one tick of the clock or long after; whatever was lost."""
    with TemporaryDirectory() as folder:
        world = World(Path(folder) / "public")
        for act, path, value in steps:
            if act == "change":
                world.change(path, value)
            elif act == "remove":
                world.remove(path)
            elif act == "wait":
                world.now_s += (value or 0) / 1000
            elif act == "lose":
                world.path.unlink(missing_ok=True)
            elif act == "tear" and world.path.exists():
                world.path.write_bytes(world.path.read_bytes()[:-3])
            elif act == "spoil" and world.path.exists():
                world.path.write_bytes(world.path.read_bytes().replace(b" ", b" x", 1))
            elif act == "look":
                assert world.listed() == world.truth
        assert world.listed() == world.listed() == world.truth


def test_what_did_not_change_is_not_read(world: World) -> None:
    """Only what did is; and what changed a moment before is read once more."""
    world.listed()
    world.change(PATHS[1], 9)
    first = world.listed()
    world.now_s += 60
    later = [world.listed() for _ in range(3)]

    assert first == later[0] == later[2] == world.truth
    assert world.looks == {PATHS[0]: 1, PATHS[1]: 3, PATHS[2]: 1, PATHS[3]: 1}


def test_after_a_day_all_is_read(world: World) -> None:
    """What somebody did behind the stamps' back is seen then, as when the clock went back."""
    world.listed()
    for later_s in (BELIEVED_S - 1, 2, -BELIEVED_S):
        world.now_s += later_s
        world.listed()

    assert world.looks == dict.fromkeys(PATHS, 3)


def test_what_cannot_be_kept_is_said_all_the_same(world: World) -> None:
    """A look is all that it costs."""
    world.path.mkdir()

    assert world.listed() == world.listed() == world.truth
    assert [path.name for path in world.path.parent.iterdir()] == ["public"]
