"""`mirrortool get`: one revision of a repository from mirrors, for users who have nothing but this program."""

from __future__ import annotations

import os
import re
import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click

from mirrortools.cli import Invocation, exit_statuses, print_json
from mirrortools.cli.getwatch import watching
from mirrortools.cli.network import proxies
from mirrortools.client import written_mirror
from mirrortools.errors import (
    AccessDenied,
    ConfigError,
    HostileTree,
    IntegrityError,
    Locked,
    NoSpace,
    RateLimited,
    SourceMissing,
    SourceUnavailable,
    StoreError,
)
from mirrortools.get import Outcome, Reach, Wish
from mirrortools.get import get as bring
from mirrortools.layouts import Folder, HubCache, Layout, hub_cache
from mirrortools.model import COMMIT, RepoId, check_full_ref
from mirrortools.places import MOST_PLACES
from mirrortools.text import count, size, span
from mirrortools.upstreams.http import TIMEOUT_S, HttpClient

_BASE_URL: Final = re.compile(r"https?://[^\s/<>\"'?#@]+(?:/[^\s<>\"'?#]*)?\Z")
# A host that is one of several must not hold anybody up.
_HASTY_S: Final = 3.0
_KINDS: Final = (
    *(SourceUnavailable, SourceMissing, AccessDenied, RateLimited, HostileTree),
    *(IntegrityError, NoSpace, Locked, StoreError),
)


@click.command(epilog=exit_statuses(*_KINDS))
@click.argument("repo", metavar="REPO", required=False)
@click.option(
    "--from",
    "mirrors",
    multiple=True,
    metavar="URL",
    help="A mirror, or a hub; repeatable, the first is asked first. Else $MIRRORTOOL_MIRROR, else $HF_ENDPOINT, "
    "else what `mirrortool client setup` wrote.",
)
@click.option("--revision", default="main", show_default=True, metavar="REV", help="A branch, a tag or a commit.")
@click.option("--to", type=click.Path(path_type=Path), metavar="DIR", help="The folder; else the name of REPO, here.")
@click.option(
    "--cache",
    is_flag=False,
    flag_value="",
    metavar="[DIR]",
    help="Write the cache of huggingface_hub instead, so that from_pretrained finds it offline; without DIR that of "
    "$HF_HUB_CACHE or $HF_HOME. It stands behind REPO, or is written --cache=DIR.",
)
@click.option(
    "--include", multiple=True, metavar="GLOB", help="Only files that match, as in `hf download`; repeatable."
)
@click.option("--exclude", multiple=True, metavar="GLOB", help="No files that match; repeatable.")
@click.option(
    "--token-file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The file with the token that the hosts named by --from want; no other host is sent it.",
)
@click.option("--check", "again", is_flag=True, help="Hash again what is there, though it looks as it was left.")
@click.option(
    "--connections",
    type=click.IntRange(1, MOST_PLACES),
    metavar="N",
    help="How many at once, to all hosts together; else as many as pay.",
)
@click.option("--force", is_flag=True, help="Replace files that were changed, or are not from REPO.")
@click.option("--dry-run", is_flag=True, help="Tell what would be fetched and reused; write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
@click.pass_obj
def get(
    invocation: Invocation,
    /,
    repo: str | None,
    mirrors: tuple[str, ...],
    revision: str,
    to: Path | None,
    cache: str | None,
    token_file: Path | None,
    connections: int | None,
    as_json: bool,
    **rest: Any,
) -> None:
    """Download REPO (org/name, datasets/org/name, spaces/org/name) from a mirror into a folder.

    Everything is verified by its hash. Other hosts that the mirror names are asked too, where that makes it quicker.
    What is there already is not fetched, of a file that has changed only the segments that did. The files are put in
    their places when all of them have come; a run that was broken off goes on where it stopped.
    """
    began_s = time.monotonic()
    if repo is None:
        raise click.UsageError(
            "which repository? Say it first: mirrortool get REPO --cache", click.get_current_context()
        )
    wish = Wish(RepoId.parse(repo), _checked(revision), **rest)
    layout = _layout(wish, to, cache, invocation.environ)
    command = shlex.join(["mirrortool", *invocation.arguments])
    invocation.when_stopped = f"what was fetched is kept; go on with: {command}"
    os.umask(invocation.umask)
    reach = _reach(_mirrors(mirrors, invocation.environ), token_file, connections, invocation.environ)
    try:
        with watching(str(wish.repo), quiet=invocation.quiet or wish.dry_run) as watch:
            outcome = bring(wish, reach, layout, watch)
    finally:
        reach.client.close()
        reach.hasty.close()
    duration_s = time.monotonic() - began_s
    if as_json:
        print_json(as_document(wish, outcome, duration_s))
    elif not invocation.quiet:
        for line in _foreseen(wish, outcome) if wish.dry_run else [_done(wish, outcome, duration_s)]:
            click.echo(line)


def _checked(revision: str) -> str:
    """A revision that can be part of a URL and of a path. Raises ConfigError."""
    try:
        check_full_ref(revision if revision.startswith("refs/") else f"refs/heads/{revision}")
    except HostileTree as error:
        raise ConfigError(f"--revision {revision!r}: not the name of a branch, a tag or a commit") from error
    return revision


def _layout(wish: Wish, to: Path | None, cache: str | None, environ: Mapping[str, str]) -> Layout:
    if cache is None:
        return Folder(to or Path(wish.repo.name.rpartition("/")[2]))
    if to is not None:
        raise ConfigError("--to and --cache: say one of them; the folder of a cache is --cache=DIR")
    return HubCache.of(Path(cache) if cache else hub_cache(environ), wish.repo, wish.revision)


def _mirrors(given: Sequence[str], environ: Mapping[str, str]) -> tuple[str, ...]:
    """The hosts to ask, the first one first. Raises ConfigError."""
    written = written_mirror(Path(environ["HOME"])) if environ.get("HOME") else None
    named = (
        given
        or environ.get("MIRRORTOOL_MIRROR", "").split()
        or environ.get("HF_ENDPOINT", "").split()
        or ([written] if written else [])
    )
    if not named:
        raise ConfigError("which mirror? Say --from https://mirror.example, or set MIRRORTOOL_MIRROR or HF_ENDPOINT")
    for url in named:
        if not _BASE_URL.match(url):
            raise ConfigError(f"{url!r}: expected the URL of a mirror, such as https://mirror.example")
    return tuple(dict.fromkeys(url.rstrip("/") for url in named))


def _reach(
    mirrors: tuple[str, ...], token_file: Path | None, connections: int | None, environ: Mapping[str, str]
) -> Reach:
    through = proxies(environ)
    client, hasty = (HttpClient(None, *through, timeout_s) for timeout_s in (TIMEOUT_S, _HASTY_S))
    return Reach(mirrors, client, hasty, _token(token_file) if token_file else "", connections)


def _token(file: Path) -> str:
    """Raises ConfigError."""
    from mirrortools.access import reason
    from mirrortools.config.tokens import unfitness

    if problem := unfitness(file):
        raise ConfigError(f"--token-file: {problem}")
    try:
        token = file.read_text().strip()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: {reason(error) if isinstance(error, OSError) else 'is not text'}") from error
    if not token:
        raise ConfigError(f"{file}: is empty; write the token into it")
    return token


def _done(wish: Wish, outcome: Outcome, duration_s: float) -> str:
    """The last line: what is where, and how it came there."""
    progress = outcome.progress
    text = f"{_headline(wish, outcome)}: {count(outcome.files, 'file')}, {size(outcome.size_bytes)}; "
    parts = [f"fetched {size(progress.fetched_bytes)}"]
    if len(progress.from_source) > 1:
        parts[0] += f" ({', '.join(f'{size(came)} from {host}' for host, came in progress.from_source.items())})"
    parts += [f"took {size(progress.reused_bytes)} from older files"] if progress.reused_bytes else []
    parts += [f"resumed {size(progress.resumed_bytes)}"] if progress.resumed_bytes else []
    parts += [f"{count(outcome.kept, 'file')} ({size(outcome.kept_bytes)}) were there"] if outcome.kept else []
    parts += [f"removed {count(len(outcome.removed), 'file')} of the revision before"] if outcome.removed else []
    return f"{text}{', '.join(parts)} ({span(duration_s)})"


def _headline(wish: Wish, outcome: Outcome) -> str:
    named = "" if COMMIT.match(wish.revision) else f"{wish.revision} "
    return f"{wish.repo}: {named}{outcome.commit[:12]} in {outcome.folder}"


def _foreseen(wish: Wish, outcome: Outcome) -> list[str]:
    whole = sum(blob.size for blob in outcome.fetch)
    reused = outcome.progress.reused_bytes
    lines = [f"{_headline(wish, outcome)}: would fetch {count(len(outcome.fetch), 'blob')}, {size(whole - reused)}"]
    lines += [f"  fetch  {size(blob.size):>10}  {outcome.names[blob]}" for blob in outcome.fetch]
    lines += [f"  reuse  {size(reused):>10}  of these from older files"] if reused else []
    lines += [f"  keep   {size(outcome.kept_bytes):>10}  in {count(outcome.kept, 'file')} that are there"]
    return lines + [f"  remove             {path}" for path in outcome.removed]


def as_document(wish: Wish, outcome: Outcome, duration_s: float) -> Mapping[str, Any]:
    """An outcome for machines: sizes in bytes, times in seconds. After a dry run nothing was fetched yet."""
    progress = outcome.progress
    return {
        "repo": str(wish.repo),
        "revision": wish.revision,
        "commit": outcome.commit,
        "folder": str(outcome.folder),
        "files": outcome.files,
        "size_bytes": outcome.size_bytes,
        "wanted_blobs": len(outcome.fetch),
        "wanted_bytes": sum(blob.size for blob in outcome.fetch),
        "fetched_bytes": progress.fetched_bytes,
        "reused_bytes": progress.reused_bytes,
        "resumed_bytes": progress.resumed_bytes,
        "from_source": dict(progress.from_source),
        "kept_files": outcome.kept,
        "kept_bytes": outcome.kept_bytes,
        "removed": list(outcome.removed),
        "duration_s": round(duration_s, 3),
    }
