"""Names and passwords from ~/.netrc, for sources on http(s) without a token_file (the netrc file of curl and git).

git reads that file by itself. What we ask ourselves (refs, links) goes with the same login, and only to the host that
it is for: a `default` entry is nobody's in particular.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from mirrortools.config.tokens import unfitness
from mirrortools.errors import ConfigError

_log = logging.getLogger("mirrortools.logins")


def login_of(host: str, environ: Mapping[str, str] = os.environ) -> tuple[str, str] | None:
    """The name and the password for a host, if the user's file has them.

    Raises ConfigError when every account of this host can read them.
    """
    home = environ.get("HOME")
    if not home:
        return None
    path = Path(home) / ".netrc"
    try:
        seen = path.stat()
    except OSError:
        return None
    found = _logins(path, seen.st_mtime_ns, seen.st_size).get(host.lower())
    if found and (message := unfitness(path)):
        raise ConfigError(f"{message} (it has the password for {host})")
    return found


@functools.lru_cache(maxsize=1)
def _logins(path: Path, _modified_ns: int, _size: int) -> Mapping[str, tuple[str, str]]:
    """Host → name and password; thousands of repositories read the file once. What cannot be read says nothing."""
    import netrc

    try:
        hosts = netrc.netrc(path).hosts
    except (OSError, ValueError, netrc.NetrcParseError) as error:
        _log.warning("mirrortool: %s: cannot be read and is passed over: %s", path, error)
        return {}
    return {host.lower(): (login, password) for host, (login, _, password) in hosts.items() if host != "default"}
