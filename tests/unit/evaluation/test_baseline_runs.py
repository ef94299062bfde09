"""Runs of the item-ID baselines through the commands, against a ranking of all items by the model's logits."""

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.models import BASELINES
from helpers.runs import ITEMS, LENGTHS, write_run, write_wide_dataset

import apao
from apao.codes.itemcodes import ItemCodes
from apao.stages.evaluate import evaluate
from apao.stages.show import show
from apao.stages.trained import TrainedRun

CPU = torch.device("cpu")


@pytest.fixture(params=BASELINES)
def written(request, tmp_path, monkeypatch):
    """A run with random weights, and its parameters."""
    monkeypatch.chdir(tmp_path)
    codes = ItemCodes(np.arange(ITEMS)[:, None])
    write_wide_dataset(codes)
    return write_run(request.param, codes, {"type": "ce"}, {}, seed=1)


@torch.no_grad()
def item_logp(model, items):
    """Log-probability of every item after the items, by a softmax over the vocabulary."""
    backbone, codes = model.trained.backbone, model.trained.codes
    newest = items[-backbone.params.max_history :]
    logp = backbone.logits(backbone.encode(torch.as_tensor(codes.tokens[newest].T)).start)[0].log_softmax(-1)
    return logp[torch.as_tensor(codes.tokens[:, 0])].numpy()


def test_evaluation_ranks_all_items(written):
    run, params = written
    evaluate(run, params, CPU)
    model, ranks = apao.load(run.folder, device="cpu"), pd.read_parquet(run.folder / "ranks.parquet")
    histories = TrainedRun(run, model.trained.params, CPU).histories
    found = ranks[ranks["split"] == "test"].set_index("user")["rank"]
    assert len(found) == len(LENGTHS)
    for user in range(len(LENGTHS)):
        *items, target = histories.items[histories.offsets[user] : histories.offsets[user + 1]].tolist()
        logp = item_logp(model, items)
        expected = 1 + int((logp > logp[target]).sum())
        assert found[user] == expected if expected <= 20 else not 1 <= found[user] <= 20


def test_recommendations_are_the_most_probable_items(written):
    run, _ = written
    model = apao.load(run.folder, device="cpu")
    found = model.recommend([["i3", "i1", "i7"]], k=5, keep_seen=True)
    logp = item_logp(model, [3, 1, 7])
    best = np.argsort(-logp)[:5]
    assert found["item"].tolist() == [f"i{item}" for item in best]
    assert found["logp"].to_numpy() == pytest.approx(logp[best], abs=1e-4)


def test_the_page_has_a_search_of_one_step(written):
    run, _ = written
    page = show(str(run), None, "i3,i1,i7", None, "cpu").read_text()
    model = apao.load(run.folder, device="cpu")
    best = int(np.argmax(item_logp(model, [3, 1, 7])))
    assert f"Film {best} \\u003cb>" in page
