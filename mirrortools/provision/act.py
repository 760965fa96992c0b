"""Look at a host, make the plan, do it, prove that the key does what it is for."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from mirrortools.config import EdgeConfig
from mirrortools.errors import EdgeRefused, ServeError, StoreError
from mirrortools.files import sync_folder
from mirrortools.frames import PROTOCOL_VERSION
from mirrortools.provision.facts import Facts, Runner, look
from mirrortools.provision.plan import Plan, Step, paths_of_interest, plan, removal
from mirrortools.provision.wanted import HOME, RECORD, Record, Setting
from mirrortools.signatures import make_key, public_key
from mirrortools.signing import Signer
from mirrortools.transports import receiver_archive, transport_to

Tell = Callable[[str], object]


class Provisioner:
    """One edge and a connection to its host."""

    def __init__(self, setting: Setting, runner: Runner) -> None:
        self._setting = setting
        self._runner = runner

    def plan(self) -> Plan:
        """What lacks for a working edge. Raises EdgeUnreachable, EdgeRefused."""
        return plan(self._setting, self._facts())

    def key_plan(self) -> Plan:
        """What lacks in the list of keys alone. Raises EdgeUnreachable, EdgeRefused, also when it is no edge yet."""
        facts = self._facts()
        record = Record.parse(facts.content(RECORD))
        if record is None:
            name = self._setting.edge.name
            raise EdgeRefused(f"edge {name}: it was not provisioned; run: mirrortool edge provision {name}")
        return plan(self._setting, facts).about(record.keys)

    def removal(self, *, purge: bool) -> Plan:
        """What provisioning has put there. Raises EdgeUnreachable, EdgeRefused."""
        return removal(self._setting, self._facts(), purge=purge)

    def do(self, wanted: Plan, tell: Tell) -> None:
        """Do a plan's steps; when one fails, files are put back as they were. Raises EdgeRefused, EdgeUnreachable."""
        for number, step in enumerate(wanted.steps):
            tell(step.says)
            done = self._runner.run(step.words, step.data)
            if done.status:
                for former in reversed(wanted.steps[:number]):
                    self._undo(former)
                said = done.said or done.out.strip()[-2000:]
                kind = ServeError if "nginx" in step.says else EdgeRefused
                raise kind(
                    f"edge {self._setting.edge.name}: {step.says}: status {done.status}: {said}\n"
                    "files are as they were; mend that, then run it again"
                )

    def _undo(self, step: Step) -> None:
        if step.undo:
            self._runner.run(*step.undo)

    def _facts(self) -> Facts:
        account = self._setting.account
        homes = [look(self._runner, account, []).home or HOME]
        return look(self._runner, account, paths_of_interest(self._setting, homes))


def signer_of(root: Path) -> str:
    """The public key that edges are to believe, which is made if there is none, for the owner of `root`.

    Raises StoreError.
    """
    signer = Signer(root)
    is_new = not signer.key.exists()
    public = signer.signer
    if is_new:
        keys = signer.key.parent
        _hand_over([keys.parent, keys, signer.key, signer.key.with_suffix(".pub")], root)
    return public


def _hand_over(paths: Iterable[Path], beside: Path) -> None:
    """Give what root has made to the owner of `beside`: the account that syncs."""
    if os.geteuid() == 0 and beside.exists():
        owner = beside.stat()
        for path in paths:
            os.chown(path, owner.st_uid, owner.st_gid)


def push_key(path: Path, beside: Path) -> str:
    """The public half of the private key in `path`, which is made if there is none, for the owner of `beside`.

    Raises StoreError, IntegrityError.
    """
    if not path.exists():
        try:
            _make(path, beside)
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror}; may the user who runs mirrortool write there?") from error
    return public_key(path)


def _make(path: Path, beside: Path) -> None:
    folder = path.with_name(f".{path.name}.making")
    make_key(folder / "key")
    for made, name in ((folder / "key.pub", f"{path.name}.pub"), (folder / "key", path.name)):
        _hand_over([made], beside)
        made.replace(path.with_name(name))
    folder.rmdir()
    sync_folder(path.parent)


def prove(edge: EdgeConfig) -> dict[str, Any]:
    """Call the edge as a delivery does; the receiver's answer. Raises EdgeUnreachable, EdgeRefused.

    The connection's socket lies elsewhere than a delivery's, whose account may be another.
    """
    hello = {"ask": "hello", "version": PROTOCOL_VERSION, "caller": "mirrortool edge provision", "repos": []}
    with tempfile.TemporaryDirectory(prefix="mirrortool-") as state:
        session = transport_to(edge, Path(state)).open(receiver_archive())
        with closing(session):
            answer = session.ask(hello)
    if answer.get("installed") is not True:
        raise EdgeRefused(
            f"edge {edge.name}: {edge.identity_file} reaches an account without the forced command: another line of "
            "authorized_keys there lets this key in; remove that line, then run it again"
        )
    return answer


def rotate(setting: Setting, path: Path, runner: Runner, tell: Tell) -> None:
    """Let a new push key in, prove it, put it in the place of the old one in `path`, and take the old one out there.

    What was broken off is gone on with by running it again. Raises EdgeUnreachable, EdgeRefused, StoreError.
    """
    edge = setting.edge
    fresh = path.with_name(f"{path.name}.new")
    old, new = public_key(path), push_key(fresh, path)
    both = Provisioner(replace(setting, push_keys=(old, new)), runner)
    both.do(both.key_plan(), tell)
    prove(replace(edge, identity_file=fresh))
    tell("the new key was proved")
    for suffix in (".pub", ""):
        fresh.with_name(f"{fresh.name}{suffix}").replace(path.with_name(f"{path.name}{suffix}"))
    sync_folder(path.parent)
    one = Provisioner(replace(setting, push_keys=(new,)), runner)
    one.do(one.key_plan(), tell)
    prove(edge)
