"""The stages that rank, against a slow ranking of every code for every user."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.content import record_of
from helpers.models import SlowModel, run_params
from helpers.project import TOY

import apao
from apao.codes.itemcodes import ItemCodes
from apao.errors import UserError
from apao.evaluation.list_metrics import GROUPS, LIST_METRICS
from apao.evaluation.metrics import METRICS, Metric, user_metrics
from apao.evaluation.significance import intervals
from apao.files import write_json
from apao.stages.baselines import baselines
from apao.stages.beams import beams as beam_sizes
from apao.stages.decoding_time import decoding_time, synthetic_codes
from apao.stages.evaluate import evaluate, evaluate_split
from apao.stages.exact import exact
from apao.stages.trained import TrainedRun
from apao.study.paths import DatasetPaths, decoding_time_file
from apao.study.run_params import TimedDecoding

CPU = torch.device("cpu")


def test_evaluate_with_a_beam_as_wide_as_the_catalogue(toy):
    evaluate(toy.run, toy.params, CPU)
    metrics = json.loads((toy.run.folder / "metrics.json").read_text())
    table = pd.read_parquet(toy.run.folder / "ranks.parquet")
    assert metrics["run"] == str(toy.run) and metrics["eos"] == (toy.run.backbone == "tiger")
    columns = ["split", "user", "item", "rank", "items_before", "group"]
    assert list(table.columns) == [*columns, *(f"prefix_{level}" for level in (1, 2, 3))]
    tokens = [tuple(code) for code in toy.codes.tokens.tolist()]
    for split in ("valid", "test"):
        rows = table[table["split"] == split]
        assert rows["user"].tolist() == list(range(toy.histories.users))
        hits = []
        for (_, row), (item, ranking) in zip(rows.iterrows(), toy.rankings(split), strict=True):
            place = ranking.index(tokens[item])
            assert row["item"] == item and row["rank"] == place + 1
            assert row["items_before"] == sum(tokens.count(code) for code in ranking[:place])
            assert row["group"] == tokens.count(tokens[item])
            hits.append(place + 1)
        said = metrics[split]
        assert said["users"] == len(hits)
        assert said["recall@10"] == pytest.approx(np.mean([rank <= 10 for rank in hits]))
        assert said["ndcg@5"] == pytest.approx(np.mean([1 / math.log2(r + 1) if r <= 5 else 0 for r in hits]))


def test_prefix_recall_is_over_the_best_twenty(crowded_toy):
    """Prefix recall is the share of users whose target's prefix is among the 20 most likely of its length."""
    toy, slow = crowded_toy, SlowModel(crowded_toy.backbone)
    tokens = [tuple(code) for code in toy.codes.tokens.tolist()]
    kept = []
    for target, history in toy.targets("test"):
        rankings = [
            sorted({code[:m] for code in tokens}, key=lambda prefix: -slow.score(history, prefix, eos=False))
            for m in (1, 2, 3)
        ]
        kept.append([tokens[target][: m + 1] in ranking[:20] for m, ranking in enumerate(rankings)])
    found = evaluate_split(TrainedRun(toy.run, toy.params, CPU), "test")
    metrics = found.metrics
    assert found.ranks[["prefix_1", "prefix_2", "prefix_3"]].to_numpy().tolist() == kept
    assert metrics["prefix_recall@20"] == pytest.approx(np.mean(kept, axis=0))
    assert metrics["prefix_recall@20"][:2] == [1, 1] and 0 < metrics["prefix_recall@20"][2] < 1


def test_lists_are_those_of_the_library(toy):
    """The top 20 of every test user, with the items of the history, as the metrics count them."""
    evaluate(toy.run, toy.params, CPU)
    found = pd.read_parquet(toy.run.folder / "lists.parquet")
    rows = [toy.histories.rows_of(np.array([user]))[1][:-1] for user in range(toy.histories.users)]
    histories = [[f"i{item}" for item in row] for row in rows]
    lists = apao.load(toy.run.folder, device="cpu").recommend(histories, keep_seen=True)
    assert found.columns.tolist() == ["user", "rank", "item", "logp"] and len(found) == 20 * toy.histories.users
    assert found["user"].tolist() == lists["history"].tolist() and found["rank"].tolist() == lists["rank"].tolist()
    assert [f"i{item}" for item in found["item"]] == lists["item"].tolist()
    assert found["logp"].tolist() == pytest.approx(lists["logp"].tolist(), abs=1e-4)


def test_list_metrics_by_plain_loops(toy):
    evaluate(toy.run, toy.params, CPU)
    found = json.loads((toy.run.folder / "metrics.json").read_text())["test"]
    lists, items = pd.read_parquet(toy.run.folder / "lists.parquet"), range(toy.codes.items)
    ranks = pd.read_parquet(toy.run.folder / "ranks.parquet").query("split == 'test'")
    trained_on = [item for user in range(9) for item in toy.histories.rows_of(np.array([user]))[1][:-2].tolist()]
    popularity = [trained_on.count(item) for item in items]
    counts = [lists["item"].tolist().count(item) for item in items]
    assert found["coverage@20"] == pytest.approx(sum(count > 0 for count in counts) / len(items))
    assert found["popularity@20"] == pytest.approx(np.mean([popularity[item] for item in lists["item"]]))
    differences = sum(abs(one - other) for one in counts for other in counts)
    assert found["gini@20"] == pytest.approx(differences / (2 * len(items) * sum(counts)))
    most_popular = sorted(items, key=lambda item: -popularity[item])
    head = {item for item in most_popular[:6] if popularity[item]}  # 20 % of 30
    cold = {item for item in items if not popularity[item]}
    recalls = dict(zip(ranks["user"], user_metrics(ranks)["item_recall@20"], strict=True))
    for name, group in (("head", head), ("tail", set(items) - head - cold), ("cold", cold)):
        those = [recalls[row.user] for row in ranks.itertuples() if row.item in group]
        expected = np.mean(those) if those else None
        assert found[f"{name}_item_recall@20"] == (None if expected is None else pytest.approx(expected))


def test_no_metric_beyond_what_was_ranked(toy):
    """Six beams suffice for the cutoff 5; at 10 and 20 the value would be recall@6 under another name."""
    trained = TrainedRun(toy.run, toy.params, CPU)
    assert 10 < len(toy.codes.distinct) < 20
    whole = evaluate_split(trained, "test").metrics
    found = evaluate_split(trained, "test", beam=6)
    table, narrow = found.ranks, found.metrics
    assert (table["rank"] <= 6).all() and list(narrow) == list(whole)
    for level in ("", "item_"):
        for kind in ("recall", "ndcg"):
            assert 0 <= narrow[f"{level}{kind}@5"] <= 1
            assert narrow[f"{level}{kind}@10"] is None and narrow[f"{level}{kind}@20"] is None
    assert narrow["recall@5"] == (table["rank"].between(1, 5)).mean()
    assert narrow["prefix_recall@20"] is None and all(narrow[name] is None for name in LIST_METRICS)
    # Every code was ranked, so every cutoff is valid, also one larger than the catalogue.
    assert {name for name, value in whole.items() if value is None} <= {f"{group}_item_recall@20" for group in GROUPS}
    assert whole["recall@20"] == 1
    assert evaluate_split(trained, "test", beam=50).metrics == whole


@pytest.mark.parametrize("beam", [5, 10, 20])
def test_a_beam_as_wide_as_a_cutoff_has_its_metrics(crowded_toy, beam):
    """The shipped beam is the largest cutoff."""
    found = evaluate_split(TrainedRun(crowded_toy.run, crowded_toy.params, CPU), "test", beam=beam)
    known = {k for k in (5, 10, 20) if found.metrics[f"recall@{k}"] is not None}
    assert known == {k for k in (5, 10, 20) if k <= beam}
    assert found.metrics[f"recall@{beam}"] == pytest.approx(found.ranks["rank"].between(1, beam).mean())
    of_all = [found.metrics[name] is not None for name in ("prefix_recall@20", "coverage@20")]
    assert of_all == [beam == 20] * 2


def test_some_of_the_users(toy):
    """A sample has its own means and the rows that its users have among all."""
    trained, users = TrainedRun(toy.run, toy.params, CPU), np.array([1, 4, 5])
    whole, found = evaluate_split(trained, "test"), evaluate_split(trained, "test", users=users)
    pd.testing.assert_frame_equal(found.ranks, whole.ranks.loc[users].reset_index(drop=True))
    listed = whole.list_table()
    pd.testing.assert_frame_equal(found.list_table(), listed[listed["user"].isin(users)].reset_index(drop=True))
    assert found.metrics["users"] == 3
    assert found.metrics["ndcg@10"] == user_metrics(whole.ranks)["ndcg@10"][users].mean()


def test_users_come_in_any_batches(toy):
    wide = evaluate_split(TrainedRun(toy.run, toy.params, CPU), "test").ranks
    one = toy.params.model_copy(update={"decoding": toy.params.decoding.model_copy(update={"batch_users": 1})})
    pd.testing.assert_frame_equal(evaluate_split(TrainedRun(toy.run, one, CPU), "test").ranks, wide)


def test_pruning_keeps_everything_with_the_whole_catalogue(toy):
    exact(toy.run, toy.params, 1000, CPU)
    found = json.loads((toy.run.folder / "pruning.json").read_text())
    assert found["kept"] == pytest.approx([1.0] * 3) and found["users"] == toy.histories.users


def test_pruning_of_a_narrow_beam(toy):
    """The share of the exact top 20 (all codes, as there are fewer) whose prefix is still in a beam of 2."""
    params = toy.with_beam(2)
    exact(toy.run, params, 1000, CPU)
    kept = json.loads((toy.run.folder / "pruning.json").read_text())["kept"]
    slow, eos = SlowModel(toy.backbone), params.decodes_eos
    codes = [tuple(code) for code in toy.codes.distinct_tokens.tolist()]
    expected = np.zeros(3)
    for _, history in toy.targets("test"):
        top = sorted(codes, key=lambda code, history=history: -slow.score(history, code, eos))[:20]
        beams = [(0.0, ())]
        for level in range(3):
            grown = {
                (score + slow.next_logp(history, prefix)[code[level]], code[: level + 1])
                for score, prefix in beams
                for code in codes
                if code[:level] == prefix
            }
            beams = sorted(grown, reverse=True)[:2]
            alive = {prefix for _, prefix in beams}
            expected[level] += np.mean([code[: level + 1] in alive for code in top])
    found = json.loads((toy.run.folder / "pruning.json").read_text())
    assert (found["beam"], found["top"]) == (2, len(toy.codes.distinct))
    assert kept == pytest.approx((expected / toy.histories.users).tolist())
    assert 0 < kept[2] < kept[0] < 1


def test_beam_sizes_agree_with_evaluation(toy):
    beam_sizes(toy.run, toy.params, (1, 3), CPU)
    found = json.loads((toy.run.folder / "beams.json").read_text())["beams"]
    assert [row["beam"] for row in found] == [1, 3]
    for row in found:
        metrics = evaluate_split(TrainedRun(toy.run, toy.with_beam(row["beam"]), CPU), "test").metrics
        assert {name: row[name] for name in metrics} == metrics
        assert row["recall@5"] is None and row["prefix_recall@20"] is None
        assert row["intervals"]["recall@5"] is None


def test_metrics_at_a_beam_size_have_intervals_over_the_users(toy):
    beam_sizes(toy.run, toy.params, (6,), CPU)
    (row,) = json.loads((toy.run.folder / "beams.json").read_text())["beams"]
    ranks = evaluate_split(TrainedRun(toy.run, toy.params, CPU), "test", beam=6).ranks
    assert row["intervals"]["ndcg@5"] == intervals(user_metrics(ranks)["ndcg@5"][:, None])[0].tolist()
    assert row["intervals"]["ndcg@5"][0] <= row["ndcg@5"] <= row["intervals"]["ndcg@5"][1]


def test_decoding_time_grows_with_the_catalogue_list(toy):
    params = TimedDecoding(
        backbone=toy.params.backbone,
        decoding=toy.params.decoding,
        threads=1,
        timing={"catalogue_sizes": (40, 300), "users": 2},
    )
    decoding_time("toy", toy.run.backbone, params, CPU)
    found = json.loads(decoding_time_file("toy", toy.run.backbone).read_text())
    assert [row["items"] for row in found["rows"]] == [40, 300]
    assert all(row[kind] > 0 for row in found["rows"] for kind in row)


@pytest.mark.parametrize(("items", "clusters"), [(1, 1), (17, 2), (1000, 256), (300, 3)])
def test_synthetic_codes_are_distinct(items, clusters):
    codes = synthetic_codes(items, 4, clusters, seed=0)
    assert codes.items == len(codes.distinct) == items and codes.levels == 4
    assert (synthetic_codes(items, 4, clusters, seed=0).codes == codes.codes).all()


def test_a_beam_wider_than_the_catalogue_is_refused(toy):
    most = len(toy.codes.distinct)
    with pytest.raises(
        UserError, match=rf"decoding.beam {most + 1} is more than the catalogue's {most} .*decoding.beam to all"
    ):
        TrainedRun(toy.run, toy.with_beam(most + 1), CPU)


def test_a_truncated_model_is_named(toy):
    path = toy.run.folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"model\.safetensors: not a whole safetensors file"):
        TrainedRun(toy.run, toy.params, CPU)


def test_a_model_of_other_sizes_is_named(toy):
    other = run_params(toy.run.backbone, sizes={"heads": 4, "d_kv" if toy.run.backbone == "tiger" else "hidden": 32})
    with pytest.raises(UserError, match=r"model.safetensors: weight .* train it again"):
        TrainedRun(toy.run, other, CPU)


def test_a_model_changed_after_its_stage_is_named(toy):
    """The training's record contains the hash of the weights."""
    write_json(toy.run.folder / "train.provenance.json", record_of({"model.safetensors": "0" * 64}))
    with pytest.raises(UserError, match="does not match the hash"):
        TrainedRun(toy.run, toy.params, CPU)


def test_codes_of_another_training_are_refused(toy):
    """With as many items and the same tokens, nothing else would be noticed."""
    ItemCodes(toy.codes.codes[::-1]).write(TOY.codes)
    with pytest.raises(UserError, match=rf"{TOY.codes}: has other items or codes than those that {toy.run} was"):
        TrainedRun(toy.run, toy.params, CPU)
    toy.run.catalogue.unlink()
    with pytest.raises(UserError, match=rf"{toy.run.catalogue}: not found"):
        TrainedRun(toy.run, toy.params, CPU)


def test_items_with_other_numbers_are_refused(toy):
    """As after sorting the user's own file: codes that do not depend on the items stay the same."""
    for path in (TOY.interactions, TOY.items):
        table = pd.read_parquet(path)
        table["item"] = table["item"].replace({0: 1, 1: 0})
        (table.sort_values("item") if path == TOY.items else table).to_parquet(path, index=False)
    with pytest.raises(UserError, match=rf"{TOY.codes}: has other items or codes than those that {toy.run} was"):
        TrainedRun(toy.run, toy.params, CPU)


def test_a_missing_model_is_named(toy):
    (toy.run.folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"model\.safetensors: not found"):
        TrainedRun(toy.run, toy.params, CPU)


def test_a_metric_that_is_added_is_evaluated(toy, monkeypatch):
    monkeypatch.setitem(METRICS, "mrr", Metric("MRR", "M", lambda places: 1 / places))
    evaluate(toy.run, toy.params, CPU)
    baselines("toy")
    metrics = json.loads((toy.run.folder / "metrics.json").read_text())
    ranks = pd.read_parquet(toy.run.folder / "ranks.parquet").query("split == 'test'")["rank"]
    assert metrics["test"]["mrr@10"] == pytest.approx(np.mean([1 / rank if 0 < rank <= 10 else 0 for rank in ranks]))
    untrained = json.loads(DatasetPaths("toy").baselines.read_text())
    assert {"mrr@5", "item_mrr@20"} < metrics["valid"].keys() & untrained["random"].keys()
    assert untrained["most-popular"]["mrr@20"] > 0
