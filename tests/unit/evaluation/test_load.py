"""A trained run as an object, against the stage's own ranks and a slow ranking of every code."""

import pandas as pd
import pytest
import torch
from helpers.models import SlowModel

import apao
from apao.errors import UserError
from apao.stages.evaluate import evaluate
from apao.study.paths import DatasetPaths


@pytest.fixture
def model(toy):
    """The toy run with an item table, loaded from its folder."""
    items = toy.codes.items
    table = pd.DataFrame({"item": range(items), "raw_id": [f"i{i}" for i in range(items)], "text": "Some text"})
    table.to_parquet(DatasetPaths("toy").items)
    evaluate(toy.run, toy.params, torch.device("cpu"))
    return apao.load(toy.run.folder, device="cpu")


def history_of(toy, user, length=None):
    row = toy.histories.items[toy.histories.offsets[user] : toy.histories.offsets[user + 1]]
    return [f"i{item}" for item in row[:length]]


def test_load_takes_parameters_and_decoding_from_the_folder(toy, model, monkeypatch, tmp_path):
    assert model.trained.run == toy.run
    assert model.trained.params.decoding == toy.params.decoding
    # From another working directory, to which no path may be relative.
    folder = toy.run.folder.resolve()
    monkeypatch.chdir(tmp_path.parent)
    again = apao.load(folder, device="cpu").recommend([["i0", "i1"]], k=3)
    pd.testing.assert_frame_equal(again, model.recommend([["i0", "i1"]], k=3))


def test_recommend_ranks_as_evaluate_does(toy, model):
    ranks = pd.read_parquet(toy.run.folder / "ranks.parquet").query("split == 'test'").sort_values("user")
    users = range(toy.histories.users)
    found = model.recommend([history_of(toy, user, -1) for user in users], k=toy.codes.items, keep_seen=True)
    for user, row in zip(users, ranks.itertuples(), strict=True):
        mine = found[(found["history"] == user) & (found["item"] == f"i{row.item}")].iloc[0]
        assert row.items_before < mine["rank"] <= row.items_before + row.group
        assert mine["shared_by"] == row.group


def test_recommend_gives_log_probabilities_codes_and_the_whole_catalogue(toy, model):
    history = history_of(toy, 0)
    found = model.recommend([history], k=toy.codes.items, keep_seen=True)
    assert sorted(found["item"]) == sorted(f"i{i}" for i in range(toy.codes.items))
    assert found["logp"].is_monotonic_decreasing
    slow, eos = SlowModel(toy.backbone), toy.params.decodes_eos
    tokens = toy.codes.tokens[[int(name[1:]) for name in history][-toy.params.backbone.max_history :]].ravel().tolist()
    for row in found.head(5).itertuples():
        code = tuple(toy.codes.tokens[int(row.item[1:])].tolist())
        assert row.logp == pytest.approx(slow.score(tokens, code, eos) * (len(code) + eos), abs=1e-4)
        assert row.code == "".join(toy.codes.vocabulary[token] for token in code)


def test_recommend_leaves_out_what_the_user_has(toy, model):
    history = history_of(toy, 1)
    found = model.recommend([history, history[:1]], k=toy.codes.items)
    first = found[found["history"] == 0]
    assert not set(first["item"]) & set(history) and len(first) == toy.codes.items - len(set(history))
    # The order of the remaining items is unchanged.
    everything = model.recommend([history], k=toy.codes.items, keep_seen=True)
    assert first["item"].tolist() == [item for item in everything["item"] if item not in set(history)]
    assert first["rank"].tolist() == list(range(1, len(first) + 1))


@pytest.mark.parametrize(
    ("histories", "k", "message"),
    [
        ([], 3, "no histories"),
        ([[]], 3, "history 0: expected a list of at least one item id"),
        (["i1"], 3, "history 0: expected a list of at least one item id, found 'i1'"),
        ([["i1"], ["nope"]], 3, r"history 1: unknown item 'nope'; raw_id in .*items\.parquet has ids like 'i0'"),
        ([["i1"]], 0, "k is 0"),
        ([["i1"]], 10**6, "k is 1000000; the catalogue has"),
    ],
)
def test_recommend_refuses(model, histories, k, message):
    with pytest.raises(UserError, match=message):
        model.recommend(histories, k=k)


def test_load_refuses_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(UserError, match="expected the folder of a run"):
        apao.load(tmp_path)
