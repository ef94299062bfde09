"""A trained run as an object, against the stage's own ranks and a slow ranking of every code."""

import re
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from helpers.models import SlowModel
from helpers.project import ROOT

import apao
from apao.errors import UserError
from apao.files import read_json
from apao.stages.evaluate import evaluate


@pytest.fixture
def model(toy):
    """The toy run, evaluated and loaded from its folder."""
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
        ([], 3, "histories: expected a list of at least one history, found \\[\\]"),
        (None, 3, "histories: expected a list of at least one history, found None"),
        ([None], 3, "history 0: expected a list of at least one item id, found None"),
        ([7], 3, "history 0: expected a list of at least one item id, found 7"),
        ([[]], 3, "history 0: expected a list of at least one item id"),
        (["i1"], 3, "history 0: expected a list of at least one item id, found 'i1'"),
        ([["i1"], ["nope"]], 3, "history 1: unknown item 'nope'; the catalogue has ids like 'i0'"),
        ([["i1"]], 0, "k is 0"),
        ([["i1"]], 10**6, "k is 1000000; of 30 items expected 1 to 30"),
    ],
)
def test_recommend_refuses(model, histories, k, message):
    with pytest.raises(UserError, match=message):
        model.recommend(histories, k=k)


def everything(model, histories, **how):
    """Items of the whole list of each history, with their log-probabilities."""
    found = model.recommend(histories, **{"k": len(model.items), "keep_seen": True, **how})
    return [dict(zip(rows["item"], rows["logp"], strict=True)) for _, rows in found.groupby("history")]


def test_exact_scores_are_those_of_a_beam_that_holds_every_code(toy, model):
    histories = [history_of(toy, user) for user in range(toy.histories.users)]
    found, exact = everything(model, histories), everything(model, histories, exact=True)
    for mine, theirs in zip(found, exact, strict=True):
        assert mine == pytest.approx(theirs, abs=1e-4)
    lists = model.recommend(histories, k=4, exact=True)
    pd.testing.assert_frame_equal(lists, model.recommend(histories, k=4, beam=27), atol=1e-4)
    table = model.score(histories, ["i3", "i1", "i3"])
    assert table.columns.tolist() == ["i3", "i1", "i3"]
    for mine, row in zip(exact, table.itertuples(index=False), strict=True):
        assert list(row) == pytest.approx([mine["i3"], mine["i1"], mine["i3"]], abs=1e-5)


@pytest.mark.parametrize("exact", [False, True])
def test_a_part_of_the_catalogue_keeps_scores_and_order(toy, model, exact):
    histories = [history_of(toy, user) for user in range(toy.histories.users)]
    only, without = [f"i{item}" for item in (3, 4, 8, 15, 16, 23, 29)], ["i4", "i0"]
    parts = [
        ({"only": only}, set(only)),
        ({"without": without}, set(model.items["raw_id"]) - set(without)),
        ({"only": only, "without": without}, set(only) - set(without)),
    ]
    for part, items in parts:
        found = model.recommend(histories, k=len(items), exact=exact, keep_seen=True, **part)
        for mine, (_, rows) in zip(everything(model, histories), found.groupby("history"), strict=True):
            assert rows["item"].tolist() == [item for item in mine if item in items]
            assert rows["logp"].tolist() == pytest.approx([mine[item] for item in rows["item"]], abs=1e-4)


def test_nothing_to_leave_out_leaves_out_nothing(model):
    """The result of a filter may be empty."""
    pd.testing.assert_frame_equal(model.recommend([["i1"]], k=3, without=[]), model.recommend([["i1"]], k=3))


def test_a_list_that_changes_between_calls_is_another_part(toy, model):
    history, only = history_of(toy, 0), ["i3", "i4"]
    for last in ("i4", "i8", "i4"):
        only[-1] = last
        assert set(model.recommend([history], k=2, keep_seen=True, only=only)["item"]) == {"i3", last}


def test_a_narrow_search_of_a_part_finds_what_it_would_lose_to_the_rest(toy, model):
    """A beam over the catalogue never reaches the worst items; restricted to these, it finds them."""
    histories = [history_of(toy, user) for user in range(toy.histories.users)]
    for history, mine in zip(histories, everything(model, histories), strict=True):
        worst = list(mine)[-3:]
        found = model.recommend([history], k=1, beam=1, only=worst, keep_seen=True)
        assert len(found) == 1 and found["item"][0] in worst


def test_a_given_beam_is_kept(toy, model):
    history = history_of(toy, 0)
    found = model.recommend([history], k=20, beam=2, keep_seen=True)
    assert found["code"].nunique() <= 2 < model.recommend([history], k=20, keep_seen=True)["code"].nunique()


def test_a_moved_folder_is_enough(toy, model, monkeypatch, tmp_path):
    expected = model.recommend([["i0", "i1"]], k=5)
    moved = tmp_path / "elsewhere"
    shutil.copytree(toy.run.folder, moved)
    metrics = read_json(toy.run.folder / "metrics.json")
    monkeypatch.chdir(tmp_path)
    shutil.rmtree("results")
    assert apao.load(moved, device="cpu").evaluate("valid") == metrics["valid"]  # data is still here
    shutil.rmtree("data")
    again = apao.load(moved, device="cpu")
    pd.testing.assert_frame_equal(again.recommend([["i0", "i1"]], k=5), expected)
    with pytest.raises(UserError, match=r"data/toy/interactions\.parquet: not found"):
        again.evaluate()


def test_a_folder_of_an_earlier_version_takes_the_items_of_its_study(toy, model):
    expected = model.recommend([["i0", "i1"]], k=5)
    toy.run.catalogue.unlink()
    again = apao.load(toy.run.folder, device="cpu")
    pd.testing.assert_frame_equal(again.recommend([["i0", "i1"]], k=5), expected)
    shutil.rmtree("data")
    with pytest.raises(UserError, match=r"catalogue\.parquet: not found, and neither is .*codes\.parquet"):
        apao.load(toy.run.folder)


@pytest.mark.parametrize("kept", ["metrics.json", None])
def test_decoding_without_the_record_of_an_evaluation(toy, model, kept):
    for name in {"evaluate.provenance.json", "metrics.json"} - {kept}:
        (toy.run.folder / name).unlink()
    again = apao.load(toy.run.folder, device="cpu").trained
    assert (again.beam, again.params.decodes_eos) == (model.trained.beam, model.trained.params.decodes_eos)


@pytest.mark.parametrize("metrics", ['{"beam": "x"}', '{"beam": null}', "[]"])
def test_a_damaged_decoding_is_named(toy, model, metrics):
    (toy.run.folder / "evaluate.provenance.json").unlink()
    (toy.run.folder / "metrics.json").write_text(metrics)
    with pytest.raises(UserError, match=r"metrics\.json: expected (the decoding of an evaluation|a JSON object)"):
        apao.load(toy.run.folder, device="cpu")


def test_evaluate_gives_the_metrics_of_the_stage(toy, model):
    metrics = read_json(toy.run.folder / "metrics.json")
    assert model.evaluate() == metrics["test"] and model.evaluate("valid") == metrics["valid"]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"only": []}, "only: expected a list of at least one item id"),
        ({"only": ["i1", "nope"]}, "only: unknown item 'nope'"),
        ({"without": "i1"}, "without: expected a list of at least one item id, found 'i1'"),
        ({"only": ["i1"], "without": ["i1"]}, "only and without exclude all items"),
        ({"only": ["i1", "i2"], "k": 31}, "k is 31; of 30 items expected 1 to 30"),
        ({"beam": 0}, "beam is 0; expected 1 or more"),
        ({"beam": 5, "exact": True}, "none with exact"),
    ],
)
def test_recommend_refuses_parts_and_beams(model, how, message):
    with pytest.raises(UserError, match=message):
        model.recommend([["i1"]], **{"k": 1, **how})


def test_a_part_with_fewer_than_k_items_is_recommended_whole(model):
    found = model.recommend([["i1"]], k=20, only=["i2", "i5"])
    assert sorted(found["item"]) == ["i2", "i5"]


@pytest.mark.parametrize("form", [pd.Series, np.array, tuple])
def test_histories_of_other_libraries(model, form):
    expected = model.recommend([["i1", "i2"], ["i3", "i4"]], k=3)
    pd.testing.assert_frame_equal(model.recommend(form([["i1", "i2"], ["i3", "i4"]]), k=3), expected)


def test_evaluate_refuses_another_split(model):
    with pytest.raises(UserError, match="split 'validation': expected valid or test"):
        model.evaluate("validation")


def test_load_refuses_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(UserError, match=r"has no run\.json; name the folder of a trained run"):
        apao.load(tmp_path)
    with pytest.raises(
        UserError, match=r"or train this one: snakemake -c2 results/toy/tiger/ce/seed99/model.safetensors"
    ):
        apao.load("results/toy/tiger/ce/seed99")


def example(beginning):
    """The code block of the README that begins with this text."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (found,) = [block for block in blocks if block.startswith(beginning)]
    return found


def test_readme_loads_a_run(toy, model):
    code = example("import apao").replace("results/ml-100k/tiger/apao-pointwise/seed42", str(toy.run.folder))
    code = code.replace('["168", "172", "165"]', '["i1", "i2", "i3"]')
    *lines, last = code.strip().splitlines()
    names = {}
    exec("\n".join(lines), names)
    columns = last.partition("DataFrame: ")[2].split(", ")
    found = eval(last, names)
    assert len(found) == 5 and set(columns) <= set(found.columns)


def test_readme_trains_somebody_elses_model():
    """Training a T5 of transformers with its own vocabulary lowers the loss."""
    sizes = {"d_model": 16, "d_ff": 32, "d_kv": 8, "num_heads": 2, "num_layers": 1}
    torch.manual_seed(0)
    theirs = transformers.T5ForConditionalGeneration(
        transformers.T5Config(vocab_size=40, decoder_start_token_id=0, **sizes)
    )
    optimizer = torch.optim.Adam(theirs.parameters(), lr=1e-2)
    history, targets = torch.randint(3, 40, (6, 12)), torch.randint(3, 40, (6, 4))
    losses = []
    for _ in range(5):
        logits = theirs(input_ids=history, labels=targets).logits
        negatives = torch.randint(3, 40, (6, 7, 4))
        rest = logits.log_softmax(-1)[:, None].expand(-1, 7, -1, -1)
        names = {"logits": logits, "targets": targets, "negative_logp": rest.gather(-1, negatives[..., None])[..., 0]}
        exec(example("from apao.objectives"), names)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(names["loss"].item())
    assert losses[-1] < losses[0]


def test_exact_lists_are_full_beside_a_history_of_nearly_everything(toy, model):
    for left in range(0, toy.codes.items, 5):
        rest = [f"i{item}" for item in range(toy.codes.items) if item != left]
        found = model.recommend([["i0"], rest], k=1, exact=True)
        assert found.loc[found["history"] == 1, "item"].tolist() == [f"i{left}"]


def test_items_of_a_code_are_listed_by_their_numbers(toy, model):
    for exact in (False, True):
        found = model.recommend([["i0"]], k=toy.codes.items, keep_seen=True, exact=exact)
        for _, rows in found.groupby("code"):
            assert rows["item"].tolist() == sorted(rows["item"], key=lambda item: int(item[1:]))


def test_eos_without_the_record_of_an_evaluation(toy):
    decoding = toy.params.decoding.model_copy(update={"eos": False})
    evaluate(toy.run, toy.params.model_copy(update={"decoding": decoding}), torch.device("cpu"))
    (toy.run.folder / "evaluate.provenance.json").unlink()
    assert not apao.load(toy.run.folder, device="cpu").trained.params.decodes_eos
