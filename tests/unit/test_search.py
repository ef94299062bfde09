"""``apao search``: real searches of tiny runs, interrupted and continued, pruned and compared with brute force."""

import json
import shutil
import statistics
from pathlib import Path

import optuna
import pandas as pd
import pytest
import torch
import yaml
from helpers.models import random_codes
from helpers.processes import run, run_here
from helpers.project import ROOT, merged, small_params, write_dataset, write_params
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from apao.errors import UserError
from apao.files import read_json, sha256_of
from apao.stages import search as stage
from apao.stages import train as train_stage
from apao.study.params import load
from apao.study.paths import DatasetPaths
from apao.study.runs import Run
from apao.trackers.base import Feed
from apao.training.loop import Training

LR = {"lr": {"low": 1e-3, "high": 0.1, "log": True}}
SEARCH = {"dataset": "toy", "backbone": "llama", "objectives": ["ce"], "trials": 1, "seed": 1, "space": LR}
TWO = {"objectives": ["ce", "point"], "trials": 3, "space": LR | {"beta": {"low": 0.05, "high": 0.5}}}
JOURNAL = Path("results/searches/s/ce.journal")


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A function that makes a folder with a dataset and this search the working directory."""

    def make(name="study", **search):
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.chdir(folder)
        write_dataset(random_codes(20, 3, 4), [5, 9, 4, 12, 3, 7, 6, 8])
        objectives = {"point": {"type": "apao-pointwise"}, "after": {"type": "apao-pointwise", "start": "ce"}}
        more = {"tuned": "tuned.yaml", "objectives": objectives, "searches": {"s": SEARCH | search}}
        write_params(folder, small_params({"recipes": {"tiny": {"training": {"epochs": 3}}}}, more))
        return folder

    return make


def searched(*objectives, version="version"):
    params = load(Path("params.yaml"))
    found = list(stage.search("s", params, objectives, torch.device("cpu"), lambda params: version, tracker=None))
    return dict(found)


def trials(objective="ce"):
    """All trials in the journal that were not given up."""
    storage = optuna.storages.JournalStorage(JournalFileBackend(f"results/searches/s/{objective}.journal"))
    found = optuna.load_study(study_name=f"s/{objective}", storage=storage).get_trials()
    return [trial for trial in found if trial.state != TrialState.FAIL]


def scores():
    """Validation NDCG@10 of every evaluated run, as its files have it, by name."""
    files = Path("results").rglob("metrics.json")
    return {json.loads(file.read_text())["run"]: json.loads(file.read_text())["valid"]["ndcg@10"] for file in files}


def test_every_objective_has_as_many_trials_and_its_best_is_written(study, capsys):
    folder = study(**TWO)
    done = run_here(folder, "search", "s", "--device", "cpu")
    assert done.status == 0, done.output
    assert "ce is searched without beta, which it does not have" in done.output
    by_run = scores()
    written = yaml.safe_load((folder / "tuned.yaml").read_text())
    for objective, keys in (("ce", {"lr"}), ("point", {"beta", "lr"})):
        own = {name: score for name, score in by_run.items() if Run.parse(name).objective == objective}
        assert len(own) == len(trials(objective)) == 3
        assert {key for name in own for key, _ in Run.parse(name).overrides} == keys
        best = Run.parse(max(own, key=own.get))
        by = "apao search: best of 3 trials of search s, validation ndcg@10"
        assert written[objective] == [{"chosen_by": by, "values": {"toy/llama": dict(best.overrides)}}]
        # The plain run is now the best trial.
        params = load(Path("params.yaml"))
        assert params.resolve(Run.parse(f"toy/llama/{objective}/seed1")) == params.resolve(best)


def test_a_search_that_was_interrupted_goes_on_as_if_it_was_not(study, monkeypatch):
    study("whole", **TWO)
    expected = searched()
    names = sorted(scores())

    study("interrupted", **TWO)
    write = Feed.epoch
    epochs = []

    def interrupted(self, row):
        epochs.append(row["epoch"])
        if len(epochs) == 5:  # the second epoch of the second trial
            raise KeyboardInterrupt
        write(self, row)

    monkeypatch.setattr(Feed, "epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        searched()
    assert len(scores()) == 1 and [trial.state for trial in trials()] == [TrialState.COMPLETE, TrialState.RUNNING]
    (unfinished,) = Path("results").rglob("checkpoint.safetensors")
    assert not (unfinished.parent / "run.json").exists()

    monkeypatch.setattr(Feed, "epoch", write)
    trained, train_epoch = [], Training._train_epoch

    def counted(self, epoch, advance):
        trained.append((self.run, epoch))
        return train_epoch(self, epoch, advance)

    monkeypatch.setattr(Training, "_train_epoch", counted)
    assert searched() == expected
    assert sorted(scores()) == names
    assert trained[0] == (str(unfinished.parent.relative_to("results")), 2), "the checkpoint is of two epochs"
    assert len(trained) == 1 + 4 * 3

    trained.clear()
    assert searched() == expected and not trained, "a search that is done trains nothing"
    JOURNAL.unlink()
    assert searched() == expected and not trained, "the same seed gives the same trials, which are trained already"


def test_more_trials_continue_the_search(study):
    folder = study(trials=2)
    searched()
    first = [trial.params for trial in trials()]
    params = yaml.safe_load((folder / "params.yaml").read_text())
    write_params(folder, merged(params, {"searches": {"s": {"trials": 4}}}))
    assert "best of 4 trials" in searched()["ce"].chosen_by
    assert [trial.params for trial in trials()][:2] == first and len(trials()) == 4
    write_params(folder, params)
    assert "best of 2 trials" in searched()["ce"].chosen_by
    best = max(trials()[:2], key=lambda trial: trial.value)
    assert searched()["ce"].values["toy/llama"]["lr"] == pytest.approx(best.params["lr"], rel=1e-2)


def test_another_seed_gives_other_trials(study):
    values = {}
    for seed in (1, 2):
        study(f"seed{seed}", seed=seed, trials=2)
        searched()
        values[seed] = [trial.params["lr"] for trial in trials()]
    assert not set(values[1]) & set(values[2])


def test_hopeless_trials_are_stopped_and_leave_nothing(study):
    """By the median rule, worked out here from the losses: five trials are trained to their end in any case."""
    study(median_stopping=True, trials=9, space={"lr": {"low": 1e-6, "high": 0.1, "log": True}})
    tuning = searched()["ce"]
    complete, pruned = [], []
    for trial in trials():
        losses = {}
        for epoch, negative in trial.intermediate_values.items():
            losses[epoch] = -negative
            if len(complete) >= 5 and min(losses.values()) > statistics.median(other[epoch] for other in complete):
                assert trial.state == TrialState.PRUNED and epoch == max(trial.intermediate_values)
                pruned.append(trial)
                break
        else:
            assert trial.state == TrialState.COMPLETE and len(losses) == 3
            complete.append(losses)
    assert pruned and len(complete) + len(pruned) == 9
    assert len(scores()) == len(complete), "a stopped trial has no folder"
    assert {path.name for path in Path("results/toy/llama").iterdir()} == {name.split("/")[2] for name in scores()}
    assert tuning.chosen_by.endswith(
        f"best of 9 trials of search s, validation ndcg@10, {len(pruned)} of them stopped early"
    )


def test_a_finished_run_is_not_stopped(study):
    study(median_stopping=True, trials=9, space={"lr": {"low": 1e-6, "high": 0.1, "log": True}})
    searched()
    number, stopped = next((i, trial) for i, trial in enumerate(trials()) if trial.state == TrialState.PRUNED)
    params = load(Path("params.yaml"))
    search = params.search("s")
    trained = search.run("ce", lr=search.space["lr"].rounded(stopped.params["lr"]))
    train_stage.train(trained, params.resolve(trained), torch.device("cpu"), code="version")
    JOURNAL.unlink()
    searched()
    assert trials()[number].params == stopped.params and trials()[number].state == TrialState.COMPLETE
    assert str(trained) in scores()


def test_losses_of_a_finished_run_count_for_the_median(study, monkeypatch):
    """A process may end between a training and its evaluation."""
    study(median_stopping=True)
    with monkeypatch.context() as broken:
        broken.setattr(stage, "evaluate", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            searched()
    (history,) = Path("results").rglob("history.csv")
    searched()
    (trial,) = trials()
    assert [-value for value in trial.intermediate_values.values()] == pd.read_csv(history)["valid_loss"].tolist()


def test_a_trial_that_diverges_counts_as_one(study, capsys):
    study(trials=6, space={"lr": {"choices": [0.01, 1e30]}})
    assert searched()["ce"].values == {"toy/llama": {"lr": 0.01}}
    states = {trial.params["lr"]: trial.state for trial in trials()}
    assert states == {0.01: TrialState.COMPLETE, 1e30: TrialState.PRUNED} and len(trials()) == 6
    assert list(scores()) == ["toy/llama/ce+lr=0.01/seed1"]
    assert "ce+lr=1e30/seed1 is stopped and removed: " in capsys.readouterr().err


def test_what_an_earlier_version_of_the_code_trained_outlives_a_trial_that_diverges(study, capsys):
    run = Run.parse("toy/llama/ce+lr=1e30/seed1")
    study(trials=6, space={"lr": {"choices": [0.01, 1e30]}})
    run.folder.mkdir(parents=True)
    run.model.write_text("weights")
    (run.folder / "exact.json").write_text("{}")
    searched()
    assert run.model.read_text() == "weights" and (run.folder / "exact.json").exists()
    assert not run.checkpoint.exists()
    assert f"{run} is stopped: " in capsys.readouterr().err


def test_a_search_without_any_finished_trial(study):
    study(space={"lr": {"choices": [1e29, 1e30]}})
    with pytest.raises(UserError, match=r"ce\.journal: none of its 1 trials was trained to its end"):
        searched()


def test_trials_start_from_the_run_that_the_objective_names(study):
    study(objectives=["after"], trials=2)
    searched()
    assert len(trials("after")) == 2
    assert (Path("results/toy/llama/ce/seed1/model.safetensors")).exists()


def test_whole_numbers_and_choices(study):
    study(trials=4, space={"batch_size": {"low": 2, "high": 9}, "eos": {"choices": [True, False]}})
    values = searched()["ce"].values["toy/llama"]
    assert type(values["batch_size"]) is int and type(values["eos"]) is bool
    assert all(2 <= Run.parse(name).overrides[0][1] <= 9 for name in scores())


def test_trials_of_other_parameters_are_not_continued(study):
    folder = study()
    searched()
    params = yaml.safe_load((folder / "params.yaml").read_text())
    for change in (
        {"recipes": {"tiny": {"training": {"epochs": 2}}}},
        {"searches": {"s": {"space": {"lr": {"high": 0.2}}}}},
    ):
        write_params(folder, merged(params, change))
        with pytest.raises(
            UserError, match=r"ce\.journal: its trials were made with .*(epochs 3, not 2|high 0\.1, not)"
        ):
            searched()
    write_params(folder, params)
    searched()


def test_a_run_of_other_parameters_is_trained_and_evaluated_again(study):
    folder = study()
    searched()
    (run,) = map(Run.parse, scores())
    params = yaml.safe_load((folder / "params.yaml").read_text())
    write_params(folder, merged(params, {"recipes": {"tiny": {"training": {"epochs": 2}}}}))
    JOURNAL.unlink()
    searched()
    assert len(pd.read_csv(run.folder / "history.csv")) == 2
    evaluated = read_json(run.folder / "evaluate.provenance.json")
    assert evaluated["inputs"][str(run.model)] == sha256_of(run.model)


def test_runs_of_other_code_are_trained_again(study):
    study()
    searched()
    (run,) = map(Run.parse, scores())
    trained = read_json(run.folder / "train.provenance.json")
    with pytest.raises(UserError, match=r"its trials were made with .*code"):
        searched(version="another")
    JOURNAL.unlink()
    searched(version="another")
    again = read_json(run.folder / "train.provenance.json")
    assert (trained["code"], again["code"]) == ("version", "another")
    assert again["outputs"]["model.safetensors"] == trained["outputs"]["model.safetensors"]


def test_runs_of_other_data_are_trained_again_and_their_trials_not_continued(study):
    study()
    searched()
    (run,) = map(Run.parse, scores())
    random_codes(20, 3, 4, seed=1).write(DatasetPaths("toy").codes)
    with pytest.raises(UserError, match=r"its trials were made with inputs\."):
        searched()
    JOURNAL.unlink()
    searched()
    codes = DatasetPaths("toy").codes
    assert read_json(run.record)["inputs"][str(codes)] == sha256_of(codes)


def test_runs_of_another_decoding_are_evaluated_again(study):
    folder = study()
    searched()
    (run,) = map(Run.parse, scores())
    trained = sha256_of(run.model)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    write_params(folder, merged(params, {"recipes": {"tiny": {"decoding": {"batch_users": 3}}}}))
    JOURNAL.unlink()
    searched()
    evaluated = read_json(run.folder / "evaluate.provenance.json")
    assert evaluated["params"]["decoding"]["batch_users"] == 3 and sha256_of(run.model) == trained


def test_one_process_at_a_time(study):
    study()
    JOURNAL.parent.mkdir(parents=True)
    with stage._alone(JOURNAL), pytest.raises(UserError, match="another process makes its trials"):
        searched()
    searched()


def test_a_damaged_journal(study):
    study()
    JOURNAL.parent.mkdir(parents=True)
    JOURNAL.write_text("{nonsense}\n{}\n")
    with pytest.raises(UserError, match=r"ce\.journal: damaged .*delete it"):
        searched()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["x"], "unknown search 'x'; known: s"), (["s", "msl"], "searches.s has no objective 'msl'; known: ce, point")],
)
def test_unknown_names(study, arguments, said):
    done = run_here(study(**TWO), "search", *arguments)
    assert done.status == 1 and said in done.output


def test_optuna_is_needed_only_here():
    code = (
        "import sys; sys.modules['optuna'] = None; sys.argv[1:] = ['search', 'small']; import apao.cli; apao.cli.main()"
    )
    done = run(ROOT, "python", "-c", code)
    assert done.status == 1 and done.errors[0].endswith('pip install "apao[search]"')


def test_trials_on_other_interactions_are_not_continued(study):
    study()
    searched()
    shutil.rmtree(DatasetPaths("toy").folder)
    write_dataset(random_codes(20, 3, 4), [5, 9, 4, 12, 3, 7, 6, 9])
    with pytest.raises(UserError, match=r"its trials were made with inputs\.data/toy/interactions"):
        searched()
