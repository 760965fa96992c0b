"""Rendering, checking and installing nginx's configuration."""

from __future__ import annotations

import grp
import os
import re
import shlex
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from mirrortools import cli
from mirrortools.config import Tls
from mirrortools.errors import ServeError
from mirrortools.revision import LISTING
from mirrortools.serve import (
    Abilities,
    Installed,
    Site,
    Standalone,
    abilities,
    caveat,
    check,
    find_nginx,
    find_njs_module,
    install,
    render,
    worker_user,
    write_standalone,
)


def standalone(tmp_path: Path, user: str = "") -> Site:
    place = Standalone(tmp_path / "run", find_njs_module(), user)
    return Site(tmp_path / "root", ("127.0.0.1:20001", "[::1]:20001"), "mirror.example", place)


def make_prefix(tmp_path: Path, http: str = "") -> Path:
    """A folder like /etc/nginx of an installed nginx."""
    prefix = tmp_path / "etc"
    (prefix / "conf.d").mkdir(parents=True)
    (prefix / "nginx.conf").write_text(
        f"load_module {find_njs_module()}; pid {prefix}/pid; error_log stderr; events {{}}\n"
        f"http {{ access_log off; client_body_temp_path {prefix}/body; proxy_temp_path {prefix}/proxy;\n"
        f"fastcgi_temp_path {prefix}/fastcgi; uwsgi_temp_path {prefix}/uwsgi; scgi_temp_path {prefix}/scgi;\n"
        f"{http} include conf.d/*.conf; }}\n"
    )
    return prefix


def installed(tmp_path: Path, prefix: Path, name: str = "mirror.example") -> Site:
    return Site(tmp_path / "root", ("127.0.0.1:20001",), name, Installed(prefix))


def test_nginx_accepts_a_standalone_site(tmp_path: Path) -> None:
    """The rendered files pass nginx's own check, and the command names them."""
    command = write_standalone(standalone(tmp_path))

    assert command[0] == str(find_nginx())
    assert command[-1] == str(tmp_path / "run" / "nginx.conf")
    assert {path.name for path in (tmp_path / "run").iterdir()} >= {"nginx.conf", "hub.js"}


def test_what_is_served_is_there_before_anything_was_published(tmp_path: Path) -> None:
    """The workers enter the public folder; it is made, and belongs to whom the root belongs."""
    (tmp_path / "root").mkdir()
    owner = 4242 if os.geteuid() == 0 else os.geteuid()
    os.chown(tmp_path / "root", owner, -1)

    write_standalone(standalone(tmp_path))

    assert (tmp_path / "root" / "public").stat().st_uid == owner


def test_all_temporary_files_are_in_the_run_folder(tmp_path: Path) -> None:
    """No path of the configuration is outside the run folder, the root and nginx's modules."""
    text = render(standalone(tmp_path))["nginx.conf"]
    paths = re.findall(r"(?<=\s)/[\w./-]+(?=[;\s])", re.sub(r"#.*", "", text))
    outside = [path for path in paths if not path.startswith((f"{tmp_path}/run/", f"{tmp_path}/root/public"))]
    urls = {"/", "/api/", "/api/whoami-v2", "/models/", "/datasets/", "/spaces/", "/.mirror/"}
    urls |= {"/.mirror/index.html", "/.mirror/setup.sh"}

    assert set(outside) <= {str(find_njs_module()), *urls}


def test_the_name_decides_who_is_default_server(tmp_path: Path) -> None:
    """With a name the server answers for that; without one it answers for every name."""
    named = render(installed(tmp_path, tmp_path))["conf.d/mirrortools.conf"]
    unnamed = render(installed(tmp_path, tmp_path, ""))["conf.d/mirrortools.conf"]

    assert "listen 127.0.0.1:20001;" in named
    assert "server_name mirror.example;" in named
    assert "listen 127.0.0.1:20001 default_server;" in unnamed


@pytest.mark.parametrize(
    ("root", "listen", "name"),
    [
        ("relative", "80", ""),
        ("/with space", "80", ""),
        ("/a$b", "80", ""),
        ("/a;b", "80", ""),
        ("/root\n", "80", ""),
        ("/root", "80; include /etc/passwd", ""),
        ("/root", "unix:/socket", ""),
        ("/root", "80", "a;b"),
    ],
)
def test_what_would_break_the_configuration_is_refused(root: str, listen: str, name: str) -> None:
    """Nothing that a configuration says can end a word of nginx's language."""
    with pytest.raises(ServeError):
        Site(Path(root), (listen,), name)


def test_the_script_and_the_tree_agree(tmp_path: Path) -> None:
    """The script reads listings under the name that the tree gives them."""
    files = render(standalone(tmp_path))

    assert f"const LISTING = '{LISTING}';" in files["hub.js"]
    assert f"/$hub_path/{LISTING};" in files["nginx.conf"]


def refuse(path: Path, missing_ok: bool = False) -> None:
    raise PermissionError(13, "Permission denied", str(path))


def test_who_begins_to_serve_believes_the_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signpost that names another commit is taken away; where that is not allowed, it is told what to do."""
    root = tmp_path / "root"
    signpost, ref = root / "signposts/models@org@name@main", root / "public/models/org/name/refs/main"
    for link, target in ((signpost, f"models@org@name@{'a' * 40}"), (ref, f"../commits/{'b' * 40}")):
        link.parent.mkdir(parents=True)
        link.symlink_to(target)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        with pytest.raises(ServeError, match=f"owner of {root}, or remove {root}/signposts"):
            write_standalone(standalone(tmp_path))
    install(installed(tmp_path, make_prefix(tmp_path)))

    assert list(signpost.parent.iterdir()) == []


def test_install_writes_once(tmp_path: Path) -> None:
    """The first install writes both files; the second one has nothing to do."""
    prefix = make_prefix(tmp_path)
    first, second = install(installed(tmp_path, prefix)), install(installed(tmp_path, prefix))

    assert first == [prefix / "conf.d/mirrortools.conf", prefix / "mirrortools/hub.js"]
    assert second == []


def test_an_install_that_nginx_refuses_changes_nothing(tmp_path: Path) -> None:
    """What was there before is there again, and the error has nginx's message and what to do."""
    prefix = make_prefix(tmp_path)
    install(installed(tmp_path, prefix))
    before = {path: path.read_bytes() for path in prefix.rglob("*") if path.is_file()}
    (prefix / "conf.d/other.conf").write_text("server { listen 127.0.0.1:20001 default_server; }")

    with pytest.raises(ServeError, match=r"(?s)duplicate default server.*--name"):
        install(installed(tmp_path, prefix, ""))
    assert {path: path.read_bytes() for path in before} == before


def test_a_first_install_that_fails_leaves_no_file(tmp_path: Path) -> None:
    """An nginx without the JavaScript module says so, and keeps its configuration."""
    prefix = make_prefix(tmp_path)
    config = (prefix / "nginx.conf").read_text()
    (prefix / "nginx.conf").write_text(config.partition(";")[2])

    with pytest.raises(ServeError, match="libnginx-mod-http-js"):
        install(installed(tmp_path, prefix))
    assert not [path for path in prefix.rglob("*") if path.is_file() and path.name != "nginx.conf"]


def test_a_folder_that_is_no_nginx_is_refused(tmp_path: Path) -> None:
    """Installing beside no nginx.conf writes nothing."""
    with pytest.raises(ServeError, match="--prefix"):
        install(installed(tmp_path, tmp_path / "nothing"))
    assert not (tmp_path / "nothing").exists()


def test_what_an_administrator_adds_is_included(tmp_path: Path) -> None:
    """Files in server.d belong to the server, and survive the next install."""
    prefix = make_prefix(tmp_path)
    install(installed(tmp_path, prefix))
    (prefix / "mirrortools/server.d/own.conf").write_text("no_such_directive;")

    with pytest.raises(ServeError, match="no_such_directive"):
        check(find_nginx(), prefix / "nginx.conf", prefix)


def test_the_workers_are_the_owner_of_the_root(tmp_path: Path) -> None:
    """Started by root, nginx's workers run as who owns the root; else there is nobody to become."""
    assert worker_user(tmp_path) == (tmp_path.owner() if os.geteuid() == 0 else "")
    assert worker_user(tmp_path / "missing") == ""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A main file with one edge."""
    path = tmp_path / "mirrortool.yaml"
    path.write_text(
        f"root: {tmp_path}/root\nsource: https://source.example\nlisten: 127.0.0.1:20001\n"
        f"edges:\n  one: {{url: 'file://{tmp_path}/edge', listen: '127.0.0.1:20002'}}\n"
    )
    return path


def run(config: Path, *words: str) -> int:
    return cli.run(["--config", str(config), "nginx", *words], {})


def test_print(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The origin's or an edge's snippet goes to standard output, and so does the script."""
    statuses = [run(config, "print"), run(config, "print", "--edge", "one"), run(config, "print", "hub.js")]
    output = capsys.readouterr().out

    assert statuses == [0, 0, 0]
    assert f"{tmp_path}/root/public" in output
    assert f"{tmp_path}/edge/public" in output
    assert "listen 127.0.0.1:20002 default_server;" in output
    assert "export default" in output


def test_print_standalone(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The files are written and the command that runs them is printed."""
    status = run(config, "print", "--standalone", str(tmp_path / "run"), "--edge", "one")
    command = shlex.split(capsys.readouterr().out)

    assert status == 0
    assert command[-1] == str(tmp_path / "run" / "nginx.conf")
    assert "edge/public" in (tmp_path / "run" / "nginx.conf").read_text()


def test_https_and_git_are_configured_for_origin_and_edge(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the main file says of TLS and of git's socket stands in what is printed, for each host its own."""
    tls = "{certificate: /o.pem, key: /o.key, hsts: 1d, acme: /var/www/acme}"
    edge = "tls: {certificate: /e.pem, key: /e.key, listen: 8443}"
    text = config.read_text().replace("listen: '127.0.0.1:20002'", f"listen: '127.0.0.1:20002', {edge}")
    config.write_text(f"{text}tls: {tls}\ngit_socket: /run/fcgiwrap.socket\n")
    statuses = [run(config, "print")]
    origin = capsys.readouterr().out
    statuses.append(run(config, "print", "--edge", "one"))
    of_edge = capsys.readouterr().out

    assert statuses == [0, 0]
    assert "ssl_certificate /o.pem;" in origin
    assert "listen 0.0.0.0:443 ssl http2 default_server;" in origin
    assert "max-age=86400" in origin
    assert "fastcgi_pass unix:/run/fcgiwrap.socket;" in origin
    assert "ssl_certificate_key /e.key;" in of_edge
    assert "listen 0.0.0.0:8443 ssl http2 default_server;" in of_edge
    assert "fastcgi_pass" not in of_edge
    assert "Strict-Transport-Security" not in of_edge


def test_an_unknown_edge(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong name is a configuration error that names the known ones."""
    assert run(config, "print", "--edge", "two") == 2
    assert "one" in capsys.readouterr().err


def test_install_by_command(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command says what it wrote and what to do next."""
    prefix = make_prefix(tmp_path)
    statuses = [run(config, "install", "--prefix", str(prefix)) for _ in range(2)]

    assert statuses == [0, 0]
    assert capsys.readouterr().out.splitlines() == [
        f"wrote {prefix}/conf.d/mirrortools.conf",
        f"wrote {prefix}/mirrortools/hub.js",
        "Next: systemctl reload nginx",
        "nothing to change",
    ]


def secure_site(tmp_path: Path, able: Abilities, **tls: object) -> Site:
    settings = {"certificate": Path("/c.pem"), "key": Path("/k.pem"), "listen": "[::]:8443", **tls}
    place = Standalone(tmp_path / "run", find_njs_module())
    return Site(tmp_path / "root", ("0.0.0.0:80",), "m.example", place, tls=Tls(**settings), abilities=able)  # type: ignore[arg-type]


def test_http3_where_nginx_has_it(tmp_path: Path) -> None:
    """QUIC is listened for, and told of in each answer, only by an nginx that was built with it."""
    old = render(secure_site(tmp_path, Abilities((1, 22, 1))))["nginx.conf"]
    new = render(secure_site(tmp_path, Abilities((1, 26), http3=True)))["nginx.conf"]

    assert "listen [::]:8443 ssl http2;" in old
    assert "quic" not in old
    assert "Alt-Svc" not in old
    assert "listen [::]:8443 ssl;" in new
    assert "listen [::]:8443 quic reuseport;" in new
    assert "http2 on;" in new
    assert """add_header Alt-Svc 'h3=":8443"; ma=86400'; add_header X-Repo-Commit""" in new


def test_nothing_of_https_without_it(tmp_path: Path) -> None:
    """Without certificates there is no word of TLS; HSTS is said only when it is asked for."""
    assert "ssl" not in render(standalone(tmp_path))["nginx.conf"]
    assert "Strict-Transport-Security" not in render(secure_site(tmp_path, Abilities()))["nginx.conf"]
    assert "Strict-Transport-Security" in render(secure_site(tmp_path, Abilities(), hsts_s=60))["nginx.conf"]


def test_paths_of_tls_cannot_break_out(tmp_path: Path) -> None:
    """A certificate's path that nginx would take for more than a path is refused."""
    with pytest.raises(ServeError):
        secure_site(tmp_path, Abilities(), key=Path("/k;include /etc/passwd"))


def test_abilities_are_read_from_nginx(tmp_path: Path) -> None:
    """The version and HTTP/3 are what nginx -V says."""
    program = tmp_path / "nginx"
    program.write_text(
        "#!/bin/sh\necho 'nginx version: nginx/1.26.3\nconfigure arguments: --with-http_v3_module' >&2\n"
    )
    program.chmod(0o755)

    assert abilities(program) == Abilities((1, 26, 3), http3=True)
    assert abilities(program).has_http2_directive
    assert abilities(find_nginx()).version >= (1, 18)


def test_what_is_private_is_for_the_workers_and_few_others(tmp_path: Path) -> None:
    """A site with private repositories has their log for few, and their folder in the group of nginx's workers."""
    prefix, root = make_prefix(tmp_path), tmp_path / "root"
    main = prefix / "nginx.conf"
    main.write_text(f"user nobody {grp.getgrgid(os.getgid()).gr_name};\n{main.read_text()}")
    (root / "private").mkdir(parents=True, mode=0o750)
    place = Installed(prefix, tmp_path / "logs")
    changed = install(replace(installed(tmp_path, prefix), place=place, private=True))
    standing = replace(standalone(tmp_path), private=True)
    write_standalone(standing)

    assert "hub_verdict" in (prefix / "conf.d" / "mirrortools.conf").read_text()
    assert prefix / "conf.d" / "mirrortools.conf" in changed
    assert (root / "private").stat().st_gid == os.getgid()
    for log in (place.private_log, place.private_error_log):
        assert log.parent == tmp_path / "logs"
    for each in (standing.place, place):
        for log in (each.private_log, each.private_error_log):
            assert stat.S_IMODE(log.stat().st_mode) == 0o640


def test_what_another_server_would_log_is_told(tmp_path: Path) -> None:
    """A site that is not the default of its address does not hear what nginx cannot read."""
    site = standalone(tmp_path)

    assert "default server" in caveat(replace(site, private=True, name="m.example"))
    assert caveat(replace(site, private=True, name="")) == caveat(replace(site, name="m.example")) == ""


def test_without_private_repositories_nothing_asks_for_tokens(tmp_path: Path) -> None:
    """Nothing of it is in the configuration of a site that has none."""
    (text,) = [text for name, text in render(standalone(tmp_path)).items() if name == "nginx.conf"]

    assert not [word for word in ("hub_private", "hub_verdict", "js_set") if word in text]
