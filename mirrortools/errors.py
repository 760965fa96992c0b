"""Everything that can go wrong, as one tree with an exit status per kind.

    MirrorError                     1   anything not named below
    ├── ConfigError                 2   a configuration or command line that cannot be used
    ├── UpstreamError
    │   ├── SourceUnavailable      10   down, too slow, or answering nonsense: try again later
    │   ├── SourceMissing          11   the source says that it does not exist
    │   ├── AccessDenied           12   no token, a wrong token, or a licence that was not accepted
    │   ├── RateLimited            13   the source asked us to slow down for longer than we wait
    │   ├── HostileTree            14   a revision with names or modes that we refuse to publish
    │   └── RefMovedBack           15   a ref went to an older or unrelated commit and that is not allowed
    ├── IntegrityError             20   bytes that do not hash to their name
    ├── NoSpace                    30   the disk is, or would become, too full
    ├── Locked                     31   another run works on this repository
    ├── StoreError                 32   the store or the tree cannot be written or read
    ├── EdgeError
    │   ├── EdgeUnreachable        40   ssh or rsync could not reach the edge
    │   └── EdgeRefused            41   the receiver on the edge said no
    └── ServeError                 50   nginx is missing, or refuses the configuration

Exit status 0 means: done and durable.
"""


class MirrorError(Exception):
    """Base of all expected failures; its text is written for the operator."""

    exit_status = 1


class ConfigError(MirrorError):
    """A configuration or command line that cannot be used."""

    exit_status = 2


class UpstreamError(MirrorError):
    """A source did not give what was asked of it."""

    exit_status = 10


class SourceUnavailable(UpstreamError):  # noqa: N818  (names a state of the source; the tree above is the vocabulary)
    """The source is down, too slow, or answers nonsense; later may be better.

    One that is `unreachable` did not answer at all, whatever it was asked.
    """

    exit_status = 10

    def __init__(self, message: str, *, unreachable: bool = False) -> None:
        super().__init__(message)
        self.unreachable = unreachable


class SourceMissing(UpstreamError):  # noqa: N818
    """The source answers that the thing does not exist there."""

    exit_status = 11


class AccessDenied(UpstreamError):  # noqa: N818
    """The source wants a token, another token, or an accepted licence."""

    exit_status = 12


class RateLimited(UpstreamError):  # noqa: N818
    """The source asked for a pause that is longer than we wait.

    `retry_after_s` is the pause it asked for, in seconds.
    """

    exit_status = 13

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class HostileTree(UpstreamError):  # noqa: N818
    """A revision carries names or modes that we refuse to publish."""

    exit_status = 14


class RefMovedBack(UpstreamError):  # noqa: N818
    """A ref went to an older or unrelated commit, and the job does not allow it."""

    exit_status = 15


class IntegrityError(MirrorError):
    """Bytes do not hash to their name."""

    exit_status = 20


class NoSpace(MirrorError):  # noqa: N818
    """The disk is, or would become, too full.

    `needed_bytes` is what would not have fit, 0 where that is not known.
    """

    exit_status = 30

    def __init__(self, message: str, needed_bytes: int = 0) -> None:
        super().__init__(message)
        self.needed_bytes = needed_bytes


class Locked(MirrorError):  # noqa: N818
    """Another run works on this repository."""

    exit_status = 31


class StoreError(MirrorError):
    """The store or the tree cannot be written or read."""

    exit_status = 32


class EdgeError(MirrorError):
    """A delivery to an edge failed."""

    exit_status = 40


class EdgeUnreachable(EdgeError):  # noqa: N818
    """ssh or rsync could not reach the edge."""

    exit_status = 40


class EdgeRefused(EdgeError):  # noqa: N818
    """The receiver on the edge said no."""

    exit_status = 41


class ServeError(MirrorError):
    """nginx is missing, or refuses the configuration."""

    exit_status = 50
