"""The version of a stage's code changes if and only if code that the stage uses changes."""

import shutil
from pathlib import Path

import pytest
from helpers.project import ROOT

from apao.engines import code_versions
from apao.engines.code_versions import NEUTRAL, SOURCE, code_version, report_version, run_version, stage_version
from apao.objectives.apao import Pairwise, Pointwise
from apao.objectives.likelihood import CrossEntropy
from apao.study.params import load
from apao.study.runs import Run

TOOL = """
from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from apao.typed import T


def use(x: T) -> T:
    "Doc."
    from apao.lazy import late

    return late(x)
"""
MODULES = {
    "stage": "from apao.errors import Mistake\nfrom apao.inner import tool\n"
    '\n\ndef run():\n    """Doc."""\n    return tool.use(1)\n',
    "inner/tool": TOOL,
    "lazy": "def late(x):\n    return x + 1\n\n\ndef more(*, a, b=1, **c):\n    return {'b': a, **c}\n",
    "typed": "T = int\n",
    "other": "VALUE = 1\n",
    "errors": "class Mistake(Exception): ...\n",
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in MODULES.items():
        path = tmp_path / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(code_versions, "SOURCE", tmp_path)
    forget()
    yield tmp_path
    forget()


def forget() -> None:
    """Clear the cache of code read so far."""
    code_versions._read.cache_clear()
    code_versions.code_version.cache_clear()


def after(package: Path, module: str, old: str, new: str) -> str:
    path = package / f"{module}.py"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    forget()
    return code_version("apao.stage")


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("stage", "use(1)", "use(2)"),
        ("stage", "use(1)", "use('1')"),
        ("inner/tool", "late(x)", "late(-x)"),
        ("lazy", "x + 1", "x - 1"),
        ("lazy", "late(x)", "late(x, y=0)"),
        ("lazy", "return x + 1", "if x:\n        return x + 1"),
        ("lazy", "*, a, b=1", "*, a=1, b"),
        ("lazy", "{'b': a, **c}", "{**a, 'b': c}"),
    ],
)
def test_code_that_is_reached_counts(package: Path, module: str, old: str, new: str):
    before = code_version("apao.stage")
    assert after(package, module, old, new) != before


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("stage", '"""Doc."""', '"""Another."""'),
        ("stage", '"""Doc."""', "# No docstring.\n"),
        ("stage", "return tool.use(1)", "# Why.\n    return tool.use(\n        1,\n    )"),
        ("inner/tool", '"Doc."', '"""Another, "with quotes"."""'),
        ("typed", "int", "float"),
        ("other", "1", "2"),
        ("errors", "...", "pass"),
    ],
)
def test_words_layout_and_other_code_do_not(package: Path, module: str, old: str, new: str):
    before = code_version("apao.stage")
    assert after(package, module, old, new) == before


def test_a_module_that_is_named_is_part_of_it(package: Path):
    alone, together = code_version("apao.stage"), code_version("apao.stage", "apao.other")
    assert after(package, "other", "1", "2") == alone
    assert code_version("apao.stage", "apao.other") != together


def test_neutral_modules_exist():
    for module in NEUTRAL:
        assert SOURCE.joinpath(*module.split(".")[1:]).with_suffix(".py").exists(), module


SCIENCE = ("data", "codes", "backbones", "objectives", "training", "decoding", "evaluation")


def test_nothing_that_computes_is_neutral():
    assert {name for name in NEUTRAL if name.split(".")[1] in SCIENCE} == {"apao.data.fetch"}


@pytest.mark.parametrize(
    ("stage", "modules"),
    [
        ("preprocess", {"data.kcore", "data.split", "data.texts"}),
        ("codes", {"codes.coding", "codes.collisions"}),
        ("train", {"training.loop", "training.optimizer", "training.batches", "data.histories", "objectives.base"}),
        ("evaluate", {"decoding.beam", "decoding.lists", "evaluation.metrics", "codes.trie", "backbones.softmax"}),
        ("exact", {"decoding.exact", "evaluation.metrics"}),
    ],
)
def test_what_a_stage_computes_with_is_part_of_its_version(package: Path, monkeypatch, stage: str, modules: set[str]):
    """Found by the imports, so a module that is imported in another way would be missed."""
    monkeypatch.setattr(code_versions, "SOURCE", SOURCE)
    forget()
    assert {f"apao.{name}" for name in modules} <= reached(f"apao.stages.{stage}")


def reached(module: str) -> set[str]:
    """Modules that a module imports, directly or not."""
    found, waiting = set[str](), {module}
    while waiting:
        found |= waiting
        waiting = {each for one in waiting for each in code_versions._read(one)[1]} - found
    return found


def test_an_objective_belongs_to_its_own_runs():
    ce, point, pair = (cls.model_construct() for cls in (CrossEntropy, Pointwise, Pairwise))
    assert stage_version("train", ce) != stage_version("train", pair)
    assert stage_version("train", point) == stage_version("train", pair)  # both in one file
    assert stage_version("evaluate", ce) != stage_version("evaluate")


def test_what_decides_the_decoding_belongs_to_the_evaluation():
    """Its module is reached from no stage, because what is read from params.yaml is neutral."""
    params = load(ROOT / "params.yaml")
    run = params.resolve(Run.parse("ml-100k/llama/ce/seed42"))
    decoding = type(run.decoding).__module__
    for stage in ("evaluate", "beams", "exact"):
        assert run_version(stage, run) == stage_version(stage, run.backbone, run.objective, run.decoding)
        # The objective says whether eos is decoded, and which softmax.
        assert run_version(stage, run) != stage_version(stage, run.backbone, run.decoding)
        assert run_version(stage, run) != stage_version(stage, run.backbone, run.objective)
    assert run_version("train", run) == stage_version("train", run.backbone, run.objective)
    timed = params.timed_decoding("ml-100k", "llama")
    assert run_version("decoding_time", timed) != stage_version("decoding_time", timed.backbone)
    assert decoding == "apao.evaluation.params"


def test_the_papers_numbers_belong_to_the_reports(monkeypatch, tmp_path):
    study = load(ROOT / "params.yaml").studies["small"]["table1"]
    before = report_version(study)
    shutil.copytree(SOURCE, tmp_path / "apao", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code_versions, "SOURCE", tmp_path / "apao")
    forget()
    assert report_version(study) == before
    table = tmp_path / "apao/report/paper/table1.csv"
    table.write_text(table.read_text().replace("0.0608", "0.0609", 1))
    assert report_version(study) != before
    forget()
