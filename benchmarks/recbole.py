"""``sasrec`` beside the SASRec of RecBole (1.2.1; not a dependency): the same examples, loop, optimizer and evaluation.

RecBole's module differs in its blocks: norms after the residuals, a norm of the embeddings, GELU, and a feed-forward
net of four times the width. Both count positions from the first item that is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from apao.backbones.base import Backbone, Context, Past
from apao.backbones.sasrec import SasRecParams
from apao.codes.vocabulary import PAD
from apao.data.histories import IntArray
from apao.decoding.beam import beam_search
from apao.evaluation.metrics import code_ranks
from apao.stages.dataset import load_dataset
from apao.study.params import load
from apao.study.paths import PARAMS_FILE, DatasetPaths
from apao.study.runs import Run
from apao.training.loop import Training

OBJECTIVE = "ce+eos=false"
CUTOFF = 10


class RecBoleParams(SasRecParams):
    """The sizes of a ``sasrec``, for RecBole's module."""

    @override
    def build(self, vocabulary: int) -> RecBoleSasRec:  # type: ignore[override]
        return RecBoleSasRec(self, vocabulary)


class RecBoleSasRec(Backbone):
    """RecBole's SASRec as a backbone for codes of one token, which are never extended, and without files."""

    def __init__(self, params: RecBoleParams, vocabulary: int) -> None:
        from recbole.model.sequential_recommender.sasrec import SASRec

        super().__init__()
        self.params, self.vocabulary = params, vocabulary
        config = {
            "USER_ID_FIELD": "user",
            "ITEM_ID_FIELD": "item",
            "LIST_SUFFIX": "_list",
            "ITEM_LIST_LENGTH_FIELD": "length",
            "NEG_PREFIX": "negative_",
            "MAX_ITEM_LIST_LENGTH": params.max_history,
            "device": "cpu",
            "n_layers": params.layers,
            "n_heads": params.heads,
            "hidden_size": params.hidden,
            "inner_size": 4 * params.hidden,
            "hidden_dropout_prob": params.dropout,
            "attn_dropout_prob": params.dropout,
            "hidden_act": "gelu",
            "layer_norm_eps": 1e-12,
            "initializer_range": 0.02,
            "loss_type": "CE",
        }
        self.model = SASRec(config, SimpleNamespace(num=lambda field: vocabulary))

    @override
    def encode(self, history: Tensor, target: Tensor | None = None, candidates: Tensor | None = None) -> Context:
        lengths = (history != PAD).sum(dim=1, keepdim=True)
        state = self.model(history, lengths[:, 0])
        return Context(along=state[:, None], layers=(), mask=history == PAD, lengths=lengths)

    @override
    def extend(self, context: Context, tokens: Tensor, past: Past | None = None) -> tuple[Tensor, Past]:
        raise NotImplementedError

    @override
    def logits(self, hidden: Tensor) -> Tensor:
        return nn.functional.linear(hidden, self.model.item_embedding.weight)

    @override
    def to_transformers(self) -> dict[str, Tensor]:
        raise NotImplementedError

    @override
    def load_transformers(self, weights: dict[str, Tensor]) -> None:
        raise NotImplementedError


def compared(dataset: str, seeds: list[int]) -> Iterator[dict[str, Any]]:
    """Train both models per seed, with the recipe of ``dataset``, whose codes are item IDs; yields their results."""
    histories, codes = load_dataset(DatasetPaths(dataset, Path()))
    params = load(PARAMS_FILE)
    device = torch.device("cpu")
    for seed in seeds:
        ours = params.resolve(Run.parse(f"{dataset}/sasrec/{OBJECTIVE}/seed{seed}"))
        sizes = ours.backbone.model_dump() | {"pack": False}
        for name, kind in (("apao", SasRecParams), ("recbole", RecBoleParams)):
            run = ours.model_copy(update={"backbone": kind(**sizes)})
            training = Training(f"{name}, seed {seed}", run, histories, codes, device)
            with TemporaryDirectory() as folder:
                trained = training.fit(Path(folder) / "checkpoint", name)
            training.backbone.load_state_dict(trained.best)
            found: dict[str, Any] = {
                "model": name,
                "seed": seed,
                "valid_ce": min(row["valid_ce"] for row in trained.history),
            }
            for split in ("valid", "test"):
                users = histories.evaluated(split)
                positions = histories.evaluation_targets(split)[users]
                found[f"{split}_recall@{CUTOFF}"] = recall(training, users, positions)
            yield found


@torch.no_grad()
def recall(training: Training, users: IntArray, positions: IntArray) -> float:
    """Share of users whose target is among the ``CUTOFF`` best items."""
    backbone = training.backbone.eval()
    batch = training.validation.source.batch(users, positions)
    best = beam_search(backbone, backbone.encode(batch.history), training.statistics.trie, CUTOFF, eos=False)
    return (code_ranks(best, batch.targets) > 0).double().mean().item()
