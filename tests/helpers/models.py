"""Catalogues, histories and models small enough to be checked by brute force."""

import numpy as np
import torch

from apao.backbones.base import BACKBONES, Backbone
from apao.codes.itemcodes import ItemCodes
from apao.codes.vocabulary import EOS
from apao.data.histories import Histories
from apao.study.run_params import RunParams

SIZES = {
    "tiger": {"d_model": 16, "d_ff": 24, "d_kv": 6, "heads": 3, "encoder_layers": 2, "decoder_layers": 2},
    "llama": {"hidden": 16, "intermediate": 24, "heads": 2, "layers": 2},
    "sasrec": {"hidden": 16, "heads": 2, "layers": 2},
    "gru4rec": {"embedding": 12, "hidden": 16, "layers": 2},
}
BOTH = ["llama", "tiger"]
"""The backbones over semantic codes, which exchange weights with ``transformers``."""
BASELINES = ["gru4rec", "sasrec"]
"""The backbones for item IDs, which have no class there."""


def backbone_of(name: str, vocabulary: int, seed: int = 0, **more: object) -> Backbone:
    """A small model with non-trivial attention, norms and outputs (those of a fresh model are nearly uniform)."""
    torch.manual_seed(seed)
    backbone = BACKBONES[name](type=name, **{**SIZES.get(name, {}), **more}).build(vocabulary).eval()
    shaken(backbone, seed)
    return backbone


def shaken(module: torch.nn.Module, seed: int = 0) -> None:
    """Redraw every weight: norm scales around 1, matrices so that activations keep their scale."""
    generator = torch.Generator().manual_seed(seed)
    for value in module.state_dict().values():
        noise = torch.randn(value.shape, generator=generator)
        value.copy_(1 + 0.3 * noise if value.dim() == 1 else 1.5 * noise * value.shape[-1] ** -0.5)


def random_codes(items: int, levels: int, clusters: int, seed: int = 0) -> ItemCodes:
    """Codes drawn uniformly, so that items collide where there are few codes."""
    return ItemCodes(np.random.default_rng(seed).integers(0, clusters, (items, levels)))


def histories_of(rows: list[list[int]]) -> Histories:
    """Histories from one list of items per user."""
    return Histories(np.cumsum([0, *map(len, rows)]), np.array([item for row in rows for item in row], dtype=np.int64))


def random_histories(lengths: list[int], items: int, seed: int = 0) -> Histories:
    """Histories of users with these numbers of items, drawn uniformly."""
    rng = np.random.default_rng(seed)
    return histories_of([rng.integers(0, items, length).tolist() for length in lengths])


def prefix_ids(*tokens: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Ids (..., T) of the prefixes of codes (..., T), equal if and only if the prefixes are."""
    known: dict[tuple[int, ...], int] = {}
    found = []
    for codes in tokens:
        rows = codes.reshape(-1, codes.shape[-1]).tolist()
        ids = [[known.setdefault(tuple(row[: m + 1]), len(known)) for m in range(len(row))] for row in rows]
        found.append(torch.tensor(ids).reshape(codes.shape))
    return tuple(found)


def padded(rows: list[list[int]]) -> torch.Tensor:
    """Token lists as one batch, padded with 0 on the right."""
    width = max(map(len, rows))
    return torch.tensor([row + [0] * (width - len(row)) for row in rows])


def run_params(backbone: str = "llama", objective: dict | None = None, **training: object) -> RunParams:
    """Parameters of a run with a tiny model, in fp32 on any machine."""
    decoding = {"beam": "all", **training.pop("decoding", {})}
    sizes = training.pop("sizes", {})
    return RunParams(
        dataset="toy",
        backbone={"type": backbone, **SIZES.get(backbone, {}), **sizes},
        objective=objective or {"type": "ce"},
        training={"epochs": 3, "lr": 5e-3, "batch_size": 8, "precision": "fp32", **training},
        decoding=decoding,
        seed=7,
    )


class SlowModel:
    """Scores of a backbone for one prefix of one history at a time, each computed from scratch."""

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        self._known: dict[tuple[tuple[int, ...], tuple[int, ...]], list[float]] = {}

    @torch.no_grad()
    def next_logp(self, history: list[int], prefix: tuple[int, ...]) -> list[float]:
        """Log-probability of every token after the prefix."""
        key = tuple(history), prefix
        if key not in self._known:
            context = self.backbone.encode(torch.tensor([history]))
            hidden = context.start[0]
            if prefix:
                hidden = self.backbone.extend(context, torch.tensor([[prefix]]))[0][0, 0, -1]
            self._known[key] = self.backbone.logits(hidden).double().log_softmax(-1).tolist()
        return self._known[key]

    def score(self, history: list[int], code: tuple[int, ...], eos: bool) -> float:
        """Mean log-probability of the code's tokens and, if requested, eos."""
        steps = [self.next_logp(history, code[:t])[code[t]] for t in range(len(code))]
        if eos:
            steps.append(self.next_logp(history, code)[EOS])
        return sum(steps) / len(steps)
