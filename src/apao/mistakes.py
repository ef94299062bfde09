"""Where in a YAML file a mistake is: from what the parser or pydantic says to line, key and one sentence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from apao.errors import AtKey, UserError, nearest

Key = tuple[str | int, ...]
"""Names and list positions that lead to a value."""
TAGS = ("source", "type", "method")
"""Keys that say of which kind an entry is."""
MAX_BYTES = 1 << 18
MAX_VALUES = 100_000
"""Of a file with all its aliases written out."""
MAX_CHARACTERS = 1_000
"""Of a key or value; a number of more cannot even be printed."""


def read_yaml(path: Path) -> tuple[Any, yaml.Node | None, str]:
    """The values of a file, its parse tree, which knows the lines, and its text.

    Raises:
        UserError: when it cannot be read, is not YAML, gives a key twice, or is far too large.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise UserError(f"{path}: longer than {MAX_BYTES} bytes, expected a few thousand")
        text = content.decode("utf-8")
    except FileNotFoundError as error:
        raise UserError(f"{path}: not found; run from the project's root, or name the file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        _plain_keys(root, path)
        _check_size(root, path)
        data = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{path}{line}: not valid YAML: {error.problem}") from error
    except (yaml.YAMLError, ValueError, LookupError, AttributeError) as error:
        # 2024-13-01 has the form of a date; a tag may be of another type than its value (!!int x).
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise UserError(f"{path}: nested too deeply") from error
    return data, root, text


def first_mistake(error: ValidationError, data: object = None) -> tuple[str, Key]:
    """Message and key of the first error; ``data`` is what was validated, where it holds unions."""
    first = error.errors()[0]
    key = _key_in_file(first["loc"], data)
    context = first.get("ctx", {})
    if isinstance(context.get("error"), AtKey):
        key += context["error"].key
    match first["type"]:
        case "value_error":
            return str(context["error"]), key
        case "union_tag_invalid":
            known = [name.strip("'") for name in context["expected_tags"].split(", ")]
            return f"unknown {context['tag']!r}; {nearest(context['tag'], known)}", (*key, _tag(context))
        case "union_tag_not_found":
            return "required, but not given", (*key, _tag(context))
        case "missing":
            return "required, but not given", key
        case "model_type" | "model_attributes_type" | "dict_type" | "mapping_type":
            wanted = "expected keys and values"
        case "tuple_type":
            wanted = "expected a list"
        case _:
            wanted = first["msg"]
    return f"{wanted}, found {first['input']!r}", key


def _tag(context: Mapping[str, str]) -> str:
    return context["discriminator"].strip("'")


def _key_in_file(loc: Key, data: object) -> Key:
    """``loc`` without what pydantic adds to it: the tag behind each union, and marks in square brackets."""
    key: list[str | int] = []
    for part in loc:
        if isinstance(data, dict) and part not in data and part in [data.get(tag) for tag in TAGS]:
            continue
        if not (isinstance(part, str) and part.startswith("[") and part.endswith("]")):
            key.append(part)
            data = data.get(part) if isinstance(data, dict) else None
    return tuple(key)


def spelled(message: str, key: Key) -> str:
    """``a.b.c: message``."""
    return f"{'.'.join(map(str, key))}: {message}" if key else message


def line_of(key: Key, node: yaml.Node | None) -> int:
    """Line of the deepest part of ``key`` that the file has."""
    assert node is not None
    line = node.start_mark.line + 1
    for part in key:
        if isinstance(node, yaml.MappingNode):
            found = [(name, value) for name, value in node.value if name.value == str(part)]
            if not found:
                break
            name, node = found[0]
            line = name.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
    return line


def _plain_keys(node: yaml.Node | None, path: Path) -> None:
    """Every key is a word, given once: YAML lets a later key silently replace an earlier one."""
    for mapping in _mappings(node):
        seen: dict[str, int] = {}
        for key, _ in mapping.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise UserError(f"{path}:{line}: a key must be a single word or number")
            if key.value in seen:
                raise UserError(f"{path}:{line}: key {key.value!r} was given before, on line {seen[key.value]}")
            seen[key.value] = line


def _check_size(root: yaml.Node | None, path: Path) -> None:
    """Aliases make a few lines stand for more than any memory holds; what reads the values meets each anew."""
    sizes: dict[int, int] = {}

    def size(node: yaml.Node) -> int:
        line = node.start_mark.line + 1
        if id(node) not in sizes:
            sizes[id(node)] = 0  # until it is known
            parts = node.value if isinstance(node, yaml.SequenceNode) else []
            if isinstance(node, yaml.MappingNode):
                parts = [part for pair in node.value for part in pair]
            elif isinstance(node, yaml.ScalarNode) and len(node.value) > MAX_CHARACTERS:
                raise UserError(f"{path}:{line}: a value of more than {MAX_CHARACTERS} characters")
            sizes[id(node)] = 1 + sum(map(size, parts))
            if sizes[id(node)] > MAX_VALUES:
                raise UserError(f"{path}:{line}: more than {MAX_VALUES} values, its aliases written out")
        if not sizes[id(node)]:
            raise UserError(f"{path}:{line}: holds an alias of itself")
        return sizes[id(node)]

    if root is not None:
        size(root)


def _mappings(root: yaml.Node | None) -> Iterator[yaml.MappingNode]:
    """Every mapping of the file once, although aliases may lead to it again and again."""
    seen: set[int] = set()
    left = [root] if root is not None else []
    while left:
        node = left.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            yield node
            left += [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            left += node.value
