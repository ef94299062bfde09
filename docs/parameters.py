"""The page of all keys of params.yaml, made from schema.json while the site is built."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

Schema = Mapping[str, Any]
PAGE = "reference/parameters.md"
TAGS = ("source", "method", "type", "kind")
"""Keys whose one value names a class."""
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
CODE = re.compile(r"(``.+?``)")
HEAD = (
    "# Keys of params.yaml\n\n"
    "`params.yaml` is checked against these when it is read: an unknown key, or a value of another kind, is named with "
    "its line. A key without a default has to be given. `apao params schema` prints the same as a JSON schema, with "
    "which editors complete and check the file."
)


def on_files(files: Any, config: Any) -> Any:
    """Add the page to the site's files."""
    from mkdocs.structure.files import File

    schema = json.loads(Path(config["docs_dir"], "..", "schema.json").read_text(encoding="utf-8"))
    files.append(File.generated(config, PAGE, content=page(schema)))
    return files


def page(schema: Schema) -> str:
    """Markdown with a section per key of the file, and one per class that its values may have."""
    parts, told = [HEAD], set[str]()
    for key, value in schema["properties"].items():
        parts += [f"## {key}", _prose(value)]
        parts += (_section(name, schema["$defs"]) for name in _classes(value, schema["$defs"], told))
    return "\n\n".join(filter(None, parts)) + "\n"


def _classes(value: Any, known: Schema, told: set[str]) -> Iterator[str]:
    """Names of the classes that a schema refers to, each once, followed by those that it refers to in turn."""
    if isinstance(value, list):
        for each in value:
            yield from _classes(each, known, told)
    elif isinstance(value, dict):
        name = str(value.get("$ref", "")).rpartition("/")[2]
        if name and name not in told:
            told.add(name)
            yield name
            yield from _classes(known[name], known, told)
        for key, each in value.items():
            if key != "discriminator":
                yield from _classes(each, known, told)


def _section(name: str, known: Schema) -> str:
    """A class: what it is, and its keys."""
    one = known[name]
    rows = [
        f"| `{key}` | {_kind(value, known)} | {_default(value, key in one.get('required', ()))} | {_prose(value)} |"
        for key, value in one["properties"].items()
    ]
    table = "\n".join(["| key | value | default | |", "| --- | --- | --- | --- |", *rows])
    return f"### {_title(name, one)} {{ #{name} }}\n\n{_prose(one)}\n\n{table}"


def _title(name: str, one: Schema) -> str:
    tag = next((f"{key}: {one['properties'][key]['const']}" for key in TAGS if _is_tag(one, key)), None)
    return f"`{tag}`" if tag else name


def _is_tag(one: Schema, key: str) -> bool:
    return "const" in one["properties"].get(key, ())


def _kind(value: Schema, known: Schema) -> str:
    """The values that are allowed, in words."""
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        return f"[{_title(name, known[name])}](#{name})"
    if alternatives := value.get("anyOf") or value.get("oneOf"):
        return " or ".join(dict.fromkeys(_kind(each, known) for each in alternatives))
    if "const" in value or "enum" in value:
        return ", ".join(f"`{_spelled(each)}`" for each in value.get("enum", [value.get("const")]))
    return _plain(value, known)


def _plain(value: Schema, known: Schema) -> str:
    """The values of one JSON type."""
    kind = value.get("type", "any")
    if kind == "array":
        inner = value.get("items") or next(iter(value.get("prefixItems", ())), {})
        return f"list: {_kind(inner, known)}"
    if kind == "object":
        inner = next(iter(value.get("patternProperties", {}).values()), value.get("additionalProperties"))
        return f"names: {_kind(inner, known)}" if isinstance(inner, dict) and inner else "names: values"
    bounds = [f"{sign} {value[bound]:,}" for bound, sign in BOUNDS.items() if bound in value]
    return f"{kind} {' and '.join(bounds)}".strip().replace("<", "&lt;")


def _default(value: Schema, required: bool) -> str:
    return "" if required or "default" not in value or "const" in value else f"`{_spelled(value['default'])}`"


def _spelled(value: object) -> str:
    """A value as YAML has it."""
    return value if isinstance(value, str) else json.dumps(value)


def _prose(value: Schema) -> str:
    """The description in one line of a table."""
    parts = CODE.split(" ".join(value.get("description", "").split()))
    # Markdown has its own meaning for these outside code.
    parts[::2] = [part.replace("<", "&lt;").replace("*", "\\*") for part in parts[::2]]
    return "".join(parts).replace("|", "\\|")
