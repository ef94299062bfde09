"""Random codes: a control that has the shape of semantic codes and none of their meaning."""

from __future__ import annotations

from typing import Literal

import numpy as np
from typing_extensions import override

from apao.codes.coding import Coding
from apao.codes.tokenizers.base import TOKENIZERS, Inputs, LevelledTokenizer
from apao.parameters import Seed


@TOKENIZERS.register
class RandomCodes(LevelledTokenizer):
    """Codes drawn uniformly and independently of the items: what do codes gain from similar items sharing prefixes?"""

    method: Literal["random"]
    collisions: Literal["keep", "extra"] = "keep"
    """Policy for items that share a code: ``keep`` the codes, or add an ``extra`` level that numbers the items."""
    seed: Seed = 42
    """Seed of the draw."""

    @override
    def fit(self, inputs: Inputs) -> Coding:
        return Coding(np.random.default_rng(self.seed).integers(0, self.sizes, (len(inputs.raw_ids), self.levels)))
