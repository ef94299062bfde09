"""Exact scoring beside beam search, against a slow ranking of every code."""

import json

import numpy as np
import pytest
import torch

from apao.evaluation.metrics import moved
from apao.stages.exact import exact, sample

CPU = torch.device("cpu")


def test_exact_ranks_are_those_of_every_code_scored_by_itself(toy):
    exact(toy.run, toy.with_beam(2), 1000, CPU)
    found = json.loads((toy.run.folder / "exact.json").read_text())
    users = list(range(toy.histories.users))
    assert found["users"] == found["of_users"] == len(users) and found["ranks"]["user"] == users
    expected = [1 + codes.index(tuple(toy.codes.tokens[target])) for target, codes in toy.rankings("test")]
    assert found["ranks"]["exact"] == expected
    assert found["exact_recall@5"] == pytest.approx(np.mean([rank <= 5 for rank in expected]))
    # A beam of two has two codes.
    assert set(found["ranks"]["beam"]) <= {0, 1, 2}
    lost = [b == 0 and e <= 5 for b, e in zip(found["ranks"]["beam"], expected, strict=True)]
    assert found["lost@5"] == pytest.approx(np.mean(lost))


def test_a_beam_of_every_code_loses_nothing(toy):
    exact(toy.run, toy.params, 1000, CPU)
    found = json.loads((toy.run.folder / "exact.json").read_text())
    assert found["ranks"]["beam"] == found["ranks"]["exact"]
    assert all(found[f"{kind}@{k}"] == 0 for kind in ("lost", "won") for k in (5, 10, 20))
    assert found["recall@10"] == found["exact_recall@10"] and found["ndcg@20"] == found["exact_ndcg@20"]


def test_a_sample_of_users_is_the_same_for_every_run(toy):
    exact(toy.run, toy.params, 4, CPU)
    found = json.loads((toy.run.folder / "exact.json").read_text())
    assert found["ranks"]["user"] == sample(np.arange(toy.histories.users), 4).tolist() and found["users"] == 4
    assert len(set(found["ranks"]["user"])) == 4


def test_a_sample_has_every_user_once_in_order():
    found = sample(np.arange(1000), 900)
    assert len(set(found.tolist())) == 900 and (np.diff(found) > 0).all()
    # Of Office's 4,905 test users: another sample would set runs of different revisions against other users.
    assert sample(np.arange(4905), 1000)[:6].tolist() == [1, 10, 15, 21, 23, 27]


def test_shares_that_only_one_of_beam_and_exact_scoring_finds():
    found = moved(np.array([0, 3, 7, 5]), np.array([5, 6, 4, 40]))
    assert found["lost@5"].tolist() == [1, 0, 1, 0] and found["won@5"].tolist() == [0, 1, 0, 1]
    assert found["lost@10"].tolist() == [1, 0, 0, 0] and found["won@10"].tolist() == [0, 0, 0, 1]
