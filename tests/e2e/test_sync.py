"""`mirrortool sync` against a real git-LFS host: what moves, what is published, what is refused."""

from __future__ import annotations

import hashlib
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from mirrortools.state import State, Trouble
from tests.delivery import noise
from tests.mirror import Mirror, served
from tests.servers import GitLfsUpstream, Sshd, free_port

SEGMENT = 4 << 20
WIRE_SLACK = 16 << 10


@pytest.fixture
def mirror(tmp_path: Path, upstream: GitLfsUpstream, repo: str) -> Mirror:
    """An origin that mirrors `repo` from `upstream`, without edges."""
    made = Mirror(tmp_path / "origin", upstream.url)
    made.add(repo)
    return made


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_first_sync_publishes_every_file_byte_for_byte(mirror: Mirror, upstream: GitLfsUpstream, repo: str) -> None:
    """LFS files, plain files, empty files and odd names are all there under the ref."""
    files = {
        "config.json": b"{}\n",
        "model.safetensors": noise(9 << 20),
        "a b/c+d#e%41.bin": noise(1000),
        "权重/说明.md": "你好\n".encode(),
        "empty.txt": b"",
        "empty.safetensors": b"",
    }
    upstream.commit(repo, files)

    outcome = mirror.sync()

    found = mirror.served(repo)
    found.pop(".gitattributes")
    assert found == files
    assert outcome["changed"]


def test_a_second_sync_costs_one_request(mirror: Mirror, upstream: GitLfsUpstream, repo: str) -> None:
    """When nothing changed, upstream is asked for its refs once and for nothing else."""
    upstream.commit(repo, {"model.safetensors": noise(1000)})
    mirror.sync()
    upstream.forget()

    outcome = mirror.sync()

    assert not outcome["changed"]
    assert outcome["fetched_bytes"] == 0
    assert upstream.lfs_bytes() == 0
    assert [request.path.rpartition("/")[2] for request in upstream.requests()] == ["refs?service=git-upload-pack"]


def test_a_changed_upstream_moves_only_what_changed(
    mirror: Mirror, upstream: GitLfsUpstream, repo: str, sshd: Sshd, tmp_path: Path
) -> None:
    """Bytes on the wire are the plan's, from the source and to two edges, which may pass them on to each other."""
    for name in ("e1", "e2"):
        mirror.settings.setdefault("edges", {})[name] = {
            "url": sshd.url(tmp_path / name),
            "identity_file": str(sshd.identity_file),
            "known_hosts": str(sshd.known_hosts),
        }
    old, new = noise(6 << 20, 1), noise(5 << 20, 2)
    upstream.commit(repo, {"a.safetensors": old, "b.safetensors": noise(1 << 20, 3)})
    mirror.sync()
    upstream.forget()
    upstream.commit(repo, {"b.safetensors": new, "config.json": b"{}"})

    outcome = mirror.sync()

    plan = outcome["plan"]
    assert plan["fetch_bytes"] == len(new) + len(b"{}")
    assert upstream.lfs_bytes() == outcome["fetched_bytes"] == len(new)
    for delivery in outcome["deliveries"]:
        assert delivery["error"] is None
        came_bytes = delivery["sent_bytes"] + delivery["relayed_bytes"]
        assert len(new) <= came_bytes <= delivery["planned_bytes"] + WIRE_SLACK
        assert delivery["planned_bytes"] <= len(new) + WIRE_SLACK
        assert served(tmp_path / delivery["edge"], repo)["a.safetensors"] == old
        assert served(tmp_path / delivery["edge"], repo)["b.safetensors"] == new
    assert sum(delivery["sent_bytes"] for delivery in outcome["deliveries"]) >= len(new)


def test_a_new_edge_is_filled_by_the_same_command(
    mirror: Mirror, upstream: GitLfsUpstream, repo: str, sshd: Sshd, tmp_path: Path
) -> None:
    """An edge that is added later gets everything, though nothing changed upstream."""
    content = noise(100_000)
    upstream.commit(repo, {"a.safetensors": content})
    mirror.sync()
    upstream.forget()
    mirror.settings["edges"] = {
        "e1": {
            "url": sshd.url(tmp_path / "e1"),
            "identity_file": str(sshd.identity_file),
            "known_hosts": str(sshd.known_hosts),
        }
    }

    outcome = mirror.sync()

    assert upstream.lfs_bytes() == 0
    assert outcome["deliveries"][0]["changed"]
    assert served(tmp_path / "e1", repo)["a.safetensors"] == content


def test_an_edge_that_is_down_is_told_once_for_all_repositories(
    mirror: Mirror, upstream: GitLfsUpstream, repo: str, sshd: Sshd, tmp_path: Path
) -> None:
    """One line with their number, and the exit status of an edge that was not reached."""
    mirror.add(f"datasets/{repo}")
    upstream.commit(repo, {"a.safetensors": noise(500)})
    upstream.commit(f"datasets/{repo}", {"train.csv": b"1,2\n"})
    mirror.settings["edges"] = {
        "e1": {
            "url": f"ssh://{sshd.user}@127.0.0.1:{free_port()}{tmp_path}/e1",
            "identity_file": str(sshd.identity_file),
            "known_hosts": str(sshd.known_hosts),
        }
    }

    ended = mirror.fails("sync", "--all")

    assert ended.status == 40
    assert ended.stderr.count("mirrortool:") == 1, ended
    assert ended.stderr.endswith(" (this concerns 2 repositories)\n")
    assert ended.stdout.count("edge e1: FAILED") == 2


def test_a_killed_sync_goes_on_from_its_segments(mirror: Mirror, upstream: GitLfsUpstream, repo: str) -> None:
    """After SIGKILL in mid-file, at most the segments in flight are fetched twice."""
    content, workers = noise(48 << 20), 2
    upstream.commit(repo, {"model.safetensors": content})
    mirror.settings["max_parallel"] = workers
    upstream.limit_rate(12 << 20)
    journal = mirror.root / "state" / "partial" / f"{sha256(content)}.journal"
    running = mirror.start("sync", "--all")
    _wait_until(lambda: journal.exists() and len(journal.read_text().splitlines()) > 4)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    journaled = len(journal.read_text().splitlines()) - 1
    upstream.heal()
    upstream.forget()

    outcome = mirror.sync()

    assert mirror.served(repo)["model.safetensors"] == content
    assert outcome["resumed_bytes"] == journaled * SEGMENT
    assert outcome["fetched_bytes"] == upstream.lfs_bytes() == len(content) - journaled * SEGMENT
    assert not journal.exists()


def test_damage_in_a_partial_file_costs_its_segment_only(mirror: Mirror, upstream: GitLfsUpstream, repo: str) -> None:
    """A segment that rotted between two runs is found by its hash and fetched again, and nothing else is."""
    content = noise(40 << 20)
    upstream.commit(repo, {"model.safetensors": content})
    mirror.settings["max_parallel"] = 1
    upstream.cut_after(30 << 20, times=1)
    upstream.answer(404)
    mirror.fails("sync", "--all")
    part = mirror.root / "state" / "partial" / f"{sha256(content)}.part"
    with part.open("r+b") as file:
        file.seek(SEGMENT + 5)
        file.write(b"rot")
    upstream.heal()
    upstream.forget()

    outcome = mirror.sync()

    assert mirror.served(repo)["model.safetensors"] == content
    assert outcome["fetched_bytes"] + outcome["resumed_bytes"] == len(content)
    assert outcome["resumed_bytes"] > 0


def test_a_source_that_breaks_off_is_left_for_the_backup_inside_a_blob(
    mirror: Mirror, upstream: GitLfsUpstream, backup_upstream: GitLfsUpstream, repo: str
) -> None:
    """What came from the source is kept, the rest comes from the backup."""
    content = noise(24 << 20)
    for host in (upstream, backup_upstream):
        host.commit(repo, {"model.safetensors": content})
    mirror.settings |= {"backup_source": backup_upstream.url, "max_parallel": 1}
    upstream.cut_after(10 << 20, times=1)

    outcome = mirror.sync()

    assert mirror.served(repo)["model.safetensors"] == content
    from_source, from_backup = upstream.lfs_bytes(), backup_upstream.lfs_bytes()
    assert from_source == 10 << 20
    assert from_backup == len(content) - 2 * SEGMENT
    assert set(outcome["from_source"].values()) == {from_source, from_backup}


def test_a_wrong_byte_is_replaced_from_the_backup(
    mirror: Mirror, upstream: GitLfsUpstream, backup_upstream: GitLfsUpstream, repo: str
) -> None:
    """The source's wrong bytes are kept aside, the backup's are published."""
    content = noise(9 << 20)
    for host in (upstream, backup_upstream):
        host.commit(repo, {"model.safetensors": content})
    mirror.settings["backup_source"] = backup_upstream.url
    upstream.corrupt(sha256(content), 5_000_000)

    mirror.sync()

    assert mirror.served(repo)["model.safetensors"] == content
    assert (mirror.root / "state" / "quarantine" / sha256(content)).read_bytes() != content


def test_a_wrong_byte_without_a_backup_is_never_published(mirror: Mirror, upstream: GitLfsUpstream, repo: str) -> None:
    """The old revision stays served; the error names the file, what was expected, what came, and where it is."""
    old, new = noise(1000, 1), noise(2000, 2)
    upstream.commit(repo, {"model.safetensors": old})
    mirror.sync()
    upstream.commit(repo, {"model.safetensors": new})
    upstream.corrupt(sha256(new))

    ended = mirror.fails("sync", "--all")

    wrong = bytes([new[0] ^ 0xFF]) + new[1:]
    assert ended.status == 20
    assert mirror.served(repo)["model.safetensors"] == old
    for said in ("model.safetensors", sha256(new), sha256(wrong), upstream.url, "quarantine"):
        assert said in ended.stderr


def test_the_backup_never_decides_a_ref(
    mirror: Mirror, upstream: GitLfsUpstream, backup_upstream: GitLfsUpstream, repo: str
) -> None:
    """A backup that is ahead is not followed, and a source that is down leaves everything as it is."""
    first = upstream.commit(repo, {"model.safetensors": noise(1000, 1)})
    backup_upstream.commit(repo, {"model.safetensors": noise(1000, 2)})
    mirror.settings["backup_source"] = backup_upstream.url
    assert mirror.sync()["refs"] == {"refs/heads/main": first}
    upstream.answer(503, route="git")

    ended = mirror.fails("sync", "--all")

    assert ended.status == 10
    assert "run the same command again later, or leave it to the timer" in ended.stderr
    assert "`backup_source:`" not in ended.stderr
    assert mirror.run("status", "--json").json["repositories"][0]["refs"] == {"refs/heads/main": first}


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_source_that_asks_for_patience_gets_it(
    mirror: Mirror, upstream: GitLfsUpstream, repo: str, status: int
) -> None:
    """A few refusals with Retry-After delay a sync and do not fail it."""
    upstream.commit(repo, {"model.safetensors": noise(1000)})
    upstream.answer(status, times=2, retry_after=1)

    assert mirror.sync()["changed"]


def test_a_source_that_asks_for_a_long_pause_is_told_with_its_end(
    mirror: Mirror, upstream: GitLfsUpstream, repo: str
) -> None:
    """The run ends at once, and says for how long, when to go on, and what helps meanwhile."""
    upstream.commit(repo, {"model.safetensors": noise(1000)})
    upstream.answer(429, retry_after=1200)

    ended = mirror.fails("sync", "--all")

    assert ended.status == 13
    assert "429" in ended.stderr
    assert re.search(r"left alone for (20 min|19 min 5\d s): run the same command again after 20", ended.stderr)
    assert "`backup_source:`" in ended.stderr


def test_a_source_that_could_not_be_reached_is_left_alone_by_later_runs(
    mirror: Mirror, upstream: GitLfsUpstream, repo: str
) -> None:
    """`status` tells until when; who names the repository has it asked all the same, and success ends it for all."""
    upstream.commit(repo, {"model.safetensors": noise(1000)})
    state = State(mirror.root)
    state.keep_trouble(Trouble(upstream.url, "questions", 2, time.time() + 600, f"{upstream.url}: Connection refused"))
    state.close()
    upstream.forget()
    ended, told = mirror.fails("sync", "--all"), mirror.run("status").stdout
    assert ended.status == 10
    assert "because it could not be reached 2 times" in ended.stderr
    assert f"source {upstream.url}: not asked before 20" in told
    assert upstream.requests() == []

    ended = mirror.run("sync", "--repo", repo)

    assert (ended.status, "asked all the same, because it is called by name" in ended.stderr) == (0, True)
    assert mirror.run("status", "--json").json["sources"] == []


def test_expired_links_are_asked_for_again(mirror: Mirror, upstream: GitLfsUpstream, repo: str) -> None:
    """When the host refuses the links that it gave, new ones are asked for in the middle of a blob."""
    content = noise(150 << 20)
    upstream.commit(repo, {"model.safetensors": content})
    mirror.settings["max_parallel"] = 1
    upstream.expire_links(after_requests=1)

    mirror.sync()

    assert mirror.served(repo)["model.safetensors"] == content
    assert [request.status for request in upstream.requests() if request.route == "bytes"].count(403) == 1


def test_a_source_that_ignores_ranges_is_read_through(mirror: Mirror, upstream: GitLfsUpstream, repo: str) -> None:
    """A host without range requests costs a second start of the blob at most."""
    content = noise(150 << 20)
    upstream.commit(repo, {"model.safetensors": content})
    upstream.ignore_ranges()

    mirror.sync()

    assert mirror.served(repo)["model.safetensors"] == content


def test_a_token_is_given_to_its_host_and_to_no_other(
    mirror: Mirror, upstream: GitLfsUpstream, repo: str, tmp_path: Path
) -> None:
    """git, the batch API and the bytes get the token; a host that is redirected to never does."""
    upstream.commit(repo, {"model.safetensors": noise(1000)})
    upstream.require_token("hf_secret", on_bytes=False)
    upstream.redirect_bytes()
    assert mirror.fails("sync", "--all").status == 12
    token_file = tmp_path / "token"
    token_file.write_text("hf_secret\n")
    token_file.chmod(0o600)
    mirror.settings["source"] = {"url": upstream.url, "token_file": str(token_file)}

    mirror.sync()

    elsewhere = [request for request in upstream.requests() if request.port == upstream.elsewhere_port]
    assert len(elsewhere) > 0
    assert {request.authorization for request in elsewhere} == {""}


def test_a_wrong_token_is_told_as_that(mirror: Mirror, upstream: GitLfsUpstream, repo: str, tmp_path: Path) -> None:
    """Exit status 12, and the message says which setting to look at, not the token."""
    upstream.commit(repo, {"model.safetensors": noise(1000)})
    upstream.require_token("right")
    token_file = tmp_path / "token"
    token_file.write_text("wrong-one")
    token_file.chmod(0o600)
    mirror.settings["source"] = {"url": upstream.url, "token_file": str(token_file)}

    ended = mirror.fails("sync", "--all")

    assert ended.status == 12
    assert "token_file" in ended.stderr
    assert "wrong-one" not in ended.stderr


def test_history_that_was_rewritten_is_refused_until_it_is_allowed(
    mirror: Mirror, upstream: GitLfsUpstream, repo: str
) -> None:
    """A force-push stops with exit status 15; allowed, it is followed and the old commit stays servable."""
    upstream.commit(repo, {"a.txt": b"first"})
    old = upstream.commit(repo, {"a.txt": b"second"})
    mirror.sync()
    new = upstream.commit(repo, {"a.txt": b"rewritten"}, force=True)

    refused = mirror.fails("sync", "--all")
    stayed = mirror.served(repo)["a.txt"]
    mirror.change(force_push="accept")
    outcome = mirror.sync()

    assert refused.status == 15
    assert "force_push: accept" in refused.stderr
    assert stayed == b"second"
    assert outcome["refs"] == {"refs/heads/main": new}
    assert (mirror.root / "public" / "models" / repo / "commits" / old / "a.txt").read_bytes() == b"second"


def test_a_ref_that_goes_back_in_its_own_history_is_refused(
    mirror: Mirror, upstream: GitLfsUpstream, repo: str
) -> None:
    """An older commit is not taken for news: it may be a stale or a hostile answer."""
    first = upstream.commit(repo, {"a.txt": b"first"})
    upstream.commit(repo, {"a.txt": b"second"})
    mirror.sync()
    upstream.branch(repo, "main", first)

    assert mirror.fails("sync", "--all").status == 15
    assert mirror.served(repo)["a.txt"] == b"second"


def test_include_and_exclude_choose_files_and_a_change_of_them_is_followed(
    mirror: Mirror, upstream: GitLfsUpstream, repo: str
) -> None:
    """Rules are the Hub client's; when they change, the same commit is published with the other files."""
    files = {"config.json": b"{}", "a.safetensors": noise(1000, 1), "b.bin": noise(1000, 2), "onnx/c.bin": noise(9, 3)}
    upstream.commit(repo, files)
    mirror.change(include=["*.json", "*.bin"], exclude=["onnx/"])
    mirror.sync()
    chosen = set(mirror.served(repo))
    mirror.change(include=["*"], exclude=[])
    upstream.forget()

    outcome = mirror.sync()

    assert chosen == {"config.json", "b.bin"}
    assert set(mirror.served(repo)) == {*files, ".gitattributes"}
    assert outcome["fetched_bytes"] == upstream.lfs_bytes() == 1009


def test_revisions_by_pattern_by_tag_and_by_commit(mirror: Mirror, upstream: GitLfsUpstream, repo: str) -> None:
    """Branches, tags and pinned commits are served; a pinned commit survives that its branch moves on."""
    pinned = upstream.commit(repo, {"a.txt": b"1"}, tag="v1.0")
    upstream.branch(repo, "feature/x", pinned)
    main = upstream.commit(repo, {"a.txt": b"2"}, tag="v1.1")
    mirror.change(revisions=["main", "v1.*", "feature/*", pinned])

    outcome = mirror.sync()

    assert outcome["refs"] == {
        "refs/heads/main": main,
        "refs/heads/feature/x": pinned,
        "refs/tags/v1.0": pinned,
        "refs/tags/v1.1": main,
    }
    assert mirror.served(repo, "feature%2Fx")["a.txt"] == b"1"
    assert not mirror.sync()["changed"]


def test_a_revision_that_is_not_there_names_those_that_are(mirror: Mirror, upstream: GitLfsUpstream, repo: str) -> None:
    """Exit status 11 and the refs that exist."""
    upstream.commit(repo, {"a.txt": b"1"})
    mirror.change(revisions=["mian"])

    ended = mirror.fails("sync", "--all")

    assert ended.status == 11
    assert "mian" in ended.stderr
    assert "main" in ended.stderr


def test_a_hostile_tree_is_refused_and_the_old_revision_stays(
    mirror: Mirror, upstream: GitLfsUpstream, repo: str, tmp_path: Path
) -> None:
    """A symbolic link in a commit ends with exit status 14; excluded, the rest is mirrored."""
    upstream.commit(repo, {"a.txt": b"good"})
    mirror.sync()
    _push_symlink(upstream, repo, tmp_path / "attacker")

    ended = mirror.fails("sync", "--all")
    stayed = set(mirror.served(repo))
    mirror.change(exclude=["passwd"])
    mirror.sync()

    assert ended.status == 14
    assert "passwd" in ended.stderr
    assert stayed == {"a.txt", ".gitattributes"}
    assert set(mirror.served(repo)) == {"a.txt", "b.txt", ".gitattributes"}


def test_the_disk_is_looked_at_before_the_first_byte(mirror: Mirror, upstream: GitLfsUpstream, repo: str) -> None:
    """When it would not fit, nothing is fetched; exit status 30."""
    upstream.commit(repo, {"a.safetensors": noise(100_000)})
    mirror.settings["min_free"] = "100TiB"
    upstream.forget()

    foreseen = mirror.fails("sync", "--all", "--dry-run")
    ended = mirror.fails("sync", "--all")

    assert (ended.status, foreseen.status) == (30, 30)
    assert "min_free" in ended.stderr
    assert "min_free" in foreseen.stderr
    assert upstream.lfs_bytes() == 0


def test_a_dry_run_tells_and_moves_nothing(mirror: Mirror, upstream: GitLfsUpstream, repo: str) -> None:
    """The plan has every blob with its size; no blob is asked for and nothing is published."""
    upstream.commit(repo, {"a.safetensors": noise(100_000)})
    upstream.forget()

    ended = mirror.run("sync", "--all", "--dry-run")

    assert ended.status == 0
    assert "a.safetensors" in ended.stdout
    assert "97.7 KiB" in ended.stdout
    assert upstream.lfs_bytes() == 0
    assert mirror.served(repo) == {}


def test_whoever_comes_while_a_sync_runs_makes_it_run_once_more(
    mirror: Mirror, upstream: GitLfsUpstream, repo: str
) -> None:
    """The second call ends with status 31 and says who is at work; what it wanted is published by the first."""
    upstream.commit(repo, {"a.safetensors": noise(16 << 20)})
    upstream.limit_rate(8 << 20)
    mirror.settings["max_parallel"] = 1
    first = mirror.start("sync", "--all")
    part = mirror.root / "state" / "partial" / f"{sha256(noise(16 << 20))}.part"
    _wait_until(part.exists)
    upstream.commit(repo, {"b.txt": b"came later"})

    second = mirror.fails("sync", "--all")
    status = mirror.run("status", "--json").json["repositories"][0]
    said, _ = first.communicate(timeout=60)

    assert second.status == 31
    assert str(first.pid) in second.stderr
    assert "once more" in second.stderr
    assert status["status"] == "syncing"
    assert status["progress"]["total_bytes"] >= 16 << 20
    assert first.returncode == 0, said
    assert mirror.served(repo)["b.txt"] == b"came later"


def test_a_blob_that_was_lost_from_the_store_comes_back(mirror: Mirror, upstream: GitLfsUpstream, repo: str) -> None:
    """A plain run after a loss converges, though upstream did not change."""
    content = noise(5000)
    upstream.commit(repo, {"a.safetensors": content})
    mirror.sync()
    digest = sha256(content)
    (mirror.root / "public" / "blobs" / "sha256" / digest[:2] / digest[2:4] / digest).unlink()

    mirror.sync()

    assert mirror.served(repo)["a.safetensors"] == content


def test_what_an_edge_lost_is_brought_again_by_a_run_that_names_the_repository(
    mirror: Mirror, upstream: GitLfsUpstream, repo: str, tmp_path: Path
) -> None:
    """A blob that is gone or cut short on an edge, though nothing changed; a run for all may go by the edge's notes."""
    files = {"a.safetensors": noise(5000, 1), "b.safetensors": noise(6000, 2)}
    upstream.commit(repo, files)
    mirror.settings["edges"] = {"e1": {"url": f"file://{tmp_path}/e1"}}
    mirror.sync()
    blobs = tmp_path / "e1" / "public" / "blobs" / "sha256"
    (gone,) = blobs.rglob(sha256(files["a.safetensors"]))
    (cut,) = blobs.rglob(sha256(files["b.safetensors"]))
    gone.unlink()
    cut.chmod(0o644)
    with cut.open("r+b") as file:
        file.truncate(100)

    mirror.sync()
    assert not gone.exists()
    (outcome,) = mirror.run("sync", "--repo", repo, "--json").json

    found = served(tmp_path / "e1", repo)
    assert outcome["deliveries"][0]["changed"] is False
    assert {name: found[name] for name in files} == files


def test_a_copy_that_rotted_here_is_told_by_the_edge_that_needs_it(
    mirror: Mirror, upstream: GitLfsUpstream, repo: str, tmp_path: Path
) -> None:
    """The message names this host's file; removing it and a plain sync mend both."""
    content = noise(5000)
    upstream.commit(repo, {"a.safetensors": content})
    mirror.sync()
    (own,) = (mirror.root / "public" / "blobs" / "sha256").rglob(sha256(content))
    own.chmod(0o644)
    own.write_bytes(b"x" * 5000)
    mirror.settings["edges"] = {"e1": {"url": f"file://{tmp_path}/e1"}}
    ended = mirror.fails("sync", "--all")
    own.unlink()
    mirror.sync()

    assert ended.status == 20
    assert str(own) in ended.stderr
    assert "remove that file" in ended.stderr
    assert served(tmp_path / "e1", repo)["a.safetensors"] == content


def test_a_revision_that_is_gone_holds_no_other_and_is_told(
    mirror: Mirror, upstream: GitLfsUpstream, repo: str
) -> None:
    """Named, it stays served and the status is 11; under a pattern it goes, with a word."""
    first = upstream.commit(repo, {"a.txt": b"1"}, tag="v1.0")
    upstream.branch(repo, "exp", first)
    mirror.change(revisions=["main", "exp", "v*"])
    mirror.sync()
    upstream.delete(repo, "refs/heads/exp")
    upstream.delete(repo, "refs/tags/v1.0")
    main = upstream.commit(repo, {"a.txt": b"2"})

    ended = mirror.fails("sync", "--all")

    refs = mirror.run("status", "--json").json["repositories"][0]["refs"]
    assert ended.status == 11
    assert "'exp'" in ended.stderr
    assert "v1.0 is gone upstream" in ended.stderr
    assert refs == {"refs/heads/main": main, "refs/heads/exp": first}


def test_what_is_published_can_be_read_whatever_the_umask(
    mirror: Mirror, upstream: GitLfsUpstream, repo: str, tmp_path: Path
) -> None:
    """Nginx runs as somebody else."""
    upstream.commit(repo, {"a.safetensors": noise(10)})
    done = subprocess.run(["sh", "-c", 'umask 077 && exec "$@"', "sh", *mirror.command("sync", "--all")], check=True)

    public = mirror.root / "public"
    assert done.returncode == 0
    for path in (mirror.root, public, *public.rglob("*")):
        wanted = 0o555 if path.is_dir() else 0o444
        assert path.stat().st_mode & wanted == wanted, path


def test_quiet_says_nothing_when_all_is_well(mirror: Mirror, upstream: GitLfsUpstream, repo: str) -> None:
    """Cron sends a mail for every word."""
    upstream.commit(repo, {"a.txt": b"1"})

    ended = mirror.run("-q", "sync", "--all")

    assert (ended.status, ended.stdout, ended.stderr) == (0, "", "")


def test_status_tells_revision_lag_and_error_for_the_origin_and_each_edge(
    mirror: Mirror, upstream: GitLfsUpstream, repo: str, tmp_path: Path
) -> None:
    """A failed edge and a failed source show, with what they lack and since when."""
    commit = upstream.commit(repo, {"a.safetensors": noise(5000)})
    (tmp_path / "broken").write_text("a file, where a folder is needed")
    mirror.settings["edges"] = {
        "good": {"url": f"file://{tmp_path}/good"},
        "bad": {"url": f"file://{tmp_path}/broken/root"},
    }
    assert mirror.run("sync", "--all").status in (32, 40, 41)
    upstream.answer(503, route="git")
    mirror.fails("sync", "--all")

    document = mirror.run("status", "--json", "--history", "5").json["repositories"][0]
    text = mirror.run("status").stdout

    good, bad = sorted(document["edges"], key=lambda edge: edge["edge"], reverse=True)
    assert document["refs"] == {"refs/heads/main": commit}
    assert document["status"] == "failed"
    assert "503" in document["error"]
    assert (good["status"], good["lag_s"], good["error"]) == ("success", 0.0, None)
    assert bad["status"] == "failed"
    assert "bad" in bad["error"]
    assert [run["status"] for run in document["runs"]] == ["failed", "failed"]
    assert commit[:12] in text


def test_several_repositories_and_one_that_fails_does_not_hold_the_others(
    mirror: Mirror, upstream: GitLfsUpstream, repo: str
) -> None:
    """The exit status is the failure's, and everything else is published."""
    mirror.job["repositories"].insert(0, {"repo": "org/is-not-there"})
    mirror.add(f"datasets/{repo}")
    upstream.commit(repo, {"a.safetensors": noise(500)})
    upstream.commit(f"datasets/{repo}", {"train.csv": b"1,2\n"})

    ended = mirror.run("sync", "--all")

    assert ended.status == 11
    assert "org/is-not-there" in ended.stderr
    assert ended.stderr.count("mirrortool:") == 1, ended
    assert mirror.served(f"datasets/{repo}")["train.csv"] == b"1,2\n"
    assert mirror.served(repo)["a.safetensors"] == noise(500)


@pytest.mark.parametrize("kind", ["root", "hub cache", "git-lfs"])
def test_what_lies_on_this_host_is_not_fetched(
    mirror: Mirror, upstream: GitLfsUpstream, repo: str, tmp_path: Path, kind: str
) -> None:
    """A seed gives the blobs that it has; one that is damaged there comes from the source."""
    large, small, rotten = noise(9 << 20, 1), noise(1000, 2), noise(2000, 3)
    files = {"large.safetensors": large, "small.safetensors": small, "rotten.safetensors": rotten}
    upstream.commit(repo, {**files, "new.safetensors": b"new"})
    seed = tmp_path / "seed"
    for content in files.values():
        digest = sha256(content)
        sharded = f"{digest[:2]}/{digest[2:4]}/{digest}"
        places = {
            "root": seed / "public" / "blobs" / "sha256" / sharded,
            "hub cache": seed / "hub" / f"models--{repo.replace('/', '--')}" / "blobs" / digest,
            "git-lfs": seed / ".git" / "lfs" / "objects" / sharded,
        }
        places[kind].parent.mkdir(parents=True, exist_ok=True)
        places[kind].write_bytes(content if content != rotten else b"x" * len(rotten))
    mirror.settings["seeds"] = [str(seed)]

    outcome = mirror.sync()

    found = mirror.served(repo)
    assert {name: found[name] for name in files} == files
    assert upstream.lfs_bytes() == len(rotten) + len(b"new")
    assert outcome["from_source"][str(seed)] >= len(large) + len(small)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_run_over_many_repositories_ends_when_it_is_told_to(
    mirror: Mirror, upstream: GitLfsUpstream, repo: str, number: signal.Signals, status: int
) -> None:
    """No thread and no program keeps it; what was fetched stays for the next run."""
    contents = {f"{repo}-{place}": noise(24 << 20, place) for place in range(3)}
    mirror.job["repositories"] = []
    for name, content in contents.items():
        upstream.commit(name, {"model.safetensors": content})
        mirror.add(name)
    upstream.limit_rate(3 << 20)
    mirror.settings["max_parallel"] = 3  # so that they are not all here before this process has looked
    running = mirror.start("sync", "--all")
    partial = mirror.root / "state" / "partial"
    _wait_until(lambda: any(len(file.read_text().splitlines()) > 1 for file in partial.glob("*.journal")))
    running.send_signal(number)
    said = mirror.said(running, timeout_s=20)
    upstream.heal()
    assert mirror.run("status", "--json").json["sources"] == []  # to be stopped is no failure of the source

    ended = mirror.run("sync", "--all", "--json")

    assert running.returncode == status, said
    assert "Traceback" not in said
    assert ended.status == 0, ended.stderr
    assert sum(outcome["resumed_bytes"] for outcome in ended.json) > 0
    for name, content in contents.items():
        assert mirror.served(name)["model.safetensors"] == content


def _push_symlink(upstream: GitLfsUpstream, repo: str, clone: Path) -> None:
    def git(*words: str) -> None:
        name = ["-c", "user.name=t", "-c", "user.email=t@localhost"]
        subprocess.run(["git", *name, *words], check=True, capture_output=True)

    git("clone", "--quiet", str(upstream.repository(repo)), str(clone))
    (clone / "passwd").symlink_to("/etc/passwd")
    (clone / "b.txt").write_text("also")
    git("-C", str(clone), "add", "-A")
    git("-C", str(clone), "commit", "-qm", "Add")
    git("-C", str(clone), "push", "-q", "origin", "HEAD:main")


def _wait_until(true: object, patience_s: float = 30) -> None:
    assert callable(true)
    ends = time.monotonic() + patience_s
    while not true():
        assert time.monotonic() < ends, "it did not happen"
        time.sleep(0.01)
