"""Model cards: the README of a revision as HTML that can do no harm, made on the origin, which has the libraries.

A README may be by anybody: markdown-it makes HTML of it, nh3 (ammonia) leaves what is on the lists below,
links lead to http, https, mail or a file of the same revision, and images come from that revision alone. The page that
holds the card forbids scripts and other hosts once more.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote

from mirrortools.model import Blob, Manifest
from mirrortools.pages import FILES_WORD
from mirrortools.store import Store, write_error

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

NAME: Final = "README.md"
LARGEST_BYTES: Final = 4 << 20
# Of a longer README the beginning is shown: a hostile one of this length takes a second, and 50 MiB of memory.
MOST_CHARACTERS: Final = 64 << 10
_FRONT_MATTER: Final = re.compile(r"---[ \t]*\n")
_END_OF_FRONT_MATTER: Final = re.compile(r"^---[ \t]*(?:\n|\Z)", re.MULTILINE)
_KEY: Final = re.compile(r"([a-z_]+):[ \t]*(.*?)[ \t]*\Z")
_ITEM: Final = re.compile(r"[ \t]*-[ \t]+(.*?)[ \t]*\Z")
_ABSOLUTE: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:|//")
_FACTS: Final = ("pipeline_tag", "library_name", "license", "base_model", "language", "datasets", "tags")
_MOST_WORDS: Final = 24
_LONGEST_WORD: Final = 80
_TAGS: Final = frozenset(
    re.findall(
        r"\w+",
        "h1 h2 h3 h4 h5 h6 p div span br hr a img pre code kbd samp var blockquote q center figure figcaption "
        "ul ol li dl dt dd details summary table caption thead tbody tfoot tr th td "
        "b strong i em u s del ins mark small sub sup abbr",
    )
)
_ATTRIBUTES: Final[dict[str, set[str]]] = {
    **{tag: {"id", "align"} for tag in ("h1", "h2", "h3", "h4", "h5", "h6")},
    **{tag: {"align"} for tag in ("div", "p")},
    **{tag: {"align", "colspan", "rowspan"} for tag in ("td", "th")},
    "a": {"href", "title"},
    "img": {"src", "alt", "title", "width", "height", "align"},
    "ol": {"start"},
    "details": {"open"},
}


@dataclass(frozen=True, slots=True)
class Cards:
    """Makes the cards of manifests, as blobs of a store. `known` has those of READMEs that were rendered before."""

    store: Store
    stage: Path
    known: Mapping[Blob, Blob]

    @classmethod
    def of(cls, store: Store, stage: Path, held: Iterable[Manifest]) -> Cards:
        """Those of a store in which `held` are published."""
        known = {m.files[NAME].blob: m.card for m in held if m.card and NAME in m.files}
        return cls(store, stage, known)

    def card(self, manifest: Manifest) -> Blob | None:
        """The card of a revision, in the store; None when it has no README, or too long a one.

        Raises StoreError, NoSpace.
        """
        entry = manifest.files.get(NAME)
        if entry is None or entry.blob.size > LARGEST_BYTES:
            return None
        card = self.known.get(entry.blob)
        if card and self.store.has(card):
            return card
        try:
            text = self.store.path(entry.blob).read_text(errors="replace")
        except OSError as error:
            raise write_error(self.store.path(entry.blob), error) from error
        return self.store.adopt_made(render(text).encode(), self.stage)


def render(text: str) -> str:
    """A README as harmless HTML. Links to files of the revision begin with FILES_WORD."""
    import nh3

    front_matter, body = _split(text.replace("\r\n", "\n"))
    html = nh3.clean(
        _markdown(_beginning(body)),
        tags=set(_TAGS),
        attributes=_ATTRIBUTES,
        url_schemes={"http", "https", "mailto"},
        attribute_filter=_attribute,
        link_rel="noopener noreferrer nofollow",
    )
    return _facts(facts(front_matter)) + html


def _split(text: str) -> tuple[str, str]:
    """The front matter, and the rest."""
    begin = _FRONT_MATTER.match(text)
    end = _END_OF_FRONT_MATTER.search(text, begin.end()) if begin else None
    return (text[begin.end() : end.start()], text[end.end() :]) if begin and end else ("", text)


def _beginning(text: str) -> str:
    """A text that is short enough to be rendered: it ends with a paragraph, and says that there is more."""
    if len(text) <= MOST_CHARACTERS:
        return text
    kept = text[:MOST_CHARACTERS]
    return f"{kept[: kept.rfind(chr(10) * 2)]}\n\n[… the rest is in {NAME}]({NAME})\n"


def facts(front_matter: str) -> dict[str, list[str]]:
    """The values of those keys that mean something to a reader: words and plain lists of words.

    They are picked out line by line. A parser of YAML would take seconds for what some models have there (results of
    thousands of measurements), and a few lines of YAML can stand for gigabytes.
    """
    found: dict[str, list[str]] = {name: [] for name in _FACTS}
    name = ""
    for line in front_matter.splitlines():
        if key := _KEY.match(line):
            name, value = key[1], key[2]
            found.get(name, []).extend(value[1:-1].split(",") if value[:1] == "[" and value[-1:] == "]" else [value])
        elif item := _ITEM.match(line):
            found.get(name, []).append(item[1])
        else:
            name = ""
    words = {name: [_word(value) for value in values if _word(value)] for name, values in found.items()}
    return {name: values[:_MOST_WORDS] for name, values in words.items() if values}


def _word(value: str) -> str:
    """A scalar without its quotes; nothing for what is no plain word, such as the beginning of a block."""
    bare = value.strip()
    if len(bare) > 1 and bare[0] == bare[-1] and bare[0] in "'\"":
        bare = bare[1:-1]
    return "" if bare[:1] in tuple("|>&*!{") or ": " in bare else bare[:_LONGEST_WORD]


def _facts(found: Mapping[str, Sequence[str]]) -> str:
    if not found:
        return ""
    rows = []
    for name, words in found.items():
        values = "".join(f"<span>{escape(word)}</span>" for word in words)
        rows.append(f"<dt>{name.replace('_', ' ')}</dt><dd>{values}</dd>")
    return f'<dl class="facts">{"".join(rows)}</dl>\n'


def _markdown(text: str) -> str:
    parser = _parser()
    environment: dict[str, Any] = {}
    tokens = parser.parse(text, environment)
    _name_headings(tokens)
    _align_cells(tokens)
    rendered = parser.renderer.render(tokens, parser.options, environment)
    return str(rendered)


def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


def _name_headings(tokens: Sequence[Token]) -> None:
    """Give headings the names by which links in the same card lead to them."""
    for heading, inline in pairwise(tokens):
        if heading.type == "heading_open":
            kept = re.sub(r"[^\w\- ]", "", inline.content.lower()).strip()
            heading.attrSet("id", kept.replace(" ", "-"))


def _align_cells(tokens: Sequence[Token]) -> None:
    """Say with an attribute what markdown-it says with a style, of which the page has its own."""
    for token in tokens:
        if token.type in ("th_open", "td_open") and (style := token.attrGet("style")):
            token.attrSet("align", str(style).removeprefix("text-align:"))


def _attribute(tag: str, name: str, value: str) -> str | None:
    """What an attribute may be: None removes it."""
    if name == "id":
        return f"card-{value}"
    if name not in ("href", "src"):
        return value
    if tag == "img":
        return None if _ABSOLUTE.match(value.strip()) else _of_revision(value)
    if _ABSOLUTE.match(value.strip()):
        return None if value.strip().startswith("//") else value
    return f"#card-{value[1:]}" if value.startswith("#") else _of_revision(value)


def _of_revision(reference: str) -> str | None:
    """The URL of a file that a README names relative to itself; None when it leads out of the revision."""
    path = posixpath.normpath(unquote(reference.partition("#")[0].partition("?")[0]).strip())
    if path.startswith(("/", "..")) or path == ".":
        return None
    return f"{FILES_WORD}{quote(path)}"
