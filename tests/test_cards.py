"""Model cards: what is left of a README, and that none of it can do harm."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirrortools.cards import LARGEST_BYTES, MOST_CHARACTERS, Cards, facts, render
from mirrortools.pages import FILES_WORD
from mirrortools.store import Store
from tests.delivery import publication

HARMLESS_SCHEMES = ("http:", "https:", "mailto:")
HOSTILE = [
    "<script>alert(1)</script>",
    "<ScRiPt src=//evil.example/x.js></sCrIpT>",
    '<img src=x onerror="alert(1)">',
    "<svg onload=alert(1)><a xlink:href=javascript:alert(1)>x</a></svg>",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt&colon;alert(1))",
    "[x](&#106;avascript:alert(1))",
    "[x](java\tscript:alert(1))",
    "[x](data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==)",
    "![x](data:image/svg+xml;base64,PHN2Zz4=)",
    "![x](https://tracker.example/pixel.png)",
    "![x](//tracker.example/pixel.png)",
    "<img src=https://tracker.example/p.png srcset='https://tracker.example/2.png 2x'>",
    "<iframe src=https://evil.example></iframe><object data=x></object><embed src=x>",
    "<form action=https://evil.example><input name=password><button>go</button></form>",
    "<style>body{display:none}</style><p style='position:fixed;inset:0'>x</p>",
    "<meta http-equiv=refresh content='0;url=https://evil.example'><base href=https://evil.example>",
    "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=1 onerror=alert(1)&gt;'>",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    "</section></main><h1>Another page</h1>",
    "<a href='https://ok.example' target=_blank onclick=alert(1)>x</a>",
]


class Found(HTMLParser):
    """Every element of a card, and its balance of open sections."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.ends: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        self.ends.add(tag)


def check_harmless(html: str) -> None:
    found = Found(html)
    forbidden = {"script", "style", "iframe", "object", "embed", "form", "input", "meta", "base", "link", "svg", "math"}
    assert not forbidden & {tag for tag, _ in found.tags}
    assert not {"main", "section", "body", "html"} & {*found.ends, *(tag for tag, _ in found.tags)}
    for _tag, attributes in found.tags:
        assert not any(name.startswith("on") or name in ("style", "srcset", "target") for name in attributes)
        if source := attributes.get("src"):
            assert source.startswith(FILES_WORD)
        if target := attributes.get("href"):
            assert target.startswith((*HARMLESS_SCHEMES, "#card-", FILES_WORD))


@pytest.mark.parametrize("text", HOSTILE)
def test_what_could_do_harm_is_gone(text: str) -> None:
    """Scripts, styles, frames, forms, other hosts' images, and links that are programs."""
    html = render(f"before\n\n{text}\n\nafter")

    check_harmless(html)
    assert "before" in html


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from([*HOSTILE, *"<>[]()!`'\"&;#*_~|\\\n -:/", "---\n", "a", "\0", "模"]), max_size=40))
def test_whatever_is_put_together(parts: list[str]) -> None:
    """Pieces of attacks in any order leave nothing that could do harm."""
    check_harmless(render("".join(parts)))


def test_what_readers_want_is_there() -> None:
    """Headings with names, tables with alignment, code, details, emphasis."""
    html = render(
        "# A title!\n\nsee [below](#a-title)\n\n|a|b|\n|:-:|--:|\n|1|~~2~~|\n\n```python\nx < 1\n```\n\n"
        "<details><summary>More</summary>\n\n**bold**\n\n</details>\n\n<p align=center>middle</p>\n"
    )

    assert '<h1 id="card-a-title">A title!</h1>' in html
    assert 'href="#card-a-title"' in html
    assert '<th align="center">a</th>' in html
    assert "<s>2</s>" in html
    assert "x &lt; 1" in html
    assert "<summary>More</summary>" in html
    assert '<p align="center">middle</p>' in html


@pytest.mark.parametrize(
    ("reference", "target"),
    [
        ("assets/a.png", "assets/a.png"),
        ("./a%20b.png", "a%20b.png"),
        ("模型.png", "%E6%A8%A1%E5%9E%8B.png"),
        ("x/../a.png?raw=true#top", "a.png"),
        ("../../etc/passwd", None),
        ("/etc/passwd", None),
        ("%2e%2e/x", None),
    ],
)
def test_files_of_the_revision(reference: str, target: str | None) -> None:
    """What a README names relative to itself is a file of the same revision, and nothing outside it."""
    (_, image) = next(found for found in Found(render(f"![x]({reference})")).tags if found[0] == "img")
    (_, link) = next(found for found in Found(render(f"[x]({reference})")).tags if found[0] == "a")

    assert image.get("src") == link.get("href") == (target and f"{FILES_WORD}{target}")


def test_front_matter_becomes_facts() -> None:
    """Words and lists of them; neither blocks, nor what is nested, nor more than a reader wants."""
    found = facts(
        "license: apache-2.0\nlanguage:\n- en\n- 'zh'\ntags: [a, \"b\"]\nmodel-index:\n- name: x\n  results:\n"
        "  - task: y\nbase_model: &anchor\ndatasets: |\n  text\nother: 1\npipeline_tag: text-generation\n"
    )

    assert found == {
        "pipeline_tag": ["text-generation"],
        "license": ["apache-2.0"],
        "language": ["en", "zh"],
        "tags": ["a", "b"],
    }
    assert len(facts("tags:\n" + "- x\n" * 1000)["tags"]) == 24


def test_front_matter_is_escaped_and_not_shown() -> None:
    """However long it is; without an end it is text."""
    html = render("---\nlicense: <script>\n" + "x: 1\n" * 100_000 + "---\n# Title\n")

    assert html.startswith('<dl class="facts"><dt>license</dt><dd><span>&lt;script&gt;</span></dd></dl>')
    assert "x: 1" not in html
    assert render("---\nlicense: mit\n").count("<dl") == 0


def test_a_long_readme_is_cut_between_paragraphs() -> None:
    """And says where the rest is."""
    html = render("word " * 10 + "\n\n" + ("another paragraph\n\n" * MOST_CHARACTERS))

    assert len(html) < 2 * MOST_CHARACTERS
    assert re.search(r'<p>another paragraph</p>\n<p><a href="/~files~/README.md"[^>]*>… the rest', html)


def test_a_card_is_a_blob_that_is_made_once(tmp_path: Path) -> None:
    """It lies in the store; the same README of another commit is not rendered again; a lost one is."""
    shown = publication(tmp_path, {"README.md": b"# One\n", "a": b"1"})
    (manifest,) = shown.manifests.values()
    store = Store(tmp_path)
    card = Cards(store, tmp_path / "stage", {}).card(manifest)
    assert card
    known = Cards(store, tmp_path / "stage", {manifest.files["README.md"].blob: card})
    store.path(manifest.files["README.md"].blob).unlink()

    assert store.path(card).read_bytes() == b'<h1 id="card-one">One</h1>\n'
    assert known.card(manifest) == card
    assert not list((tmp_path / "stage").iterdir())


def test_no_card(tmp_path: Path) -> None:
    """Without a README, and of one that is as long as a book."""
    (bare,) = publication(tmp_path, {"a": b"1"}).manifests.values()
    (book,) = publication(tmp_path, {"README.md": b"x" * (LARGEST_BYTES + 1)}).manifests.values()
    cards = Cards(Store(tmp_path), tmp_path / "stage", {})

    assert cards.card(bare) is None
    assert cards.card(book) is None
