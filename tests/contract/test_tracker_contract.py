"""What holds for every registered tracker, offline, with its own library."""

import sys

import pandas as pd
import pytest
import torch
from helpers.models import random_codes, run_params
from helpers.project import write_dataset
from helpers.trackers import READERS

from apao.errors import UserError
from apao.files import read_json
from apao.stages.evaluate import evaluate
from apao.stages.train import train
from apao.study.runs import Run
from apao.trackers.base import TRACKERS, tracker_of

CPU = torch.device("cpu")
RUN = Run.parse("toy/llama/ce/seed7")
CODES = random_codes(20, 3, 4)
ONE_RUN_EACH = {"tensorboard"}
"""Trackers that keep the last training of a run and no earlier ones."""
WITHOUT_PARAMS = {"tensorboard"}


@pytest.fixture
def params(tmp_path, monkeypatch):
    """An empty folder with a small dataset, and nobody's settings of a tracker."""
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "WANDB_MODE", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    write_dataset(CODES, [5, 9, 4, 12, 3, 7])
    return run_params("llama", epochs=3)


def history() -> list[tuple[str, int, float]]:
    """The numbers of history.csv, under the names that trackers get."""
    table = pd.read_csv(RUN.folder / "history.csv").drop(columns="best")
    return [
        (name.replace("train_", "train/").replace("valid_", "valid/"), int(row["epoch"]), row[name])
        for _, row in table.iterrows()
        for name in table.columns.drop("epoch")
    ]


def approximately(values):
    """TensorBoard keeps 32 bits of a number."""
    return [(name, step, pytest.approx(value, rel=1e-6)) for name, step, value in sorted(values)]


def killed_at(epoch):
    def on_epoch(row):
        if row["epoch"] == epoch:
            raise KeyboardInterrupt

    return on_epoch


@pytest.mark.parametrize("name", list(TRACKERS))
def test_a_run_is_shown_as_its_files_say(params, name):
    tracker = tracker_of(name)
    train(RUN, params, CPU, tracker=tracker)
    evaluate(RUN, params, CPU, tracker)
    evaluate(RUN, params, CPU, tracker)
    (kept,) = READERS[name](RUN)
    assert sorted(kept.values) == approximately(history())
    metrics = read_json(RUN.folder / "metrics.json")["test"]
    assert kept.test["test/recall@10"] == pytest.approx(metrics["recall@10"])
    levels = [kept.test[f"test/prefix_recall@20/{level}"] for level in (1, 2, 3)]
    assert levels == pytest.approx(metrics["prefix_recall@20"])
    known = [value for value in metrics.values() if value is not None]
    assert len(kept.test) == sum(len(value) if isinstance(value, list) else 1 for value in known)
    if name not in WITHOUT_PARAMS:
        assert kept.finished
        rate = kept.params["training.lr"] if "training.lr" in kept.params else kept.params["training"]["lr"]
        assert float(rate) == params.training.lr and "ce" in str(kept.params)


@pytest.mark.parametrize("name", list(TRACKERS))
def test_a_resumed_training_continues_its_run(params, name):
    with pytest.raises(KeyboardInterrupt):
        train(RUN, params, CPU, on_epoch=killed_at(2), tracker=tracker_of(name))
    (kept,) = READERS[name](RUN)
    assert kept.epochs == [1, 2] and not kept.finished
    train(RUN, params, CPU, tracker=tracker_of(name))
    (kept,) = READERS[name](RUN)
    assert kept.epochs == [1, 2, 3]
    # Also the seconds of the epochs before the interruption, which would differ if they were trained again.
    assert sorted(kept.values) == approximately(history())
    assert kept.finished is not False


@pytest.mark.parametrize("name", list(TRACKERS))
def test_epochs_before_the_tracker_was_chosen_are_shown_too(params, name):
    with pytest.raises(KeyboardInterrupt):
        train(RUN, params, CPU, on_epoch=killed_at(2))
    train(RUN, params, CPU, tracker=tracker_of(name))
    (kept,) = READERS[name](RUN)
    assert sorted(kept.values) == approximately(history())


@pytest.mark.parametrize("name", list(TRACKERS))
def test_a_training_with_other_parameters_is_another_run(params, name):
    train(RUN, params, CPU, tracker=tracker_of(name))
    first = history()
    other = params.model_copy(update={"training": params.training.model_copy(update={"epochs": 2})})
    train(RUN, other, CPU, tracker=tracker_of(name))
    *earlier, last = sorted(READERS[name](RUN), key=lambda kept: -len(kept.epochs))
    assert sorted(last.values) == approximately(history())
    if name in ONE_RUN_EACH:
        assert not earlier
    else:
        assert [sorted(kept.values) for kept in earlier] == [approximately(first)]


@pytest.mark.parametrize("name", list(TRACKERS))
def test_what_is_only_evaluated_has_its_test_metrics(params, name):
    train(RUN, params, CPU)
    evaluate(RUN, params, CPU, tracker_of(name))
    (kept,) = READERS[name](RUN)
    assert kept.test["test/recall@10"] == pytest.approx(read_json(RUN.folder / "metrics.json")["test"]["recall@10"])
    assert not kept.values


@pytest.mark.parametrize("name", list(TRACKERS))
def test_a_tracker_changes_nothing_of_a_run(params, name):
    def outcome():
        record = read_json(RUN.folder / "train.provenance.json")
        files = {path.name for path in RUN.folder.iterdir() if path.is_file()}
        hashes = {each: value for each, value in record["outputs"].items() if each != "history.csv"}
        return files, hashes, record["inputs"], record["params"]

    train(RUN, params, CPU)
    plain = outcome()
    train(RUN, params, CPU, tracker=tracker_of(name))
    assert outcome() == plain


@pytest.mark.parametrize("name", list(TRACKERS))
def test_a_failed_tracker_is_one_line_and_the_training_goes_on(params, name, capsys, monkeypatch):
    cls = TRACKERS[name]
    opened = cls.open
    calls = []

    def failing(self, tracked):
        log = opened(self, tracked)
        write = log.epoch

        def epoch(number, numbers):
            calls.append(number)
            if number == 2:
                raise RuntimeError("no connection\nand more lines")
            write(number, numbers)

        monkeypatch.setattr(log, "epoch", epoch)
        return log

    monkeypatch.setattr(cls, "open", failing)
    train(RUN, params, CPU, tracker=tracker_of(name))
    assert len(pd.read_csv(RUN.folder / "history.csv")) == 3 and calls == [1, 2]
    lines = [line for line in capsys.readouterr().err.splitlines() if "tracker" in line]
    assert lines == [
        f"{RUN}: tracker {name} failed and is left out from here on (RuntimeError: no connection and more lines)"
    ]


@pytest.mark.parametrize("name", list(TRACKERS))
def test_a_tracker_that_cannot_write_is_one_line(params, name, capsys):
    RUN.folder.mkdir(parents=True)
    blocked = RUN.folder / name
    blocked.write_text("a file where the tracker's folder should be")
    train(RUN, params, CPU, tracker=tracker_of(name))
    assert len(pd.read_csv(RUN.folder / "history.csv")) == 3
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "failed" in line]
    assert line.startswith(f"{RUN}: tracker {name} failed and is left out from here on (")


@pytest.mark.parametrize("name", list(TRACKERS))
def test_a_missing_library_names_its_extra(name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError) as caught:
        tracker_of(name)
    assert str(caught.value) == f'tracker {name}: its library is not installed: pip install "apao[{name}]"'


def test_tensorboard_is_the_default_where_it_is_installed(monkeypatch):
    assert tracker_of().type == "tensorboard" and tracker_of("none") is None
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    assert tracker_of() is None


def test_an_unknown_tracker_is_one_line():
    with pytest.raises(UserError, match=r"^unknown tracker 'mlflw'; did you mean 'mlflow'\? known: auto, mlflow, none"):
        tracker_of("mlflw")


def test_mlflow_without_the_run_makes_another(params, monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/elsewhere.db")
    with pytest.raises(KeyboardInterrupt):
        train(RUN, params, CPU, on_epoch=killed_at(2), tracker=tracker_of("mlflow"))
    assert (tmp_path / "elsewhere.db").exists() and not READERS["mlflow"](RUN)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    train(RUN, params, CPU, tracker=tracker_of("mlflow"))
    (kept,) = READERS["mlflow"](RUN)
    assert sorted(kept.values) == approximately(history())
