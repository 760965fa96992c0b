"""~/.netrc: whose login goes where."""

from __future__ import annotations

import base64
import logging
from contextlib import closing, suppress
from pathlib import Path

import pytest

from mirrortools.config import Source
from mirrortools.errors import ConfigError, UpstreamError
from mirrortools.model import Blob, RepoId
from mirrortools.upstreams import Clients, GitMirror, open_upstream
from mirrortools.upstreams.logins import login_of
from tests.fakes import ScriptedServer, answer

LOGIN = "machine h.example login me password secret\n"
REFS = f"{'1' * 40}\trefs/heads/main\n".encode()


def netrc(home: Path, text: str = LOGIN, mode: int = 0o600) -> dict[str, str]:
    """Write the file and give the environment of its user."""
    (home / ".netrc").write_text(text)
    (home / ".netrc").chmod(mode)
    return {"HOME": str(home)}


def test_a_login_is_for_its_very_host(tmp_path: Path) -> None:
    """Case apart; neither for hosts below or above it, nor for those that only `default` would cover."""
    environ = netrc(tmp_path, LOGIN + "default login anybody password x\n")

    assert login_of("H.example", environ) == ("me", "secret")
    assert [login_of(host, environ) for host in ("a.h.example", "example", "other", "default")] == [None] * 4


@pytest.mark.parametrize("environ", [{}, {"HOME": ""}, {"HOME": "/nonexistent"}])
def test_who_has_no_file_has_no_login(environ: dict[str, str]) -> None:
    """Accounts of services have no home."""
    assert login_of("h.example", environ) is None


def test_a_file_that_everybody_can_read_is_refused_where_it_is_needed(tmp_path: Path) -> None:
    """As a token_file is; hosts that are not in it do not care."""
    environ = netrc(tmp_path, mode=0o644)

    assert login_of("other.example", environ) is None
    with pytest.raises(ConfigError, match=r"every account of this host can read .*netrc; run: chmod o= "):
        login_of("h.example", environ)


def test_a_file_that_makes_no_sense_is_passed_over_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It may be for other programs: a public source is synced all the same. A change is seen."""
    environ = netrc(tmp_path, "machine\n")
    with caplog.at_level(logging.WARNING, "mirrortools.logins"):
        assert login_of("h.example", environ) is None
    assert f"{tmp_path}/.netrc: cannot be read and is passed over" in caplog.text

    assert login_of("h.example", netrc(tmp_path)) == ("me", "secret")


def test_refs_objects_and_links_go_with_the_same_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is asked of the source's host, by us and by git; a token_file comes before."""
    with ScriptedServer(lambda _: answer(REFS)) as server, closing(Clients()) as clients:
        monkeypatch.setenv("HOME", netrc(tmp_path, "machine 127.0.0.1 login me password secret\n")["HOME"])
        (tmp_path / "token").write_text("hf_x")
        for number, token in enumerate((None, tmp_path / "token")):
            mirror = GitMirror(tmp_path / f"{number}.git")
            upstream = open_upstream(Source(server.origin, token), RepoId.parse("a/b"), mirror, clients)
            refs = upstream.refs()
            with suppress(UpstreamError):
                upstream.bring(refs.oids, ())
            with suppress(UpstreamError), upstream.bytes.open(Blob("sha256", "1" * 64, 1), 0, 1):
                pass
        heard = {(seen.headers.get("authorization"), seen.method) for seen in server.heard}

    logins = [f"Basic {base64.b64encode(text).decode()}" for text in (b"me:secret", b"mirrortool:hf_x")]
    assert heard == {(login, method) for login in logins for method in ("GET", "POST")}
