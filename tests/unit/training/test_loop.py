"""The training loop: gradients, schedule, selection, interruption, divergence."""

import itertools
import math

import numpy as np
import pytest
import torch
import transformers
from helpers.models import BASELINES, BOTH, histories_of, random_codes, random_histories, run_params
from hypothesis import given
from hypothesis import strategies as st

from apao.checkpoint import load_checkpoint, save_checkpoint
from apao.errors import UserError
from apao.objectives.apao import CARRIED
from apao.training.loop import RELEASE_BATCH, Sums, Training, learning_rate
from apao.training.scoring import score_batch

CPU = torch.device("cpu")
CODES = random_codes(20, 3, 4)
HISTORIES = random_histories([5, 9, 4, 12, 3, 7, 8, 6], CODES.items)
NO_DROPOUT = {"dropout": 0.0}
PAIRWISE = {"type": "apao-pairwise", "negatives": 4, "eta": 0.3, "weights": "eq17"}


def training_of(params, histories=HISTORIES):
    return Training("toy/run", params, histories, CODES, CPU)


def gradients(backbone):
    return {name: parameter.grad.clone() for name, parameter in backbone.named_parameters()}


@pytest.mark.parametrize(
    "objective",
    [
        {"type": "ce"},
        {"type": "apao-pointwise", "weights": "eq17", "eta": 0},
        {"type": "apao-pairwise", "negatives": 4, "weights": "algorithm1", "eta": 0},
        {"type": "apao-pairwise", "negatives": 4, "weights": "uniform"},
    ],
    ids=["ce", "pointwise", "pairwise-algorithm1", "pairwise-uniform"],
)
@pytest.mark.parametrize("name", BOTH)
def test_micro_batches_accumulate_to_the_gradient_of_the_whole(name, objective, tmp_path):
    """One step on all examples, in micro-batches of one to all of them, against one big batch."""
    found = []
    for budget in (1, 150, 10**6):
        params = run_params(
            name,
            objective,
            epochs=1,
            batch_size=10**6,
            grad_clip=1e9,
            micro_batch_tokens=budget,
            sizes=NO_DROPOUT,
        )
        training = training_of(params)
        training.fit(tmp_path / f"{budget}", "x")
        found.append(gradients(training.backbone))

    fresh = training_of(params)
    fresh.backbone.train()
    generator = torch.Generator().manual_seed(params.seed)
    (epoch,) = fresh.sampler.epoch(10**6, 10**6, generator)
    (batch,) = epoch.parts
    scores = score_batch(fresh.backbone, batch, fresh.objective.eos, fresh.statistics)
    fresh.objective(scores, fresh.state).loss.backward()
    for each in found:
        torch.testing.assert_close(each, gradients(fresh.backbone), atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize("name", ["llama", *BASELINES])
def test_packing_gives_the_same_step(name, tmp_path):
    """All examples in one step: packed or not, the gradient is the same."""
    found = []
    for pack in (False, True):
        sizes = {"pack": pack, "max_history": 4, **NO_DROPOUT}
        params = run_params(name, epochs=1, batch_size=10**6, grad_clip=1e9, sizes=sizes)
        training = training_of(params)
        training.fit(tmp_path / f"{pack}", "x")
        found.append(gradients(training.backbone))
    torch.testing.assert_close(*found, atol=1e-6, rtol=1e-3)


def test_gradients_are_clipped_to_the_norm(tmp_path):
    training = training_of(run_params(epochs=1, batch_size=10**6, grad_clip=1e-3))
    training.fit(tmp_path / "x", "x")
    norm = torch.stack([gradient.norm() for gradient in gradients(training.backbone).values()]).norm()
    assert norm.item() == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("name", BOTH + BASELINES)
def test_only_matrices_decay(name):
    """Every weight is in one group; norm scales and T5's tables of relative biases do not decay."""
    training = training_of(run_params(name, weight_decay=1.0))
    decays = {id(p): decay for parameters, decay in training.optimizer.groups for p in parameters}
    assert len(decays) == len(list(training.backbone.parameters()))
    assert {name for name, p in training.backbone.named_parameters() if decays[id(p)] == 0} == {
        name for name, _ in training.backbone.named_parameters() if "norm" in name or "bias" in name
    }


@pytest.mark.parametrize(("epochs", "batch_size"), [(1, 10**6), (3, 10**6), (1, 10), (2, 7)])
@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.5, 0.9])
def test_no_step_has_a_learning_rate_of_0(epochs, batch_size, warmup, tmp_path):
    """Every step changes the weights, also if an epoch or the whole training is a single step."""
    training = training_of(run_params(epochs=epochs, batch_size=batch_size, warmup=warmup))
    rates = []
    step = training.step

    def watched(batch, sums):
        before = training.backbone.embedding.weight.detach().clone()
        step(batch, sums)
        rates.append(training.optimizer.lr)
        assert not torch.equal(before, training.backbone.embedding.weight)

    training.step = watched
    training.fit(tmp_path / "x", "x")
    assert len(rates) >= epochs and min(rates) > 0 and max(rates) <= training.recipe.lr


def test_learning_rate_by_hand():
    rates = [learning_rate(done, 0.2) for done in (0, 0.05, 0.1, 0.2, 0.6, 1.0)]
    assert rates == pytest.approx([0, 0.25, 0.5, 1, 0.5, 0])
    assert learning_rate(0, 0) == 1 and learning_rate(0.5, 0) == pytest.approx(0.5)
    assert learning_rate(0.4, 0.2) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))


@given(st.integers(2, 200), st.integers(0, 50))
def test_learning_rate_is_the_usual_schedule_of_steps(steps, warm):
    warm = min(warm, steps - 1)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = transformers.get_cosine_schedule_with_warmup(optimizer, warm, steps).lr_lambdas[0]
    for step in range(steps):
        assert learning_rate(step / steps, warm / steps) == pytest.approx(schedule(step), abs=1e-9)


def test_the_schedule_spans_all_epochs(tmp_path):
    """3 epochs of 3 steps over 30 examples: the middle of the last step of each is after 25, 55 and 85 of 90."""
    histories = random_histories([13, 13, 13], CODES.items)
    params = run_params(epochs=3, batch_size=10, warmup=0.1, lr=1e-3)
    rows = training_of(params, histories).fit(tmp_path / "x", "x").history
    assert [row["steps"] for row in rows] == [3, 3, 3] and [row["examples"] for row in rows] == [30, 30, 30]
    expected = [1e-3 * learning_rate(done / 90, 0.1) for done in (25, 55, 85)]
    assert [row["lr"] for row in rows] == pytest.approx(expected)


def test_examples_per_epoch(tmp_path):
    params = run_params(epochs=2, batch_size=8, examples_per_epoch=20)
    training = training_of(params)
    assert training.epoch_examples == 20
    rows = training.fit(tmp_path / "x", "x").history
    assert [(row["examples"], row["steps"]) for row in rows] == [(20, 3)] * 2
    assert training_of(run_params(examples_per_epoch=10**6)).epoch_examples == training.sampler.examples


class StoppedError(Exception):
    """Simulates a kill after an epoch."""


CASES = {
    "tiger with dropout": ("tiger", {"type": "ce"}, {"sizes": {"dropout": 0.2}}),
    "carried weights": ("llama", PAIRWISE, {}),
    "packed": ("llama", PAIRWISE, {"sizes": {"pack": True, "max_history": 4}}),
    "sampled": ("llama", {"type": "apao-pointwise"}, {"examples_per_epoch": 12, "micro_batch_tokens": 60}),
}


@pytest.mark.parametrize("case", CASES)
def test_an_interrupted_training_ends_as_an_uninterrupted_one(case, tmp_path):
    """Killed after epochs 1 and 3 and resumed each time: bit-identical."""
    name, objective, settings = CASES[case]
    params = run_params(name, objective, epochs=5, **settings)
    whole = training_of(params)
    expected = whole.fit(tmp_path / "whole", "x")

    seen = []

    def stop_after(epoch):
        def on_epoch(row):
            seen.append(row["epoch"])
            if row["epoch"] == epoch:
                raise StoppedError

        return on_epoch

    for epoch in (1, 3):
        # Nothing may depend on the earlier state of the process.
        torch.manual_seed(epoch)
        with pytest.raises(StoppedError):
            training_of(params).fit(tmp_path / "killed", "x", stop_after(epoch))
    last = training_of(params)
    found = last.fit(tmp_path / "killed", "x", stop_after(None))
    assert seen == [1, 1, 2, 3, 1, 2, 3, 4, 5]

    assert found.best_epoch == expected.best_epoch
    for one, other in ((found.best, expected.best), (last.backbone.state_dict(), whole.backbone.state_dict())):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)
    assert all(torch.equal(last.state[key], whole.state[key]) for key in whole.state)

    def timeless(history):
        return [{key: value for key, value in row.items() if key != "seconds"} for row in history]

    assert timeless(found.history) == timeless(expected.history)


def test_a_checkpoint_of_other_parameters_is_not_taken_up(tmp_path):
    """Another fingerprint starts from scratch; the same one resumes, here from a finished training."""
    one, other = (run_params(epochs=2).model_copy(update={"seed": seed}) for seed in (1, 2))
    first = training_of(one).fit(tmp_path / "x", "one").best
    resumed = training_of(other).fit(tmp_path / "x", "one").best
    restarted = training_of(other).fit(tmp_path / "x", "two").best
    expected = training_of(other).fit(tmp_path / "y", "two").best
    for key in first:
        assert torch.equal(resumed[key], first[key]) and torch.equal(restarted[key], expected[key])
    assert any(not torch.equal(restarted[key], first[key]) for key in first)


@pytest.mark.parametrize(
    "damage",
    [
        lambda saved: saved.tensors.pop("model"),
        lambda saved: saved.tensors["model"].popitem(),
        lambda saved: saved.tensors["optimizer"].update({"x.step": torch.ones(1)}),
        lambda saved: saved.tensors["objective"].update(other=torch.ones(1)),
        lambda saved: saved.tensors["random"].update(sampler=torch.ones(3)),
        lambda saved: saved.progress.pop("history"),
    ],
)
def test_a_checkpoint_with_another_content_is_one_clear_error(tmp_path, damage):
    """The hash matches, but another version of the program wrote the content."""
    params = run_params("tiger", PAIRWISE, epochs=1)
    training_of(params).fit(tmp_path / "x", "x")
    saved = load_checkpoint(tmp_path / "x", "x")
    damage(saved)
    save_checkpoint(tmp_path / "x", saved, "x")
    with pytest.raises(UserError, match=r"x: was written for this run by an incompatible version .* delete it"):
        training_of(params).fit(tmp_path / "x", "x")


def test_a_finished_training_is_not_trained_further(tmp_path):
    params = run_params(epochs=2)
    first = training_of(params).fit(tmp_path / "x", "x")
    again = training_of(params).fit(tmp_path / "x", "x")
    assert again.history == first.history
    assert all(torch.equal(again.best[key], first.best[key]) for key in first.best)


@pytest.mark.parametrize("patience", [1, 3])
def test_patience(patience, tmp_path):
    """With constant weights no epoch is better than the first."""
    params = run_params(epochs=9, patience=patience, lr=1e-30)
    trained = training_of(params).fit(tmp_path / "x", "x")
    assert len(trained.history) == 1 + patience and trained.best_epoch == 1
    assert [row["best"] for row in trained.history] == [1.0] + [0.0] * patience
    # The same decision after resuming.
    assert len(training_of(params).fit(tmp_path / "x", "x").history) == 1 + patience


def test_patience_counts_from_the_best_epoch(tmp_path, monkeypatch):
    losses = [3.0, 2.0, 1.0, 1.5, 1.4, 1.3, 1.2]
    monkeypatch.setattr(Training, "validate", lambda self, epoch: {"loss": losses[epoch]})
    trained = training_of(run_params(epochs=7, patience=2)).fit(tmp_path / "x", "x")
    assert (trained.best_epoch, len(trained.history)) == (3, 5)


def test_no_two_micro_batches_have_the_same_dropout_masks(monkeypatch):
    """Of two seeds and two steps."""
    params = run_params(epochs=1, micro_batch_tokens=60, batch_size=8)
    trainings = [training_of(params.model_copy(update={"seed": seed})) for seed in (1, 2)]
    seeds = []
    monkeypatch.setattr(torch, "manual_seed", seeds.append)
    for training in trainings:
        for batch in itertools.islice(training.sampler.epoch(10**6, 8, training.generator), 2):
            training.step(batch, Sums(training.processes))
    assert len(set(seeds)) == len(seeds) > 8


def test_the_best_epoch_is_that_of_the_lowest_validation_loss(tmp_path):
    params = run_params(epochs=8, lr=0.05, patience=9)
    training = training_of(params)
    trained = training.fit(tmp_path / "x", "x")
    losses = [row["valid_loss"] for row in trained.history]
    assert trained.best_epoch == 1 + int(np.argmin(losses)) < 8
    training.backbone.load_state_dict(trained.best)
    assert training.validate(0)["loss"] == min(losses)


def test_validation_is_the_mean_over_users_and_touches_no_random_state():
    params = run_params("tiger", PAIRWISE, micro_batch_tokens=200)
    training = training_of(params)
    before = training.generator.get_state(), torch.get_rng_state()
    found = training.validate(0)
    assert found == training.validate(3)
    assert torch.equal(before[0], training.generator.get_state()) and torch.equal(before[1], torch.get_rng_state())
    assert not training.state[CARRIED].requires_grad
    # The targets are the last items but one, the histories all before them.
    users = np.arange(HISTORIES.users)
    positions = np.diff(HISTORIES.offsets) - 2
    batch = training.validation.source.batch(users, positions)
    ce = training_of(run_params("tiger")).objective
    with torch.no_grad():
        loss = ce(score_batch(training.backbone, batch, ce.eos, training.statistics), {}).loss
    assert found["ce"] == pytest.approx(loss.item(), rel=1e-5)


@pytest.mark.parametrize("users", [RELEASE_BATCH, RELEASE_BATCH + 1, 2 * RELEASE_BATCH + 40])
@pytest.mark.parametrize("kind", ["ce", "apao-pointwise"])
def test_release_selection_looks_at_the_last_validation_batch(kind, users):
    """APAO: the last batch of 128, in the order of the users; cross-entropy: all users, as by default."""
    histories = random_histories([3 + user % 4 for user in range(users)], CODES.items)
    last = (users - 1) % RELEASE_BATCH + 1 if kind != "ce" else users
    positions = histories.evaluation_targets("valid")
    training = training_of(
        run_params("llama", {"type": kind, "weights": "uniform"} if kind != "ce" else None), histories
    )
    chosen = np.arange(users)[-last:]
    batch = training.validation.source.batch(chosen, positions[chosen])
    with torch.no_grad():
        scores = score_batch(training.backbone.eval(), batch, training.objective.eos, training.statistics)
        expected = training.objective(scores, training.state).loss.item()
    release = run_params("llama", training.objective.model_dump(), selection="release")
    assert training_of(release, histories).validate(0)["loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("examples", "where"), [(None, "epoch 1, step 4"), (8, "validation after epoch [12]")])
def test_divergence_names_run_step_and_term(examples, where, tmp_path):
    """A learning rate of 1e30 destroys the weights at the first step; with one step per epoch validation finds it."""
    params = run_params(lr=1e30, warmup=0.0, examples_per_epoch=examples)
    with pytest.raises(UserError, match=rf"toy/run, {where}.*(loss|ce) is (nan|inf).*Lower lr"):
        training_of(params).fit(tmp_path / "x", "x")


@pytest.mark.parametrize("name", BOTH)
def test_bf16_computes_in_bf16_and_keeps_fp32_weights(name, tmp_path):
    """Autocast on the CPU: close to fp32 but not equal, and the loss decreases."""
    losses = {}
    for precision in ("fp32", "bf16"):
        params = run_params(name, PAIRWISE, lr=1e-2, precision=precision, sizes=NO_DROPOUT)
        training = training_of(params)
        trained = training.fit(tmp_path / precision, "x")
        assert all(parameter.dtype == torch.float32 for parameter in training.backbone.parameters())
        assert all(value.dtype == torch.float32 for value in trained.best.values())
        losses[precision] = [row["train_loss"] for row in trained.history]
    assert losses["bf16"] != losses["fp32"]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.05)
    assert losses["bf16"][-1] < losses["bf16"][0]


def test_a_carried_state_survives_the_epochs(tmp_path):
    training = training_of(run_params("llama", PAIRWISE, epochs=1))
    assert training.state[CARRIED].exp().tolist() == pytest.approx([1 / 3] * 3)
    training.fit(tmp_path / "x", "x")
    w = training.state[CARRIED].softmax(0)
    assert w.sum().item() == pytest.approx(1, abs=1e-5) and w.std() > 0.01


def test_nothing_to_train_on():
    with pytest.raises(UserError, match="toy/run: no user has a training history of two items"):
        training_of(run_params(), histories_of([[1, 2, 3], [4, 5, 6]]))


def test_a_level_that_the_codes_do_not_have():
    with pytest.raises(UserError, match="toy/run: drop_level 3"):
        training_of(run_params(objective={"type": "apao-pointwise", "drop_level": 3}))


@pytest.mark.parametrize("budget", [60, 10**6])
def test_carried_state_moves_with_the_step_however_it_is_cut(budget):
    """Two steps of many micro-batches or of one each: two steps are counted, and carried weights sum to 1."""
    embeddings = np.random.default_rng(0).normal(size=(CODES.items, 4)).astype(np.float32)
    for objective in ({"type": "multi-target"}, {**PAIRWISE, "weights": "eq17", "eta": 0.5}):
        params = run_params("tiger", objective, micro_batch_tokens=budget, batch_size=20)
        training = Training("toy/run", params, HISTORIES, CODES, CPU, embeddings=embeddings)
        batches = training.sampler.epoch(40, 20, training.generator)
        sums = Sums()
        for batch in itertools.islice(batches, 2):
            training.step(batch, sums)
        if objective["type"] == "multi-target":
            assert training.state["step"].item() == pytest.approx(2)
        else:
            weights = training.state[CARRIED].softmax(0)
            assert weights.sum().item() == pytest.approx(1) and (weights - 1 / 3).abs().max() > 1e-3
