"""Hypothesis strategies for the nouns."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from mirrortools.model import Blob, Entry, Manifest, RepoId, Revision

REPO = RepoId.parse("acme/tiny")


def trials(count: int) -> settings:
    """So many examples, times MIRRORTOOLS_TRIALS; nothing depends on how fast the machine is."""
    return settings(max_examples=scaled(count), deadline=None, suppress_health_check=[HealthCheck.too_slow])


def scaled(count: int) -> int:
    """A number of trials, times MIRRORTOOLS_TRIALS."""
    return max(1, int(count * float(os.environ.get("MIRRORTOOLS_TRIALS", "1"))))


def digests(length: int = 64) -> st.SearchStrategy[str]:
    """Digests in hexadecimal."""
    return st.binary(min_size=length // 2, max_size=length // 2).map(bytes.hex)


def few_blobs() -> st.SearchStrategy[Blob]:
    """Blobs out of a small supply, so that the same one comes often; the size belongs to the digest."""
    return st.builds(
        lambda algorithm, number: Blob(
            algorithm, f"{number:0{64 if algorithm == 'sha256' else 40}x}", (number * 37) % 1000
        ),
        st.sampled_from(("sha256", "git")),
        st.integers(0, 30),
    )


def manifests() -> st.SearchStrategy[Manifest]:
    """Manifests of a few files in one folder."""
    names = st.text("abcdef", min_size=1, max_size=4)
    entries = few_blobs().map(lambda blob: Entry(blob, f"{blob.size:040x}"))
    return st.builds(
        lambda commit, files: Manifest(Revision(REPO, commit), files, 0),
        digests(40),
        st.dictionaries(names, entries, max_size=8),
    )


def any_text() -> st.SearchStrategy[str]:
    """Text with everything that is dangerous in paths and lines often in it."""
    dangerous = st.sampled_from(
        ["/", "..", ".", "\\", "\n", "\0", "-", ".git", ".GIT", "a", " ", "é", "\u202e", "\ud800", "²", "٣"]
    )
    return st.lists(dangerous | st.text(max_size=3), max_size=8).map("".join)
