"""Item IDs as codes of one token: the items of an ordinary sequential recommender."""

from __future__ import annotations

from typing import Literal

import numpy as np
from typing_extensions import override

from apao.codes.coding import Coding
from apao.codes.tokenizers.base import TOKENIZERS, Inputs, Tokenizer


@TOKENIZERS.register
class ItemIds(Tokenizer):
    """A token of its own for every item. Beam search is then an exact ranking by a softmax over all items."""

    method: Literal["item-id"]
    collisions: Literal["keep", "extra"] = "keep"
    """Without effect, since no items share a code; ``extra`` would add a level with a single token."""

    @property
    @override
    def depth(self) -> int:
        return 1 + (self.collisions == "extra")

    @override
    def fit(self, inputs: Inputs) -> Coding:
        return Coding(np.arange(len(inputs.raw_ids))[:, None])
