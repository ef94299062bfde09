"""Which code makes a stage's output: a hash that changes when, and only when, that code does.

The hash is taken over the syntax trees of the stage's own modules and of all modules of this package that
they import, in turn. Comments, docstrings and layout are no part of it, nor is code that the stage does
not reach: an edit to one objective touches the runs of that objective alone.
"""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from apao.study.run_params import TrainedParams
from apao.study.studies import Study

PACKAGE = "apao"
SOURCE = Path(__file__).parents[1]

NEUTRAL = frozenset(
    f"{PACKAGE}.{name}"
    for name in (
        "data.fetch",
        "engines.code_versions",
        "errors",
        "files",
        "parameters",
        "progress",
        "stages.download",
        "stages.record",
        "study.params",
        "study.paths",
        "study.references",
        "study.run_params",
        "study.runs",
        "study.studies",
        "study.sweeps",
        "study.yaml_lines",
    )
)
"""Modules that hand values, files and messages over and compute no result. What they read from params.yaml
decides about a stage as its parameters do, what they fetch by its hash."""


def stage_version(stage: str, *models: object) -> str:
    """The version of a stage's code, ``models`` being the parameter models whose classes it works with.

    A stage begins in the module of its name. The download has no version: its files are known by their hashes.
    An objective, a backbone or a source is found by its name in params.yaml, not by an import; its
    class's module is therefore named here.
    """
    return code_version(f"{PACKAGE}.stages.{stage}", *(type(model).__module__ for model in models))


def run_version(stage: str, run: TrainedParams) -> str:
    """The version of the code that makes a stage's part of a run: only its training computes with the objective."""
    return stage_version(stage, run.backbone, *([run.objective] if stage == "train" else []))


def report_version(study: Study) -> str:
    """The version of the code that makes a table or figure: that of its kind, and what that imports."""
    return stage_version("report", study)


@cache
def code_version(*modules: str) -> str:
    """Twelve hex digits of the SHA-256 over the modules' code and all of this package that they import."""
    reached: set[str] = set()
    waiting = set(modules)
    while waiting:
        module = waiting.pop()
        reached.add(module)
        waiting |= _read(module)[1] - reached
    digest = hashlib.sha256()
    for module in sorted(reached):
        digest.update(f"{module}\n{_read(module)[0]}\n".encode())
    return digest.hexdigest()[:12]


@cache
def _read(module: str) -> tuple[str, frozenset[str]]:
    """A module's code in one canonical text, and what it imports of this package."""
    path = _path(module)
    assert path is not None, module
    tree = ast.parse(path.read_bytes())
    return _canonical(tree), frozenset(_imports(tree)) - NEUTRAL


def _path(module: str) -> Path | None:
    """The file of a module of this package; None for a name that is none, and for packages."""
    path = SOURCE.joinpath(*module.split(".")[1:]).with_suffix(".py")
    return path if path.exists() else None


def _imports(tree: ast.Module) -> set[str]:
    """Modules of this package that are imported anywhere in ``tree``, but for those that only types need."""
    found = set()
    nodes: list[ast.AST] = [tree]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            nodes.extend(node.orelse)
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        nodes.extend(ast.iter_child_nodes(node))
    return {name for name in found if name.startswith(f"{PACKAGE}.") and _path(name) is not None}


def _canonical(value: Any) -> str:
    """A syntax tree as text without positions, docstrings and empty fields, the same in every version of Python."""
    if isinstance(value, ast.AST):
        fields = ((name, _canonical(field)) for name, field in ast.iter_fields(value))
        return f"{type(value).__name__}({','.join(f'{name}={text}' for name, text in fields if text)})"
    if isinstance(value, list):
        return ";".join(text for text in map(_canonical, value) if text and not _is_docstring(text))
    return "" if value is None else repr(value)


def _is_docstring(text: str) -> bool:
    """Whether a statement is a string alone, which is a docstring wherever it stands."""
    return text.startswith(("Expr(value=Constant(value='", 'Expr(value=Constant(value="'))
