"""Reading YAML files with line numbers, so that errors can name the line of a key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from apao.errors import UserError
from apao.parameters import Key


def read_yaml(path: Path) -> tuple[Any, yaml.Node | None, str]:
    """The values of a file, its parse tree (which has the line numbers), and its text.

    Raises:
        UserError: when it cannot be read, is not YAML, or gives a key twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UserError(
            f"{path}: not found; run in a project folder (apao init DIR makes one), or name the file"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        _plain_keys(root, path)
        data = None if root is None else loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{path}{line}: not valid YAML: {error.problem}") from error
    except (yaml.YAMLError, ValueError, LookupError, AttributeError) as error:
        # Raised for 2024-13-01, which has the form of a date, or a tag that does not match its value (!!int x).
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise UserError(f"{path}: nested too deeply") from error
    return data, root, text


def line_of(key: Key, node: yaml.Node | None) -> int:
    """Line number of the deepest part of ``key`` that exists in the file."""
    assert node is not None
    line = node.start_mark.line + 1
    for part in key:
        if isinstance(node, yaml.MappingNode):
            found = [(name, value) for name, value in node.value if name.value == str(part)]
            if not found:
                break
            # The last, because an entry taken over by `<<` stands before the one that replaces it.
            name, node = found[-1]
            line = name.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
    return line


def _plain_keys(node: yaml.Node | None, path: Path) -> None:
    """Check that every key is a scalar and unique within its mapping: YAML silently keeps only the last one."""
    for mapping in _mappings(node):
        seen: dict[str, int] = {}
        for key, _ in mapping.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise UserError(f"{path}:{line}: a key must be a single word or number")
            if key.value in seen:
                raise UserError(f"{path}:{line}: key {key.value!r} was given before, on line {seen[key.value]}")
            seen[key.value] = line


def _mappings(root: yaml.Node | None) -> Iterator[yaml.MappingNode]:
    """Yield every mapping of the file once, even if several aliases refer to it."""
    seen: set[int] = set()
    waiting = [root] if root is not None else []
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            yield node
            waiting += [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value
