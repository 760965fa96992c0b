"""The configuration of rsyncd for a root: modules that can be read, for other mirrors and for users."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mirrortools.changes import LATEST
from mirrortools.errors import ServeError, StoreError
from mirrortools.files import make_folder, write_file
from mirrortools.model import KINDS
from mirrortools.templating import templates_of

MAIN_FILE: Final = "rsyncd.conf"
FOLDER: Final = "rsyncd.d"
FILE: Final = f"{FOLDER}/mirrortools.conf"
# A word of rsyncd's configuration ends with the line; % begins the name of an environment variable.
_PLAIN_PATH: Final = re.compile(r"/[^\s%\\]*\Z")
# syslog's own word for what is not for everybody (syslog(3)). A `log file` of the main file goes before it.
_LOGGED_FOR_FEW: Final = "syslog facility = authpriv\n"
_ACCOUNT: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*\Z")


@dataclass(frozen=True, slots=True)
class Modules:
    """What rsyncd shows of one root, and as whom it reads. Raises ServeError.

    With `private` there are names that are not for everybody, and nothing of them is shown; but whoever asks for one is
    logged, and that goes where few can read.
    """

    root: Path
    user: str = "nobody"
    private: bool = False

    def __post_init__(self) -> None:
        if not _PLAIN_PATH.match(str(self.root)):
            raise ServeError(f"{str(self.root)!r}: rsyncd needs an absolute path without spaces, % and backslashes")
        if not _ACCOUNT.match(self.user) or self.user == "root":
            raise ServeError(f"{self.user!r}: rsyncd must read as an account other than root")


def render(modules: Modules) -> str:
    """The text of the configuration."""
    environment = templates_of("rsyncd")
    values = {"public": modules.root / "public", "user": modules.user, "kinds": KINDS, "latest": LATEST}
    values["logged"] = _LOGGED_FOR_FEW if modules.private else ""
    return environment.get_template("mirrortools.conf.j2").render(values)


@dataclass(frozen=True, slots=True)
class Installed:
    """What an installation did: the files that were written, and the line that an operator has to add, if any."""

    written: tuple[Path, ...]
    line: str | None


def install(modules: Modules, prefix: Path) -> Installed:
    """Write the modules below `prefix` (/etc), and a main file where there is none. Raises StoreError."""
    main, line = prefix / MAIN_FILE, f"&include {prefix / FOLDER}"
    wanted = {prefix / FILE: render(modules)}
    if not main.exists():
        logged = _LOGGED_FOR_FEW if modules.private else ""
        made = "# Made by `mirrortool rsyncd install`. Each *.conf in that folder has modules.\n"
        wanted[main] = f"{made}{logged}{line}\n"
    try:
        written = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
        for path in written:
            make_folder(path.parent)
            write_file(path, wanted[path].encode())
        included = line in main.read_text().splitlines()
    except OSError as error:
        raise StoreError(f"{error.filename}: {error.strerror}; run this as root, or with --prefix DIR") from error
    return Installed(tuple(written), None if included else line)
