"""Which module may import which: a bare GPU machine lacks the workflow's packages, science knows no study."""

import ast
from pathlib import Path

import pytest
from helpers.processes import run
from helpers.project import ROOT

import apao

ABSENT = ("snakemake", "dvc", "tensorboard", "matplotlib", "sentence_transformers", "transformers", "sklearn")
NEEDED = ("apao.stages.train", "apao.decoding.beam", "apao.decoding.fullsort", "apao.stages.evaluate", "apao.cli")


def test_training_and_decoding_import_on_a_bare_machine():
    code = "import sys, importlib\n" + f"for name in {ABSENT}: sys.modules[name] = None\n"
    code += f"for name in {NEEDED}: importlib.import_module(name)\n"
    done = run(ROOT, "python", "-c", code)
    assert done.status == 0, done.output


SCIENCE = ("data", "codes", "backbones", "objectives", "training", "decoding", "evaluation")
ABOVE = tuple(f"apao.{room}" for room in ("study", "report", "stages", "engines", "cli"))


@pytest.mark.parametrize("room", SCIENCE)
def test_science_knows_no_study(room):
    """Tensors, tables and the paths that it is given: no params.yaml, no file name of ours, no workflow."""
    files = list((Path(apao.__file__).parent / room).rglob("*.py"))
    assert files
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Import(names=aliases):
                    modules = [alias.name for alias in aliases]
                case ast.ImportFrom(module=module, names=aliases):
                    modules = [f"{module}.{alias.name}" for alias in aliases]
                case _:
                    continue
            assert not [module for module in modules if f"{module}.".startswith(tuple(f"{top}." for top in ABOVE))], (
                path
            )
