"""Programs that know nothing of hubs: curl, wget, aria2, each as its users call it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from urllib.parse import unquote

from mirrortools.hubapi import PAGE_ENTRIES
from tests.clients import ClientError, Response, curl, etag_of, file_url, read_folder, run_client
from tests.e2e.tree_fixture import pointer
from tests.matrix.cells import EVERYWHERE, Client, Limit, Operation, Visit, Wrong, same, same_files, sha256
from tests.matrix.content import HISTORY, LARGE, LONG, MANY_COMMITS, MIB, MODEL, WEIGHTS
from tests.matrix.places import ADDRESSES
from tests.matrix.versions import version_of

HALF = len(LARGE) // 2
_SMALL = ("权重/模型 %41+#.safetensors", "name with spaces.txt", "e%41f.txt", "what?.txt", "empty.txt")


def _get(url: str, *words: str) -> Response:
    return curl(url, "--location", *words)


def _link(visit: Visit, path: str = WEIGHTS, revision: str = "main") -> str:
    return file_url(visit.url, visit.expected(MODEL), revision, path)


def _etag(visit: Visit, path: str = WEIGHTS) -> str:
    expected = visit.expected(MODEL)
    return f'"{etag_of(expected, path, expected.files["main"][path])}"'


def _begun(path: Path) -> bytes:
    """Leave a half of the file behind in which one byte is marked; what a client that resumes makes of it."""
    begun = bytearray(LARGE[:HALF])
    begun[1000] ^= 255
    path.write_bytes(begun)
    return bytes(begun) + LARGE[HALF:]


def _resumed(path: Path, wanted: bytes) -> str:
    if path.read_bytes() == LARGE:
        raise Wrong("it began anew")
    same("sha256 of what was resumed", sha256(path.read_bytes()), sha256(wanted))
    return ""


# curl


def _whole(visit: Visit) -> None:
    expected = visit.expected(MODEL)
    for path in (WEIGHTS, *_SMALL):
        answer = _get(_link(visit, path))
        content = expected.files["main"][path]
        same(f"status of {path}", answer.status, 200)
        same(f"sha256 of {path}", sha256(answer.body), sha256(content))
        same(f"ETag of {path}", answer.headers["etag"], f'"{etag_of(expected, path, content)}"')


def _head(visit: Visit) -> None:
    answer = _get(_link(visit), "--head")
    told = {name: answer.headers.get(name) for name in ("content-length", "accept-ranges", "x-repo-commit", "etag")}
    commit = visit.expected(MODEL).commits["main"]
    same("headers", list(told.values()), [str(len(LARGE)), "bytes", commit, _etag(visit)])


def _not_modified(visit: Visit) -> None:
    same("status", _get(_link(visit), "-H", f"If-None-Match: {_etag(visit)}").status, 304)
    same("status of another", _get(_link(visit), "-H", 'If-None-Match: "0"').status, 200)


def _ranges(visit: Visit) -> None:
    for asked, part in {"10-19": LARGE[10:20], f"{HALF}-": LARGE[HALF:], "-7": LARGE[-7:]}.items():
        answer = _get(_link(visit), "--range", asked)
        same(f"status of {asked}", answer.status, 206)
        same(f"sha256 of {asked}", sha256(answer.body), sha256(part))
    same("status behind the end", _get(_link(visit), "--range", f"{len(LARGE)}-").status, 416)


def _if_range(visit: Visit) -> None:
    part = _get(_link(visit), "--range", "10-19", "-H", f"If-Range: {_etag(visit)}")
    whole = _get(_link(visit), "--range", "10-19", "-H", 'If-Range: "0"')
    same(
        "answers", [(part.status, part.body), (whole.status, len(whole.body))], [(206, LARGE[10:20]), (200, len(LARGE))]
    )


def _curl_resumes(visit: Visit) -> str:
    target = visit.folder / WEIGHTS
    wanted = _begun(target)
    run_client(["curl", "-sSfL", "-C", "-", "-o", target, _link(visit)], os.environ)
    return _resumed(target, wanted)


def _raw(visit: Visit) -> None:
    base = f"{visit.url}/{MODEL}/raw/main"
    same("pointer", _get(f"{base}/{WEIGHTS}").body, pointer(LARGE))
    same("file", _get(f"{base}/README.md").body, visit.expected(MODEL).files["main"]["README.md"])


def _codes(visit: Visit) -> None:
    urls = {
        _link(visit, "none"): "EntryNotFound",
        _link(visit, revision="none"): "RevisionNotFound",
        f"{visit.url}/nobody/nothing/resolve/main/a": "RepoNotFound",
        f"{visit.url}/api/models/nobody/nothing": "RepoNotFound",
        f"{visit.url}/api/models/{MODEL}/tree/none": "RevisionNotFound",
        f"{visit.url}/api/models/{MODEL}/commits/none": "RevisionNotFound",
    }
    answers = {url: _get(url) for url in urls}
    same("codes", [a.headers.get("x-error-code") for a in answers.values()], list(urls.values()))
    same("statuses", {a.status for a in answers.values()}, {404})


def _blob(visit: Visit) -> None:
    digest = sha256(LARGE)
    answer = _get(f"{visit.url}/blobs/sha256/{digest[:2]}/{digest[2:4]}/{digest}")
    same("sha256", sha256(answer.body), digest)


def _sums(visit: Visit) -> None:
    """Download what SHA256SUMS names, and let sha256sum look at it."""
    files = visit.expected(MODEL).files["v1.0"]
    sums = _get(f"{visit.url}/{MODEL}/meta/v1.0/SHA256SUMS").body
    for path in files:
        (visit.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (visit.folder / path).write_bytes(_get(_link(visit, path, "v1.0")).body)
    (visit.folder / "SHA256SUMS").write_bytes(sums)
    same("files", sums.count(b"\n"), len(files))
    _in(visit.folder, "sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS")


def _commits(visit: Visit) -> None:
    """By `limit` and `p`, as the Hub numbers pages."""
    url = f"{visit.url}/api/models/{HISTORY}/commits/main"
    pages = [_get(f"{url}?limit=25&p={page}") for page in range(4)]
    titles = [[commit["title"] for commit in json.loads(page.body)] for page in pages]
    same(
        "titles",
        [title for page in titles for title in page],
        [f"Step {number}" for number in range(MANY_COMMITS, 0, -1)],
    )
    same("commits of each page", [len(page) for page in titles], [25, 25, 10, 0])
    same("whether a page follows", ["link" in page.headers for page in pages], [True, True, False, False])
    same("total", {page.headers["x-total-count"] for page in pages}, {str(MANY_COMMITS)})


def _pages(visit: Visit) -> None:
    """A listing of more entries than one answer has names the next page by a Link."""
    answer = _get(f"{visit.url}/api/models/{LONG}/tree/main/folder")
    same("entries", len(json.loads(answer.body)), PAGE_ENTRIES)
    link = answer.headers["link"]
    rest = json.loads(_get(link[1 : link.index(">")]).body)
    same("entries of the next page", len(rest), 10)


def _in(folder: Path, *words: str | Path) -> None:
    done = subprocess.run([str(w) for w in words], cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise ClientError(f"{words[0]} ended with {done.returncode}: {done.stdout}{done.stderr}")


CURL = Client(
    "curl",
    (version_of("curl"),),
    (
        Operation("a file, with names that must be encoded", _whole, places=EVERYWHERE),
        Operation("HEAD", _head),
        Operation("If-None-Match", _not_modified),
        Operation("Range", _ranges),
        Operation("If-Range", _if_range),
        Operation("-C -: resume", _curl_resumes),
        Operation("raw: a file, an LFS pointer", _raw),
        Operation("missing file, revision, repository: the Hub's codes", _codes),
        Operation("a blob by its SHA-256", _blob),
        Operation("SHA256SUMS of a revision", _sums),
        Operation("commits: pages by their number", _commits),
        Operation("tree: the next page by its Link", _pages, long=True),
    ),
)

# wget


def _wget(visit: Visit, *words: str | Path) -> None:
    run_client(
        ["wget", "--no-config", "--no-verbose", "--tries=1", "--directory-prefix", visit.folder, *words], os.environ
    )


def _wget_file(visit: Visit) -> None:
    for path in (WEIGHTS, *_SMALL):
        target = visit.folder / "got"
        _wget(visit, "-O", target, _link(visit, path))
        same(f"sha256 of {path}", sha256(target.read_bytes()), sha256(visit.expected(MODEL).files["main"][path]))


def _wget_resumes(visit: Visit) -> str:
    target = visit.folder / WEIGHTS
    wanted = _begun(target)
    _wget(visit, "-c", _link(visit))
    return _resumed(target, wanted)


def _wget_mirror(visit: Visit) -> str:
    """It walks nginx's listing, which leaves out what begins with a dot; and it decodes a percent sign twice."""
    base = f"{visit.url}/models/{MODEL}/refs/v1.0/"
    _wget(
        visit,
        "--mirror",
        "--no-parent",
        "--no-host-directories",
        "--cut-dirs=5",
        "--reject=index.html*",
        "-e",
        "robots=off",
        base,
    )
    wanted, got = visit.expected(MODEL).files["v1.0"], read_folder(visit.folder)
    left_out = sorted(path for path in wanted if path.startswith("."))
    renamed = sorted(path for path in wanted if unquote(path) != path)
    same_files(got, {unquote(path): content for path, content in wanted.items() if path not in left_out})
    return f"nginx's listing leaves out {', '.join(left_out)}; wget decodes {', '.join(renamed)} once more"


_ONE_HOST = Limit(
    "files: expected", "it stays on the host where it begins: name the edge itself", (), ("redirect 307",)
)
WGET = Client(
    "wget",
    (version_of("wget"),),
    (
        Operation("a file, with names that must be encoded", _wget_file, places=EVERYWHERE),
        Operation("-c: resume", _wget_resumes),
        Operation("--mirror of a revision's folder", _wget_mirror, [_ONE_HOST]),
    ),
)

# aria2


def _aria2(visit: Visit, *words: str | Path) -> None:
    quiet = ["--no-conf", "--console-log-level=warn", "--summary-interval=0", "--allow-overwrite=true"]
    run_client(["aria2c", *quiet, "--dir", visit.folder, *words], os.environ)


def _metalink(visit: Visit) -> str:
    return f"{visit.url}/{MODEL}/meta/main/files/{WEIGHTS}.meta4"


def _got(visit: Visit) -> None:
    same("sha256", sha256((visit.folder / WEIGHTS).read_bytes()), sha256(LARGE))


def _aria2_parallel(visit: Visit) -> None:
    _aria2(visit, "-x4", "-s4", "-k1M", _link(visit))
    _got(visit)


def _aria2_resumes(visit: Visit) -> str:
    target = visit.folder / WEIGHTS
    wanted = _begun(target)
    _aria2(visit, "-c", "-s1", _link(visit))
    return _resumed(target, wanted)


def _aria2_edges(visit: Visit) -> str:
    log = visit.folder / "log"
    _aria2(visit, "--min-split-size=1M", f"--log={log}", "--log-level=info", _metalink(visit))
    _got(visit)
    hosts = {host for host in ADDRESSES.values() if f"Host: {host}:" in log.read_text()}
    if len(hosts) < 2:
        raise Wrong(f"everything came from {hosts}")
    return f"from {len(hosts)} hosts at once"


def _aria2_revision(visit: Visit) -> None:
    (visit.folder / "all.meta4").write_bytes(_get(f"{visit.url}/{MODEL}/meta/v1.0/revision.meta4").body)
    _aria2(visit, visit.folder / "all.meta4")
    (visit.folder / "all.meta4").unlink()
    same_files(visit.folder, visit.expected(MODEL).files["v1.0"])


def _aria2_repairs(visit: Visit) -> None:
    """Of a file in which a byte rotted everything else stays."""
    rotten = bytearray(LARGE)
    rotten[9 * MIB] ^= 255
    (visit.folder / WEIGHTS).write_bytes(rotten)
    _aria2(visit, "--check-integrity=true", _metalink(visit))
    _got(visit)


ARIA2 = Client(
    "aria2",
    (version_of("aria2c"),),
    (
        Operation("four connections", _aria2_parallel, places=EVERYWHERE),
        Operation("-c: resume", _aria2_resumes),
        Operation("a file from several edges, by its metalink", _aria2_edges),
        Operation("a revision by its metalink", _aria2_revision),
        Operation("a damaged piece is repaired", _aria2_repairs),
    ),
)
