"""What of a repository an edge is to have: all of it, or the files that its own rules choose.

A share is a publication of its own: its manifests list just those files, so that everything made of them on the edge
(links, the Hub's answers, lists of sums) says what is there, and the origin signs it as such.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from dataclasses import replace

from mirrortools.config import EdgeConfig
from mirrortools.model import Manifest, Publication
from mirrortools.plan import wants_path


def share_of(publication: Publication, edge: EdgeConfig) -> Publication:
    """The publication that an edge is to show."""
    if not edge.is_partial:
        return publication
    manifests = {
        commit: _chosen(manifest, edge.include, edge.exclude) for commit, manifest in publication.manifests.items()
    }
    return replace(publication, manifests=manifests)


def share_name(edge: EdgeConfig) -> str:
    """What its statements are kept under: the same for edges with the same rules, empty for all of a publication."""
    if not edge.is_partial:
        return ""
    return hashlib.sha256(json.dumps([edge.include, edge.exclude]).encode()).hexdigest()[:16]


def _chosen(manifest: Manifest, include: Collection[str], exclude: Collection[str]) -> Manifest:
    files = {path: entry for path, entry in manifest.files.items() if wants_path(path, include, exclude)}
    return manifest if len(files) == len(manifest.files) else replace(manifest, files=files, filtered=True)
