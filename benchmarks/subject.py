"""Subject of the benchmarks: the paper's models and batches on data of the size of Office or Yelp.

The data is random, with the same numbers of users, items and levels and about as many interactions, so that the
benchmark needs no download; the time does not depend on the order of items.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from apao.codes.itemcodes import ItemCodes
from apao.data.histories import Histories
from apao.stages.decoding_time import synthetic_codes
from apao.study.params import Params, load
from apao.study.run_params import RunParams
from apao.study.runs import Run
from apao.training.loop import Training

ROOT = Path(__file__).parents[1]


class Size(NamedTuple):
    """Size of a dataset, from the paper's Table 2."""

    users: int
    items: int
    interactions: int

    @property
    def training_examples(self) -> int:
        """Number of interactions without each user's first, which has no history, and the two held out."""
        return self.interactions - 3 * self.users


OFFICE, YELP = Size(4_905, 2_420, 53_258), Size(30_431, 20_033, 316_354)
EMBEDDING_WIDTH = 384


@cache
def params() -> Params:
    """The project's own params.yaml."""
    return load(ROOT / "params.yaml")


@cache
def data(size: Size) -> tuple[Histories, ItemCodes]:
    """Random histories and codes: at least 5 items per user, further ones drawn geometrically."""
    rng = np.random.default_rng(0)
    lengths = np.full(size.users, 5)
    extra = rng.geometric(1 / (1 + size.interactions / size.users - 5), size.users) - 1
    lengths += extra
    offsets = np.concatenate([[0], lengths.cumsum()])
    items = rng.integers(0, size.items, int(offsets[-1]))
    items[: size.items] = np.arange(size.items)
    return Histories(offsets, items), synthetic_codes(size.items, 4, 256, seed=0)


def run_params(backbone: str, objective: str, **overrides: bool | int | float | str) -> RunParams:
    """The paper's recipe for Office."""
    return params().resolve(Run.of("office", backbone, objective, 42).with_overrides(**overrides))


def training(resolved: RunParams, size: Size, device: torch.device) -> Training:
    """A training ready to run. Objectives with ``start`` start from random weights, which takes the same time."""
    histories, codes = data(size)
    torch.set_num_threads(resolved.training.threads)
    embeddings = np.random.default_rng(0).normal(size=(codes.items, EMBEDDING_WIDTH)).astype(np.float32)
    return Training("benchmark", resolved, histories, codes, device, embeddings=embeddings)
