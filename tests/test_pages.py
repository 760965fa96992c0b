"""Pages for people: what stands in them, whatever a repository is called and holds."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

from mirrortools.model import Blob, Entry, Manifest, Publication, RepoId, Revision
from mirrortools.pages import FILES_WORD, MOST_ROWS, STYLE_PATH, About, index, page
from mirrortools.style import STYLE
from mirrortools.tree import INDEX, Tree
from tests.delivery import publication, put, sha256_blob

COMMIT = "c" * 40
ODD = "模型/<b>&\"'#%41 ?.bin"


def manifest(files: Mapping[str, int], repo: str = "org/name") -> Manifest:
    entries = {path: Entry(Blob("sha256", "d" * 64, size), "e" * 40, 130) for path, size in files.items()}
    return Manifest(Revision(RepoId.parse(repo), COMMIT), entries, 1_700_000_000)


def text_of(shown: Manifest, card: str | None = None, *, metalinks: bool = True) -> str:
    sums = ((path, "f" * 64) for path in sorted(shown.files))
    return "".join(page(shown, sums, card, metalinks=metalinks))


class Parsed(HTMLParser):
    """The links and the commands of a page, and that what was opened was closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.commands: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "link"):
            self._open.append(tag)
        self.links += [str(value) for name, value in attrs if name in ("href", "src")]
        if self._open[-2:] == ["pre", "code"]:
            self.commands.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open[-2:] == ["pre", "code"]:
            self.commands[-1] += data


def test_a_page_has_every_file_with_its_links() -> None:
    """Names are escaped in text and encoded in links; a large file has a metalink."""
    html = text_of(manifest({ODD: 5, "large.bin": 2 << 20}))
    base = f"/org/name/resolve/{COMMIT}"

    assert "<b>&" not in html
    assert "<span>模型/</span>&lt;b&gt;&amp;&quot;&#x27;#%41 ?.bin</a>" in html
    found = [link for link in Parsed(html).links if link.startswith("/org/name")]
    assert found == [
        f"/org/name/meta/{COMMIT}/SHA256SUMS",
        f"/org/name/meta/{COMMIT}/revision.meta4",
        f"{base}/large.bin",
        f"/org/name/meta/{COMMIT}/files/large.bin.meta4",
        f"{base}/%E6%A8%A1%E5%9E%8B/%3Cb%3E%26%22%27%23%2541%20%3F.bin",
    ]
    assert "2,097,152 bytes" in html
    assert html.count("f" * 64) == 2


def test_commands_of_each_kind() -> None:
    """A dataset is asked for as one; without metalinks there is nothing for aria2; an empty revision has no curl."""
    model, rows = Parsed(text_of(manifest({"a": 1}))), Parsed(text_of(manifest({"a": 1}, "datasets/acme/rows")))
    bare = Parsed(text_of(manifest({}), metalinks=False))

    assert [command.split()[0] for command in model.commands] == [
        "HF_ENDPOINT=MIRROR-URL",
        "mirrortool",
        "git",
        "aria2c",
        "rsync",
        "curl",
        "curl",
    ]
    assert rows.commands[0] == "HF_ENDPOINT=MIRROR-URL hf download acme/rows --repo-type dataset"
    assert rows.commands[1] == "mirrortool get datasets/acme/rows --from MIRROR-URL"
    assert rows.commands[2] == "git clone MIRROR-URL/datasets/acme/rows"
    assert rows.commands[4] == "rsync -aL rsync://MIRROR-HOST/datasets/acme/rows/ rows/"
    assert [command.split()[0] for command in bare.commands] == [
        "HF_ENDPOINT=MIRROR-URL",
        "mirrortool",
        "git",
        "rsync",
        "curl",
    ]


def test_very_many_files_are_not_all_shown() -> None:
    """The first thousand are, and where the others are."""
    html = text_of(manifest({f"{number:05}": 1 for number in range(MOST_ROWS + 234)}))

    assert html.count('<td class="name">') == MOST_ROWS
    assert "and 234 more" in html


def test_the_card_links_to_files_of_its_revision() -> None:
    """The card is made once for all commits that have it."""
    html = text_of(manifest({"a": 1}), f'<img src="{FILES_WORD}a.png">')

    assert f'<img src="/org/name/resolve/{COMMIT}/a.png">' in html


def test_nothing_comes_from_another_host() -> None:
    """Pages and stylesheet name no other host, and hold no script."""
    html = text_of(manifest({"a": 1})) + "".join(index([About.of(manifest({"a": 1}))])) + STYLE

    assert "://" not in html.replace("rsync://MIRROR-HOST", "")
    assert "<script" not in html
    assert "url(" not in html
    assert "@import" not in html


def test_the_index_lists_what_is_served(tmp_path: Path) -> None:
    """Every repository with what its default branch has; a damaged record leaves only its own repository out."""
    tree = Tree(tmp_path)
    for name in ("acme/one", "datasets/acme/rows", "gone/bad"):
        tree.publish(publication(tmp_path, {"a.safetensors": b"12345", "b": b""}, RepoId.parse(name)))
    (tmp_path / "public/models/gone/bad/meta/about.json").write_text("{")
    tree.publish_index()
    html = (tmp_path / "public" / INDEX).read_text()

    assert [link for link in Parsed(html).links if "acme" in link or "bad" in link] == [
        "/acme/one",
        "/datasets/acme/rows",
    ]
    assert "2 repositories, 10 B" in html
    assert (tmp_path / "public" / STYLE_PATH).read_text() == STYLE


def test_the_index_follows_what_is_published(tmp_path: Path) -> None:
    """Whether repositories come, change, are damaged, mended or removed, it says what one that is made anew says."""
    tree, page_of = Tree(tmp_path), (tmp_path / "public" / INDEX).read_bytes
    names = ("acme/one", "gpt2", "datasets/acme/rows", "acme/two")
    pages, anew = [], []

    def follow() -> None:
        tree.publish_index()
        pages.append(page_of())
        (tmp_path / "state" / "catalogue" / "public").rename(tmp_path / "kept")
        tree.publish_index()
        anew.append(page_of())
        (tmp_path / "kept").rename(tmp_path / "state" / "catalogue" / "public")

    for size in (1, 2):
        for name in names:
            tree.publish(publication(tmp_path, {"a": bytes(size)}, RepoId.parse(name)))
            follow()
    (tmp_path / "public/models/gpt2/meta/about.json").write_text("{")
    follow()
    shutil.rmtree(tmp_path / "public/models/acme/one")
    follow()

    assert pages == anew
    assert [page.count(b'<tr><td class="name">') for page in pages] == [1, 2, 3, 4, 4, 4, 4, 4, 3, 2]
    assert [known.path for known in tree.listed()] == ["models/acme/two", "models/gpt2", "datasets/acme/rows"]


def with_card(root: Path, files: Mapping[str, bytes], card: bytes) -> Publication:
    shown = publication(root, files)
    blob = sha256_blob(card)
    put(root, blob, card)
    (commit,) = shown.manifests
    return replace(shown, manifests={commit: replace(shown.manifests[commit], card=blob)})


def test_a_card_is_part_of_a_publication(tmp_path: Path) -> None:
    """It is one of the blobs, is signed for, reads back, and stands in the page."""
    shown = with_card(tmp_path, {"README.md": b"# One\n"}, b"<h1>One</h1>\n")
    Tree(tmp_path).publish(shown)
    (commit,) = shown.manifests
    text = (tmp_path / "public" / shown.repo.path / "meta" / commit / "page.html").read_text()

    assert sha256_blob(b"<h1>One</h1>\n") in shown.blobs
    assert Tree(tmp_path).publication(shown.repo) == shown
    assert Publication.from_json(shown.to_json(), lambda _: None) == shown
    assert replace(shown.manifests[commit], card=None).digest() != shown.digests()[commit]
    assert "<h1>One</h1>" in text
