"""The files of the stage ``train``, which an interruption does not change."""

import json

import pandas as pd
import pytest
import torch
from helpers.models import backbone_of, random_codes, run_params
from helpers.project import TOY, write_dataset
from safetensors.torch import load_file

from apao.backbones.base import BACKBONES
from apao.codes.items import ItemTable
from apao.files import read_json, verified
from apao.stages.train import train
from apao.study.runs import Run
from apao.training.loop import Training

CPU = torch.device("cpu")
RUN = Run.parse("toy/tiger/ce/seed7")
CODES = random_codes(20, 3, 4)


@pytest.fixture
def params(tmp_path, monkeypatch):
    """An empty folder with a small dataset."""
    monkeypatch.chdir(tmp_path)
    write_dataset(CODES, [5, 9, 4, 12, 3, 7])
    return run_params("tiger", epochs=3)


def test_outputs(params):
    train(RUN, params, CPU)
    names = {path.name for path in RUN.folder.iterdir() if path.is_file()}
    results = {"run.json", "model.safetensors", "config.json", "catalogue.parquet", "history.csv"}
    assert names == results | {"train.provenance.json"}
    history = pd.read_csv(RUN.folder / "history.csv")
    assert history["epoch"].tolist() == [1, 2, 3]
    best = history[history["best"]].iloc[-1]
    assert best["valid_loss"] == history["valid_loss"].min()

    record = read_json(RUN.folder / "train.provenance.json")
    assert record["params"] == json.loads(json.dumps(params.for_training()))
    assert set(record["outputs"]) == results
    items = ItemTable.read(RUN.folder / "catalogue.parquet")
    assert items.raw_ids.tolist() == [f"i{item}" for item in range(CODES.items)] and items.titles[3] == "Item 3"
    assert (items.codes.codes == CODES.codes).all()
    interactions = pd.read_parquet(TOY.interactions)
    in_training = interactions[interactions.groupby("user").cumcount(ascending=False) > 1]
    assert items.train_counts.tolist() == [int((in_training["item"] == item).sum()) for item in range(CODES.items)]
    config = read_json(RUN.folder / "config.json")
    rebuilt = BACKBONES["tiger"].from_transformers_config(config).build(config["vocab_size"])
    rebuilt.load_transformers(load_file(verified(RUN.folder / "model.safetensors")))


@pytest.mark.parametrize("changed", ["nothing", "parameters", "codes", "code"])
def test_only_a_checkpoint_of_the_same_training_is_resumed(params, changed, monkeypatch):
    def killed(row):
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(RUN, params, CPU, code="a", on_epoch=killed)
    if changed == "codes":
        random_codes(20, 3, 4, seed=1).write(TOY.codes)
    again = run_params("tiger", epochs=3, lr=1e-3) if changed == "parameters" else params
    epochs, train_epoch = [], Training._train_epoch

    def counted(self, epoch, advance):
        epochs.append(epoch)
        return train_epoch(self, epoch, advance)

    monkeypatch.setattr(Training, "_train_epoch", counted)
    train(RUN, again, CPU, code="b" if changed == "code" else "a")
    assert epochs == ([2] if changed == "nothing" else [0, 1, 2])


def test_a_kill_between_epochs_changes_nothing(params):
    train(RUN, params, CPU)
    model, history = ((RUN.folder / name).read_bytes() for name in ("model.safetensors", "history.csv"))
    for path in RUN.folder.iterdir():
        if path.is_file():
            path.unlink()

    def killed(row):
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(RUN, params, CPU, on_epoch=killed)
    assert [path.name for path in RUN.folder.iterdir() if path.is_file()] == ["checkpoint.safetensors"]
    train(RUN, params, CPU)
    assert (RUN.folder / "model.safetensors").read_bytes() == model
    again = pd.read_csv(RUN.folder / "history.csv").drop(columns="seconds")
    (RUN.folder / "history.csv").write_bytes(history)
    pd.testing.assert_frame_equal(again, pd.read_csv(RUN.folder / "history.csv").drop(columns="seconds"))


def test_the_seed_decides_everything(params):
    def weights(seed):
        run = Run.parse(f"toy/tiger/ce/seed{seed}")
        torch.manual_seed(seed + 100)
        train(run, params.model_copy(update={"seed": seed}), CPU)
        return load_file(run.folder / "model.safetensors")

    one, other = weights(1), weights(2)
    assert one.keys() == other.keys() == backbone_of("tiger", len(CODES.vocabulary)).to_transformers().keys()
    assert any(not torch.equal(one[key], other[key]) for key in one)
    again = weights(1)
    assert all(torch.equal(one[key], again[key]) for key in one)
