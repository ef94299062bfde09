"""Which module may import which, and what is imported before it is needed."""

import ast
import os
from pathlib import Path

import pytest
from helpers.processes import run
from helpers.project import ROOT

import apao

ABSENT = (
    "snakemake",
    "dvc",
    "tensorboard",
    "mlflow",
    "wandb",
    "matplotlib",
    "sentence_transformers",
    "transformers",
    "sklearn",
    "optuna",
    "peft",
)
NEEDED = ("apao.stages.train", "apao.decoding.beam", "apao.decoding.exact", "apao.stages.evaluate", "apao.cli")


def printed(code: str) -> str:
    """What a program prints in a process of its own."""
    done = run(ROOT, "python", "-c", code)
    assert done.status == 0, done.output
    return done.output


def test_training_and_decoding_import_on_a_bare_machine():
    code = "import sys, importlib\n" + f"for name in {ABSENT}: sys.modules[name] = None\n"
    printed(code + f"for name in {NEEDED}: importlib.import_module(name)\n")


LATE = ("torch", "pandas", "numpy", "matplotlib", "scipy", "sklearn", "transformers", "peft")


def test_help_imports_nothing_heavy():
    found = printed("import sys; from apao.cli import app; app(['--help'], standalone_mode=False); print(*sys.modules)")
    assert "recommenders" in found
    assert not set(LATE) & set(found.splitlines()[-1].split())


@pytest.mark.parametrize("command", [("apao",), ("python", "-m", "apao")])
@pytest.mark.parametrize(
    ("given", "found"),
    [({}, "0"), ({"GOMP_SPINCOUNT": "100"}, "100"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)],
)
def test_the_spin_of_threads_is_bounded_before_torch_is_loaded(command, given, found, tmp_path, monkeypatch):
    """OpenMP reads the variable once, when torch loads it. A torch of ours says what it would read."""
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "torch.py").write_text("import os, sys; sys.exit(f'spin {os.environ.get(\"GOMP_SPINCOUNT\")}')")
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    done = run(ROOT, *command, "params", "check", PYTHONPATH=path, **given)
    assert done.output.splitlines()[-1] == f"spin {found}"


def test_reading_params_yaml_imports_no_drawing_library():
    modules = printed("import sys, apao.study.params; print(*sys.modules)").split()
    assert "apao.study.params" in modules and not {"matplotlib", "scipy.stats"} & set(modules)


@pytest.mark.parametrize("name", ["tiger", "llama", "sasrec", "gru4rec"])
def test_checking_a_models_sizes_does_not_load_the_compiler(name):
    code = (
        "import sys, torch; from helpers.models import run_params; from apao.backbones.exchange import check_sizes\n"
        f"params = run_params('{name}', {{'type': 'ce'}}).backbone\n"
        "check_sizes(params, 30, params.build(30).to_transformers())\n"
        "print('torch._dynamo' in sys.modules)\n"
    )
    done = run(ROOT, "python", "-c", code, PYTHONPATH=os.pathsep.join([str(ROOT / "tests"), str(ROOT / "src")]))
    assert done.output.split() == ["False"]


SCIENCE = ("data", "codes", "backbones", "objectives", "training", "decoding", "evaluation")
ABOVE = tuple(f"apao.{room}" for room in ("study", "report", "stages", "engines", "cli"))


@pytest.mark.parametrize("room", SCIENCE)
def test_science_knows_no_study(room):
    """Science knows tensors, tables and given paths: no params.yaml, no file names of ours, no workflow."""
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
