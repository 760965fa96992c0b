"""The works, who competes in each, and what is required of us."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from bench.case import Competitor
from bench.competitors import Limit, Ours, OursAgain, OursWithoutSegments
from bench.content import GIB, KIB, MIB, Content
from bench.peers import Aria2, Curl, GitLfs, Hub, Olah

OURS_CARELESS: Final = "ours-no-fsync"


@dataclass(frozen=True, slots=True)
class Target:
    """What is required against a competitor: at most `most` of its time."""

    against: str
    most: float

    @property
    def text(self) -> str:
        """The requirement as people say it."""
        if self.most < 1:
            return f"≥ {1 / self.most:.3g}× faster"
        return "not slower" if self.most == 1 else f"≤ {self.most:g}× its time"


@dataclass(frozen=True, slots=True)
class Work:
    """One thing to pull, by one road, by several competitors.

    `copies` makes it a work about so many repositories in which nothing is new. `most_rounds` bounds what is slow.
    """

    name: str
    title: str
    content: Content
    competitors: tuple[Competitor, ...]
    targets: tuple[Target, ...] = ()
    road: str = "plain"
    copies: int = 0
    most_rounds: Mapping[str, int] = field(default_factory=dict)
    memory_target_bytes: int = 64 * MIB
    only_on_request: bool = False


OURS: Final = Ours()
CARELESS: Final = Ours(
    OURS_CARELESS, "the same with fsync switched off (libeatmydata), as careless as the peers", False
)
NO_SEGMENTS: Final = OursWithoutSegments()
AGAIN: Final = OursAgain()
OPENSSL: Final = Limit("openssl", "`openssl dgst -sha256` of the files on the server's disk: no transfer, no writing")
HASHLIB: Final = Limit("hashlib", "Python's hashlib over the same files, one thread")
HASHLIB_2: Final = Limit("hashlib-2", "Python's hashlib over the same files, two threads")
CURL_NULL: Final = Limit("curl-null", "`curl -o /dev/null` over one connection: no hash, no writing")
CURL_OPENSSL: Final = Limit("curl-openssl", "`curl | openssl dgst -sha256`: no writing")
LS_REMOTE: Final = Limit("ls-remote", "`git ls-remote` alone, once for each repository")
FETCH: Final = GitLfs("git-lfs-fetch", "`git lfs fetch` in a clone that is there: checks SHA-256")
PULL: Final = GitLfs(
    "git-lfs-pull", "`git lfs pull` in a clone that is there: checks SHA-256, makes the files too", verb="pull"
)
HUB: Final = Hub("hub", "huggingface_hub 2.4.0 `snapshot_download`, xet disabled: checks sizes, no hashes")
OLAH: Final = Olah("olah", "the same through an empty olah proxy")
ARIA2: Final = Aria2("aria2-x8", "`aria2c -x8 --checksum=sha-256`, falloc")
ARIA2_16: Final = Aria2("aria2-x16", "`aria2c -x16 --checksum=sha-256`, falloc", connections=16)
CURL: Final = Curl("curl", "`curl -o FILE` over one connection: no hash")


def works(scale: float = 1.0) -> list[Work]:
    """Every work; sizes and counts are multiplied by `scale`."""
    one = Content(1, _scaled(2 * GIB, scale, MIB))
    medium = Content(_scaled(200, scale), 8 * MIB)
    small = Content(_scaled(20_000, scale), 4 * KIB)
    limited = Content(1, _scaled(256 * MIB, max(scale, 1 / 8), MIB))
    tiny = Content(1, 4 * KIB)
    counts = sorted({1, *(_scaled(count, scale) for count in (100, 1000, 10_000))})
    return [
        Work(
            "one-blob",
            f"One blob of {_title(one)}",
            one,
            (
                OURS,
                CARELESS,
                NO_SEGMENTS,
                OPENSSL,
                HASHLIB,
                CURL_NULL,
                CURL_OPENSSL,
                FETCH,
                PULL,
                HUB,
                ARIA2,
                OLAH,
                CURL,
            ),
            (
                Target("ours-no-segments", 1.15),
                Target("openssl", 1.25),
                Target("hashlib", 1.25),
                Target("git-lfs-fetch", 1 / 4),
                Target("git-lfs-pull", 1 / 10),
                Target("hub", 1 / 2.5),
                Target("aria2-x8", 1 / 5),
            ),
            most_rounds={"git-lfs-pull": 2, "aria2-x8": 2, "olah": 1},
        ),
        Work(
            "many-medium",
            f"{_title(medium)}",
            medium,
            (OURS, CARELESS, HASHLIB, HASHLIB_2, CURL_NULL, FETCH, PULL, HUB, ARIA2),
            (Target("git-lfs-fetch", 1 / 2), Target("hub", 1 / 3.5)),
            most_rounds={"git-lfs-pull": 2, "aria2-x8": 2},
        ),
        Work(
            "small-files",
            f"{_title(small)}",
            small,
            (OURS, CARELESS, HASHLIB, CURL_NULL, FETCH, PULL, HUB, ARIA2),
            (Target("git-lfs-fetch", 1 / 3),),
            most_rounds={"git-lfs-pull": 1, "hub": 1, "aria2-x8": 1},
        ),
        Work(
            "limited",
            f"One blob of {_title(limited)}, each connection limited to 20 MB/s",
            limited,
            (OURS, CARELESS, FETCH, HUB, ARIA2_16, CURL),
            (Target("aria2-x16", 1.0),),
            road="limited",
            most_rounds={"git-lfs-fetch": 2, "hub": 2, "curl": 2},
        ),
        Work(
            "tls",
            f"One blob of {_title(one)} over TLS",
            one,
            (OURS, CARELESS, CURL_NULL, CURL, FETCH, HUB, ARIA2),
            (Target("curl", 1.0),),
            road="tls",
            most_rounds={"git-lfs-fetch": 2, "aria2-x8": 2},
        ),
        *(_unchanged(count, tiny) for count in counts),
        Work(
            "unchanged-far",
            "Nothing changed in 1 repository, 50 ms away (there and back)",
            tiny,
            (AGAIN, LS_REMOTE),
            (Target("ls-remote", 1.5),),
            road="far",
            copies=1,
        ),
    ]


def _unchanged(count: int, tiny: Content) -> Work:
    """The work of looking whether something changed in `count` repositories."""
    title = f"Nothing changed in {count:,} {'repository' if count == 1 else 'repositories'}"
    return Work(
        f"unchanged-{count}",
        title,
        tiny,
        (AGAIN, LS_REMOTE),
        (Target("ls-remote", 1.5),) if count == 1 else (),
        copies=count,
        most_rounds={"ours": 2, "ls-remote": 1} if count > 1000 else {},
        only_on_request=count > 1000,
    )


def _scaled(number: int, scale: float, unit: int = 1) -> int:
    return max(unit, round(number * scale / unit) * unit)


def _title(content: Content) -> str:
    size = content.repo.rpartition("x")[2]
    for unit in ("GiB", "MiB", "KiB"):
        size = size.replace(unit, f" {unit}")
    return size if content.files == 1 else f"{content.files:,} files of {size}"
