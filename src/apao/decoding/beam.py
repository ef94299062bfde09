"""Trie-constrained beam search, all users and beams at once.

Shapes: B users, K beams, C continuations of a prefix at most, T levels, V vocabulary.

Only legal continuations are kept, but scores are log-probabilities under the softmax over the whole
vocabulary: probability given to illegal codes is lost, as in the paper. Models trained with another
softmax (``msl``, ``bear``) are decoded with that.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from apao.backbones.base import Backbone, Context
from apao.backbones.softmax import PLAIN, Softmax
from apao.codes.trie import Trie


@dataclass(frozen=True, eq=False)
class Beams:
    """The codes found, best first.

    Attributes:
        tokens: (B, K, T) codes, K being the beam or, where there are fewer, the number of codes.
        scores: (B, K) summed log-probability divided by the number of decoded tokens.
        states: trie states after each step, T tensors (B, K_m), in the order of the search.
    """

    tokens: Tensor
    scores: Tensor
    states: tuple[Tensor, ...]


@torch.no_grad()
def beam_search(
    backbone: Backbone, context: Context, trie: Trie, beam: int, eos: bool, softmax: Softmax = PLAIN
) -> Beams:
    """The ``beam`` best codes of each history among those that ``trie`` allows, by beam search of that width.

    With ``eos`` a closing eos is decoded too and scores are means over T + 1 tokens, as the authors'
    release does for T5.
    """
    batch, device = len(context.start), context.start.device
    scores = torch.zeros(batch, 1, device=device)
    states = torch.zeros(batch, 1, dtype=torch.long, device=device)
    tokens = torch.empty(batch, 1, 0, dtype=torch.long, device=device)
    hidden, past = context.start[:, None], None
    history = []
    levels, scores_eos = len(trie.prefix_counts), eos and softmax.scores_eos
    for level, (prefixes, width) in enumerate(zip(trie.prefix_counts, trie.widths, strict=True)):
        children, after, exist = trie.children(states, width)
        logp = softmax.logp_of(backbone.logits(hidden), children, exist)
        open_to_search = exist if trie.allowed is None else exist & trie.allowed[after]
        total = torch.where(open_to_search, logp + scores[..., None], -torch.inf)
        # Every allowed prefix has an allowed continuation, so there are always as many as this asks for.
        scores, flat = total.flatten(1).topk(min(beam, prefixes), dim=1)
        parents = flat // width
        chosen, states = children.flatten(1).gather(1, flat), after.flatten(1).gather(1, flat)
        history.append(states)
        tokens = torch.cat([tokens.gather(1, parents[..., None].expand(-1, -1, level)), chosen[..., None]], dim=-1)
        if level + 1 < levels or scores_eos:
            past = backbone.reorder(past, parents) if past else None
            hidden, past = backbone.extend(context, chosen[..., None], past)
            hidden = hidden[:, :, 0]
    if scores_eos:
        closing = softmax.closing(backbone.logits(hidden))
        scores, order = (scores + closing).sort(dim=1, descending=True, stable=True)
        tokens = tokens.gather(1, order[..., None].expand_as(tokens))
    return Beams(tokens, scores / (levels + eos), tuple(history))
