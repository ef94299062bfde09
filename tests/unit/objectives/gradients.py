"""Gradients of a loss against central differences of its slow formula."""

from dataclasses import replace

import numpy as np

STEP = 1e-5
LEAVES = ("logits", "eos_logits", "negative_logp")
"""What a loss is differentiated by."""


def numerical_gradient(loss, examples, name):
    """Central differences of ``loss(examples)`` in every number of the field ``name``."""
    gradient = []
    for i, example in enumerate(examples):
        values = np.array(getattr(example, name))
        for place in np.ndindex(values.shape):
            sides = []
            for sign in (1, -1):
                moved = values.copy()
                moved[place] += sign * STEP
                changed = [*examples[:i], replace(example, **{name: moved.tolist()}), *examples[i + 1 :]]
                sides.append(loss(changed))
            gradient.append((sides[0] - sides[1]) / (2 * STEP))
    return np.array(gradient)


def assert_gradients(loss, examples, leaves, outcome):
    outcome.loss.backward()
    for name in LEAVES:
        found = leaves[name].grad
        found = np.zeros(leaves[name].numel()) if found is None else found.numpy().ravel()
        np.testing.assert_allclose(found, numerical_gradient(loss, examples, name), atol=1e-8, err_msg=name)
