"""The steps from what is on a host to a working edge, and back: facts in, steps out."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Final

from mirrortools.errors import EdgeRefused
from mirrortools.provision import wanted
from mirrortools.provision.facts import Facts
from mirrortools.provision.wanted import File, Folder, Record, Setting
from mirrortools.text import size
from mirrortools.transports.archive import PYTHON_AT_LEAST

_WRITE: Final = (
    'set -e; umask 077; new="$1.mirrortool-new"; cat >"$new"; chown "$2" "$new"; chmod "$3" "$new"; '
    'sync "$new"; mv -T "$new" "$1"'
)
_MAKE: Final = 'set -e; mkdir -p "$1"; chown "$2" "$1"; chmod "$3" "$1"'
_NGINX: Final = (
    "set -e; nginx -t -q; if [ -d /run/systemd/system ]; then systemctl enable --quiet nginx; "
    "systemctl reload-or-restart nginx; elif [ -s /run/nginx.pid ]; then nginx -s reload; else nginx; fi"
)
_RSYNC: Final = "systemctl enable --quiet rsync && systemctl restart rsync"
_INSTALL: Final = (
    "export DEBIAN_FRONTEND=noninteractive; apt-get -q update || true; "
    'apt-get -q -y --no-install-recommends install "$@"'
)
_DIFF_LINES: Final = 12


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do on a host: what it is, in a line and in short detail; the command; how it is undone."""

    says: str
    words: tuple[str, ...]
    data: bytes = b""
    detail: tuple[str, ...] = ()
    undo: tuple[tuple[str, ...], bytes] | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps in their order, notes for the operator, and the packages that the steps would install."""

    steps: tuple[Step, ...] = ()
    notes: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()

    def about(self, path: str) -> Plan:
        """The steps that are about one file alone."""
        return Plan(tuple(step for step in self.steps if path in step.words))

    def lines(self) -> Iterator[str]:
        """The plan for people."""
        for step in self.steps:
            yield f"  {step.says}"
            yield from (f"      {line}" for line in step.detail)
        yield from (f"  note: {note}" for note in self.notes)


def paths_of_interest(setting: Setting, homes: Iterable[str]) -> list[str]:
    """What a host is asked about before a plan is made: all that may be there, whatever the setting leaves out."""
    setting = replace(setting, rsyncd=True)
    found = [wanted.RECORD, wanted.WELCOME, str(setting.edge.root.parent), *wanted.NEEDS]
    for home in homes:
        found += [folder.path for folder in wanted.folders(setting, home, made=True)]
        found += [file.path for file in wanted.files(setting, home, made=True, present_keys=None)]
    return list(dict.fromkeys(found))


def plan(setting: Setting, facts: Facts) -> Plan:
    """The way to a working edge. Raises EdgeRefused when there is none."""
    record = Record.parse(facts.content(wanted.RECORD))
    _check(setting, facts, record)
    setting = wanted.as_before(setting, record)
    home, made = wanted.home_of(facts.home)
    keys = wanted.keys_path(home)
    folders = wanted.folders(setting, home, made)
    every = wanted.files(setting, home, made, facts.content(keys))
    files = [file for file in every if not _foreign(file, facts)]
    packages = tuple(package for path, package in wanted.NEEDS.items() if path not in facts.entries)
    welcome = _has_welcome(facts) or "nginx" in packages
    mine = tuple(file.path for file in files if not file.once and file.path != keys)
    kept = Record(
        edge=setting.edge.name,
        root=str(setting.edge.root),
        account=setting.account,
        made_account=made,
        keys=keys,
        files=mine,
        folders=tuple(folder.path for folder in folders if folder.is_program),
        moved_welcome=welcome or bool(record and record.moved_welcome),
        rsyncd=bool(setting.rsyncd),
        server_name=setting.server_name or "",
    )
    writes = [step for file in (File(wanted.RECORD, kept.content()), *files) if (step := _write(file, facts))]
    known = {file.path for file in every}
    gone = [path for path in (record.files if record else ()) if path not in known and path in facts.entries]
    steps = [
        *([_install(packages)] if packages else []),
        *([_account(setting, home)] if facts.home is None else []),
        *(step for folder in folders if (step := _make(folder, facts))),
        *writes,
        *(_remove(path) for path in gone),
        *([_remove_welcome()] if welcome else []),
    ]
    changed = {step.words[-3] for step in writes} | ({wanted.WELCOME} if welcome else set())
    steps += _services(changed, facts, with_rsync=wanted.RSYNCD in mine)
    notes = [_left_alone(file, facts) for file in every if file not in files]
    if wanted.RSYNCD in changed and not facts.systemd:
        notes.append("systemd does not run there: start `rsync --daemon` as that host starts its services")
    return Plan(tuple(steps), tuple(notes), packages)


def _services(changed: Iterable[str], facts: Facts, *, with_rsync: bool) -> Iterator[Step]:
    """Let services read what changed, and start those that do not run."""
    if any(path.startswith(wanted.NGINX) for path in changed) or "nginx" not in facts.active:
        yield Step("let nginx check its configuration, and read it", ("sh", "-c", _NGINX))
    if with_rsync and facts.systemd and (wanted.RSYNCD in changed or "rsync" not in facts.active):
        yield Step("start rsync's daemon, port 873", ("sh", "-c", _RSYNC))


def _check(setting: Setting, facts: Facts, record: Record | None) -> None:
    edge = setting.edge
    if record and (record.root, record.account) != (str(edge.root), setting.account):
        raise EdgeRefused(
            f"edge {edge.name}: that host is the edge {record.edge} already, with the root {record.root} and the "
            f"account {record.account}; `mirrortool edge deprovision` takes that away first"
        )
    if str(edge.root.parent) not in facts.entries:
        raise EdgeRefused(f"edge {edge.name}: {edge.root.parent} is not there; mount the disk, or make that folder")
    if facts.python is not None and facts.python < PYTHON_AT_LEAST[0] * 100 + PYTHON_AT_LEAST[1]:
        raise EdgeRefused(
            f"edge {edge.name}: python3 is {facts.python // 100}.{facts.python % 100} there, "
            f"{PYTHON_AT_LEAST[0]}.{PYTHON_AT_LEAST[1]} or newer is needed (Debian 12 has it)"
        )
    if not facts.apt and any(path not in facts.entries for path in wanted.NEEDS):
        lacking = sorted(package for path, package in wanted.NEEDS.items() if path not in facts.entries)
        raise EdgeRefused(f"edge {edge.name}: there is no apt-get there; install {' '.join(lacking)} and run again")
    for folder in wanted.folders(setting, facts.home or wanted.HOME, made=True):
        entry = facts.entries.get(folder.path)
        if entry and entry.kind != "folder":
            raise EdgeRefused(f"edge {edge.name}: {folder.path}: expected a folder there, got a {entry.kind}")


def _foreign(file: File, facts: Facts) -> bool:
    return file.path in facts.entries and not _is_ours(file.path, facts)


def _is_ours(path: str, facts: Facts) -> bool:
    """Whether a present file is of our making; those with names that others use too begin with our mark."""
    return path not in wanted.MARKED or (facts.content(path) or b"").startswith(wanted.MARK.encode())


def _left_alone(file: File, facts: Facts) -> str:
    present = (facts.content(file.path) or b"").decode(errors="replace").splitlines()
    lacks = file.path == wanted.RSYNCD and wanted.INCLUDE not in present
    more = f"; add this line at its end: {wanted.INCLUDE}" if lacks else ""
    return f"{file.path} is not ours and stays as it is{more}"


def _has_welcome(facts: Facts) -> bool:
    entry = facts.entries.get(wanted.WELCOME)
    return bool(entry and entry.kind == "link" and entry.content.decode(errors="replace") == wanted.WELCOME_TARGET)


def _install(packages: Sequence[str]) -> Step:
    return Step(f"install {' '.join(packages)}", ("sh", "-c", _INSTALL, "sh", *packages))


def _account(setting: Setting, home: str) -> Step:
    words = ("useradd", "--system", "--user-group", "--home-dir", home, "--no-create-home", "--shell", "/bin/sh")
    return Step(f"make the account {setting.account}", (*words, "--password", "*", setting.account))


def _make(folder: Folder, facts: Facts) -> Step | None:
    entry = facts.entries.get(folder.path)
    if entry and (entry.owner, entry.mode) == (folder.owner, folder.mode):
        return None
    verb = "change" if entry else "make"
    words = ("sh", "-c", _MAKE, "sh", folder.path, folder.owner, f"{folder.mode:o}")
    return Step(f"{verb} the folder {folder.path} ({folder.owner}, {folder.mode:04o})", words)


def _write(file: File, facts: Facts) -> Step | None:
    entry = facts.entries.get(file.path)
    if entry and (file.once or (entry.kind, entry.owner, entry.mode, entry.content) == _as_it_should_be(file)):
        return None
    former = facts.content(file.path)
    verb = "change" if entry else "write"
    words = ("sh", "-c", _WRITE, "sh", file.path, file.owner, f"{file.mode:o}")
    undo = (words, former) if former is not None else (("rm", "-f", file.path), b"")
    says = f"{verb} {file.path} ({file.owner}, {file.mode:04o})"
    return Step(says, words, file.content, tuple(difference(former, file.content)), undo)


def _as_it_should_be(file: File) -> tuple[str, str, int, bytes]:
    return "file", file.owner, file.mode, file.content


def difference(former: bytes | None, content: bytes) -> list[str]:
    """What changes in a file, in a few lines."""
    if former == content:
        return []
    if b"\0" in content:
        return [f"{size(len(content))}, sha256 {hashlib.sha256(content).hexdigest()[:16]}…"]
    before, after = ((data or b"").decode(errors="replace").splitlines() for data in (former, content))
    changes = list(difflib.unified_diff(before, after, n=0, lineterm=""))[2:]  # without the names of the files
    lines = [line for line in changes if not line.startswith("@@")]
    more = len(lines) - _DIFF_LINES
    return lines if more <= 0 else [*lines[:_DIFF_LINES], f"… and {more} lines more"]


def _remove_welcome() -> Step:
    undo = (("ln", "-sf", wanted.WELCOME_TARGET, wanted.WELCOME), b"")
    says = f"remove {wanted.WELCOME}: Debian's welcome page, which answers for every name"
    return Step(says, ("rm", "-f", wanted.WELCOME), undo=undo)


def removal(setting: Setting, facts: Facts, *, purge: bool) -> Plan:
    """The way back: what the host's record names is taken away. Raises EdgeRefused."""
    record = Record.parse(facts.content(wanted.RECORD))
    if record is None:
        return Plan()
    if (record.edge, record.root) != (setting.edge.name, str(setting.edge.root)):
        raise EdgeRefused(f"edge {setting.edge.name}: that host is the edge {record.edge} with the root {record.root}")
    steps = [*_forget_keys(setting, record, facts)]
    steps += [_remove(path) for path in record.files if path in facts.entries and _is_ours(path, facts)]
    if record.moved_welcome and wanted.WELCOME not in facts.entries:
        words = f"[ ! -e {wanted.WELCOME_TARGET} ] || ln -s {wanted.WELCOME_TARGET} {wanted.WELCOME}"
        steps.append(Step(f"put {wanted.WELCOME} back", ("sh", "-c", words)))
    if "nginx" in facts.active:
        steps.append(Step("let nginx check its configuration, and read it", ("sh", "-c", _NGINX)))
    if wanted.RSYNCD in record.files and "rsync" in facts.active:
        steps.append(Step("stop rsync's daemon", ("systemctl", "disable", "--now", "--quiet", "rsync")))
    steps += _purged(record) if purge else []
    steps.append(_remove(wanted.RECORD))
    folders = [path for path in reversed(record.folders) if path in facts.entries]
    steps += [
        Step(f"remove the folder {p}, if it is empty", ("sh", "-c", 'rmdir "$1" || true', "sh", p)) for p in folders
    ]
    notes = ["packages that were installed stay"]
    if not purge:
        notes += [f"{record.root} and the account {record.account}, whose it is, stay; --purge removes them"]
    return Plan(tuple(steps), tuple(notes))


def _forget_keys(setting: Setting, record: Record, facts: Facts) -> Iterator[Step]:
    present = facts.content(record.keys)
    if present is None:
        return
    rest = wanted.authorized(present.decode(errors="surrogateescape"), [], setting.edge.name)
    entry = facts.entries[record.keys]
    if rest.encode(errors="surrogateescape") != present:
        file = File(record.keys, rest.encode(errors="surrogateescape"), entry.owner, entry.mode)
        step = _write(file, facts)
        assert step is not None  # noqa: S101  (its content differs)
        yield step


def _remove(path: str) -> Step:
    return Step(f"remove {path}", ("rm", "-f", path))


def _purged(record: Record) -> list[Step]:
    inside = [f"{record.root}/{name}" for name in ("public", "private", "signposts", "state")]
    steps = [
        Step(f"remove {', '.join(inside)} with all that is in them", ("rm", "-rf", "--", *inside)),
        Step(f"remove the folder {record.root}, if it is empty", ("sh", "-c", 'rmdir "$1" || true', "sh", record.root)),
        Step(f"remove {wanted.LOGS}", ("rm", "-rf", wanted.LOGS)),
    ]
    if record.made_account:
        home = str(PurePosixPath(record.keys).parents[1])
        steps.append(Step(f"remove the account {record.account}", ("userdel", record.account)))
        steps.append(Step(f"remove {home}", ("rm", "-rf", "--", home)))
    return steps
