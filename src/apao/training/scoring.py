"""Logits and log-probabilities of a batch, the inputs of every objective.

Shapes: B batch, C candidates per history, S tokens per candidate, T levels, N negatives, V vocabulary, D width;
R packed sequences of L tokens.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from apao.backbones.base import Backbone
from apao.backbones.softmax import at_least_fp32, token_logp
from apao.codes.statistics import CodeStatistics
from apao.objectives.base import Scores
from apao.training.batches import Batch
from apao.training.packing import PackedBatch

Reader = Callable[[Tensor], Tensor]
"""From packed sequences (R, L) to their states (R, L, D)."""


def score_batch(
    backbone: Backbone,
    batch: Batch | PackedBatch,
    eos: bool,
    statistics: CodeStatistics,
    step_examples: int | None = None,
    read: Reader | None = None,
) -> Scores:
    """Scores of ``batch``, from a single encoding of the histories.

    Args:
        backbone: the model.
        batch: examples, packed or not.
        eos: also score the eos step after the target.
        statistics: facts about all codes, handed on to the objective.
        step_examples: number of examples of the optimizer step that the batch is a part of.
        read: computes the states of packed sequences in place of the backbone, where there are no negatives.
    """
    if isinstance(batch, PackedBatch):
        logits, negative_logp = _score_packed(backbone, batch, eos, read)
        drawn = batch.negative_prefixes
        negative_prefixes = None if drawn is None else drawn[batch.row, batch.slot]
    else:
        logits, negative_logp = _score_plain(backbone, batch, eos)
        negative_prefixes = batch.negative_prefixes
    levels = batch.targets.shape[1]
    return Scores(
        logits=logits[:, :levels],
        targets=batch.targets,
        prefixes=batch.prefixes,
        statistics=statistics,
        eos_logits=logits[:, levels] if eos else None,
        negative_logp=negative_logp,
        negative_prefixes=negative_prefixes,
        step_examples=step_examples,
    )


def _score_plain(backbone: Backbone, batch: Batch, eos: bool) -> tuple[Tensor, Tensor | None]:
    """Target logits (B, T (+ 1), V) and log-probabilities of negatives (B, N, T)."""
    targets, negatives = batch.targets, batch.negatives
    # The last token of a negative is only predicted.
    fed = None if negatives is None or negatives.shape[2] == 1 else negatives[..., :-1]
    context = backbone.encode(batch.history, targets if eos else targets[:, :-1], fed)
    logits = backbone.logits(context.along)
    if negatives is None:
        return logits, None
    return logits, join_logp(backbone, logits[:, 0], negatives[..., 0], context.after, negatives[..., 1:])


def _score_packed(
    backbone: Backbone, batch: PackedBatch, eos: bool, read: Reader | None
) -> tuple[Tensor, Tensor | None]:
    """Target logits (B, T (+ 1), V) and log-probabilities of negatives (B, N, T).

    The targets' tokens are part of the packed sequences.
    """
    context = None
    if batch.negatives is None and read is not None:
        hidden = read(batch.tokens)
    else:
        drawn = 0 if batch.negatives is None else batch.negatives.shape[2]
        hidden, context = backbone.read(batch.tokens, batch.starts, drawn)
    row, slot = batch.row, batch.slot
    levels = batch.targets.shape[1]
    step = torch.arange(levels + eos, device=row.device)
    logits = backbone.logits(hidden[row[:, None], batch.starts[row, slot][:, None] + step])
    logp = None
    if batch.negatives is not None:
        assert context is not None
        drawn = batch.negatives.shape[2]
        negatives, after = batch.negatives[row, slot], None
        if levels > 1:
            fed = batch.negatives[..., :-1].flatten(1, 2)
            after = backbone.extend(context, fed)[0].unflatten(1, (-1, drawn))[row, slot]
        logp = join_logp(backbone, logits[:, 0], negatives[..., 0], after, negatives[..., 1:])
    return logits, logp


def join_logp(backbone: Backbone, start: Tensor, first: Tensor, after: Tensor | None, predicted: Tensor) -> Tensor:
    """Token log-probabilities (B, C, 1 + S) of codes.

    The ``first`` tokens (B, C) are scored by the logits ``start`` (B, V), which all candidates of a history share;
    the tokens ``predicted`` (B, C, S) by the states ``after`` (B, C, S, D).
    """
    head = at_least_fp32(start).log_softmax(dim=-1).gather(1, first)[..., None]
    if after is None:
        return head
    return torch.cat([head, token_logp(backbone.logits(after), predicted)], dim=-1)
