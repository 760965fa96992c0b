"""Chromium on the pages for people: light, dark, on a phone, and without scripts."""

from __future__ import annotations

from collections.abc import Callable

from tests.chromium import DARK, chromium, pixels_of
from tests.matrix.cells import Client, Operation, Visit, Wrong, same
from tests.matrix.content import MODEL, WEIGHTS
from tests.matrix.versions import version_of

_DESK, _PHONE = "--window-size=1200,1600", "--window-size=400,1600"
_BRIGHT = 3 * 128


def _dom(visit: Visit, path: str) -> str:
    shown, _ = chromium(visit.folder, "--dump-dom", f"{visit.url}/{path}")
    return shown


def _index(visit: Visit) -> None:
    shown = _dom(visit, "")
    missing = [name for name, expected in visit.world.repos.items() if f'href="/{expected.repo.url_path}"' not in shown]
    same("repositories that are missing", missing, [])


def _page(visit: Visit) -> None:
    shown = _dom(visit, MODEL)
    same("scripts", shown.count("<script"), 0)
    for wanted in (f"<title>{MODEL}</title>", "A model</h1>", WEIGHTS, f"hf download {MODEL}"):
        if wanted not in shown:
            raise Wrong(f"{wanted!r} is not on the page")


def _picture(size: str, *words: str) -> Callable[[Visit], None]:
    """What is on the screen: more than one colour, and the background that was asked for."""

    def act(visit: Visit) -> None:
        shot = visit.folder / "shot.png"
        chromium(visit.folder, *words, size, "--hide-scrollbars", f"--screenshot={shot}", f"{visit.url}/{MODEL}")
        pixels = pixels_of(shot)
        same("whether it is bright", sum(pixels[:3]) > _BRIGHT, DARK not in words)
        if len(set(zip(*[iter(pixels)] * 3, strict=True))) < 10:
            raise Wrong("the screen is empty")

    return act


CHROMIUM = Client(
    "Chromium",
    (version_of("chromium"),),
    (
        Operation("the index of all repositories", _index, long=True),
        Operation("the page of a model, in which there is no script", _page, long=True),
        Operation("a picture of it: light", _picture(_DESK), long=True),
        Operation("a picture of it: dark", _picture(_DESK, DARK), long=True),
        Operation("a picture of it: on a phone", _picture(_PHONE), long=True),
    ),
)
