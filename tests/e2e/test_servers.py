"""The real servers behave as the other tests take for granted."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.servers import GitLfsUpstream, Nginx, ServerError, Sshd, free_port
from tests.servers.author import run_git

AWKWARD = ("a b.bin", "x+y.bin", "h#sh.bin", "p%41.bin", "q?.bin", "模型.bin", "sub folder/é.txt", "config.json")
CONTENT = bytes(range(256)) * 1024
OID = hashlib.sha256(CONTENT).hexdigest()


@dataclass(frozen=True)
class Answer:
    """What a server said; `body` is what arrived before the connection ended."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def ask(url: str, headers: Mapping[str, str] | None = None, body: bytes | None = None, timeout: float = 20) -> Answer:
    """One HTTP request, without redirects or retries."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=timeout)
    try:
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        connection.request("POST" if body else "GET", target, body, headers or {})
        answer = connection.getresponse()
        try:
            received = answer.read()
        except http.client.IncompleteRead as error:
            received = error.partial
        return Answer(answer.status, dict(answer.headers), received)
    finally:
        connection.close()


def batch(upstream: GitLfsUpstream, repo: str, headers: Mapping[str, str] | None = None) -> Answer:
    """Ask the LFS batch API for the content."""
    objects = [{"oid": OID, "size": len(CONTENT)}]
    wish = json.dumps({"operation": "download", "transfers": ["basic"], "objects": objects})
    kind = "application/vnd.git-lfs+json"
    url = f"{upstream.url}/{repo}.git/info/lfs/objects/batch"
    return ask(url, {"Content-Type": kind, "Accept": kind, **(headers or {})}, wish.encode())


def link(upstream: GitLfsUpstream, repo: str) -> str:
    """A link to the content, freshly issued."""
    return str(json.loads(batch(upstream, repo).body)["objects"][0]["actions"]["download"]["href"])


def clone(url: str, target: Path, *settings: str) -> None:
    """Clone with git and git-lfs, as a user does it."""
    lfs = ("filter.lfs.process=git-lfs filter-process", "filter.lfs.required=true", *settings)
    words = [word for setting in lfs for word in ("-c", setting)]
    run_git(*words, "clone", "--quiet", url, str(target))


@pytest.fixture
def held(upstream: GitLfsUpstream, repo: str) -> str:
    """A repository that holds the content as model.bin."""
    upstream.commit(repo, {"model.bin": CONTENT})
    upstream.forget()
    return repo


class TestContent:
    def test_clone_gives_back_every_byte_under_every_name(
        self, upstream: GitLfsUpstream, repo: str, tmp_path: Path
    ) -> None:
        """Names with spaces, +, #, %41, ? and non-ASCII letters, and empty files, survive push and clone."""
        files = {name: name.encode() * 50 for name in AWKWARD} | {"empty.bin": b"", "empty.txt": b""}
        upstream.commit(repo, files)

        clone(f"{upstream.url}/{repo}", tmp_path / "clone")

        assert {name: (tmp_path / "clone" / name).read_bytes() for name in files} == files

    @pytest.mark.parametrize("form", ["org/{}", "org/{}.git", "datasets/org/{}", "datasets/org/{}.git", "{}"])
    def test_every_form_of_the_hubs_urls_answers(
        self, upstream: GitLfsUpstream, repo: str, tmp_path: Path, form: str
    ) -> None:
        """Models, datasets and names of one segment, each with and without .git."""
        url_path = form.format(repo.partition("/")[2])
        upstream.commit(url_path.removesuffix(".git"), {"model.bin": CONTENT})

        clone(f"{upstream.url}/{url_path}", tmp_path / "clone")

        assert (tmp_path / "clone/model.bin").read_bytes() == CONTENT

    def test_150_lfs_files_arrive_in_two_batches(self, upstream: GitLfsUpstream, repo: str, tmp_path: Path) -> None:
        """git-lfs asks for 100 objects at a time."""
        upstream.commit(repo, {f"{n}.bin": b"%d" % n * 10 for n in range(150)})

        clone(f"{upstream.url}/{repo}", tmp_path / "clone", "filter.lfs.smudge=git-lfs smudge --skip -- %f")

        assert len(list((tmp_path / "clone").glob("*.bin"))) == 150
        assert sum(request.route == "batch" for request in upstream.requests()) == 2

    def test_branches_tags_and_a_force_push_move_refs(
        self, upstream: GitLfsUpstream, repo: str, tmp_path: Path
    ) -> None:
        """What the author does is what ls-remote shows."""
        first = upstream.commit(repo, {"a.txt": b"1"}, tag="v1")
        second = upstream.commit(repo, {"a.txt": b"2", "b.txt": b"b"})
        third = upstream.commit(repo, {"a.txt": None}, branch="feature/x")
        upstream.tag(repo, "plain", first, annotated=False)
        fourth = upstream.commit(repo, {"b.txt": b"B"}, force=True)
        upstream.branch(repo, "feature/x", first)

        lines = run_git("ls-remote", f"{upstream.url}/{repo}").split("\n")
        refs = {name: commit for commit, name in (line.split("\t") for line in lines)}
        assert refs["HEAD"] == refs["refs/heads/main"] == fourth
        assert refs["refs/heads/feature/x"] == refs["refs/tags/plain"] == refs["refs/tags/v1^{}"] == first
        assert len({first, second, third, fourth}) == 4
        assert upstream.author(repo).git("rev-parse", f"{fourth}^") == first

    def test_a_path_is_copied_and_none_deletes(self, upstream: GitLfsUpstream, repo: str, tmp_path: Path) -> None:
        """A commit takes files from disk, and takes files away."""
        (tmp_path / "here").write_bytes(CONTENT)
        upstream.commit(repo, {"old.txt": b"old", "model.bin": tmp_path / "here"})
        commit = upstream.commit(repo, {"old.txt": None})

        names = run_git("-C", str(upstream.repository(repo)), "ls-tree", "-r", "--name-only", commit).split("\n")
        assert names == [".gitattributes", "model.bin"]
        assert [path.read_bytes() for path in upstream.objects(OID)[:1]] == [CONTENT]


class TestCounting:
    def test_a_range_is_answered_and_counted(self, upstream: GitLfsUpstream, held: str) -> None:
        """LFS content comes in ranges, and only the range's bytes count."""
        answer = ask(link(upstream, held), {"Range": "bytes=1000-1999"})

        assert (answer.status, answer.body) == (206, CONTENT[1000:2000])
        assert upstream.lfs_bytes() == 1000
        assert upstream.git_bytes() == 0
        *_, last = upstream.requests()
        assert (last.method, last.status, last.body_bytes, last.range) == ("GET", 206, 1000, "bytes=1000-1999")

    def test_forget_begins_anew_and_the_author_is_never_counted(
        self, upstream: GitLfsUpstream, held: str, tmp_path: Path
    ) -> None:
        """Counters are at zero after forget, whatever is committed."""
        clone(f"{upstream.url}/{held}", tmp_path / "clone")
        counted = upstream.lfs_bytes(), upstream.git_bytes()
        upstream.forget()
        upstream.commit(held, {"more.bin": b"more"})

        assert counted[0] == len(CONTENT)
        assert counted[1] > 0
        assert upstream.requests() == []

    def test_it_comes_back_at_the_same_url_with_what_it_held(self, tmp_path: Path) -> None:
        """A host that is down refuses connections; afterwards it is the same one."""
        with GitLfsUpstream(tmp_path / "up") as upstream:
            upstream.commit("org/name", {"model.bin": CONTENT})
            upstream.stop()
            with pytest.raises(ConnectionRefusedError):
                ask(upstream.url)
            upstream.start()
            body = ask(link(upstream, "org/name")).body

        assert body == CONTENT


class TestFaults:
    def test_corrupt_and_restore(self, upstream: GitLfsUpstream, held: str) -> None:
        """One byte of an object differs, until it is restored."""
        upstream.corrupt(OID, 5)
        damaged = ask(link(upstream, held)).body
        upstream.restore(OID)

        assert [n for n in range(len(CONTENT)) if damaged[n] != CONTENT[n]] == [5]
        assert ask(link(upstream, held)).body == CONTENT

    def test_lose_and_heal(self, upstream: GitLfsUpstream, held: str) -> None:
        """A lost object is missing in the batch API and behind links, until all is healed."""
        href = link(upstream, held)
        upstream.lose(OID)
        answers = batch(upstream, held).status, ask(href).status
        upstream.heal()

        assert answers == (404, 404)
        assert ask(href).body == CONTENT

    def test_answer_a_number_of_times(self, upstream: GitLfsUpstream, held: str) -> None:
        """A status with Retry-After, twice; then all is well."""
        href = link(upstream, held)
        upstream.answer(429, 2, retry_after=3)
        answers = [ask(href) for _ in range(3)]

        assert [answer.status for answer in answers] == [429, 429, 200]
        assert answers[0].headers["Retry-After"] == "3"
        assert answers[2].body == CONTENT

    def test_answer_on_another_route(self, upstream: GitLfsUpstream, held: str) -> None:
        """The batch API and git can fail as well, and work again."""
        upstream.answer(503, 1, route="batch")
        upstream.answer(500, 1, route="git")
        git = f"{upstream.url}/{held}/info/refs?service=git-upload-pack"

        assert [batch(upstream, held).status for _ in range(2)] == [503, 200]
        assert [ask(git).status for _ in range(2)] == [500, 200]

    def test_links_expire(self, upstream: GitLfsUpstream, held: str) -> None:
        """After some requests all links that were issued are dead; a new one lives."""
        href = link(upstream, held)
        upstream.expire_links(after_requests=1)
        answers = [ask(href).status for _ in range(3)]
        renewed = ask(link(upstream, held))

        assert answers == [200, 403, 403]
        assert renewed.body == CONTENT

    def test_links_expire_after_some_time(self, upstream: GitLfsUpstream, held: str) -> None:
        """Links live for as long as was said."""
        upstream.expire_links(0.3, status=401)
        href = link(upstream, held)
        first = ask(href).status
        time.sleep(0.4)

        assert (first, ask(href).status) == (200, 401)

    def test_ranges_are_ignored(self, upstream: GitLfsUpstream, held: str) -> None:
        """A request for a range gets everything."""
        upstream.ignore_ranges()
        answer = ask(link(upstream, held), {"Range": "bytes=10-19"})

        assert (answer.status, answer.body) == (200, CONTENT)

    def test_an_answer_is_cut(self, upstream: GitLfsUpstream, held: str) -> None:
        """The connection ends in mid-body; what was asked for with Range is cut as well."""
        href = link(upstream, held)
        upstream.cut_after(1000, times=2)
        answers = [ask(href), ask(href, {"Range": "bytes=500-5000"}), ask(href)]

        assert [answer.body for answer in answers] == [CONTENT[:1000], CONTENT[500:1500], CONTENT]
        assert answers[0].headers["Content-Length"] == str(len(CONTENT))
        assert upstream.lfs_bytes() == 2000 + len(CONTENT)

    def test_an_answer_stalls(self, upstream: GitLfsUpstream, held: str) -> None:
        """Nothing more comes, with the connection open."""
        href = link(upstream, held)
        upstream.stall_after(1000)
        with pytest.raises(TimeoutError):
            ask(href, timeout=0.3)

        assert upstream.lfs_bytes() == 1000

    def test_no_answer_at_all(self, upstream: GitLfsUpstream, held: str) -> None:
        """The batch API accepts the request and says nothing."""
        upstream.hang(1, route="batch")
        parts = urlsplit(upstream.url)
        connection = http.client.HTTPConnection(parts.netloc, timeout=0.3)
        connection.request("POST", f"/{held}.git/info/lfs/objects/batch", b"{}")
        with pytest.raises(TimeoutError):
            connection.getresponse()
        connection.close()

        assert batch(upstream, held).status == 200

    def test_the_rate_is_limited(self, upstream: GitLfsUpstream, held: str) -> None:
        """Content flows at the chosen pace and not in one burst."""
        href = link(upstream, held)
        upstream.limit_rate(len(CONTENT) * 2)
        began = time.monotonic()
        answer = ask(href)

        assert answer.body == CONTENT
        assert time.monotonic() - began > 0.4

    def test_a_token_is_wanted_everywhere(self, upstream: GitLfsUpstream, held: str, tmp_path: Path) -> None:
        """401 without a token, 403 with a wrong one, on git, batch and bytes; git-lfs gets in with it."""
        href = link(upstream, held)
        upstream.require_token("right")
        git = f"{upstream.url}/{held}/info/refs?service=git-upload-pack"
        without = [ask(git), batch(upstream, held), ask(href)]
        wrong = {"Authorization": "Bearer wrong"}
        with_wrong = [ask(git, wrong), batch(upstream, held, wrong), ask(href, wrong)]
        right = ask(href, {"Authorization": "Bearer right"})
        clone(f"{upstream.url.replace('://', '://user:right@')}/{held}", tmp_path / "clone")

        assert [answer.status for answer in without] == [401] * 3
        assert [answer.status for answer in with_wrong] == [403] * 3
        assert right.body == CONTENT
        assert (tmp_path / "clone/model.bin").read_bytes() == CONTENT

    def test_links_can_do_without_the_token(self, upstream: GitLfsUpstream, held: str) -> None:
        """As with signed links, only git and the batch API want the token."""
        upstream.require_token("right", on_bytes=False)
        answer = batch(upstream, held, {"Authorization": "Bearer right"})
        href = json.loads(answer.body)["objects"][0]["actions"]["download"]["href"]

        assert ask(href).body == CONTENT

    def test_bytes_come_from_another_host(self, upstream: GitLfsUpstream, held: str) -> None:
        """A redirect names another host, which remembers the credentials that it was shown."""
        href = link(upstream, held)
        upstream.redirect_bytes()
        redirect = ask(href, {"Authorization": "Bearer secret"})
        answer = ask(redirect.headers["Location"], {"Authorization": "Bearer leaked"})

        assert redirect.status == 302
        assert answer.body == CONTENT
        seen = [r.authorization for r in upstream.requests() if r.port == upstream.elsewhere_port]
        assert seen == ["Bearer leaked"]

    def test_two_hosts_hold_their_own(
        self, upstream: GitLfsUpstream, backup_upstream: GitLfsUpstream, held: str
    ) -> None:
        """Damage on one host is not damage on the other."""
        backup_upstream.commit(held, {"model.bin": CONTENT})
        upstream.corrupt(OID)

        assert ask(link(backup_upstream, held)).body == CONTENT
        assert ask(link(upstream, held)).body != CONTENT


class TestSshd:
    def rsync(self, sshd: Sshd, source: Path, target: Path) -> int:
        """Copy a file with rsync over ssh; rsync's exit status."""
        shell = " ".join(f"'{word}'" for word in ["ssh", *sshd.options])
        words = ["rsync", "--whole-file", "-e", shell, "--", str(source), f"{sshd.user}@127.0.0.1:{target}"]
        return subprocess.run(words, capture_output=True, check=False, timeout=60).returncode

    def test_login_and_rsync(self, sshd: Sshd, tmp_path: Path) -> None:
        """The key logs in, and rsync copies through it; the bytes on the wire are counted."""
        (tmp_path / "from").write_bytes(os.urandom(1_000_000))

        assert self.rsync(sshd, tmp_path / "from", tmp_path / "to") == 0
        assert (tmp_path / "to").read_bytes() == (tmp_path / "from").read_bytes()
        assert 1_000_000 < sshd.received_bytes() < 1_100_000
        assert sshd.logins() == 1
        assert sshd.url("/srv").endswith(f"@127.0.0.1:{sshd.port}/srv")

    def test_a_transfer_is_cut(self, sshd: Sshd, tmp_path: Path) -> None:
        """The connection breaks once, in mid-transfer; the next one works."""
        (tmp_path / "from").write_bytes(os.urandom(1_000_000))
        sshd.cut_after(500_000)

        assert self.rsync(sshd, tmp_path / "from", tmp_path / "to") != 0
        assert sshd.received_bytes() == 500_000
        assert self.rsync(sshd, tmp_path / "from", tmp_path / "to") == 0

    def test_sessions_are_killed(self, sshd: Sshd) -> None:
        """A command that runs is ended, and ssh says so with status 255."""
        command = ["ssh", *sshd.options, f"{sshd.user}@127.0.0.1", "echo up; exec sleep 60"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as client:
            assert client.stdout is not None
            assert client.stdout.readline() == b"up\n"
            killed = sshd.kill_sessions()

            assert client.wait(20) == 255
            assert killed >= 1

    def test_stop_and_start(self, sshd: Sshd) -> None:
        """A stopped sshd refuses connections and comes back with the same keys at the same port."""
        command = ["ssh", *sshd.options, f"{sshd.user}@127.0.0.1", "true"]
        sshd.stop()
        down = subprocess.run(command, capture_output=True, check=False, timeout=20)
        sshd.start()
        up = subprocess.run(command, capture_output=True, check=False, timeout=20)

        assert (down.returncode, up.returncode) == (255, 0)
        assert b"refused" in down.stderr

    def test_the_key_can_be_restricted(self, sshd: Sshd) -> None:
        """A forced command is all that a restricted key can do."""
        sshd.authorize('restrict,command="echo forced"')
        command = ["ssh", *sshd.options, f"{sshd.user}@127.0.0.1", "echo free"]
        done = subprocess.run(command, capture_output=True, check=False, timeout=20)

        assert done.stdout == b"forced\n"


class TestNginx:
    def test_it_runs_a_given_configuration(self, tmp_path: Path) -> None:
        """It answers while the block lasts, and not after."""
        port = free_port()
        server = f"server {{ listen 127.0.0.1:{port}; location / {{ return 200 here; }} }}"
        config = f"pid {tmp_path}/pid; events {{}} http {{ access_log off; {server} }}"
        with Nginx(config, tmp_path / "nginx", [port]):
            answer = ask(f"http://127.0.0.1:{port}/")

        assert answer.body == b"here"
        with pytest.raises(ConnectionRefusedError):
            ask(f"http://127.0.0.1:{port}/")

    def test_a_bad_configuration_shows_what_nginx_says(self, tmp_path: Path) -> None:
        """The error has nginx's own words."""
        with pytest.raises(ServerError, match='unknown directive "nonsense"'):
            Nginx("nonsense on; events {}", tmp_path / "nginx", [free_port()]).start()
