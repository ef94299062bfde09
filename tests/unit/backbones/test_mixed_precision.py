"""bf16 autocast: gradients keep the direction of fp32, also with large attention scores."""

from functools import cache

import pytest
import torch
from helpers.models import padded
from torch import Tensor, nn

from apao.backbones import layers, tiger
from apao.backbones.base import BACKBONES, Backbone
from apao.backbones.layers import causal_attention

VOCABULARY = 200
SIZES = {
    "tiger": {"d_model": 128, "d_ff": 256, "d_kv": 64, "heads": 6, "encoder_layers": 1, "decoder_layers": 1},
    "llama": {"hidden": 64, "intermediate": 128, "heads": 4, "layers": 2},
}
LEVELS, ITEMS = 3, 300
STEPS = 40


def examples(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Histories (B, L) of items in a cycle, two fifths of them out of order, and the codes (B, T) that continue it."""
    generator = torch.Generator().manual_seed(seed)
    codes = 3 + torch.randint(0, VOCABULARY - 3, (ITEMS, LEVELS), generator=torch.Generator().manual_seed(0))
    lengths = torch.randint(1, 12, (count,), generator=generator)
    first = torch.randint(0, ITEMS, (count,), generator=generator)
    rows = [[(int(start) + i) % ITEMS for i in range(int(n) + 1)] for start, n in zip(first, lengths, strict=True)]
    for row in rows:
        for i in range(len(row)):
            if torch.rand((), generator=generator) < 0.4:
                row[i] = int(torch.randint(0, ITEMS, (), generator=generator))
    history = padded([codes[row[:-1]].flatten().tolist() for row in rows])
    return history, codes[[row[-1] for row in rows]]


def loss(backbone: Backbone, history: Tensor, target: Tensor) -> Tensor:
    logits = backbone.logits(backbone.encode(history, target[:, :-1]).along)
    return nn.functional.cross_entropy(logits.float().flatten(0, 1), target.flatten())


@cache
def trained(name: str) -> Backbone:
    """A small model without dropout after 40 steps in fp32, so that its attention is not uniform."""
    torch.manual_seed(0)
    backbone = BACKBONES[name](type=name, **SIZES[name]).build(VOCABULARY).eval()
    optimizer = torch.optim.AdamW(backbone.parameters(), lr=2e-3)
    for step in range(STEPS):
        optimizer.zero_grad()
        loss(backbone, *examples(64, step)).backward()
        nn.utils.clip_grad_norm_(backbone.parameters(), 1.0)
        optimizer.step()
    return backbone


def gradient(backbone: Backbone, autocast: bool) -> Tensor:
    backbone.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        value = loss(backbone, *examples(256, STEPS))
    value.backward()
    return torch.cat([parameter.grad.flatten() for parameter in backbone.parameters()])


def cosine(backbone: Backbone) -> float:
    return torch.cosine_similarity(gradient(backbone, False), gradient(backbone, True), dim=0).item()


@pytest.mark.parametrize("name", sorted(SIZES))
def test_the_gradient_under_autocast_is_that_of_fp32(name):
    assert cosine(trained(name)) > 0.9999


def test_scores_in_bf16_would_turn_the_gradient_of_tiger(monkeypatch):
    """The test above is sensitive: with projections and products of attention in bf16 it would fail."""

    def attend(queries: Tensor, memory: layers.KeyValues, bias: Tensor, dropout: nn.Module) -> Tensor:
        scores = (queries @ memory.keys.transpose(-1, -2)).float() + bias
        return dropout(scores.softmax(dim=-1)).to(queries.dtype) @ memory.values

    monkeypatch.setattr(tiger, "attend", attend)
    monkeypatch.setattr(tiger.Attention, "_fp32", lambda self, x, *parts: layers.project(x, self.heads, *parts))
    assert cosine(trained("tiger")) < 0.9999


@pytest.mark.parametrize("visible", [None, "places"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_written_out_is_the_fused_one(visible, dtype):
    """Values and gradients equal those of torch's kernel in fp32, up to the rounding of the type."""
    torch.manual_seed(0)
    parts = [torch.randn(3, 4, 9, 16) for _ in range(3)]
    seen = None if visible is None else torch.rand(3, 1, 9, 9) > 0.3
    if seen is not None:
        seen[..., 0] = True
    expected = [part.clone().requires_grad_() for part in parts]
    out = nn.functional.scaled_dot_product_attention(*expected, attn_mask=seen, is_causal=seen is None)
    weight = torch.randn_like(out)
    (out * weight).sum().backward()
    found = [part.to(dtype).requires_grad_() for part in parts]
    mixed = causal_attention(*found, seen)
    (mixed.float() * weight).sum().backward()
    close = {"atol": 1e-5, "rtol": 1e-4} if dtype == torch.float32 else {"atol": 0.05, "rtol": 0.05}
    torch.testing.assert_close(mixed.float(), out, **close)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.grad.float(), other.grad, **close)
