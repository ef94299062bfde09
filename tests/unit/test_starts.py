"""Runs that start from another run's weights: which run that is, and that its parameters belong to theirs."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.models import random_codes, run_params
from helpers.project import small_params, write_dataset, write_params
from safetensors.torch import load_file

from apao.errors import UserError
from apao.stages.train import train
from apao.study.params import Params, Start, load
from apao.study.paths import DatasetPaths
from apao.study.runs import Run

PARAMS = {
    "objectives": {
        "s-dpo": {"type": "s-dpo", "start": "ce"},
        "ce->point": {"type": "apao-pointwise", "ce": False, "start": "ce+lr=0.002"},
        "third": {"type": "dpo", "start": "ce->point"},
    },
    "studies": {
        "small": {
            "table3": {
                "kind": "training-stages",
                "datasets": ["toy"],
                "backbones": ["tiger"],
                "one_stage": [],
                "two_stage": ["third", "s-dpo", "s-dpo+beta=2"],
                "seeds": [1],
            }
        }
    },
}


@pytest.fixture
def read(tmp_path):
    """Params with some objectives replaced."""

    def with_objectives(**changes: dict) -> Params:
        params = small_params(PARAMS)
        params["objectives"] |= changes
        write_params(tmp_path, params)
        return load(tmp_path / "params.yaml")

    return with_objectives


def start_of(params, text):
    return params.resolve(Run.parse(text)).start.run


def test_the_start_has_the_same_data_sizes_and_seed(read):
    params = read()
    assert start_of(params, "toy/tiger/s-dpo/seed1") == "toy/tiger/ce/seed1"
    assert start_of(params, "toy/tiger/s-dpo+d_model=32/seed2") == "toy/tiger/ce+d_model=32/seed2"
    # Overrides of the later run's training do not change the first run.
    assert start_of(params, "toy/tiger/s-dpo+epochs=9+lr=0.1/seed1") == "toy/tiger/ce/seed1"
    assert start_of(params, "toy/tiger/ce->point/seed1") == "toy/tiger/ce+lr=0.002/seed1"
    assert start_of(params, "toy/tiger/s-dpo+start=ce->point/seed1") == "toy/tiger/ce->point/seed1"
    assert params.resolve(Run.parse("toy/tiger/ce/seed1")).start is None


def test_the_start_is_spelled_without_overrides_that_say_what_holds_anyway(read):
    params = read(**{"s-dpo": {"type": "s-dpo", "start": "ce+lr=0.01"}})
    assert start_of(params, "toy/tiger/s-dpo/seed1") == "toy/tiger/ce/seed1"


def test_parameters_of_the_start_are_part_of_the_later_run(read):
    run = Run.parse("toy/tiger/third/seed1")
    faster = {"type": "apao-pointwise", "ce": False, "start": "ce+lr=0.003"}
    before, after = (read(**change).resolve(run).for_training() for change in ({}, {"ce->point": faster}))
    assert before != after
    assert before["start"]["training"]["start"]["training"]["training"]["lr"] == 0.002
    assert before["start"]["training"]["start"]["training"]["objective"] == {"type": "ce", "eos": True, "start": None}
    # Beam sizes and parameters of tables do not change a training.
    assert "decoding" not in before["start"]["training"]


def test_all_runs_lists_each_start_once_and_first(read):
    assert [str(run) for run in read().all_runs()] == [
        "toy/tiger/ce+lr=0.002/seed1",
        "toy/tiger/ce->point/seed1",
        "toy/tiger/third/seed1",
        "toy/tiger/ce/seed1",
        "toy/tiger/s-dpo/seed1",
        "toy/tiger/s-dpo+beta=2/seed1",
    ]


def test_training_reads_the_start(read):
    files = read().resolve(Run.parse("toy/tiger/s-dpo/seed1")).training_inputs()
    assert Path("results/toy/tiger/ce/seed1/model.safetensors") in files
    weighted = read(weighted={"type": "front-greater"}).resolve(Run.parse("toy/tiger/weighted/seed1"))
    assert DatasetPaths("toy").embeddings in weighted.training_inputs() and weighted.start is None


@pytest.mark.parametrize(
    ("name", "start", "message"),
    [
        ("s-dpo", "cee", r"params.yaml:\d+: objectives.s-dpo.start: 'cee' is not defined"),
        ("third", "third", "toy/tiger/third/seed1: starts from itself"),
        ("ce", "third", "starts from itself"),
        ("ce->point", "ce+d_model=32", "toy/tiger/ce->point/seed1: starts from toy/tiger/ce.d_model=32/seed1"),
        ("third", None, "objectives.third.start"),
        ("third", "../ce", "objectives.third.start"),
    ],
)
def test_starts_that_cannot_be(read, name, start, message):
    objective = {"ce": {"type": "ce"}, **PARAMS["objectives"]}[name]
    with pytest.raises(UserError, match=message):
        read(**{name: {**objective, "start": start}})


def test_a_start_may_itself_start_from_another(read):
    params = read(**{"s-dpo": {"type": "s-dpo", "start": "third"}})
    assert start_of(params, "toy/tiger/s-dpo/seed1") == "toy/tiger/third/seed1"


def test_embeddings_need_an_embedder(tmp_path):
    table = {
        **{"kind": "comparison", "datasets": ["toy"], "backbones": ["tiger"]},
        **{"objectives": ["weighted"], "seeds": [1]},
    }
    params = small_params(
        {"objectives": {"weighted": {"type": "front-greater"}}, "studies": {"small": {"table1": table}}}
    )
    params["datasets"]["toy"] = {"source": "release", "name": "Office", "recipe": "tiny", "codes": "toy"}
    params["codes"]["toy"] = {"method": "published"}
    write_params(tmp_path, params)
    with pytest.raises(UserError, match=r"needs the items' embeddings; name an embedder in codes.toy"):
        load(tmp_path / "params.yaml")


CPU = torch.device("cpu")


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """A small dataset in an empty folder, and a trained cross-entropy run."""
    monkeypatch.chdir(tmp_path)
    write_dataset(random_codes(20, 3, 4), [5, 9, 4, 12, 3, 7])
    run = Run.parse("toy/tiger/ce/seed7")
    train(run, run_params("tiger", epochs=2), CPU)
    return run


def later(run, **training):
    params = run_params("tiger", {"type": "s-dpo", "negatives": 3}, **training)
    return params.model_copy(update={"start": Start(run=str(run), training={})})


def test_a_run_begins_with_the_weights_of_its_start(dataset):
    """With a learning rate of 0 both models are equal and every reward is 0, so the loss of S-DPO is log(1 + N)."""
    run = Run.parse("toy/tiger/s-dpo/seed7")
    train(run, later(dataset, epochs=1, lr=1e-30, sizes={"dropout": 0.0}), CPU)
    first, second = load_file(dataset.model), load_file(run.model)
    assert all(torch.equal(first[name], second[name]) for name in first)
    history = pd.read_csv(run.folder / "history.csv")
    assert history["valid_loss"].item() == pytest.approx(np.log(1 + 3), abs=1e-6)
    assert history["valid_reward"].item() == pytest.approx(0, abs=1e-6)


def test_the_reference_stays_as_it_was(dataset):
    """The reference stays the start throughout the training: rewards are relative to it."""
    run = Run.parse("toy/tiger/s-dpo/seed7")
    before = load_file(dataset.model)
    train(run, later(dataset, epochs=4, lr=1e-2), CPU)
    assert all(torch.equal(value, before[name]) for name, value in load_file(dataset.model).items())
    history = pd.read_csv(run.folder / "history.csv")
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[0]


def test_a_start_that_is_not_there_or_of_other_sizes_is_one_line(dataset):
    run = Run.parse("toy/tiger/s-dpo/seed7")
    with pytest.raises(UserError, match=r"toy/tiger/ce/seed8/model.safetensors"):
        train(run, later(Run.parse("toy/tiger/ce/seed8")), CPU)
    with pytest.raises(UserError, match=r"toy/tiger/s-dpo/seed7: cannot start from ce: weight .* has shape"):
        train(run, later(dataset, sizes={"d_model": 8}), CPU)
