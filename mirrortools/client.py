"""The script that lets a user or a machine fetch from a mirror, and takes that back: one for curl and for `mirrortool`.

POSIX shell, because those who need it have nothing of ours. Only the standard library is used here, because edges serve
it too: `.mirror/setup.sh`, in which nginx puts its own address in the place of MIRROR-URL.
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Final

from mirrortools.errors import ConfigError, StoreError

SCRIPT_PATH: Final = ".mirror/setup.sh"
_SHELL_FILES: Final = (".profile", ".bash_profile", ".bash_login", ".bashrc", ".zshenv")
_WRITTEN: Final = re.compile(r"^# >>> mirrortools.*\nexport HF_ENDPOINT='([^'\n]+)'$", re.MULTILINE)
# What may stand between the quotes of the script.
_URL: Final = re.compile(r"https?://[A-Za-z0-9.:\[\]_-]+(?:/[A-Za-z0-9._~/-]*)?\Z")


def script_for(url: str) -> str:
    """The script for the mirror at `url`. Raises ConfigError when that is no plain URL."""
    if not _URL.match(url):
        raise ConfigError(f"{url!r}: expected the URL of a mirror, such as https://mirror.example")
    return SCRIPT.replace("MIRROR-URL", url.rstrip("/"))


def written_mirror(home: Path, etc: Path = Path("/etc")) -> str | None:
    """The mirror that the script wrote down for a user, or else for all users of this machine."""
    for file in (*(home / name for name in _SHELL_FILES), etc / "profile.d/mirrortools.sh"):
        with suppress(OSError):
            if written := _WRITTEN.search(file.read_text(errors="replace")):
                return written[1]
    return None


def run(script: str, *words: str) -> str:
    """Run the script with these arguments; what it said. Raises StoreError."""
    import subprocess

    done = subprocess.run(["sh", "-s", "--", *words], input=script, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StoreError(done.stderr.strip() or f"the script ended with status {done.returncode}")
    return done.stdout


SCRIPT: Final = r"""#!/bin/sh
# Let this user fetch models from the mirror at MIRROR-URL instead of huggingface.co, and take that back.
#
#   curl -fsS MIRROR-URL/.mirror/setup.sh | sh                     # set it up
#   curl -fsS MIRROR-URL/.mirror/setup.sh | sh -s -- undo          # take it back, byte for byte
#   curl -fsS MIRROR-URL/.mirror/setup.sh | sh -s -- print         # say what would be written, and where
#
# --system in front of the word does it for all users of this machine, as root. What it writes are marked lines:
#   HF_ENDPOINT for the Hub's clients, into the files that shells read when they start;
#   url.insteadOf for git and git-lfs, which take what a URL of huggingface.co names from the mirror. lfs.url is not
#   needed: git-lfs follows the same rule.
set -eu

mirror='MIRROR-URL'
hub='https://huggingface.co'
mark='mirrortools, see MIRROR-URL/.mirror/setup.sh'
begin='# >>> mirrortools'
end='# <<< mirrortools'

fail() {
    printf 'setup.sh: %s\n' "$*" >&2
    exit 1
}

# The files that shells read, those that are there, or the one that is read in any case.
shell_files() {
    if [ "$for" = system ]; then
        echo "$etc/profile.d/mirrortools.sh"
        return
    fi
    found=
    for name in .profile .bash_profile .bash_login .bashrc .zshenv; do
        if [ -e "$HOME/$name" ]; then
            found=1
            echo "$HOME/$name"
        fi
    done
    [ -n "$found" ] || echo "$HOME/.profile"
}

git_file() {
    if [ "$for" = system ]; then
        echo "$etc/gitconfig"
    elif [ ! -e "$HOME/.gitconfig" ] && [ -e "${XDG_CONFIG_HOME:-$HOME/.config}/git/config" ]; then
        echo "${XDG_CONFIG_HOME:-$HOME/.config}/git/config"
    else
        echo "$HOME/.gitconfig"
    fi
}

shell_lines() { printf "export HF_ENDPOINT='%s'\n" "$mirror"; }

git_lines() { printf '[url "%s/"]\n\tinsteadOf = %s/\n' "$mirror" "$hub"; }

ends_with_newline() { [ ! -s "$1" ] || [ -z "$(tail -c 1 "$1")" ]; }

without_last_byte() { head -c "$(($(wc -c <"$1") - 1))" "$1"; }

# What is in place stays the same file: it may be a symlink, and has an owner and a mode.
put() { cat "$1" >"$2"; }

# The first line of the block says what has to be done to undo it: the file was not there, or its last line had no end.
add() {
    file=$1 lines=$2 how=
    if [ ! -e "$file" ]; then
        how=' new'
        mkdir -p "$(dirname "$file")"
        : >"$file"
    fi
    cp "$file" "$work/new"
    if ! ends_with_newline "$work/new"; then
        how=' joined'
        echo >>"$work/new"
    fi
    {
        printf '%s%s (%s)\n' "$begin" "$how" "$mark"
        "$lines"
        printf '%s\n' "$end"
    } >>"$work/new"
    put "$work/new" "$file"
    echo "wrote $file"
}

remove() {
    file=$1
    { [ -e "$file" ] && grep -q "^$begin" "$file"; } || return 0
    first=$(grep "^$begin" "$file" | head -n 1)
    grep -q "^$end" "$file" || fail "$file: the line \"$end\" is gone; remove what begins with \"$first\" by hand"
    awk -v begin="$begin" -v end="$end" '
        index($0, begin) == 1 { inside = 1 }
        !inside { print }
        index($0, end) == 1 { inside = 0 }' "$file" >"$work/rest"
    if ! ends_with_newline "$file"; then
        without_last_byte "$work/rest" >"$work/exact" && mv "$work/exact" "$work/rest"
    fi
    case $first in
    "$begin joined"*)
        if [ -s "$work/rest" ] && [ "$(tail -n 1 "$file")" = "$end" ]; then
            without_last_byte "$work/rest" >"$work/exact" && mv "$work/exact" "$work/rest"
        fi
        ;;
    esac
    case $first in
    "$begin new"*) if [ ! -s "$work/rest" ]; then rm "$file" && echo "removed $file" && return; fi ;;
    esac
    put "$work/rest" "$file"
    echo "restored $file"
}

for=user etc=${MIRRORTOOLS_ETC:-/etc}
if [ "${1-}" = --system ]; then
    for=system
    shift
fi
what=${1:-setup}
[ "$for" = system ] || [ -n "${HOME-}" ] || fail 'HOME is not set'
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

case $what in
setup | undo)
    shell_files >"$work/files"
    while read -r file; do
        remove "$file" >"$work/said"
        if [ "$what" = setup ]; then add "$file" shell_lines; else cat "$work/said"; fi
    done <"$work/files"
    file=$(git_file)
    remove "$file" >"$work/said"
    if [ "$what" = setup ]; then
        add "$file" git_lines
        echo "New shells use $mirror; in this one: $(shell_lines)"
    else
        cat "$work/said"
        echo 'New shells use huggingface.co again; in this one: unset HF_ENDPOINT'
    fi
    ;;
print)
    shell_files | while read -r file; do
        printf '# %s\n' "$file"
        shell_lines
    done
    printf '# %s\n' "$(git_file)"
    git_lines
    ;;
*)
    fail "$what: say setup, undo or print"
    ;;
esac
"""
