"""Private repositories on edges: those that are meant get them, and say who may read; others never hear of them."""

from __future__ import annotations

import stat
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mirrortools.config import EdgeConfig
from mirrortools.errors import EdgeError, EdgeRefused, MirrorError
from mirrortools.frames import PROTOCOL_VERSION
from mirrortools.model import Blob, Publication, Realm
from mirrortools.pool import EdgePool, Scope
from mirrortools.readers import Access, Bearer, Readership
from mirrortools.sealing import SealedSession
from mirrortools.seals import SEAL, sealed_text
from mirrortools.signing import Signer
from mirrortools.store import Store
from mirrortools.transports import Session, receiver_archive, transport_to
from mirrortools.tree import Tree
from tests.clients import curl
from tests.delivery import bound_edge, noise, publication
from tests.mirror import Mirror
from tests.servers import Nginx, free_port
from tests.servers.sshd import Sshd

MARK = "hush"
MODEL = "acme/hush-model"
FILES = {"config.json": b"{}", "model.bin": noise(300_000, 1)}


def everything(folder: Path) -> str:
    """All names below a folder, where links lead, and what is in the files."""
    told = []
    for path in folder.rglob("*"):
        content = (
            str(path.readlink()) if path.is_symlink() else path.read_bytes().decode("latin-1") if path.is_file() else ""
        )
        told.append(f"{path.relative_to(folder)} {content}")
    return "\n".join(told)


@pytest.fixture
def site(tmp_path: Path, sshd: Sshd) -> Mirror:
    """An origin with a public model on two edges, and a private one for the edge `vault` alone."""
    for name, files in (("acme/open", FILES), (MODEL, FILES)):
        (tmp_path / "source" / name).mkdir(parents=True)
        for path, content in files.items():
            (tmp_path / "source" / name / path).write_bytes(content)
    keys = {"identity_file": str(sshd.identity_file), "known_hosts": str(sshd.known_hosts)}
    edges = {name: {"url": sshd.url(tmp_path / name), **keys} for name in ("shop", "vault")}
    edges["vault"] |= {"private": True, "listen": f"127.0.0.1:{free_port()}"}
    made = Mirror(tmp_path / "origin", f"dir://{tmp_path}/source", edges=edges)
    made.add("acme/open")
    made.add(MODEL, private=True, readers=["alice"], edges=["vault"])
    return made


def test_an_edge_that_may_gets_it_and_another_hears_nothing(site: Mirror, tmp_path: Path) -> None:
    """Both get what is public; the private name is in nothing that lies on the other edge, nor in what vault shows."""
    assert site.run("sync", "--all").status == 0
    again = site.run("deliver", "--all", "--json").json
    vault, served = tmp_path / "vault", tmp_path / "vault" / "private" / "models" / MODEL / "refs" / "main"

    assert {path.name: path.read_bytes() for path in served.iterdir() if path.name in FILES} == FILES
    assert stat.S_IMODE((vault / "private").stat().st_mode) == 0o750
    assert [[each["changed"], each["sent_bytes"]] for done in again for each in done["deliveries"]] == [[False, 0]] * 3
    assert (tmp_path / "shop" / "public" / "models" / "acme" / "open" / "refs" / "main").is_symlink()
    assert MARK not in everything(tmp_path / "shop")
    assert MARK not in everything(vault / "public")
    assert {path.stat().st_nlink for path in (vault / "private" / "blobs").rglob("*") if path.is_file()} == {1}
    for command in (("check", "--edge", "vault"), ("edge", "audit"), ("describe", "--edge", "vault")):
        ended = site.run(*command, "--all")
        assert ended.status == 0, ended.stderr
        assert "hush-model: edge vault: in order" in ended.stdout


def test_readers_of_an_edge_and_revocation(site: Mirror, tmp_path: Path) -> None:
    """The edge answers by itself as the origin does, and goes by a revocation when it was next delivered to."""
    site.settings["groups"] = {"others": ["carol"]}
    alice, carol = (site.run("token", "add", user) for user in ("alice", "carol"))
    assert site.run("sync", "--all").status == 0
    place = tmp_path / "nginx"
    assert site.run("nginx", "print", "--edge", "vault", "--standalone", str(place)).status == 0
    listen = site.settings["edges"]["vault"]["listen"]
    url = f"http://{listen}/{MODEL}/resolve/main/model.bin"
    with Nginx(place / "nginx.conf", place, [int(listen.partition(":")[2])]):
        tokens = [ended.stdout.strip() for ended in (alice, carol)]
        before = [curl(url, "-H", f"Authorization: Bearer {token}") for token in tokens]
        public = curl(f"http://{listen}/acme/open/resolve/main/model.bin")
        listed = [curl(f"http://{listen}/api/models", "-H", f"Authorization: Bearer {token}") for token in tokens]
        revoked = site.run("token", "revoke", "alice")
        between = curl(url, "-H", f"Authorization: Bearer {tokens[0]}")
        command = revoked.stderr.partition("mirrortool ")[2].split()
        assert site.run(*command).status == 0
        after = curl(url, "-H", f"Authorization: Bearer {tokens[0]}")

    assert "mirrortool deliver --job job" in alice.stderr
    assert [answer.status for answer in before] == [200, 401]
    assert before[0].body == public.body == FILES["model.bin"]
    assert [MODEL.encode() in answer.body for answer in listed] == [True, False]
    assert not list((tmp_path / "vault" / "private" / ".access" / "users").iterdir())
    assert command == ["deliver", "--job", "job"]
    assert (between.status, after.status) == (200, 401)
    assert not list((tmp_path / "vault" / "private" / ".access" / "tokens").iterdir())


@pytest.mark.parametrize("edges", [["shop"], ["vault", "shop"]])
def test_an_edge_that_may_not_is_an_error_of_the_configuration(site: Mirror, edges: list[str]) -> None:
    """Whoever names it for what is private is told so before anything runs."""
    site.change(edges=edges)
    ended = site.fails("config", "check")

    assert ended.status == 2
    assert "'shop' is not for that" in ended.stderr
    assert "private: true" in ended.stderr


# What a stolen push key can do about it


@pytest.fixture
def edge(sshd: Sshd, tmp_path: Path) -> EdgeConfig:
    """An edge whose key is bound to an installed receiver, as provisioning binds it."""
    return bound_edge(sshd, tmp_path / "edge", private=True)


@pytest.fixture
def shown(origin: Path, edge: EdgeConfig) -> Publication:
    """What the edge serves to alice."""
    open_one = publication(origin, {"model.safetensors": noise(300_000, 2)})
    shown = replace(open_one, realm=Realm.PRIVATE)
    for blob in shown.blobs:
        target = Store(origin, Realm.PRIVATE).path(blob)
        target.parent.mkdir(parents=True, exist_ok=True)
        Store(origin).path(blob).replace(target)
    Tree(origin, Realm.PRIVATE).publish(shown)
    with EdgePool(Scope({"bj1": edge}, origin, access=lambda _: Access({"a" * 64: Bearer("alice")}, {}))) as pool:
        [delivery] = pool.deliver(shown, ["bj1"])
    assert delivery.error is None
    assert delivery.changed
    return shown


def greeted(edge: EdgeConfig, state: Path, realm: Realm) -> Session:
    """A thief's conversation with the receiver."""
    session = transport_to(edge, state).open(receiver_archive())
    session.ask({"ask": "hello", "version": PROTOCOL_VERSION, "caller": "a thief", "repos": [], "realm": realm})
    return session


def item(blob: Blob) -> list[Any]:
    return [blob.algorithm, blob.digest, blob.size]


def test_a_thief_reads_nothing_private_though_its_digest_is_known(
    edge: EdgeConfig, shown: Publication, tmp_path: Path
) -> None:
    """No delivery begins, here or as a public one, and no range is proved that is short enough to be tried out."""
    blob = max(shown.blobs, key=lambda blob: blob.size)
    for realm in Realm:
        for ask in ("begin", "relay", "patch", "adopt"):
            session = greeted(edge, tmp_path / "state", realm)
            words = {"blobs": [item(blob)], "passport": "", "limit": 0, "ports": None}
            made = {
                "blob": item(blob),
                "base": item(blob),
                "fresh": ["sha256", "0" * 64, 0],
                "steps": [[0, 0, blob.size]],
            }
            with closing(session), pytest.raises(EdgeRefused):
                session.ask({"ask": ask, "repo": shown.repo.path, **words, **made, "steps": [[0, 0, blob.size]]})
    for offset, length in ((0, 1), (1, 64 << 10), (64 << 10, 10)):
        session = greeted(edge, tmp_path / "state", Realm.PRIVATE)
        with closing(session), pytest.raises(EdgeRefused, match="whole blocks"):
            session.ask({"ask": "prove", "samples": [[*item(blob), offset, length]], "nonce": ""})

    assert not Store(edge.root).has(blob)


def test_a_thief_does_not_say_who_may_read(edge: EdgeConfig, shown: Publication, tmp_path: Path) -> None:
    """What the origin did not sign for that conversation is refused, and the readers are those that they were."""
    mine = Access({"b" * 64: Bearer("thief")}, {shown.repo: Readership(("thief",))})
    request = {"ask": "access", "access": mine.to_json()}
    for seal, challenge in (
        (Signer(tmp_path / "thief"), None),
        (Signer(tmp_path / "origin"), "of another conversation"),
    ):
        session = transport_to(edge, tmp_path / "state").open(receiver_archive())
        hello = {"ask": "hello", "version": PROTOCOL_VERSION, "caller": "x", "repos": [], "realm": Realm.PRIVATE}
        given = session.ask(hello)["challenge"]
        with closing(session), pytest.raises(MirrorError, match="not signed by"):
            session.ask({**request, SEAL: seal.seal(sealed_text(request, challenge or given))})
    with closing(greeted(edge, tmp_path / "state", Realm.PRIVATE)) as session, pytest.raises(EdgeRefused):
        session.ask(request)

    assert [path.name for path in (edge.root / "private" / ".access" / "tokens").iterdir()] == ["a" * 64]


def test_what_was_signed_as_private_is_not_shown_to_everybody(
    edge: EdgeConfig, shown: Publication, origin: Path, tmp_path: Path
) -> None:
    """Not even in a conversation of the origin itself about what is public."""
    (edge.root / "private" / "models").rename(edge.root / "elsewhere")  # as if the edge had never had it
    session = transport_to(edge, tmp_path / "state").open(receiver_archive())
    hello = {"ask": "hello", "version": PROTOCOL_VERSION, "caller": "x", "repos": []}
    signer = Signer(origin)
    sealed = SealedSession(session, signer, session.ask(hello)["challenge"])
    publish = {"ask": "publish", "publication": shown.to_json(), "signed": signer.signed(shown).to_json()}
    with closing(session):
        sealed.ask({"ask": "begin", "repo": shown.repo.path, "blobs": []})
        with pytest.raises(EdgeError, match="is private"):
            sealed.ask(publish)

    assert shown.repo.name not in everything(edge.root / "public")
