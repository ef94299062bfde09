"""A second implementation of the other objectives: plain loops over Python floats, one example at a time.

Quantities without a gradient (BEAR's b_t and its weights, token weights) are computed apart from the loss, so
that finite differences can keep them constant.
"""

import math
from dataclasses import dataclass

from helpers.slow_catalogue import information_gain, legal_tokens, token_count
from slow_losses import EOS, Example, cross_entropy, log_probability, mean, target_logp


@dataclass
class Referred(Example):
    """An example with the scores of a frozen reference."""

    reference: Example | None = None


# The softmax over legal tokens: msl and bear.


def legal_logp(example, items, tau):
    """One dict per step: log-probability of every legal token under a softmax over these alone."""
    steps = []
    for t, row in enumerate(example.logits):
        scaled = {token: row[token] / tau for token in legal_tokens(items, tuple(example.target[:t]))}
        largest = max(scaled.values())
        norm = largest + math.log(sum(math.exp(value - largest) for value in scaled.values()))
        steps.append({token: value - norm for token, value in scaled.items()})
    return steps


def legal_target_logp(example, items, tau):
    """s_t."""
    return [step[token] for step, token in zip(legal_logp(example, items, tau), example.target, strict=True)]


def msl(examples, items, tau, eos):
    """Mean of -s_t. eos is the only legal token after a code, so it adds a token and no loss."""
    losses = []
    for example in examples:
        steps = legal_target_logp(example, items, tau) + ([0.0] if eos else [])
        losses.append(-sum(steps) / len(steps))
    return mean(losses)


def log_b(example, items, tau, beam):
    """log b_t: the beam-th largest log-probability, or the smallest where fewer tokens are legal."""
    ranked = [sorted(step.values(), reverse=True) for step in legal_logp(example, items, tau)]
    return [values[min(beam, len(values)) - 1] for values in ranked]


def bear_paper(examples, items, tau, xi, lam, thresholds):
    """sum_t -s_t + lambda sum_t log sigmoid((log b_t - s_t) / xi); ``lam`` is the paper's lambda."""
    losses = []
    for example, b in zip(examples, thresholds, strict=True):
        s = legal_target_logp(example, items, tau)
        penalty = sum(-math.log(1 + math.exp(-(b_t - s_t) / xi)) for b_t, s_t in zip(b, s, strict=True))
        losses.append(-sum(s) + lam * penalty)
    return mean(losses)


def bear_weights(examples, items, tau, xi, lam, beam):
    """1 + lambda' sigmoid((s_t - log b_t) / xi), None where only one token is legal; ``lam`` is lambda'."""
    rows = []
    for example in examples:
        row = []
        for t, step in enumerate(legal_logp(example, items, tau)):
            margin = step[example.target[t]] - log_b(example, items, tau, beam)[t]
            row.append(1 + lam / (1 + math.exp(-margin / xi)) if len(step) > 1 else None)
        rows.append(row)
    return rows


def bear_release(examples, items, tau, weights):
    """Weighted mean of -s_t over the batch's tokens that are not the only legal ones."""
    total = norm = 0.0
    for example, row in zip(examples, weights, strict=True):
        for s_t, weight in zip(legal_target_logp(example, items, tau), row, strict=True):
            if weight is not None:
                total -= weight * s_t
                norm += weight
    return total / norm


# Preferences between whole codes.


def minus_log_sigmoid(x):
    return math.log(1 + math.exp(-x))


def rewards(example):
    """r+ and all r_j."""
    chosen = sum(target_logp(example))
    rejected = [sum(steps) for steps in example.negative_logp]
    if example.reference is not None:
        chosen -= sum(target_logp(example.reference))
        for j, steps in enumerate(example.reference.negative_logp):
            rejected[j] -= sum(steps)
    return chosen, rejected


def dpo(examples, beta):
    losses = []
    for example in examples:
        chosen, rejected = rewards(example)
        losses.append(mean(minus_log_sigmoid(beta * (chosen - r)) for r in rejected))
    return mean(losses)


def dmpo(examples, beta):
    losses = []
    for example in examples:
        chosen, rejected = rewards(example)
        losses.append(minus_log_sigmoid(beta * (chosen - mean(rejected))))
    return mean(losses)


def s_dpo(examples, beta):
    losses = []
    for example in examples:
        chosen, rejected = rewards(example)
        losses.append(minus_log_sigmoid(-math.log(sum(math.exp(beta * (r - chosen)) for r in rejected))))
    return mean(losses)


def ce_and_s_dpo(examples, beta, lam, eos):
    return cross_entropy(examples, eos) + lam * s_dpo(examples, beta)


# Weights on tokens. Each function gives one list of T weights.


def weighted_cross_entropy(examples, weights, eos):
    """-(1/T) sum w_t s_t, or over T + 1 tokens, the eos step with weight 1."""
    losses = []
    for example, row in zip(examples, weights, strict=True):
        steps = [weight * s for weight, s in zip(row, target_logp(example), strict=True)]
        if eos:
            steps.append(log_probability(example.eos_logits, EOS))
        losses.append(-sum(steps) / len(steps))
    return mean(losses)


def front_greater_weights(gains):
    """Proportional to log(1 + g_l), with sum T; negative g_l count as 0."""
    raw = [math.log(1 + max(gain, 0.0)) for gain in gains]
    return [value * len(raw) / sum(raw) for value in raw]


def frequency_weights(target, items, trained, b):
    """(1 - b) / (1 - b^n), with sum T; tokens without a training target count as seen once."""
    raw = [(1 - b) / (1 - b ** max(token_count(items, trained, token), 1)) for token in target]
    return [value * len(raw) / sum(raw) for value in raw]


def igd_weights(target, items, trained, beta):
    """``beta`` for tokens without information gain, else 1."""
    gains = [information_gain(items, trained, tuple(target[:m])) for m in range(1, len(target) + 1)]
    return [beta if abs(gain) < 1e-9 else 1.0 for gain in gains]


def position_weights(levels, beta):
    """Weights from 1 down to ``beta`` in equal steps."""
    return [1 - (1 - beta) * t / (levels - 1) if t else 1.0 for t in range(levels)]


def shares(a, pace, c, step):
    """m_k of CE, front-greater and frequency."""
    paces = [math.exp(-c * step), math.exp(-c * step), 1 - math.exp(-c * step)] if pace else [1.0, 1.0, 1.0]
    raw = [p * math.exp(-value) for p, value in zip(paces, a, strict=True)]
    return [value / sum(raw) for value in raw]
