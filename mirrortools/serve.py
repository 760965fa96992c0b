"""nginx's configuration for a root: rendered from templates, checked by nginx itself, installed or run."""

from __future__ import annotations

import grp
import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NoReturn

from mirrortools.config import Tls
from mirrortools.errors import ServeError
from mirrortools.files import make_folder, write_file
from mirrortools.model import KINDS, Realm
from mirrortools.revision import LISTING
from mirrortools.signposts import SIGNPOSTS, Signposts
from mirrortools.templating import templates_of

# A ref with more slashes than this can be cloned, but not be named in a URL of the Hub.
MOST_SLASHES: Final = 8
# Files that each worker keeps open. Debian's nginx may open 1024 in all, and other sites need some.
_MOST_OPEN: Final = 4096
_MOST_OPEN_BESIDE_OTHERS: Final = 128
_PROGRAM_FOLDERS: Final = ("/usr/sbin", "/usr/local/sbin", "/usr/local/nginx/sbin", "/sbin")
_USER: Final = re.compile(r"^\s*user\s+([A-Za-z0-9_.-]+)(?:\s+([A-Za-z0-9_.-]+))?\s*;", re.MULTILINE)
_GIT_BACKEND: Final = "/usr/lib/git-core/git-http-backend"
_MODULE: Final = "ngx_http_js_module.so"
_MODULE_FOLDERS: Final = ("/usr/lib/nginx/modules", "/usr/share/nginx/modules", "/usr/lib64/nginx/modules")
# Characters that end or change a word of nginx's configuration, where quoting does not help with all of them.
_PLAIN_PATH: Final = re.compile(r"/[^\s\"'\\${};#]*\Z")
_LISTEN: Final = re.compile(r"(?:[A-Za-z0-9.-]+:|\[[0-9A-Fa-f:]+\]:|\*:)?[0-9]{1,5}\Z")
_NAME: Final = re.compile(r"[A-Za-z0-9._-]*\Z")


@dataclass(frozen=True, slots=True)
class Installed:
    """A place in an nginx that runs already: its configuration's folder, and where its logs are."""

    prefix: Path = Path("/etc/nginx")
    logs: Path = Path("/var/log/nginx")

    @property
    def public_log(self) -> Path:
        """Where requests go that name nothing private, where there is anything private."""
        return self.logs / "access.log"

    @property
    def private_log(self) -> Path:
        """Where requests go that may name what is private."""
        return self.logs / "mirrortools-private.log"

    @property
    def private_error_log(self) -> Path:
        """Where errors go, each with its request, where there is anything private."""
        return self.logs / "mirrortools-private-error.log"


@dataclass(frozen=True, slots=True)
class Standalone:
    """A place of its own: `folder` takes the configuration, the pid, the logs and nginx's temporary files.

    `user` is whom the workers run as; it is needed, and allowed, only when root starts it.
    """

    folder: Path
    njs_module: Path
    user: str = ""

    @property
    def public_log(self) -> Path:
        """Where requests go that name nothing private."""
        return self.folder / "access.log"

    @property
    def private_log(self) -> Path:
        """Where requests go that may name what is private."""
        return self.folder / "private.log"

    @property
    def private_error_log(self) -> Path:
        """Where errors go, each with its request, where there is anything private."""
        return self.folder / "private-error.log"


@dataclass(frozen=True, slots=True)
class Abilities:
    """What an nginx can do: HTTP/3, and its version, which decides how HTTP/2 is asked for."""

    version: tuple[int, ...] = (1, 22)
    http3: bool = False

    @property
    def has_http2_directive(self) -> bool:
        """Whether `http2 on` is understood, beside which `listen … http2` is deprecated."""
        return self.version >= (1, 25, 1)


@dataclass(frozen=True, slots=True)
class Site:
    """What to serve, and where: the root, addresses to listen on, the server's name (empty: any).

    `metalinks` tells that there are some, which answers about files then point to (RFC 6249).
    `git_socket` is fcgiwrap's, for git's smart protocol. `abilities` are those of the nginx that will serve.
    With `private` what is below the root's private/ is served to whom tokens and lists of readers allow it.
    """

    root: Path
    listen: tuple[str, ...] = ("0.0.0.0:80",)
    name: str = ""
    place: Installed | Standalone = field(default_factory=Installed)
    metalinks: bool = False
    tls: Tls | None = None
    git_socket: Path | None = None
    abilities: Abilities = Abilities()
    private: bool = False

    def __post_init__(self) -> None:
        folder = self.place.folder if isinstance(self.place, Standalone) else self.place.prefix
        for path in (self.root, folder, *self._named_paths()):
            if not _PLAIN_PATH.match(str(path)):
                raise ServeError(f"{str(path)!r}: nginx needs an absolute path without spaces, quotes, $ or ;")
        for address in (*self.listen, *((self.tls.listen,) if self.tls else ())):
            if not _LISTEN.match(address):
                raise ServeError(f"{address!r}: not an address to listen on, such as 0.0.0.0:80 or [::]:80")
        if not _NAME.match(self.name):
            raise ServeError(f"{self.name!r}: not a host name")

    def _named_paths(self) -> Iterator[Path]:
        """Paths that the configuration names, of those that were given."""
        if self.tls:
            yield from filter(None, (self.tls.certificate, self.tls.key, self.tls.acme))
        if self.git_socket:
            yield self.git_socket


def render(site: Site) -> dict[str, str]:
    """The files that serve `site`: name below its place → text."""
    environment = templates_of("nginx")
    script = environment.get_template("hub.js").render()
    public = site.root / "public"
    values = {"public": public, "public_folder": public, "listen": site.listen, "name": site.name}
    values |= {"most_slashes": MOST_SLASHES, "listing": LISTING, "metalinks": site.metalinks}
    values |= {
        "private": site.root / Realm.PRIVATE.value if site.private else None,
        "public_log": site.place.public_log,
        "private_log": site.place.private_log,
        "private_error_log": site.place.private_error_log,
    }
    values |= {"kinds": "|".join(KINDS), "signposts": site.root / SIGNPOSTS}
    values |= {"tls": site.tls, "git_socket": site.git_socket, "abilities": site.abilities}
    values |= {"git_backend": _GIT_BACKEND, "secure": _secure(site.tls, site.abilities)}
    values["prefixes"] = "|".join(f"{kind}/" for kind in KINDS if kind != "models")
    if isinstance(site.place, Standalone):
        values |= {"folder": site.place.folder, "njs_module": site.place.njs_module, "user": site.place.user}
        values |= {"public": ".", "signposts": f"../{SIGNPOSTS}", "extra": "", "most_open": _MOST_OPEN}
        text = environment.get_template("nginx.conf.j2").render(values)
        return {"nginx.conf": text, "hub.js": script}
    values |= {
        "most_open": _MOST_OPEN_BESIDE_OTHERS,
        "prefix": site.place.prefix,
        "extra": site.place.prefix / "mirrortools" / "server.d" / "*.conf",
    }
    text = environment.get_template("site.conf.j2").render(values)
    return {"conf.d/mirrortools.conf": text, "mirrortools/hub.js": script}


def _secure(tls: Tls | None, able: Abilities) -> str:
    """The directives about HTTPS, to stand before any other of an answer: what has one inherits none."""
    found = ""
    if tls and tls.hsts_s:
        found += "add_header Strict-Transport-Security $hub_hsts always; "
    if tls and able.http3:
        found += f"""add_header Alt-Svc 'h3=":{tls.listen.rpartition(":")[2]}"; ma=86400'; """
    return found


def abilities(nginx: Path) -> Abilities:
    """What this nginx was built with."""
    done = subprocess.run([str(nginx), "-V"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    version = re.search(r"nginx version: \S+?/(\d+(?:\.\d+)*)", done.stderr)
    numbers = tuple(int(number) for number in version.group(1).split(".")) if version else Abilities().version
    return Abilities(numbers, "--with-http_v3_module" in done.stderr)


def find_nginx() -> Path:
    """The nginx program. Raises ServeError."""
    folders = os.pathsep.join([os.environ.get("PATH", ""), *_PROGRAM_FOLDERS])
    found = shutil.which("nginx", path=folders)
    if not found:
        raise ServeError("nginx is not installed: apt-get install nginx libnginx-mod-http-js")
    return Path(found)


def find_njs_module() -> Path:
    """The module that lets nginx run JavaScript. Raises ServeError."""
    for folder in _MODULE_FOLDERS:
        module = Path(folder, _MODULE)
        if module.is_file():
            return module
    raise ServeError(f"{_MODULE} is not in {', '.join(_MODULE_FOLDERS)}: apt-get install libnginx-mod-http-js")


def write_standalone(site: Site) -> list[str]:
    """Write a standalone site's files, let nginx check them; return the command that runs it in the foreground.

    Raises ServeError.
    """
    if not isinstance(site.place, Standalone):
        raise TypeError("only a standalone site has a command of its own")
    folder = site.place.folder
    make_folder(folder)
    _make_public(site.root)
    _take_down_stale_signposts(site.root)
    for name, text in render(site).items():
        write_file(folder / name, text.encode())
    _make_private_logs(site)
    nginx = find_nginx()
    check(nginx, folder / "nginx.conf", Path("./"))
    return [str(nginx), "-e", "stderr", "-p", "./", "-c", str(folder / "nginx.conf")]


def _take_down_stale_signposts(root: Path) -> None:
    """See to it that the tree is believed where another program filled it. Raises ServeError."""
    try:
        Signposts(root).take_down_stale()
    except OSError as error:
        raise ServeError(
            f"{error.filename}: {error.strerror}; it names another commit than the tree does: run this as the owner of "
            f"{root}, or remove {root / SIGNPOSTS}"
        ) from error


def _make_public(root: Path) -> None:
    """The folder that is served, which workers enter before anything was published; whose root it is owns it."""
    public = root / "public"
    if public.is_dir():
        return
    make_folder(public)
    if os.geteuid() == 0:
        owner = root.stat()
        os.chown(public, owner.st_uid, owner.st_gid)


def _make_private_logs(site: Site) -> None:
    """Make the logs of private requests before nginx does, which would let everybody read them."""
    for log in (site.place.private_log, site.place.private_error_log) if site.private else ():
        if not log.exists():
            make_folder(log.parent)
            write_file(log, b"", 0o640)


def _let_workers_read(private: Path, nginx_conf: Path) -> None:
    """Give the folder of what is private to the group of nginx's workers; its mode is for the group to read.

    Raises ServeError.
    """
    user = _USER.search(nginx_conf.read_text())
    if user is None or not private.is_dir():
        return
    try:
        group = grp.getgrnam(user[2]).gr_gid if user[2] else pwd.getpwnam(user[1]).pw_gid
        if group != private.stat().st_gid:
            os.chown(private, -1, group)
    except (KeyError, OSError) as error:
        raise ServeError(
            f"{private}: nginx's workers ({user[1]}) cannot be let in: {error}; run this as root, or: "
            f"chgrp {user[2] or user[1]} {private}"
        ) from error


def run(site: Site) -> NoReturn:
    """Become the nginx that serves a standalone site, in the foreground. Raises ServeError."""
    command = write_standalone(site)
    os.execv(command[0], command)  # noqa: S606  (no shell is wanted)


def worker_user(root: Path) -> str:
    """As whom nginx's workers should run, when root starts it: the owner of what is served."""
    if os.geteuid() != 0 or not root.exists():
        return ""
    try:
        return root.owner()
    except KeyError:
        return ""  # an owner without an account


def install(site: Site) -> list[Path]:
    """Write the files of `site` into an installed nginx; return those that changed.

    When nginx refuses them, everything is as it was before. Raises ServeError with nginx's own message.
    """
    if not isinstance(site.place, Installed):
        raise TypeError("only a site in an installed nginx can be installed")
    prefix = site.place.prefix
    if not (prefix / "nginx.conf").is_file():
        raise ServeError(f"{prefix}/nginx.conf: missing; install nginx, or name its folder with --prefix")
    wanted = {prefix / name: text.encode() for name, text in render(site).items()}
    changed = [path for path, content in wanted.items() if _content(path) != content]
    _take_down_stale_signposts(site.root)
    with _undone_on_error(wanted):
        make_folder(prefix / "mirrortools" / "server.d")
        for path in changed:
            make_folder(path.parent)
            write_file(path, wanted[path])
        if site.private:
            _make_private_logs(site)
            _let_workers_read(site.root / Realm.PRIVATE.value, prefix / "nginx.conf")
        check(find_nginx(), prefix / "nginx.conf", prefix)
    return changed


def caveat(site: Site) -> str:
    """What an operator has to know of a site beside others; nothing of most."""
    if not (site.private and site.name):
        return ""
    return (
        "requests that nginx cannot read end at the default server of their address, and in its log, whatever private "
        "name stands in them; without --name that is this one"
    )


def check(nginx: Path, config: Path, prefix: Path) -> None:
    """Let nginx read a configuration. Raises ServeError with what nginx says."""
    command = [str(nginx), "-t", "-q", "-e", "stderr", "-p", str(prefix), "-c", str(config)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ServeError(f"nginx refuses {config}:\n{done.stderr.strip()}{_advice(done.stderr)}")


def _advice(message: str) -> str:
    if "js_import" in message:
        return "\nnginx lacks its JavaScript module: apt-get install libnginx-mod-http-js"
    if "duplicate default server" in message:
        return "\nAnother site answers for every name on this port: give this one a --name, or remove the other"
    return ""


@contextmanager
def _undone_on_error(paths: Mapping[Path, bytes]) -> Iterator[None]:
    """Put the files at `paths` back as they are now when the block fails."""
    before = {path: _content(path) for path in paths}
    try:
        yield
    except BaseException:
        for path, content in before.items():
            if content is None:
                path.unlink(missing_ok=True)
            else:
                write_file(path, content)
        raise


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
