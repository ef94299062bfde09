"""Version of the code behind a stage's output: a hash that changes if and only if that code does, save for ``NEUTRAL``.

The hash is computed over the syntax trees of the stage's module and of all modules of this package that it imports,
directly or indirectly. It excludes comments, docstrings, layout and modules that the stage does not import: an edit
to one objective affects only the runs of that objective.
"""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from apao.files import sha256_of
from apao.study.run_params import RunParams, TimedDecoding, TrainedParams
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
        "trackers.base",
    )
)
"""Modules that pass on values, files and messages and compute no results. What they read from params.yaml is tracked
as a stage's parameters, what they download by its hash."""


def stage_version(stage: str, *models: object) -> str:
    """Version of the code of a stage, which starts in the module of its name.

    Objectives, backbones, sources and other registered classes are selected by params.yaml, not imported by name, so
    the modules of their classes are added here. The download has no version: its files are verified by hash.

    Args:
        stage: name of the stage.
        models: parameter models whose classes the stage uses.
    """
    return code_version(f"{PACKAGE}.stages.{stage}", *(type(model).__module__ for model in models))


def run_version(stage: str, run: TrainedParams | RunParams | TimedDecoding) -> str:
    """Version of the code of a run's stage. An objective also decides how its runs are decoded."""
    if isinstance(run, TimedDecoding):
        return stage_version(stage, run.backbone, run.decoding)
    decoding = [run.decoding] if isinstance(run, RunParams) and stage != "train" else []
    return stage_version(stage, run.backbone, run.objective, *decoding)


def report_version(study: Study) -> str:
    """Version of the code that draws a table or figure: of its kind, its imports, and the paper's numbers."""
    printed = "".join(sha256_of(path) for path in sorted((SOURCE / "report" / "paper").glob("*.csv")))
    return f"{stage_version('report', study)}-{hashlib.sha256(printed.encode()).hexdigest()[:6]}"


@cache
def code_version(*modules: str) -> str:
    """First twelve hex digits of the SHA-256 over the code of ``modules`` and of all modules that they import."""
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
    """Canonical text of a module's code, and the modules of this package that it imports."""
    path = _path(module)
    assert path is not None, module
    tree = ast.parse(path.read_bytes())
    return _canonical(tree), frozenset(_imports(tree)) - NEUTRAL


def _path(module: str) -> Path | None:
    """File of a module of this package; None for packages and for names that are not modules."""
    path = SOURCE.joinpath(*module.split(".")[1:]).with_suffix(".py")
    return path if path.exists() else None


def _imports(tree: ast.Module) -> set[str]:
    """Modules of this package that are imported anywhere in ``tree``, except for type checking only."""
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
    """Syntax tree as text without positions, docstrings and empty fields, identical in all versions of Python."""
    if isinstance(value, ast.AST):
        fields = ((name, _canonical(field)) for name, field in ast.iter_fields(value))
        return f"{type(value).__name__}({','.join(f'{name}={text}' for name, text in fields if text)})"
    if isinstance(value, list):
        # None has a place in some lists: a keyword-only argument without a default, ``**mapping`` in a dictionary.
        parts = ("None" if part is None else _canonical(part) for part in value)
        return ";".join(text for text in parts if text and not _is_docstring(text))
    return "" if value is None else repr(value)


def _is_docstring(text: str) -> bool:
    """Whether a statement is only a string, which makes it a docstring, of an attribute too."""
    return text.startswith(("Expr(value=Constant(value='", 'Expr(value=Constant(value="'))
