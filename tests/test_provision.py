"""Provisioning without a host: the plan from facts, what a failing step leaves, ssh's configuration, host keys."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirrortools.config import EdgeConfig
from mirrortools.errors import ConfigError, EdgeRefused, EdgeUnreachable, ServeError
from mirrortools.provision import HostKeys, Provisioner, Setting, push_key, signer_of
from mirrortools.provision.connection import Place
from mirrortools.provision.facts import Done, Entry, Facts, look
from mirrortools.provision.plan import Plan, difference, plan, removal
from mirrortools.provision.wanted import HOME, NEEDS, RECORD, RSYNCD, WELCOME, WELCOME_TARGET, Record, authorized

SIGNER = "ssh-ed25519 " + "A" * 68
KEY = "ssh-ed25519 " + "B" * 68
EDGE = EdgeConfig("bj1", "ssh://mirror@bj1.example/srv/edge", None, Path("/k"), None, "0.0.0.0:80")
SETTING = Setting(EDGE, SIGNER, (KEY,))
KEYS = f"{HOME}/.ssh/authorized_keys"
BARE = Facts({"/srv": Entry("folder", "root:root", 0o755)}, apt=True, systemd=True)


def after(steps: Plan, before: Facts) -> Facts:
    """What is on a host when a plan was done: the commands of its steps, acted out."""
    entries = dict(before.entries) | {path: Entry("file") for path in NEEDS}
    home, active = before.home, before.active
    for step in steps.steps:
        match step.words:
            case ("sh", "-c", script, "sh", path, owner, mode):
                is_file = "mv -T" in script
                entries[path] = Entry("file" if is_file else "folder", owner, int(mode, 8), step.data)
            case ("useradd", *_):
                home = HOME
            case ("userdel", *_):
                home = None
            case ("rm", "-f", path):
                entries.pop(path, None)
            case ("sh", "-c", script) if "nginx -t" in script:
                active |= {"nginx"}
            case ("sh", "-c", script) if "restart rsync" in script:
                active |= {"rsync"}
            case _:
                pass
    return replace(before, entries=entries, home=home, active=active)


def says(steps: Plan) -> str:
    """The plan as an operator sees it."""
    return "\n".join(steps.lines())


def test_a_bare_host_gets_everything_and_a_second_look_finds_nothing_to_do() -> None:
    """Packages first, the key behind all that it may call, services last."""
    first = plan(SETTING, BARE)
    steps = [step.says for step in first.steps]
    where = {
        word: next(i for i, step in enumerate(steps) if word in step) for word in ("install", "account", "pyz", KEYS)
    }

    assert first.packages == tuple(NEEDS.values())
    assert sorted(where.values()) == [where[word] for word in ("install", "account", "pyz", KEYS)]
    assert steps[-2:] == ["let nginx check its configuration, and read it", "start rsync's daemon, port 873"]
    assert plan(SETTING, after(first, BARE)).steps == ()


@settings(max_examples=30, deadline=None)
@given(st.sets(st.sampled_from([step.says for step in plan(SETTING, BARE).steps])))
def test_whatever_part_was_done_the_rest_is_found(left_out: set[str]) -> None:
    """A run that was broken off is gone on with; afterwards there is nothing to do."""
    whole = plan(SETTING, BARE)
    part = replace(whole, steps=tuple(step for step in whole.steps if step.says not in left_out))
    broken = after(part, BARE)
    mended = after(plan(SETTING, broken), broken)

    assert plan(SETTING, mended).steps == ()


def test_a_change_of_one_thing_is_one_step() -> None:
    """Another limit changes the key's line, and nothing else is touched or read again."""
    there = after(plan(SETTING, BARE), BARE)
    changed = plan(replace(SETTING, edge=replace(EDGE, incoming_limit_bytes=5)), there)

    assert [step.says for step in changed.steps] == [f"change {KEYS} (root:root, 0644)"]
    assert "+restrict,command=" in says(changed)
    assert "--incoming-limit=5 /srv/edge" in says(changed)


def test_an_account_that_was_there_keeps_its_home_and_its_keys() -> None:
    """Its list of keys stays its own, with one line more."""
    keys = "/home/mirror/.ssh/authorized_keys"
    there = replace(BARE, home="/home/mirror", entries={**BARE.entries, keys: Entry("file", "m:m", 0o600, b"other\n")})
    [step] = [step for step in plan(SETTING, there).steps if keys in step.says]

    assert step.data.startswith(b"other\nrestrict,command=")
    assert "(mirror:mirror, 0600)" in step.says
    assert not any("make the account" in step.says or HOME in step.says for step in plan(SETTING, there).steps)


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (replace(BARE, entries={}), "/srv is not there; mount the disk"),
        (replace(BARE, python=309), "python3 is 3.9 there, 3.11 or newer"),
        (replace(BARE, apt=False), "no apt-get there; install libnginx-mod-http-js"),
        (replace(BARE, entries={**BARE.entries, "/srv/edge": Entry("file")}), "/srv/edge: expected a folder there"),
        (replace(BARE, entries={**BARE.entries, "/srv/edge": Entry("link")}), "/srv/edge: expected a folder there"),
        (replace(BARE, entries={**BARE.entries, RECORD: Entry("file", content=b"{}")}), "not a record"),
    ],
)
def test_a_host_that_cannot_be_an_edge_is_refused_with_the_reason(facts: Facts, reason: str) -> None:
    """Before anything is done."""
    with pytest.raises(EdgeRefused, match=reason):
        plan(SETTING, facts)


def test_what_was_chosen_once_stays_and_may_be_changed() -> None:
    """A name and no rsyncd are kept by runs that do not say; rsyncd's files go when it is not wanted any more."""
    chosen = replace(SETTING, rsyncd=False, server_name="bj1.example")
    there = after(plan(chosen, BARE), BARE)
    full = after(plan(SETTING, BARE), BARE)
    changed = plan(replace(SETTING, rsyncd=False), full)

    assert plan(SETTING, there).steps == ()
    assert RSYNCD not in there.entries
    assert f"remove {RSYNCD}" in [step.says for step in changed.steps]
    assert plan(SETTING, after(changed, full)).steps == ()


def test_a_host_is_one_edge() -> None:
    """Another root there would need the same files."""
    there = after(plan(SETTING, BARE), BARE)
    other = replace(SETTING, edge=replace(EDGE, name="bj2", url="ssh://mirror@bj1.example/srv/other"))

    with pytest.raises(EdgeRefused, match="is the edge bj1 already"):
        plan(other, there)


def test_what_is_not_ours_stays() -> None:
    """A configuration of rsyncd that somebody wrote is left alone, told, and not taken away later."""
    there = replace(BARE, entries={**BARE.entries, RSYNCD: Entry("file", "root:root", 0o644, b"[pub]\n")})
    steps = plan(SETTING, there)
    done = after(steps, there)

    ours = after(plan(SETTING, BARE), BARE)
    taken_over = replace(ours, entries={**ours.entries, RSYNCD: there.entries[RSYNCD]})

    assert f"{RSYNCD} is not ours and stays as it is" in says(steps)
    for facts in (done, taken_over, after(plan(SETTING, taken_over), taken_over)):
        assert facts.content(RSYNCD) == b"[pub]\n"
        assert RSYNCD not in says(removal(SETTING, facts, purge=True))


def test_the_way_back_takes_away_what_the_record_names() -> None:
    """The key goes first, the record last of the files; content and account stay without --purge."""
    welcome = {WELCOME: Entry("link", content=WELCOME_TARGET.encode())}
    bare = replace(BARE, entries={**BARE.entries, **welcome})
    there = after(plan(SETTING, bare), bare)
    kept, purged = removal(SETTING, there, purge=False), removal(SETTING, there, purge=True)

    assert KEYS in kept.steps[0].says
    assert kept.steps[0].data == b""
    assert f"put {WELCOME} back" in says(kept)
    assert "userdel" not in str(kept.steps)
    assert "/srv/edge and the account mirror, whose it is, stay" in says(kept)
    assert ("rm", "-rf", "--", *(f"/srv/edge/{name}" for name in ("public", "private", "signposts", "state"))) in [
        step.words for step in purged.steps
    ]
    assert ("userdel", "mirror") in [step.words for step in purged.steps]
    assert removal(SETTING, after(kept, there), purge=False).steps == ()


def test_the_record_of_another_edge_is_not_taken_away() -> None:
    """A wrong host name in the configuration undoes nothing."""
    there = after(plan(SETTING, BARE), BARE)

    with pytest.raises(EdgeRefused, match="is the edge bj1"):
        removal(replace(SETTING, edge=replace(EDGE, name="bj2")), there, purge=True)


def test_a_record_reads_as_it_was_written() -> None:
    """It is JSON on the host."""
    record = Record("bj1", "/srv/edge", "mirror", True, KEYS, ("/a", "/b"), ("/c",), False, True, "bj1.example")

    assert Record.parse(record.content()) == record


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("file:///mnt/disk", "only hosts that ssh reaches"),
        ("ssh://bj1.example/srv/edge", "ssh://mirror@bj1.example/srv/edge"),
        ("ssh://root@bj1.example/srv/edge", "not root"),
    ],
)
def test_an_edge_without_an_account_of_its_own_is_refused(url: str, reason: str) -> None:
    """The message has the URL as it should be."""
    with pytest.raises(ConfigError, match=reason):
        replace(SETTING, edge=replace(EDGE, url=url))


def test_the_keys_of_others_stay_in_their_places() -> None:
    """Ours are told by their comment; of another edge's they differ in it."""
    present = f"# hands\nssh-rsa AAAA me\nold {KEY} mirrortools:bj1\nold {KEY} mirrortools:bj10\n"

    assert authorized(present, ["new"], "bj1") == (f"# hands\nssh-rsa AAAA me\nold {KEY} mirrortools:bj10\nnew\n")
    assert authorized("", [], "bj1") == ""


@given(st.text(alphabet="ab\n "), st.lists(st.sampled_from(["x mirrortools:e", "y mirrortools:e"]), unique=True))
def test_taking_out_undoes_putting_in(present: str, lines: list[str]) -> None:
    """Other lines are never changed."""
    put_in = authorized(present, lines, "e")

    assert authorized(put_in, [], "e") == authorized(present, [], "e")
    assert authorized(put_in, lines, "e") == put_in


def test_differences_are_short() -> None:
    """Text by its lines, at most twelve; other content by size and hash."""
    assert difference(b"a\nb\n", b"a\nc\n") == ["-b", "+c"]
    assert len(difference(None, b"x\n" * 100)) == 13
    assert difference(None, b"x\n" * 100)[-1] == "… and 88 lines more"
    assert difference(None, b"\0") == ["1 B, sha256 6e340b9cffb37a98…"]
    assert difference(b"a", b"a") == []


class FakeHost:
    """A host that runs nothing, says `out`, and fails what `fails` is in."""

    def __init__(self, out: str = "", fails: str = "") -> None:
        self.out = out
        self.fails = fails
        self.ran: list[tuple[Sequence[str], bytes]] = []

    def run(self, words: Sequence[str], data: bytes = b"") -> Done:
        self.ran.append((words, data))
        failed = bool(self.fails) and any(self.fails in word for word in words)
        return Done(int(failed), self.out, "no, said the host" if failed else "")


def test_a_step_that_fails_puts_files_back() -> None:
    """In the other order, each as it was; the message has what the host said."""
    there = after(plan(SETTING, BARE), BARE)
    changed = plan(replace(SETTING, edge=replace(EDGE, listen="0.0.0.0:81", incoming_limit_bytes=5)), there)
    host = FakeHost(fails="nginx -t")
    with pytest.raises(ServeError, match="no, said the host\nfiles are as they were"):
        Provisioner(SETTING, host).do(changed, lambda _: None)
    written = [(words[4], data) for words, data in host.ran if "mv -T" in words[2]]

    assert [path for path, _ in written] == [
        "/etc/nginx/conf.d/mirrortools.conf",
        KEYS,
        KEYS,
        "/etc/nginx/conf.d/mirrortools.conf",
    ]
    assert [data for _, data in written[2:]] == [there.content(path) for path, _ in written[2:]]


def test_an_answer_that_is_cut_off_is_no_fact() -> None:
    """What is missing in it would be made anew."""
    with pytest.raises(EdgeRefused, match="could not be looked at"):
        look(FakeHost("apt\nsystemd\n"), "mirror", [])


def test_a_host_key_is_given_or_asked_for() -> None:
    """By fingerprint or as a key; who is asked decides; without anybody to ask it is refused with the command."""
    asked: list[str] = []
    fingerprint, key = "SHA256:abc", "AAAAC3"

    assert HostKeys((fingerprint,)).accepts("bj1", "h", fingerprint, key)
    assert HostKeys((f"ssh-ed25519 {key} me",)).accepts("bj1", "h", fingerprint, key)
    assert not HostKeys(("SHA256:other",), lambda _: True).accepts("bj1", "h", fingerprint, key)
    assert not HostKeys(ask=lambda text: bool(asked.append(text))).accepts("bj1", "h", fingerprint, key)
    assert asked == [f"edge bj1: the host key of h is not known: {fingerprint}"]
    with pytest.raises(EdgeUnreachable, match=f"run again with --host-key {fingerprint}"):
        HostKeys().accepts("bj1", "h", fingerprint, key)


@pytest.mark.parametrize(
    ("options", "proxy"),
    [
        ("", None),
        ("proxyjump none\n", None),
        ("proxyjump jump\n", ["ssh", "-W", "[10.0.0.1]:2222", "--", "ssh://jump"]),
        ("proxyjump a,me@b:23\n", ["ssh", "-J", "a", "-W", "[10.0.0.1]:2222", "--", "ssh://me@b:23"]),
        ("proxycommand nc -x %r%% %h %p\n", ["sh", "-c", "exec nc -x admin% 10.0.0.1 2222"]),
    ],
)
def test_sshs_configuration_says_where_a_host_is(options: str, proxy: list[str] | None) -> None:
    """Alias, port and the way through others, as `ssh -G` prints them."""
    place = Place.parse("bj1", f"user admin\nhostname 10.0.0.1\nport 2222\n{options}")

    assert (place.user, place.port, place.known_name) == ("admin", 2222, "10.0.0.1")
    assert place.proxy() == proxy


def test_a_push_key_is_made_once(tmp_path: Path) -> None:
    """For its owner alone; the folder around it keeps its mode."""
    tmp_path.chmod(0o755)
    key = tmp_path / "bj1_key"
    made = push_key(key, tmp_path)

    assert push_key(key, tmp_path) == made
    assert key.stat().st_mode & 0o777 == 0o600
    assert tmp_path.stat().st_mode & 0o777 == 0o755
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bj1_key", "bj1_key.pub"]


def test_keys_that_root_makes_belong_to_the_account_that_syncs(tmp_path: Path) -> None:
    """Whoever owns the mirror's root must be able to sign and to deliver."""
    root, key = tmp_path / "root", tmp_path / "bj1_key"
    root.mkdir()
    os.chown(root, 1234, 1235)
    signer_of(root)
    push_key(key, root)
    made = [root / "state", *(root / "state").rglob("*"), key, key.with_suffix(".pub")]

    assert {(path.stat().st_uid, path.stat().st_gid) for path in made} == {(1234, 1235)}
    assert len(made) == 6


def test_an_edge_for_what_is_private_lets_nginx_in_and_few_others() -> None:
    """The folder is in the group of the workers, the log is there before nginx makes it, nginx serves it."""
    open_edge, closed = plan(SETTING, BARE), plan(replace(SETTING, edge=replace(EDGE, private=True)), BARE)
    texts = [[" ".join(step.words) for step in steps.steps] for steps in (open_edge, closed)]
    config = [step.data or b"" for step in closed.steps if "/etc/nginx/conf.d/mirrortools.conf" in step.words]

    assert not [words for words in texts[0] if "private" in words]
    assert [words for words in texts[1] if "/srv/edge/private mirror:www-data 750" in words]
    for name in ("mirrortools-private.log", "mirrortools-private-error.log"):
        assert [words for words in texts[1] if f"{name} www-data:adm 640" in words]
    assert [words for words in texts[1] if "/var/log/mirrortools root:adm 750" in words]
    assert b"hub_verdict" in config[0]
