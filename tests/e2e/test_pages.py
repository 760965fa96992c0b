"""The pages of a mirror in a real browser, and the commands that stand on them."""

from __future__ import annotations

import re
import subprocess
import sys
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from html import unescape
from pathlib import Path
from struct import pack

import pytest

from tests.chromium import DARK, chromium, pixels_of
from tests.clients import curl, hub_environment, hub_program, read_folder
from tests.delivery import noise
from tests.mirror import Mirror
from tests.servers import Nginx, free_port

HOSTILE = """---
license: mit
---
# The card

<script>document.title = "hijacked"</script>
<img src=x onerror='document.title = "hijacked"'>
<svg onload='document.title = "hijacked"'></svg>

![ours](assets/red.png)
![theirs](http://127.0.0.1:1/pixel.png)
"""


def png(width: int, height: int) -> bytes:
    """A red picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return pack(">I", len(data)) + kind + data + pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + b"\xff\0\0" * width) * height
    header = pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


MODEL: Mapping[str, bytes] = {
    "README.md": HOSTILE.encode(),
    "assets/red.png": png(320, 40),
    "model one.safetensors": noise(3_000_000, 1),
    "config.json": b"{}",
}
ROWS: Mapping[str, bytes] = {"train.csv": b"a,b\n1,2\n", "README.md": b"# Rows\n"}


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An origin and an edge with a model and a dataset."""
    top = tmp_path_factory.mktemp("pages")
    for repo, files in (("acme/tiny", MODEL), ("datasets/acme/rows", ROWS)):
        for name, content in files.items():
            path = top / "source" / repo / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    mirror = Mirror(top / "origin", f"dir://{top}/source")
    ports = {"origin": free_port(), "e1": free_port()}
    found = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
    mirror.settings |= {"listen": f"127.0.0.1:{ports['origin']}", "http": found["origin"]}
    edge = {"url": f"file://{top}/edge", "listen": f"127.0.0.1:{ports['e1']}", "http": found["e1"]}
    mirror.settings["edges"] = {"e1": edge}
    mirror.add("acme/tiny")
    mirror.add("datasets/acme/rows")
    done = mirror.run("sync", "--all")
    assert done.status == 0, done.stderr
    with ExitStack() as running:
        for name, words in (("origin", ()), ("e1", ("--edge", "e1"))):
            folder = top / f"nginx-{name}"
            printed = mirror.run("nginx", "print", *words, "--standalone", str(folder))
            assert printed.status == 0, printed.stderr
            running.enter_context(Nginx(folder / "nginx.conf", folder, [ports[name]]))
        yield found


@pytest.mark.parametrize("host", ["origin", "e1"])
def test_the_page_of_a_hostile_card(urls: dict[str, str], host: str, tmp_path: Path) -> None:
    """No script of a card runs, its own picture is shown, and nothing else is asked for."""
    shown, said = chromium(tmp_path, "--dump-dom", f"{urls[host]}/acme/tiny")

    assert "<title>acme/tiny</title>" in shown
    assert "The card</h1>" in shown
    assert "hijacked" not in shown
    assert "127.0.0.1:1/" not in shown + said
    assert "Content Security Policy" not in said
    assert f"HF_ENDPOINT={urls[host]} hf download acme/tiny" in shown


@pytest.mark.parametrize("words", [(), (DARK,)])
def test_pictures_of_a_card_are_shown(urls: dict[str, str], words: tuple[str, ...], tmp_path: Path) -> None:
    """The browser takes the bytes of a picture for one, in light and dark: the red is on the screen."""
    size = ("--window-size=900,1600", "--hide-scrollbars", f"--screenshot={tmp_path}/shot.png")
    chromium(tmp_path, *words, *size, f"{urls['origin']}/acme/tiny")
    pixels = pixels_of(tmp_path / "shot.png")
    dark = sum(pixels[:3]) < 200

    assert b"\xff\0\0" * 300 in pixels
    assert dark == bool(words)


@pytest.mark.parametrize("host", ["origin", "e1"])
def test_the_commands_on_a_page_work(urls: dict[str, str], host: str, tmp_path: Path) -> None:
    """Copied into a shell, each brings the files, and the last one finds them right."""
    html = curl(f"{urls[host]}/acme/tiny").body.decode()
    commands = [unescape(found) for found in re.findall(r"<pre><code>(.*?)</code></pre>", html)]
    by_name = dict(zip(("hf", "mirrortool", "git", "aria2", "rsync", "curl", "check"), commands, strict=True))
    env = hub_environment(urls[host], tmp_path / "cache") | {"GIT_LFS_SKIP_SMUDGE": "1", "HOME": str(tmp_path)}
    env["PATH"] = f"{hub_program('2.4.0', 'hf').parent}:{Path(sys.executable).parent}:{env['PATH']}"

    def run(name: str) -> str:
        done = subprocess.run(
            by_name[name], shell=True, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=90
        )
        assert done.returncode == 0, (by_name[name], done.stdout, done.stderr)
        return done.stdout

    run("hf")
    (snapshot,) = tmp_path.glob("cache/hub/models--acme--tiny/snapshots/*")
    run("mirrortool")
    (tmp_path / "tiny").rename(tmp_path / "got")
    run("git")
    (tmp_path / "tiny").rename(tmp_path / "cloned")
    run("aria2")
    run("curl")

    assert read_folder(snapshot).items() >= MODEL.items()
    assert read_folder(tmp_path / "got").items() >= MODEL.items()
    assert (tmp_path / "cloned" / "config.json").read_bytes() == b"{}"
    assert read_folder(tmp_path / "tiny").items() >= MODEL.items()
    assert (tmp_path / "model one.safetensors").read_bytes() == MODEL["model one.safetensors"]
    assert "model one.safetensors: OK" in run("check")


@pytest.mark.parametrize("host", ["origin", "e1"])
@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/acme/tiny",
        "/acme/tiny?x=1",
        "/acme/tiny/tree/main",
        "/datasets/acme/rows",
        "/datasets/acme/rows/tree/main",
    ],
)
def test_every_page_has_its_headers(urls: dict[str, str], host: str, path: str) -> None:
    """HTML in UTF-8 that may load nothing but our stylesheet and pictures of our own."""
    answer = curl(f"{urls[host]}{path}")

    assert answer.status == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'; style-src 'self'; img-src 'self'")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert b"MIRROR-" not in answer.body


def test_the_index_has_every_repository(urls: dict[str, str]) -> None:
    """On the origin and on the edge alike."""
    origin, edge = (curl(f"{url}/").body.replace(url.encode(), b"URL") for url in urls.values())

    assert origin == edge
    assert b'href="/acme/tiny"' in origin
    assert b'href="/datasets/acme/rows"' in origin


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/acme/none", 404),
        ("/acme/tiny/tree/none", 404),
        ("/acme/tiny/tree/..", 404),
        ("/models/acme", 301),
        ("/.mirror/status.json", 200),
        ("/favicon.ico", 404),
        ("/latest/models", 404),
    ],
)
def test_other_urls_are_what_they_were(urls: dict[str, str], path: str, status: int) -> None:
    """A page is where a repository is, and nowhere else."""
    assert curl(f"{urls['origin']}{path}").status in (status, 400 if ".." in path else status)


@pytest.mark.parametrize("host", ["origin", "e1"])
def test_the_set_up_that_the_index_names(urls: dict[str, str], host: str, tmp_path: Path) -> None:
    """After it, unmodified clients that mean huggingface.co come here, git-lfs too; after undo they do not."""
    html = unescape(curl(f"{urls[host]}/").body.decode())
    (command,) = re.findall(r"curl -fsS \S+/setup\.sh \| sh", html)
    env = hub_environment(urls[host], tmp_path / "cache") | {"HOME": str(tmp_path / "home"), "GIT_TERMINAL_PROMPT": "0"}
    env = {name: value for name, value in env.items() if not name.startswith("XDG_") and name != "HF_ENDPOINT"}
    env["PATH"] = f"{hub_program('2.4.0', 'hf').parent}:{Path(sys.executable).parent}:{env['PATH']}"
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / ".profile").write_text("# mine")

    def shell(text: str) -> str:
        words = ["sh", "-lc", f"PATH='{env['PATH']}'; {text}"]
        done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=90)
        assert done.returncode == 0, (text, done.stdout, done.stderr)
        return done.stdout

    shell(command)
    shell("git lfs install --skip-repo && git clone -q https://huggingface.co/acme/tiny")
    shell("hf download acme/tiny config.json")
    shell("git -C tiny lfs fetch --all")

    assert read_folder(tmp_path / "tiny").items() >= MODEL.items()
    assert list(tmp_path.glob("cache/hub/models--acme--tiny/snapshots/*/config.json"))
    shell(f"{command} -s -- undo")
    assert (tmp_path / "home" / ".profile").read_text() == "# mine"
    assert "insteadof" not in shell("git config --global --list").lower()


def test_a_host_that_is_none_is_not_put_into_the_script(urls: dict[str, str]) -> None:
    """Whoever asks with a Host header that is no host gets a script that cannot run it."""
    body = curl(f"{urls['origin']}/.mirror/setup.sh", "-H", "Host: a'$(touch x)'").body

    assert b"touch" not in body
