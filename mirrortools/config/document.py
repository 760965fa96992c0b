"""A YAML file whose values remember the lines they stand on.

Plain scalars stay text, except null: YAML 1.1 would make a date of the tag `2024-01-01`, a number of the tag
`1.0` and of a commit that has only digits, and false of a repository called `no`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mirrortools.access import reason
from mirrortools.errors import ConfigError

Key = str | int


class _Loader(yaml.SafeLoader):
    """SafeLoader without guessed types, which refuses a key that stands twice in one mapping."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012  (PyYAML's own declaration)

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Read a mapping. Raises yaml.composer.ComposerError for a key that stands twice."""
        node = super().compose_mapping_node(anchor)
        seen: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                problem = f"the key {key.value!r} stands here twice, first in line {seen[key.value]}"
                raise yaml.composer.ComposerError(None, None, problem, key.start_mark)
            seen[key.value] = key.start_mark.line + 1
        return node


_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"(?:~|null|Null|NULL|)\Z"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver("tag:yaml.org,2002:merge", re.compile(r"<<\Z"), ["<"])


@dataclass(frozen=True, slots=True)
class Document:
    """One parsed file: its value, and where each part of it stands."""

    path: Path
    value: Any
    root: yaml.Node | None

    def where(self, keys: Sequence[Key]) -> tuple[int, str]:
        """The line of the value at `keys`, and the keys as text (`edges.bj1.url`, `repositories[2].repo`).

        Keys that the file does not have are left out: the answer is the nearest thing that stands there.
        """
        node, line, text = self.root, 1, ""
        for key in keys:
            found = _child(node, key)
            if found is None:
                break
            node, line = found
            text += f"[{key}]" if isinstance(key, int) else f".{_shown(key)}" if text else _shown(key)
        return line, text

    def problem(self, keys: Sequence[Key], message: str) -> str:
        """`file:line: key: message`, in one line whatever stands in the file."""
        line, text = self.where(keys)
        message = "".join(character if character.isprintable() else repr(character)[1:-1] for character in message)
        return f"{self.path}:{line}: {text}: {message}" if text else f"{self.path}:{line}: {message}"


def _shown(key: str) -> str:
    """A key as it may be printed on a terminal."""
    return key if key and key.isprintable() else repr(key)


def _child(node: yaml.Node | None, key: Key) -> tuple[yaml.Node, int] | None:
    if isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            if key_node.value == key:
                return value_node, key_node.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
        return node.value[key], node.value[key].start_mark.line + 1
    return None


def read_document(path: Path) -> Document:
    """Read one YAML file. Raises ConfigError with file and line."""
    try:
        return _parse(path, path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        advice = "`mirrortool init` writes one to start from, --config FILE or MIRRORTOOL_CONFIG names another"
        raise ConfigError(f"{path}: no such file; {advice}") from error
    except OSError as error:
        raise ConfigError(f"{path}: {reason(error)}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from error


def _parse(path: Path, text: str) -> Document:
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        value = loader.construct_document(root) if root is not None else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise ConfigError(f"{path}:{line}: not YAML: {_yaml_problem(error)}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    return Document(path, value, root)


def _yaml_problem(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or error.context or "cannot be read"
    if "'\\t'" in problem:
        return f"{problem} (YAML is indented with spaces, never with tabs)"
    if error.context == "while scanning an alias" or problem.startswith("found undefined alias"):
        return f"{problem} (a value that begins with * needs quotes: '*.json')"
    return f"{problem}, {error.context}" if error.context and error.problem else problem
