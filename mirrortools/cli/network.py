"""What the environment says of proxies, for commands that ask hosts."""

from __future__ import annotations

from collections.abc import Callable, Mapping


def proxies(environ: Mapping[str, str]) -> tuple[Mapping[str, str], Callable[[str], bool]]:
    """The proxy of each URL scheme, and a function that tells which hosts are asked directly."""
    if not any(name.lower().endswith("_proxy") for name in environ):
        return {}, lambda _host: False
    import urllib.request  # which would load ten modules for most hosts to learn that they have no proxy

    return urllib.request.getproxies(), urllib.request.proxy_bypass
