"""Pages for people: one a revision, and the index of a mirror. Plain HTML and one stylesheet; no script, no other host.

Each host writes them itself when it publishes. Only the standard library is used here, because the receiver runs this
module on edges. nginx puts where it is reached in the place of HOST_WORD and NAME_WORD.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html import escape
from shlex import quote as shell_quote
from typing import Any, Final
from urllib.parse import quote

from mirrortools.metalink import LEAST_BYTES, OF_REVISION, SUFFIX
from mirrortools.model import KINDS, Blob, Manifest, RepoId
from mirrortools.sums import SUMS
from mirrortools.text import count, size

HOST_WORD: Final = "MIRROR-URL"
NAME_WORD: Final = "MIRROR-HOST"
# What a card's links to files of the revision begin with.
FILES_WORD: Final = "/~files~/"
STYLE_PATH: Final = ".mirror/style.css"
MOST_ROWS: Final = 1000
_NOUNS: Final = {"models": "model", "datasets": "dataset", "spaces": "space"}


@dataclass(frozen=True, slots=True)
class About:
    """What the index says of a repository: its default revision's files, their size in bytes, its time."""

    repo: RepoId
    files: int
    size_bytes: int
    committed_at: int

    @classmethod
    def of(cls, manifest: Manifest) -> About:
        """What is to be said of a revision's repository."""
        return cls(manifest.revision.repo, len(manifest.files), manifest.size_bytes, manifest.committed_at)

    def to_json(self) -> dict[str, Any]:
        """The form in which it is kept."""
        return {"files": self.files, "size_bytes": self.size_bytes, "committed_at": self.committed_at}


def page(manifest: Manifest, sums: Iterable[tuple[str, str]], card: str | None, *, metalinks: bool) -> Iterator[str]:
    """The page of a revision; `sums` has path and SHA-256 of each file, `card` is the README as harmless HTML."""
    repo, commit = manifest.revision.repo, manifest.revision.commit
    yield _head(repo.name)
    yield _crumbs(repo)
    yield f"<main>\n<h1>{_spelled(repo)}</h1>\n"
    yield (
        f'<p class="about">{_NOUNS[repo.kind].capitalize()} · {count(len(manifest.files), "file")} · '
        f"{size(manifest.size_bytes)} · {_day(manifest.committed_at)} · "
        f'<span class="commit">revision <code>{commit}</code></span></p>\n'
    )
    yield '<section class="get">\n<h2>Get it</h2>\n'
    for name, text in _commands(manifest, metalinks):
        yield f"<h3>{name}</h3>\n<pre><code>{escape(text)}</code></pre>\n"
    yield "</section>\n"
    yield from _files(manifest, sums, metalinks)
    if card:
        base = escape(f"/{repo.url_path}/resolve/{commit}/")
        yield f'<section class="card">\n{card.replace(FILES_WORD, base)}\n</section>\n'
    yield "</main>\n</body>\n</html>\n"


def _commands(manifest: Manifest, metalinks: bool) -> Iterator[tuple[str, str]]:
    """The commands with which a repository is had, by the name of the program."""
    repo, commit = manifest.revision.repo, manifest.revision.commit
    url, folder = f"{HOST_WORD}/{repo.url_path}", repo.name.rpartition("/")[2]
    kind = "" if repo.kind == "models" else f" --repo-type {_NOUNS[repo.kind]}"
    yield "hf", f"HF_ENDPOINT={HOST_WORD} hf download {repo.name}{kind}"
    yield "mirrortool", f"mirrortool get {repo.url_path} --from {HOST_WORD}"
    yield "git", f"git clone {url}"
    if metalinks:
        yield "aria2", f"aria2c -d {folder} {url}/meta/{commit}/{OF_REVISION}"
    yield "rsync", f"rsync -aL rsync://{NAME_WORD}/{repo.path}/ {folder}/"
    if manifest.files:
        path = max(manifest.files, key=lambda path: manifest.files[path].blob.size)
        name = shell_quote(path.rpartition("/")[2])
        yield "curl", f"curl -f -C - -o {name} {url}/resolve/{commit}/{quote(path)}"
    yield "check", f"curl -fsS {url}/meta/{commit}/{SUMS} | (cd {folder} && sha256sum -c)"


def _files(manifest: Manifest, sums: Iterable[tuple[str, str]], metalinks: bool) -> Iterator[str]:
    repo, commit = manifest.revision.repo, manifest.revision.commit
    about = f"/{repo.url_path}/meta/{commit}"
    links = [f'<a href="{about}/{SUMS}">{SUMS}</a>']
    if metalinks:
        links.append(f'<a href="{about}/{OF_REVISION}">metalink</a>')
    yield f'<section class="files">\n<h2>Files</h2>\n<p>{" · ".join(links)}</p>\n'
    yield "<table>\n<thead><tr><th>name</th><th>size</th><th>SHA-256</th></tr></thead>\n<tbody>\n"
    for number, (path, sha256) in enumerate(sums):
        if number == MOST_ROWS:
            break
        yield _row(manifest.files[path].blob, path, sha256, about, metalinks)
    yield "</tbody>\n</table>\n"
    if (more := len(manifest.files) - MOST_ROWS) > 0:
        yield f'<p>and {more:,} more: all of them are in <a href="{about}/{SUMS}">{SUMS}</a>.</p>\n'
    yield "</section>\n"


def _row(blob: Blob, path: str, sha256: str, about: str, metalinks: bool) -> str:
    resolve = f"{about.replace('/meta/', '/resolve/', 1)}/{quote(path)}"
    folder, slash, name = path.rpartition("/")
    link = f'<a href="{resolve}"><span>{escape(folder + slash)}</span>{escape(name)}</a>'
    if metalinks and blob.size >= LEAST_BYTES:
        link += f' <a class="also" href="{about}/files/{quote(path)}{SUFFIX}">metalink</a>'
    size_cell = f'<td class="size" title="{blob.size:,} bytes">{size(blob.size)}</td>'
    return f'<tr><td class="name">{link}</td>{size_cell}<td class="hash"><code>{sha256}</code></td></tr>\n'


def index(repositories: Iterable[About]) -> Iterator[str]:
    """The page that lists a mirror's repositories, one of them in memory at a time."""
    yield _head("Mirror of model repositories")
    yield '<main>\n<h1>Mirror of model repositories</h1>\n<section class="get">\n'
    lines = (
        f"HF_ENDPOINT={HOST_WORD} hf download ORG/NAME",
        f"git clone {HOST_WORD}/ORG/NAME",
        f"curl -fsS {HOST_WORD}/.mirror/setup.sh | sh    # for all that this user does; it says how to undo it",
    )
    yield f"<pre><code>{escape(chr(10).join(lines))}</code></pre>\n</section>\n"
    yield '<section class="files">\n<table>\n'
    yield "<thead><tr><th>repository</th><th>files</th><th>size</th><th>last change</th></tr></thead>\n<tbody>\n"
    number = size_bytes = 0
    kinds = set()
    for about in repositories:
        kinds.add(about.repo.kind)
        number, size_bytes = number + 1, size_bytes + about.size_bytes
        kind = "" if about.repo.kind == "models" else f' <span class="also">{_NOUNS[about.repo.kind]}</span>'
        yield (
            f'<tr><td class="name"><a href="/{about.repo.url_path}">{_spelled(about.repo)}</a>{kind}</td>'
            f'<td class="size">{count(about.files, "file")}</td>'
            f'<td class="size">{size(about.size_bytes)}</td>'
            f'<td class="size">{_day(about.committed_at)}</td></tr>\n'
        )
    yield f"</tbody>\n</table>\n<p>{count(number, 'repository/repositories')}, {size(size_bytes)}. Everything: "
    yield "".join(f'<a href="/{kind}/">{kind}</a>, ' for kind in KINDS if kind in kinds)
    yield '<a href="/.mirror/status.json">status</a>.</p>\n'
    yield "</section>\n</main>\n</body>\n</html>\n"


def _head(title: str) -> str:
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{escape(title)}</title>\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f'<link rel="stylesheet" href="/{STYLE_PATH}">\n</head>\n<body>\n'
    )


def _crumbs(repo: RepoId) -> str:
    return f'<nav><a href="/">Mirror</a> <span>/</span> {repo.kind} <span>/</span> {escape(repo.name)}</nav>\n'


def _spelled(repo: RepoId) -> str:
    """A name in which the part that matters stands out."""
    owner, slash, name = repo.name.rpartition("/")
    return f'<span class="owner">{escape(owner + slash)}</span>{escape(name)}'


def _day(seconds: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(max(0, seconds)))
