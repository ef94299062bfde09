"""A second implementation of the paper's and the release's formulas: plain loops over Python floats, per example.

Log-probabilities of the target come from logits [T][V] (and [V] for eos); those of negatives are given.
Weights are computed apart from the loss, because no gradient flows through them.
"""

import math
from dataclasses import dataclass, field

EOS = 1


@dataclass
class Example:
    """One example: a backbone's scores of its target and negatives."""

    logits: list[list[float]]
    eos_logits: list[float]
    target: list[int]
    negatives: list[list[int]] = field(default_factory=list)
    negative_logp: list[list[float]] = field(default_factory=list)


def log_probability(logits, token):
    largest = max(logits)
    return logits[token] - largest - math.log(sum(math.exp(value - largest) for value in logits))


def target_logp(example):
    return [log_probability(row, token) for row, token in zip(example.logits, example.target, strict=True)]


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def cross_entropy(examples, eos):
    """-(1/T) sum s_t, or over T + 1 tokens."""
    losses = []
    for example in examples:
        steps = target_logp(example)
        if eos:
            steps = [*steps, log_probability(example.eos_logits, EOS)]
        losses.append(-sum(steps) / len(steps))
    return mean(losses)


def pointwise(example, m):
    """L_m = -S_m / m."""
    return -sum(target_logp(example)[:m]) / m


def pairwise(example, m, release, divide, prefix_counts):
    """L_m = -log(e^S+ / (e^S+ + sum_j e^S_j)), in either form; the release adds 1e-12 to the denominator."""
    positive = sum(target_logp(example)[:m])
    seen = [example.target[:m]]
    terms = []
    for tokens, logp in zip(example.negatives, example.negative_logp, strict=True):
        if release and tokens[:m] in seen:
            continue
        seen.append(tokens[:m])
        terms.append(sum(logp[:m]))
    scale = (prefix_counts[m - 1] - 1) / len(seen) if release else 1.0
    # Relative to the positive, so that only differences are exponentiated.
    epsilon = 1e-12 * math.exp(-positive) if release else 0.0
    loss = math.log(1 + scale * sum(math.exp(term - positive) for term in terms) + epsilon)
    return loss / m if divide else loss


def prefix_losses(examples, one_loss, levels):
    """L_m as means over the batch, m = 1 .. T."""
    return [mean(one_loss(example, m) for example in examples) for m in range(1, levels + 1)]


def weights(losses, form, eta, carried, drop_level):
    """w_m; ``carried`` are those of the step before (1/T at the start). A dropped level has weight 0."""
    used = [m for m in range(len(losses)) if m != drop_level]
    total = sum(losses[m] for m in used)
    if form == "uniform":
        raw = dict.fromkeys(used, 1.0)
    elif form == "release":
        raw = {m: losses[m] / total * math.exp(eta * losses[m]) for m in used}
    elif form == "eq17":
        raw = {m: carried[m] * math.exp(eta * losses[m]) for m in used}
    else:
        raw = {m: carried[m] * math.exp(eta * losses[m] / total) for m in used}
    norm = sum(raw.values())
    return [raw[m] / norm if m in raw else 0.0 for m in range(len(losses))]


def apao(examples, one_loss, levels, beta, w, ce, eos):
    """CE + beta sum_m w_m L_m."""
    losses = prefix_losses(examples, one_loss, levels)
    prefix = sum(weight * loss for weight, loss in zip(w, losses, strict=True))
    return (cross_entropy(examples, eos) if ce else 0.0) + beta * prefix
