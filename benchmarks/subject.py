"""What is timed: the paper's models and batches on data of Office's size.

The data is drawn at random in Office's shape (users, items, lengths, code levels), so that the benchmark
needs no download; time does not depend on which item follows which.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch

from apao.codes.itemcodes import ItemCodes
from apao.data.histories import Histories
from apao.evaluation.studies import synthetic_codes
from apao.params import Params, RunParams, load
from apao.runs import Run
from apao.training.loop import Training

ROOT = Path(__file__).parents[1]
USERS, ITEMS, INTERACTIONS = 4_905, 2_420, 53_258
"""Office (the paper's Table 2)."""
TRAINING_EXAMPLES = INTERACTIONS - 3 * USERS
"""Every interaction but each user's first, which has no history, and the two that are held out."""
EMBEDDING_WIDTH = 384


@cache
def params() -> Params:
    """The project's own params.yaml."""
    return load(ROOT / "params.yaml")


@cache
def office() -> tuple[Histories, ItemCodes]:
    """Histories with Office's numbers: at least 5 items a user, the rest spread geometrically."""
    rng = np.random.default_rng(0)
    lengths = np.full(USERS, 5)
    extra = rng.geometric(1 / (1 + INTERACTIONS / USERS - 5), USERS) - 1
    lengths += extra
    offsets = np.concatenate([[0], lengths.cumsum()])
    items = rng.integers(0, ITEMS, int(offsets[-1]))
    items[:ITEMS] = np.arange(ITEMS)
    return Histories(offsets, items), synthetic_codes(ITEMS, 4, 256, seed=0)


def run_params(backbone: str, objective: str, **overrides: bool | int | float | str) -> RunParams:
    """The paper's recipe for Office."""
    return params().resolve(Run.of("office", backbone, objective, 42).with_overrides(**overrides))


def training(resolved: RunParams, device: torch.device) -> Training:
    """A run about to begin; what it would start from is a fresh model, which takes the same time."""
    histories, codes = office()
    torch.set_num_threads(resolved.training.threads)
    embeddings = np.random.default_rng(0).normal(size=(codes.items, EMBEDDING_WIDTH)).astype(np.float32)
    return Training("benchmark", resolved, histories, codes, device, embeddings=embeddings)
