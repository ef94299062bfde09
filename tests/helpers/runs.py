"""Runs of an untrained model with random weights, as training leaves them."""

from __future__ import annotations

import pandas as pd
from safetensors.torch import save_file

from apao.codes.itemcodes import ItemCodes
from apao.files import sha256_of, write_json
from apao.study.run_params import RunParams
from apao.study.runs import Run
from helpers.models import backbone_of, random_codes, run_params
from helpers.project import TOY, write_dataset

ITEMS = 150
LENGTHS = [3, 9, 4, 40, *range(5, 20), 1000]
"""Of the users' histories; the last one has every item."""


def wide_codes(levels: int = 3) -> ItemCodes:
    """More codes than the usual beam, some of them shared."""
    codes = random_codes(ITEMS, levels, 6, seed=1)
    assert 20 < len(codes.distinct) < ITEMS
    return codes


def write_wide_dataset(codes: ItemCodes) -> None:
    """The files of ``toy`` below the working directory, with titles that a page or a shell may take for something."""
    write_dataset(codes, LENGTHS, seed=2)
    numbers = range(ITEMS)
    names = {"raw_id": [f"i{i}" for i in numbers], "title": [f"Film {i} <b>" for i in numbers], "text": "Some text"}
    pd.DataFrame({"item": numbers, **names}).to_parquet(TOY.items)


def write_run(
    name: str, codes: ItemCodes, objective: dict[str, object], sizes: dict[str, object], seed: int
) -> tuple[Run, RunParams]:
    """A run of the backbone ``name`` on ``toy``, decoded with 20 beams."""
    run = Run.parse(f"toy/{name}/{objective['type']}/seed{seed}")
    params = run_params(name, objective, decoding={"beam": 20}, sizes=sizes).model_copy(update={"seed": seed})
    run.folder.mkdir(parents=True)
    backbone = backbone_of(name, len(codes.vocabulary), seed=5, **sizes)
    save_file(backbone.to_transformers(), run.folder / "model.safetensors")
    write_json(run.folder / "config.json", backbone.transformers_config())
    inputs = {str(path): sha256_of(path) for path in params.training_inputs()}
    write_json(run.record, {"run": str(run), **params.for_training(), "inputs": inputs})
    return run, params
