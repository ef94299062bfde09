"""A checkpoint is read as it was saved, or refused."""

import random

import pytest
import torch
from safetensors.torch import save_file

from apao.checkpoint import Checkpoint, _digest, load_checkpoint, save_checkpoint
from apao.errors import UserError

TENSORS = {
    "model": {"weight": torch.randn(3, 2), "scale": torch.ones(4, dtype=torch.bfloat16)},
    "optimizer": {"0.step": torch.tensor(3.0), "0.exp_avg": torch.zeros(3, 2)},
    "random": {"torch": torch.get_rng_state()},
}
PROGRESS = {"history": [{"epoch": 1, "loss": 0.1 + 0.2}], "best_loss": 1e-17, "best_epoch": 1}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "run" / "checkpoint.safetensors"
    save_checkpoint(path, Checkpoint(TENSORS, PROGRESS), "parameters")
    return path


def test_round_trip(path):
    found = load_checkpoint(path, "parameters")
    assert found.progress == PROGRESS
    assert found.tensors.keys() == TENSORS.keys()
    for group, tensors in TENSORS.items():
        assert found.tensors[group].keys() == tensors.keys()
        for name, value in tensors.items():
            other = found.tensors[group][name]
            assert other.dtype == value.dtype and torch.equal(other, value)


def test_strided_tensors_are_saved_by_value(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    table = torch.arange(12.0).view(3, 4)
    save_checkpoint(path, Checkpoint({"model": {"turned": table.T}}, {}), "x")
    assert torch.equal(load_checkpoint(path, "x").tensors["model"]["turned"], table.T)


def test_none_when_there_is_none_or_it_is_of_another_run(path):
    assert load_checkpoint(path.with_name("other"), "parameters") is None
    assert load_checkpoint(path, "other parameters") is None


def test_replacing_is_whole_and_leaves_nothing_behind(path):
    save_checkpoint(path, Checkpoint({"model": {"weight": torch.ones(1)}}, {"history": []}), "new")
    assert load_checkpoint(path, "parameters") is None
    assert load_checkpoint(path, "new").tensors["model"]["weight"].item() == 1
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_every_damage_is_noticed(path):
    """A bit flipped or the end cut off anywhere is an error that names the file."""
    whole = path.read_bytes()
    rng = random.Random(0)
    header = int.from_bytes(whole[:8], "little") + 8
    places = [*rng.sample(range(header), 60), *rng.sample(range(header, len(whole)), 60)]
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"checkpoint\.safetensors: damaged checkpoint .*delete it"):
            load_checkpoint(path, "parameters")
    for length in (0, 1, 7, 8, header - 1, header, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match="damaged checkpoint"):
            load_checkpoint(path, "parameters")


@pytest.mark.parametrize("more", [{}, {"progress": "{"}, {"progress": "[" * 10**5}])
def test_a_right_hash_of_something_else_is_no_checkpoint(path, more):
    metadata = {"fingerprint": "parameters", **more}
    metadata["digest"] = _digest({}, metadata)
    save_file({}, path, metadata=metadata)
    with pytest.raises(UserError, match=r"damaged checkpoint \(its progress cannot be read"):
        load_checkpoint(path, "parameters")


def test_another_safetensors_file_is_no_checkpoint(path):
    save_file({"model/weight": torch.ones(2)}, path)
    with pytest.raises(UserError, match="damaged checkpoint"):
        load_checkpoint(path, "parameters")
