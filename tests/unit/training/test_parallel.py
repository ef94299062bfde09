"""Two and three processes give the same training as one."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.forks import run_processes
from helpers.models import random_codes, random_histories, run_params

from apao.devices import pick_device
from apao.errors import UserError
from apao.training.loop import Row, Training
from apao.training.parallel import ALONE, Processes, joined

CPU = torch.device("cpu")
CODES = random_codes(20, 3, 4)
HISTORIES = random_histories([5, 9, 4, 12, 3, 7, 8, 6], CODES.items)
EMBEDDINGS = np.random.default_rng(0).normal(size=(CODES.items, 4)).astype(np.float32)
NO_DROPOUT = {"dropout": 0.0}
PAIRWISE = {"type": "apao-pairwise", "negatives": 4, "eta": 0.3, "weights": "eq17"}
CASES = {
    "carried weights": ("tiger", PAIRWISE, {"sizes": NO_DROPOUT}),
    "algorithm 1": ("llama", {"type": "apao-pointwise", "weights": "algorithm1", "eta": 0.3}, {}),
    "reference": ("llama", {"type": "s-dpo", "negatives": 3}, {}),
    "packed": ("llama", PAIRWISE, {"sizes": {"pack": True, "max_history": 4}}),
    "learned mixture": ("tiger", {"type": "multi-target"}, {"sizes": NO_DROPOUT}),
    "one part a step": ("tiger", PAIRWISE, {"sizes": NO_DROPOUT, "micro_batch_tokens": 10**6}),
    "dropout": ("tiger", {"type": "ce"}, {"sizes": {"dropout": 0.2}}),
}
BY_THREE = ("carried weights", "packed", "one part a step", "dropout")

Found = dict[str, tuple[list[Row], dict[str, np.ndarray]]]


def training_of(case: str, processes: Processes = ALONE) -> Training:
    name, objective, settings = CASES[case]
    params = run_params(name, objective, epochs=2, batch_size=10, **{"micro_batch_tokens": 100, **settings})
    return Training("toy/run", params, HISTORIES, CODES, CPU, embeddings=EMBEDDINGS, processes=processes)


def train(cases: tuple[str, ...], folder: Path, processes: Processes = ALONE) -> Found:
    """History and weights, objective state included, of each case."""
    found = {}
    for case in cases:
        training = training_of(case, processes)
        history = training.fit(folder / case, "x").history
        weights = {**training.backbone.state_dict(), **training.state}
        timeless = [{name: value for name, value in row.items() if name != "seconds"} for row in history]
        found[case] = timeless, {name: value.detach().numpy() for name, value in weights.items()}
    return found


def train_as_one_of(rank: int, cases: tuple[str, ...], folder: Path) -> Found:
    with joined() as processes:
        assert processes.rank == rank
        return train(cases, folder, processes)


@pytest.fixture(scope="module")
def found_by(tmp_path_factory: pytest.TempPathFactory):
    """Results of some cases by each of ``size`` processes, computed once."""

    @cache
    def found(size: int, cases: tuple[str, ...] | None = None) -> list[Found]:
        cases = cases or (BY_THREE if size == 3 else tuple(CASES))
        folder = tmp_path_factory.mktemp("runs")
        return [train(cases, folder)] if size == 1 else run_processes(size, train_as_one_of, cases, folder)

    return found


@pytest.mark.parametrize("size", [2, 3])
def test_some_steps_cannot_be_shared_evenly(size):
    """Some steps have fewer micro-batches than processes, some a number that is not a multiple of it."""
    epochs = [training.sampler.epoch(30, 10, training.generator) for training in map(training_of, CASES)]
    counts = [sum(1 for _ in batch.parts) for epoch in epochs for batch in epoch]
    assert any(count < size for count in counts)
    assert any(count > size and count % size for count in counts)


@pytest.mark.parametrize(("size", "case"), [(2, case) for case in CASES] + [(3, case) for case in BY_THREE])
def test_history_and_weights_are_those_of_one_process(size, case, found_by):
    """Equal up to rounding, since the same numbers are summed in another order."""
    (history, weights), (expected, expected_weights) = found_by(size)[0][case], found_by(1)[0][case]
    assert len(history) == len(expected) == 2
    for row, other in zip(history, expected, strict=True):
        # A negative may equal the target; which reward is smaller then depends on rounding.
        exact = {name: value for name, value in row.items() if not name.endswith("preferred")}
        # Rewards are small differences of log-probabilities near 3.
        assert exact == pytest.approx({name: other[name] for name in exact}, rel=1e-6, abs=1e-6)
        assert all(row[name] == other[name] for name in ("epoch", "steps", "examples", "lr", "best"))
    assert weights.keys() == expected_weights.keys()
    for name, value in weights.items():
        np.testing.assert_allclose(value, expected_weights[name], rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(("size", "case"), [(2, case) for case in CASES] + [(3, case) for case in BY_THREE])
def test_all_processes_hold_the_same(size, case, found_by):
    """The processes are bit-identical; otherwise they would diverge."""
    (history, weights), *others = (found[case] for found in found_by(size))
    for other_history, other_weights in others:
        assert other_history == history
        assert all(np.array_equal(other_weights[name], weights[name]) for name in weights)


def test_as_many_processes_give_the_same_numbers_again(found_by):
    """Bit-identical, including dropout."""
    history, weights = found_by(2)[0]["dropout"]
    again, weights_again = found_by(2, ("dropout",))[0]["dropout"]
    assert again == history
    assert all(np.array_equal(weights_again[name], weights[name]) for name in weights)


def test_processes_that_cannot_meet(monkeypatch):
    """WORLD_SIZE is set, but there are no other processes."""
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(UserError, match=r"WORLD_SIZE is 3.*torchrun"), joined():
        pass


def test_a_number_of_processes_that_is_none(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(UserError, match="WORLD_SIZE is 'two', expected a number of processes"), joined():
        pass


def test_a_process_without_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "99")
    with pytest.raises(UserError, match=r"'cuda:99'.*one process per GPU"):
        pick_device("cuda")
    assert pick_device("cpu") == CPU
