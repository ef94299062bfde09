"""The published runs are complete, and their files are consistent with one another and with their records."""

import json
from pathlib import Path

import pandas as pd
import pytest

from apao.evaluation.metrics import rank_metrics
from apao.files import sha256_of
from apao.study.run_params import RunRecord
from apao.study.runs import Run

PUBLISHED = Path(__file__).parents[2] / "results" / "published"
RUNS = sorted(path.parent for path in PUBLISHED.rglob("run.json"))


def test_there_are_some():
    assert RUNS


@pytest.mark.parametrize("folder", RUNS, ids=lambda folder: str(folder.relative_to(PUBLISHED)))
def test_a_published_run_is_whole(folder):
    record = RunRecord.model_validate(json.loads((folder / "run.json").read_text()))
    made = json.loads((folder / "provenance.json").read_text())
    assert Run.parse(record.run) == Run.parse(str(folder.relative_to(PUBLISHED)))
    assert (made["train"]["params"], made["train"]["inputs"]) == (record.for_training(), record.inputs)
    assert made["train"]["revision"] and made["train"]["seconds"] > 0 and made["machine"]
    # The evaluated model is the trained one, and the files are those that the stages wrote.
    assert (
        made["evaluate"]["inputs"][f"results/{record.run}/model.safetensors"]
        == made["train"]["outputs"]["model.safetensors"]
    )
    outputs = made["train"]["outputs"] | made["evaluate"]["outputs"]
    for name in ("history.csv", "metrics.json", "ranks.parquet"):
        assert sha256_of(folder / name) == outputs[name], name
    # The metrics are those of the ranks, and the best epoch is that of the lowest validation loss.
    metrics, ranks = json.loads((folder / "metrics.json").read_text()), pd.read_parquet(folder / "ranks.parquet")
    for split in ("valid", "test"):
        found = rank_metrics(ranks[ranks["split"] == split])
        assert found == pytest.approx({name: metrics[split][name] for name in found}, abs=1e-12)
    history = pd.read_csv(folder / "history.csv")
    assert history.loc[history["best"], "epoch"].iloc[-1] == history.loc[history["valid_loss"].idxmin(), "epoch"]
