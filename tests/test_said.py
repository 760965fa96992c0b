"""Notes of what this host says: nothing is read for what did not change, and what may have changed is read."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mirrortools.config import EdgeConfig, RepositoryConfig, Source
from mirrortools.errors import MirrorError
from mirrortools.here import Here
from mirrortools.model import Publication, Realm, Revision
from mirrortools.notes import BELIEVED_S, MOST_VAIN
from mirrortools.said import Said
from mirrortools.shown import digest_of
from mirrortools.statements import LIFETIME_S
from tests.delivery import REPO, local_edge, publication

EDGE = local_edge(Path("/srv/edge"), "whole")
PARTIAL = replace(EDGE, name="partial", include=("*.txt",))
KNOWN = RepositoryConfig(REPO, "job", Source("dir:///x"), None, edges=("whole", "partial"))
FILES = {"a.txt": b"a", "b.bin": b"b"}


@pytest.fixture
def shown(tmp_path: Path) -> Publication:
    """What this host serves, of which a run has said something."""
    made = publication(tmp_path, FILES)
    here = Here.of(tmp_path)
    here.tree.publish(made)
    here.signer.signed(made)
    return made


def a_run(root: Path, later_s: float = 10, known: RepositoryConfig = KNOWN, realm: Realm = Realm.PUBLIC) -> Said:
    """One that begins so much later than now."""
    return Said(root, Here.of(root, realm), [known], time.time() + later_s)


def unread(_: RepositoryConfig) -> Publication:
    raise AssertionError("a publication was read that is noted")


def edges_of(known: RepositoryConfig) -> list[EdgeConfig]:
    return [edge for edge in (EDGE, PARTIAL) if edge.name in known.edges]


def said(run: Said) -> dict[str, str]:
    """What is said to each edge, without reading anything."""
    return {edge.name: run.agenda(edge).said.get(REPO.path, "") for edge in (EDGE, PARTIAL)}


@pytest.fixture
def noted(tmp_path: Path, shown: Publication) -> dict[str, str]:
    """What an earlier run has noted."""
    run = a_run(tmp_path)
    run.say_all(edges_of, lambda _: shown)
    run.keep()
    return said(run)


def test_what_is_noted_need_not_be_read(noted: dict[str, str], shown: Publication, tmp_path: Path) -> None:
    """Neither for edges that have all of it, nor for those with rules of their own, which hear something else."""
    run = a_run(tmp_path)
    run.say_all(edges_of, unread)
    signer = Here.of(tmp_path).signer

    assert said(run) == noted == {edge.name: run.say(shown, edge) for edge in (EDGE, PARTIAL)}
    assert noted["whole"] == digest_of(signer.signed(shown).text) != noted["partial"]
    assert run.agenda(EDGE).others == []


def _newer(root: Path) -> None:
    Here.of(root).tree.publish(publication(root, {**FILES, "a.txt": b"newer"}))


def _forgotten(root: Path) -> None:
    tree = Here.of(root).tree
    tree.forget(Revision(REPO, tree.commits(REPO)[0]))


def _damaged(root: Path) -> None:
    tree = Here.of(root).tree
    (root / "public" / REPO.path / "meta" / tree.commits(REPO)[0] / "manifest.json").write_text("{")
    assert tree.mend(REPO)


def _new_mirrors(root: Path) -> None:
    tree = Here.of(root).tree
    made = tree.publication(REPO)
    assert made
    tree.publish(replace(made, mirrors=("http://m",)))


def _put_back(root: Path) -> None:
    """A backup has the same names and times."""
    meta = root / "public" / REPO.path / "meta"
    seen = meta.stat()
    for path in meta.iterdir():
        path.rename(root / path.name)
        (root / path.name).rename(path)
    import os

    os.utime(meta, ns=(seen.st_atime_ns, seen.st_mtime_ns))


def _torn(root: Path) -> None:
    with (root / "state" / "said" / "public").open("ab") as file:
        file.write(b"17 ")


CHANGES = [_newer, _forgotten, _damaged, _new_mirrors, _put_back, _torn, lambda root: Here.of(root).signer.change_key()]


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_may_have_changed_is_read(
    noted: dict[str, str], tmp_path: Path, change: Callable[[Path], object]
) -> None:
    """A publication, a record that was put away, a tree that was put back, another key, a note cut off by a crash."""
    assert all(noted.values())
    change(tmp_path)

    assert not any(said(a_run(tmp_path)).values())
    assert a_run(tmp_path).agenda(EDGE).others == [REPO.path]


@pytest.mark.parametrize("later_s", [BELIEVED_S + 11, -3600, LIFETIME_S / 2 + 11])
def test_a_note_has_its_time(noted: dict[str, str], tmp_path: Path, later_s: float) -> None:
    """A day, no more than its statement's, and none before it was made."""
    assert all(noted.values())
    assert not any(said(a_run(tmp_path, later_s)).values())


def test_a_statement_that_is_to_be_renewed_is_not_said_any_more(shown: Publication, tmp_path: Path) -> None:
    """Also when it was noted a moment ago."""
    before_s = LIFETIME_S / 2 - 100
    run = a_run(tmp_path, before_s)
    run.say_all(edges_of, lambda _: shown)
    run.keep()

    assert said(a_run(tmp_path, before_s + 10))["whole"]
    assert not said(a_run(tmp_path, before_s + 200))["whole"]


def test_other_revisions_are_another_publication(noted: dict[str, str], tmp_path: Path) -> None:
    """What is configured to be served makes it, too."""
    other = replace(KNOWN, revisions=("main", "f" * 40))

    assert all(noted.values())
    assert not any(said(a_run(tmp_path, known=other)).values())


def test_nothing_is_noted_of_what_has_just_changed(shown: Publication, tmp_path: Path) -> None:
    """Two changes of one moment bear the same time. In this run it is said all the same."""
    run = a_run(tmp_path, 0)
    run.say_all(edges_of, lambda _: shown)
    run.keep()

    assert all(said(run).values())
    assert not any(said(a_run(tmp_path)).values())


def test_nothing_is_noted_of_what_changes_meanwhile(shown: Publication, tmp_path: Path) -> None:
    """A sync beside the run publishes what the run has not read."""
    run = a_run(tmp_path)
    _newer(tmp_path)
    run.say(shown, EDGE)
    run.keep()

    assert not any(said(a_run(tmp_path)).values())


def test_what_cannot_be_read_is_not_said(tmp_path: Path) -> None:
    """Whoever delivers it hears why; the others go on."""

    def fails(_: RepositoryConfig) -> Publication:
        raise MirrorError("damaged")

    run = a_run(tmp_path)
    run.say_all(edges_of, fails)

    assert run.agenda(EDGE).others == [REPO.path]


def test_realms_and_edges_hear_of_what_is_theirs(noted: dict[str, str], tmp_path: Path) -> None:
    """A private run knows no public note, and an edge that is to have nothing is told no name."""
    private = a_run(tmp_path, known=replace(KNOWN, private=True), realm=Realm.PRIVATE)
    elsewhere = a_run(tmp_path, known=replace(KNOWN, edges=("other",)))

    assert all(noted.values())
    assert private.agenda(EDGE).others == [REPO.path]
    assert not private.agenda(EDGE).said
    assert (elsewhere.agenda(EDGE).others, dict(elsewhere.agenda(EDGE).said)) == ([], {})


def test_notes_of_before_go(noted: dict[str, str], shown: Publication, tmp_path: Path) -> None:
    """When there are many that count no more; those of repositories that a run is not about stay."""
    record = tmp_path / "state" / "said" / "public"
    line = f"17 17 1.1 {'0' * 64} models/acme/old"
    record.write_text(record.read_text() + "".join(f"{line}{n}#x\n" for n in range(MOST_VAIN + 1)))
    Said(tmp_path, Here.of(tmp_path), [replace(KNOWN, repo=replace(REPO, name="acme/x"))], time.time() + 10).keep()

    assert len(record.read_text().splitlines()) == 2
    assert said(a_run(tmp_path)) == noted
