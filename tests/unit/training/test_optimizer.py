"""The optimizer against torch's own class."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from apao.training.optimizer import AdamW

SHAPES = ((5, 3), (7,), (4, 4), (2, 9))
GROUPS = ((0, 2), (1, 3))
DECAYS = (0.1, 0.0)
SKIPPED = 3
"""This parameter has no gradient until step ``FIRST``."""
FIRST = 2


def parameters():
    generator = torch.Generator().manual_seed(1)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def groups_of(made):
    return [([made[i] for i in group], decay) for group, decay in zip(GROUPS, DECAYS, strict=True)]


def differentiate(made, step):
    generator = torch.Generator().manual_seed(100 + step)
    for i, parameter in enumerate(made):
        gradient = torch.randn(parameter.shape, generator=generator)
        parameter.grad = None if i == SKIPPED and step < FIRST else gradient


def test_steps_are_those_of_torch_with_a_changing_rate_and_a_resume():
    ours, theirs = parameters(), parameters()
    optimizer = AdamW(groups_of(ours), lr=0.0)
    groups = [{"params": made, "weight_decay": decay} for made, decay in groups_of(theirs)]
    expected = torch.optim.AdamW(groups, lr=0.0, fused=True)
    for step in range(6):
        differentiate(ours, step)
        differentiate(theirs, step)
        optimizer.lr = 0.1 / (step + 1)
        for group in expected.param_groups:
            group["lr"] = optimizer.lr
        optimizer.step()
        expected.step()
        for mine, other in zip(ours, theirs, strict=True):
            assert torch.equal(mine, other)
        if step == 3:
            saved = {key: value.clone() for key, value in optimizer.tensors().items()}
            optimizer = AdamW(groups_of(ours), lr=0.0)
            optimizer.restore(saved)
    # The names of torch, so that its checkpoints can be read.
    theirs_state = expected.state_dict()["state"]
    assert {f"{i}.{name}" for i, state in theirs_state.items() for name in state} == set(optimizer.tensors())


def test_a_restored_optimizer_forgets_its_own_moments():
    made = parameters()
    optimizer = AdamW(groups_of(made), lr=0.1)
    differentiate(made, 0)  # one parameter has no gradient yet
    optimizer.step()
    saved = {key: value.clone() for key, value in optimizer.tensors().items()}
    differentiate(made, FIRST)
    optimizer.step()
    optimizer.restore(saved)
    found = optimizer.tensors()
    assert found.keys() == saved.keys() and all(torch.equal(found[key], saved[key]) for key in saved)


@pytest.mark.parametrize("key", ["9.step", "0.other", "x.step"])
def test_moments_of_other_parameters_are_refused(key):
    with pytest.raises((LookupError, ValueError)):
        AdamW(groups_of(parameters()), lr=0.1).restore({key: torch.zeros(())})


def test_gradients_are_removed_or_set_to_0_in_place():
    made = parameters()
    optimizer = AdamW(groups_of(made), lr=0.1)
    differentiate(made, 0)
    kept = [parameter.grad for parameter in made]
    optimizer.zero_grad(set_to_none=False)
    assert all(parameter.grad is gradient for parameter, gradient in zip(made, kept, strict=True))
    assert not any(gradient.any() for gradient in kept if gradient is not None)
    optimizer.zero_grad(set_to_none=True)
    assert all(parameter.grad is None for parameter in made)


def test_a_step_does_not_import_torchs_compiler():
    """It takes longer to import than everything else before the first step, except for torch."""
    script = """
import sys
import torch
from apao.training.optimizer import AdamW
weight = torch.nn.Parameter(torch.ones(3))
weight.sum().backward()
optimizer = AdamW([([weight], 0.1)], lr=0.1)
optimizer.zero_grad(set_to_none=False)
optimizer.step()
sys.exit("torch._dynamo" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
