"""What a bare GPU machine needs: training and decoding import without the workflow's packages."""

from helpers.processes import run
from helpers.project import ROOT

ABSENT = ("snakemake", "dvc", "tensorboard", "matplotlib", "sentence_transformers", "transformers", "sklearn")
NEEDED = ("apao.stages.train", "apao.decoding.beam", "apao.decoding.fullsort", "apao.stages.evaluate", "apao.cli")


def test_training_and_decoding_import_on_a_bare_machine():
    code = "import sys, importlib\n" + f"for name in {ABSENT}: sys.modules[name] = None\n"
    code += f"for name in {NEEDED}: importlib.import_module(name)\n"
    done = run(ROOT, "python", "-c", code)
    assert done.status == 0, done.output
