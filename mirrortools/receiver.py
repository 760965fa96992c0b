"""The program that answers on an edge: says what it holds, hashes what arrived, publishes what is complete.

It runs from a zip archive in memory that the origin sends when it is not kept here, so it uses the standard library and
our own modules alone, and it writes nothing outside its root:

    public/, or of private repositories private/    by Store and Tree
    state/incoming/<quoted repository>/<digest>     what arrives; it goes on there after a break
    state/incoming/<quoted repository>@ahead/…      the same of what goes ahead of a publication, by relays alone
    state/locks/<quoted repository>[@ahead].lock    who delivers now
    state/keys/signer                               the public key of the origin that is believed
    state/shown/<realm>                             notes of what is shown, so that it need not be looked at
    state/receiver/<sha256>                         this program, as the origin sent it

Requests, in the order in which a delivery asks them: `hello`, `trust` (the origin's key), `state`, `begin` (takes the
repository's lock and names all blobs that may come; to go ahead of a publication it takes a lock of its own, and
nothing shows then; `have` asks the same and changes nothing), `usage` (what all blobs take), `patch` (makes a blob out
of an older one), `carry` (has little ones in it), `relay`, `draw`, `flow` (bytes come from the origin or another edge,
and go on to others), `adopt`, `publish` (what the origin has signed; lets go of the lock). `ping` keeps a call alive
while rsync works; `audit`, `links` and `prove` look again at what is here; `describe` hashes pieces for metalinks. A
conversation is about one realm, which `hello` names; in the private one `access` says who may read. `hello` and `state`
tell what is here of repositories, or, of those in a roll, what differs from what the origin says.
Every request is checked here, because the key that sent it may be stolen; what begins a delivery, what has the edge
connect to another host, and who may read, needs the signature of the origin besides (`seals`).
"""

from __future__ import annotations

import base64
import contextlib
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import mirrortools
from mirrortools.berth import Berth
from mirrortools.bounds import Bounds
from mirrortools.errors import EdgeRefused, IntegrityError, MirrorError, NoSpace
from mirrortools.exchange import Exchange, Terms, arrived_bytes
from mirrortools.files import make_folder
from mirrortools.frames import PROTOCOL_VERSION, RELAY_VERSION
from mirrortools.intake import Intake
from mirrortools.locks import RepositoryLock, still
from mirrortools.model import Blob, Manifest, Publication, Realm, RepoId, Revision
from mirrortools.roll import Roll
from mirrortools.seals import needs_seal, new_challenge
from mirrortools.shown import Shown
from mirrortools.statements import Signed
from mirrortools.store import Store, write_error
from mirrortools.tree import Tree, load_for_publishing
from mirrortools.trust import Trust

if TYPE_CHECKING:
    from mirrortools.audit import Audit

HEARTBEAT_S: Final = 5
_FEW_PATHS: Final = 10
# What is so little is here before anything could be loaded beside (`Exchange.flow` does that while more is coming).
_LITTLE_BYTES: Final = 2 << 20
_MALFORMED = (KeyError, TypeError, ValueError, AttributeError, OverflowError)

Request = Mapping[str, Any]
Answer = dict[str, Any]


class Receiver:
    """One caller's conversation about one root. `hello` comes first; `adopt` and `publish` need a `begin`.

    `bounds` say how much may come; `installed_as` is the edge's name on the origin, where the receiver was installed.
    """

    def __init__(
        self,
        root: Path,
        clock: Callable[[], float] = time.time,
        bounds: Bounds = Bounds(),  # noqa: B008  (a frozen value)
        installed_as: str | None = None,
    ) -> None:
        self.root = root
        self._trust = Trust(root)
        self._clock = clock
        self._bounds = bounds
        self._installed_as = installed_as
        self._caller = ""
        self._used: int | None = None
        self._used_lock = threading.Lock()
        self._lock: RepositoryLock | None = None
        self._berth: Berth | None = None
        self._has_news = False
        self._is_noted = True
        self._begun: frozenset[Blob] = frozenset()
        self._seen: Publication | None = None
        self._is_to_prepare = False
        self.challenge = new_challenge()
        self._enter(Realm.PUBLIC)
        self._answers: Mapping[str, Callable[[Request], Answer]] = {
            "hello": self._hello,
            "trust": self._believe,
            "state": self._state,
            "have": self._have,
            "usage": lambda _: {"used_bytes": self._used_bytes()},
            "begin": self._begin,
            "patch": self._patch,
            "carry": self._carry,
            "relay": self._relay,
            "draw": self._draw,
            "flow": self._flow,
            "adopt": self._adopt,
            "publish": self._publish,
            "audit": self._look_again,
            "links": self._links,
            "prove": self._prove,
            "describe": self._describe,
            "access": self._access,
            "ping": lambda _: {},
        }

    @property
    def is_greeted(self) -> bool:
        """Whether somebody said hello who speaks this version, about a root that may be one."""
        return bool(self._caller)

    def answer(self, request: Request) -> Answer:
        """Do what a request asks for. What fails becomes an answer `{"error": kind, "text": reason}`."""
        try:
            return self._answer(request)
        except MirrorError as error:
            return refusal(error)
        except OSError as error:
            return refusal(write_error(Path(error.filename or self.root), error))

    def prepare(self) -> None:
        """Load what the next requests need, while the caller makes ready what it sends."""
        if self._is_to_prepare:
            self._is_to_prepare = False
            load_for_publishing()

    def close(self) -> None:
        """Let go of everything."""
        self._let_go()
        self._exchange.close()

    def _let_go(self) -> None:
        """Let go of the berth that was begun. Its relay may still be needed by other edges, and takes nothing more."""
        if self._berth:
            self._exchange.rest(self._berth)
            self._berth = None
        if self._lock:
            self._lock.close()
            self._lock = None

    def end(self) -> None:
        """Let go of everything, and bring the index up to date; one that cannot be written waits for the next news."""
        self.close()
        if self._has_news:
            with contextlib.suppress(MirrorError):
                self._tree.publish_index()

    def _answer(self, request: Request) -> Answer:
        name = request.get("ask")
        if not isinstance(name, str) or name not in self._answers:
            raise EdgeRefused(f"unknown request {name!r}; the receiver knows {', '.join(self._answers)}")
        if not self._caller and name != "hello":
            raise EdgeRefused(f"{name} before hello")
        if needs_seal(request):
            self._trust.check_request(request, self.challenge)
        return self._answers[name](request)

    def _hello(self, request: Request) -> Answer:
        version = request.get("version")
        if version != PROTOCOL_VERSION:
            raise EdgeRefused(_other_version(version, request.get("release"), self._installed_as))
        with _refused_when_malformed():
            realm = Realm(request.get("realm", Realm.PUBLIC))
        self._make_root()
        if realm is not self._realm:
            self.close()
            self._enter(realm)
        self._caller = f"{str(request.get('caller') or 'an origin without a name')[:100]!r}"
        return {
            "version": PROTOCOL_VERSION,
            "receiver": mirrortools.__version__,
            "installed": self._installed_as is not None,
            "host": os.uname().nodename,
            "python": sys.version.split()[0],
            "rsync": rsync_version(),
            "realm": realm,
            "relay": RELAY_VERSION,
            "carries": True,
            "free_bytes": self._free_bytes(),
            "signer": self._trust.signer,
            "challenge": self.challenge,
            **self._state(request),
        }

    def _enter(self, realm: Realm) -> None:
        """Be about one realm from now on."""
        self._realm = realm
        self._store, self._tree = Store(self.root, realm), Tree(self.root, realm)
        self._exchange = Exchange(self._store, self._bounds)
        self._shown = Shown(self.root, realm, self._tree.stated_ns)
        self._seen = None

    def _believe(self, request: Request) -> Answer:
        with _refused_when_malformed():
            signer, introduction = str(request["signer"]), request.get("introduction")
            if introduction is not None and not isinstance(introduction, str):
                raise TypeError("an introduction is text")
        self._trust.accept(signer, introduction)
        return {}

    def _state(self, request: Request) -> Answer:
        """Say what is here of repositories, those in the parts of a roll that differ from the notes among them.

        Who asks to be brief is answered by the notes, as far as they are believed.
        """
        with _refused_when_malformed():
            repos, is_brief = [_repo(name) for name in request["repos"]], request.get("brief") is True
            roll = Roll.from_json(request["roll"]) if is_brief and "roll" in request else Roll((), ())
        differing = self._shown.differing(roll, self._clock())
        with _refused_when_malformed():
            repos += [_repo(name) for name in roll.in_parts(differing)]
        shown = self._shown.believed([repo.path for repo in repos], self._clock())
        if not is_brief:
            return {"state": {repo.path: self._look_closely(repo, is_noted=repo.path in shown) for repo in repos}}
        return {
            "shown": shown,
            "state": {repo.path: self._look_and_note(repo) for repo in repos if repo.path not in shown},
            **({"differing": differing} if "roll" in request else {}),
        }

    def _look(self, repo: RepoId) -> Answer:
        """The number of what the origin said last, 0 when it has said nothing, and what is here of a repository."""
        signed = self._tree.statement(repo)
        return {"serial": signed.statement.serial if signed else 0, "parts": self._parts(repo)}

    def _look_closely(self, repo: RepoId, *, is_noted: bool) -> Answer:
        """Look; a note that says more than is here counts no more, so that the next plain run brings what is lost."""
        held = self._look(repo)
        if is_noted and not self._is_whole(self._tree.statement(repo), held):
            self._shown.forget(repo)
        return held

    def _look_and_note(self, repo: RepoId) -> Answer:
        """Look, and note when all that was said is here, so that the next one who asks is answered by that.

        Nothing is noted of what somebody else is at work on.
        """
        if not self._tree.stated_ns(repo.path):
            return self._look(repo)
        with still(self.root, repo) as is_still:
            held, signed = self._look(repo), self._tree.statement(repo)
            if signed and is_still and self._is_whole(signed, held):
                self._note(repo, signed)
            return held

    @staticmethod
    def _is_whole(signed: Signed | None, held: Answer) -> bool:
        """Whether all that was said is here."""
        return signed is not None and signed.statement.parts.items() <= held["parts"].items()

    def _note(self, repo: RepoId, signed: Signed) -> None:
        """Note what is shown of a repository; without the note the next one who asks waits for a look."""
        with contextlib.suppress(OSError):
            self._shown.note(repo, signed.text, self._clock())

    def _parts(self, repo: RepoId) -> dict[str, str]:
        """What is served of a repository, part by part; nothing when it is absent, damaged or lacks a blob."""
        try:
            self._seen = publication = self._tree.publication(repo)
        except MirrorError:
            return {}
        if publication is None or self._store.missing(publication.blobs):
            return {}  # what was lost is brought again, as to an edge that never had it
        return publication.digests()

    def _begin(self, request: Request) -> Answer:
        with _refused_when_malformed():
            repo, blobs, is_ahead = _repo(request["repo"]), _blobs(request["blobs"]), request.get("ahead") is True
        self._let_go()
        self._tree.make()
        self._tree.refuse_elsewhere(repo)
        owner = f"{'what goes ahead of ' if is_ahead else ''}a delivery from {self._caller}"
        self._lock = RepositoryLock(self.root, repo, owner, is_ahead=is_ahead)
        self._berth, self._begun = Berth(self.root, repo, is_ahead), frozenset(blobs)
        missing, intake = self._store.missing(blobs), self._intake(self._berth)
        self._is_noted = True
        if missing:  # one of them may be lost; who begins because others lack something changes nothing here
            self._take_note_back(repo)
            self._is_to_prepare = sum(blob.size for blob in missing) <= _LITTLE_BYTES
        intake.take_over(blobs, missing)
        intake.clear(missing, self._clock(), self._caller)
        if why := self._bounds.objection(self.root):
            self._let_go()
            raise NoSpace(why)
        return self._lacks(intake, missing)

    def _take_note_back(self, repo: RepoId) -> None:
        """Let the note of the repository that was begun count no more until it is published."""
        if self._is_noted:
            self._shown.forget(repo)
            self._is_noted = False

    def _have(self, request: Request) -> Answer:
        """Say what `begin` would say, without a lock, and without a change."""
        with _refused_when_malformed():
            repo, blobs = _repo(request["repo"]), _blobs(request["blobs"])
        intake = self._intake(Berth(self.root, repo))
        return self._lacks(intake, self._store.missing(blobs), intake.other.folder)

    def _lacks(self, intake: Intake, missing: Sequence[Blob], *others: Path) -> Answer:
        """Say what is missing, and how much of it arrived, there or in other folders."""

        def arrived(blob: Blob) -> int:
            return max(arrived_bytes(folder, blob) or 0 for folder in (intake.folder, *others))

        return {
            "missing": [[blob.algorithm, blob.digest, blob.size, arrived(blob)] for blob in missing],
            "folder": intake.name.as_posix(),
            "free_bytes": self._free_bytes(),
        }

    def _adopt(self, request: Request) -> Answer:
        """Hash what arrived, and move it into the store."""
        with _refused_when_malformed():
            repo, blobs = _repo(request["repo"]), _blobs(request["blobs"])
        berth = self._require_begun(repo, blobs)
        bad = self._intake(berth).adopt(blobs, lambda mark: self._exchange.hashed(berth, mark))
        return {"bad": [[b.algorithm, b.digest, b.size, problem] for b, problem in bad.items()]}

    def _patch(self, request: Request) -> Answer:
        """Make a blob out of one that is here and a file of new bytes; what cannot be made so is told."""
        from mirrortools.patch import Recipe

        with _refused_when_malformed():
            repo, recipe = _repo(request["repo"]), Recipe.from_json(request)
        berth = self._require_begun(repo, [recipe.blob])
        return {"patched": self._intake(berth).patch(recipe, lambda mark: self._exchange.made(berth, mark))}

    def _carry(self, request: Request) -> Answer:
        """Take blobs that are in the request itself."""
        with _refused_when_malformed():
            repo, items = _repo(request["repo"]), request["contents"]
            blobs = _blobs([item[:3] for item in items])
            contents = [base64.b64decode(item[3], validate=True) for item in items]
            for blob, content in zip(blobs, contents, strict=True):
                if len(content) != blob.size:
                    raise ValueError(f"{blob} came with {len(content)} bytes")
        self._intake(self._require_begun(repo, blobs)).take([*zip(blobs, contents, strict=True)])
        return {}

    def _relay(self, request: Request) -> Answer:
        """Begin to take blobs from other hosts, and to pass them on; say where."""
        with _refused_when_malformed():
            repo, blobs, terms = _repo(request["repo"]), _blobs(request["blobs"]), Terms.from_json(request)
        berth = self._require_begun(repo, [*blobs, *(recipe.blob for recipe in terms.recipes)])
        self._intake(berth).make()
        return self._exchange.begin(berth, blobs, self._begun, terms)

    def _draw(self, request: Request) -> Answer:
        with _refused_when_malformed():
            repo, number, limit = _repo(request["repo"]), int(request["number"]), int(request["limit"] or 0)
            places = [(str(host), int(port)) for host, port in request["from"]]
        self._exchange.draw(self._require_begun(repo), number, places, limit or None)
        return {}

    def _flow(self, request: Request) -> Answer:
        with _refused_when_malformed():
            repo, wait_s = _repo(request["repo"]), min(HEARTBEAT_S, int(request["wait_ms"]) / 1000)
        return self._exchange.flow(self._require_begun(repo), wait_s)

    def _publish(self, request: Request) -> Answer:
        """Show what the origin has signed, when it is all here, and nothing newer is shown."""
        with _refused_when_malformed():
            repo, signed = _repo(request["publication"]["repo"]), Signed.from_json(request["signed"])
        berth = self._require_begun(repo)
        if berth.is_ahead:
            raise EdgeRefused(f"{repo}: was begun to go ahead of a publication, and nothing shows by that")
        held = self._tree.statement(repo)
        statement = self._trust.check(signed, held.statement if held else None, repo, self._clock())
        with _refused_when_malformed():
            publication = Publication.from_json(request["publication"], lambda c: self._held(repo, c))
            parts = publication.digests()
        if parts != statement.parts:
            raise IntegrityError(f"{repo}: the publication that came is not the one that was signed")
        if publication.realm is not self._realm:
            raise EdgeRefused(f"{repo}: is {publication.realm}, and this call is about what is {self._realm}")
        missing = self._store.missing(publication.blobs)
        if missing:
            raise EdgeRefused(f"{repo}: {len(missing)} blobs are not here, {missing[0]} among them")
        self._take_note_back(repo)
        self._tree.publish_statement(repo, signed)  # before the refs, so that nothing older can follow
        changed = self._tree.publish(publication)
        self._note(repo, signed)
        self._has_news |= self._realm is Realm.PUBLIC and (changed or not self._tree.has_index)
        self._exchange.keep(berth)
        self._intake(berth).end()
        self._let_go()
        return {"changed": changed, "state": {"serial": statement.serial, "parts": parts}}

    def _access(self, request: Request) -> Answer:
        """Go by what the origin says of who may read here, and by nothing that it said before."""
        if self._realm is not Realm.PRIVATE:
            raise EdgeRefused("who may read is said where it is about what is private")
        from mirrortools.readers import Access, write_access

        with _refused_when_malformed():
            access = Access.from_json(request["access"])
        self._tree.make()
        return {"changed": write_access(self.root, access)}

    def _look_again(self, request: Request) -> Answer:
        """Hash blobs that are here again; bad ones leave the store when the origin is about to bring them anew."""
        with _refused_when_malformed():
            blobs, set_aside = _blobs(request["blobs"]), bool(request["set_aside"])
        bad = self._audit.bad_blobs(blobs)
        if bad:
            self._shown.forget_all()  # whose they are is not known here
        for blob in bad if set_aside else ():
            self._audit.set_aside(blob)
        return {"bad": [[b.algorithm, b.digest, b.size, problem] for b, problem in bad.items()]}

    def _links(self, request: Request) -> Answer:
        """Compare what is served of a repository with its manifests."""
        with _refused_when_malformed():
            repo, forget = _repo(request["repo"]), bool(request["set_aside"])
        publication = self._tree.publication(repo)
        wrong = {}
        for commit, manifest in publication.manifests.items() if publication else ():
            if paths := self._audit.wrong_links(manifest):
                self._shown.forget_all()
                wrong[commit] = paths[:_FEW_PATHS]
                if forget:
                    self._audit.forget(manifest)
        return {"wrong": wrong}

    def _prove(self, request: Request) -> Answer:
        from mirrortools.audit import Sample

        with _refused_when_malformed():
            samples = [Sample(_blobs([item[:3]])[0], int(item[3]), int(item[4])) for item in request["samples"]]
            nonce = str(request["nonce"])
        if self._realm is Realm.PRIVATE and not all(sample.is_a_block for sample in samples):
            raise EdgeRefused("of what is private whole blocks are proved: shorter ranges would tell bytes by trying")
        return {"proofs": self._audit.prove(samples, nonce)}

    def _describe(self, request: Request) -> Answer:
        from mirrortools.piecework import describe

        with _refused_when_malformed():
            repo = _repo(request["repo"])
        publication = self._tree.publication(repo)
        if publication is None:
            return {"blobs": 0, "size_bytes": 0, "bad": []}
        done = describe(self.root, publication)
        return {"blobs": done.blobs, "size_bytes": done.size_bytes, "bad": list(done.bad)}

    @property
    def _audit(self) -> Audit:
        from mirrortools.audit import Audit

        return Audit(self.root, self._realm)

    def _held(self, repo: RepoId, commit: str) -> Manifest | None:
        """A manifest that is here: the one that was told of, when that was of this repository.

        Whatever becomes of it meanwhile, what is published is what was signed.
        """
        if self._seen and self._seen.repo == repo and commit in self._seen.manifests:
            return self._seen.manifests[commit]
        return self._tree.manifest(Revision(repo, commit))

    def _make_root(self) -> None:
        if not self.root.is_absolute() or self.root == Path("/"):
            raise EdgeRefused(f"{self.root}: the root of a mirror is an absolute path below /")
        if not self.root.parent.is_dir():
            raise EdgeRefused(f"{self.root}: {self.root.parent} is not there; mount the disk, or make that folder")
        make_folder(self.root)

    def _intake(self, berth: Berth) -> Intake:
        return Intake(berth, self._store, self._bounds, self._count)

    def _require_begun(self, repo: RepoId, blobs: Collection[Blob] = ()) -> Berth:
        """The berth that was begun. Refuses what is about another repository, or about blobs that were not named."""
        if self._berth is None or self._berth.repo != repo:
            raise EdgeRefused(f"{repo}: asked for without a begin")
        if strangers := set(blobs) - self._begun:
            raise EdgeRefused(f"{repo}: {min(strangers)} was not named when the delivery began")
        return self._berth

    def _used_bytes(self) -> int:
        """What the blobs here take; walked through once a call, and counted from then on."""
        with self._used_lock:
            if self._used is None:
                self._used = sum(Store(self.root, realm).used_bytes() for realm in Realm)
            return self._used

    def _count(self, blob: Blob) -> None:
        with self._used_lock:
            if self._used is not None:
                self._used += blob.size

    def _free_bytes(self) -> int:
        """What an origin may count on, which leaves free by itself what must stay free."""
        return self._bounds.room_bytes(self.root) + self._bounds.min_free_bytes


def _other_version(version: object, release: object, installed_as: str | None) -> str:
    """What to say to an origin that speaks another version: both versions, and what to do next."""
    ours = f"the receiver {mirrortools.__version__} speaks version {PROTOCOL_VERSION}"
    both = f"{ours}, the origin {str(version)[:10]} (mirrortools {str(release or 'of an unknown version')[:40]!r})"
    if isinstance(version, int) and version > PROTOCOL_VERSION:
        return f"{both}; run `mirrortool edge provision {installed_as}` on the origin" if installed_as else both
    return f"{both}; the origin is the older one: install mirrortools {mirrortools.__version__} or newer there"


def refusal(error: MirrorError) -> Answer:
    """The answer that carries an error to the origin."""
    return {"error": type(error).__name__, "text": str(error)}


def rsync_version() -> str | None:
    """The version of this host's rsync; None when there is none."""
    try:
        output = subprocess.run(["rsync", "--version"], capture_output=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(rb"version v?([0-9][0-9.]*)", output)
    return match[1].decode() if match else None


@contextlib.contextmanager
def _refused_when_malformed() -> Iterator[None]:
    """Turn what goes wrong while a request is read into a refusal; no act belongs inside."""
    try:
        yield
    except _MALFORMED as error:
        raise EdgeRefused(f"malformed request: {error!r}") from error


def _repo(name: str) -> RepoId:
    repo = RepoId.parse(name)
    if repo.path != name:
        raise ValueError(f"expected {repo.path!r}, got {name!r}")
    return repo


def _blobs(items: Sequence[Sequence[Any]]) -> list[Blob]:
    return [Blob(str(algorithm), str(digest), int(size)) for algorithm, digest, size in items]
