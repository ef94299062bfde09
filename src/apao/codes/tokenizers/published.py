"""Codes published by a dataset's source."""

from __future__ import annotations

from typing import Literal

from typing_extensions import override

from apao.codes.coding import Coding
from apao.codes.tokenizers.base import TOKENIZERS, Inputs, Tokenizer
from apao.codes.tokenizers.file import given_codes


@TOKENIZERS.register
class PublishedCodes(Tokenizer):
    """Codes published by the dataset's source, such as the authors' release."""

    method: Literal["published"]
    collisions: Literal["keep", "extra"] = "keep"
    """Policy for items that share a code: ``keep`` the codes, or add an ``extra`` level that numbers the items."""

    reads_published = True

    @override
    def fit(self, inputs: Inputs) -> Coding:
        return given_codes(inputs.published, inputs.raw_ids, inputs.items_file)
