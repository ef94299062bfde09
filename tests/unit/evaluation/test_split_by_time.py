"""All stages that evaluate a run, on a dataset split by time: only users with a target take part."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.project import TOY

from apao.data.histories import PARTS, Histories
from apao.data.split import by_time
from apao.errors import UserError
from apao.stages.baselines import baselines
from apao.stages.beams import beams
from apao.stages.evaluate import evaluate
from apao.stages.exact import exact
from apao.stages.load import load
from apao.stages.lost import survey
from apao.stages.model_card import model_card
from apao.stages.show import show
from apao.stages.trained import TrainedRun
from apao.training.loop import Training

CPU = torch.device("cpu")


@pytest.fixture
def split(toy):
    """The toy's histories with times at which a part of its users has a target."""
    table = pd.read_parquet(TOY.interactions)
    user = table["user"].to_numpy(dtype=np.int64)
    times = np.random.default_rng(3).integers(0, 1000, len(table))
    times = times[np.lexsort((times, user))]
    table["split"] = pd.Categorical.from_codes(by_time(user, times), categories=pd.Index(PARTS))
    table.to_parquet(TOY.interactions)
    histories = Histories.load(TOY.interactions)
    assert 0 < len(histories.evaluated("valid")) < histories.users > len(histories.evaluated("test")) > 0
    return histories


def test_only_users_with_a_target_are_evaluated(toy, split):
    evaluate(toy.run, toy.params, CPU)
    ranks = pd.read_parquet(toy.run.folder / "ranks.parquet")
    metrics = json.loads((toy.run.folder / "metrics.json").read_text())
    for name in ("valid", "test"):
        rows, users = ranks[ranks["split"] == name], split.evaluated(name)
        assert rows["user"].tolist() == users.tolist() and metrics[name]["users"] == len(users)
        assert rows["item"].tolist() == split.target_items(name, users).tolist()


def test_measurements_count_the_same_users(toy, split):
    users = split.evaluated("test").tolist()
    exact(toy.run, toy.params, 100, CPU)
    beams(toy.run, toy.params, (3,), CPU)
    baselines(toy.run.dataset)
    found = {name: json.loads((toy.run.folder / f"{name}.json").read_text()) for name in ("exact", "pruning", "beams")}
    assert found["exact"]["ranks"]["user"] == users and found["exact"]["of_users"] == len(users)
    assert found["pruning"]["users"] == found["beams"]["users"] == len(users)
    assert json.loads(TOY.baselines.read_text())["most-popular"]["users"] == len(users)


def test_a_user_without_a_test_item(toy, split):
    trained = TrainedRun(toy.run, toy.params, CPU)
    assert survey(trained).users == len(split.evaluated("test"))
    without = np.setdiff1d(np.arange(split.users), split.evaluated("test"))[0]
    # Their raw ids are not their numbers.
    users = pd.read_parquet(TOY.users)
    users["raw_id"] = users["raw_id"].to_numpy()[::-1]
    users.to_parquet(TOY.users)
    raw_id = users["raw_id"][without]
    with pytest.raises(UserError, match=rf"user '{raw_id}' has no test item, because the dataset is split by time"):
        show(str(toy.run), raw_id, None, None, "cpu")


def test_the_model_card_says_how_the_data_was_split(toy, split, tmp_path):
    evaluate(toy.run, toy.params, CPU)
    model = load(toy.run.folder, "cpu")
    card = model_card(model, toy.run.folder)
    assert "Split by time" in card and "A test user can be new" in card and "Leave-one-out" not in card
    TOY.interactions.unlink()
    card = model_card(model, toy.run.folder)
    assert "Split by time" not in card and "Leave-one-out" not in card


def test_validation_is_on_users_with_a_validation_item(toy, split):
    """The loss is the mean over them, each after the items before its target."""
    training = Training("toy", toy.params, split, toy.codes, CPU)
    assert training.valid_users.tolist() == split.evaluated("valid").tolist()
    whole = training.validate(0)["loss"]
    alone = []
    for user, position in zip(training.valid_users, training.valid_positions, strict=True):
        training.valid_users, training.valid_positions = np.array([user]), np.array([position])
        alone.append(training.validate(0)["loss"])
    assert whole == pytest.approx(np.mean(alone), rel=1e-5)
