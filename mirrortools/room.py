"""Whether what is to come fits on an edge: on its disk, with what must stay free there, and into its quota."""

from __future__ import annotations

from dataclasses import dataclass

from mirrortools.config import EdgeConfig
from mirrortools.errors import NoSpace
from mirrortools.model import RepoId
from mirrortools.text import size

# Room for what publishing writes besides the blobs: links, folders and API answers of a revision.
BYTES_PER_BLOB = 8192


@dataclass(frozen=True, slots=True)
class Need:
    """What one repository needs on an edge: so many blobs of this size, of which some bytes have arrived before.

    `passing_bytes` are files that it needs until the blobs are made.
    """

    repo: RepoId
    blobs: int
    blob_bytes: int
    arrived_bytes: int = 0
    passing_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        """What it will take there, all in all."""
        return self.blob_bytes + BYTES_PER_BLOB * self.blobs

    @property
    def more_bytes(self) -> int:
        """What it will take for a while, besides what has arrived."""
        return self.total_bytes + self.passing_bytes - self.arrived_bytes


def check_disk(edge: EdgeConfig, need: Need, free_bytes: int) -> None:
    """Refuse a delivery that would fill an edge's disk. Raises NoSpace."""
    lacking = need.more_bytes - (free_bytes - edge.min_free_bytes)
    if need.blobs and lacking > 0:
        reserve = f", of which {size(edge.min_free_bytes)} must stay free (min_free)" if edge.min_free_bytes else ""
        raise NoSpace(
            f"edge {edge.name}: {need.repo}: {size(need.more_bytes)} are needed and {size(free_bytes)} are free in "
            f"{edge.root}{reserve}: {size(lacking)} too little; free some space there, or give the edge fewer "
            "repositories (`repositories`, `exclude`), then deliver again",
            need.more_bytes,
        )


def check_quota(edge: EdgeConfig, need: Need, used_bytes: int) -> None:
    """Refuse a delivery that would go beyond an edge's quota, when it holds `used_bytes`. Raises NoSpace."""
    if edge.quota_bytes is None or not need.blobs or used_bytes + need.total_bytes <= edge.quota_bytes:
        return
    beyond_bytes = used_bytes + need.total_bytes - edge.quota_bytes
    raise NoSpace(
        f"edge {edge.name}: {need.repo} is left out: its quota is {size(edge.quota_bytes)}, "
        f"it holds {size(used_bytes)}, and {size(need.total_bytes)} more are needed: {size(beyond_bytes)} too much; "
        "raise the quota, or give the edge fewer repositories (`repositories`, `exclude`), then deliver again",
        need.total_bytes,
    )
