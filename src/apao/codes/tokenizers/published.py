"""The codes that a dataset's source ships."""

from __future__ import annotations

from typing import Literal

from typing_extensions import override

from apao.codes.coding import Coding
from apao.codes.tokenizers.base import TOKENIZERS, Inputs, Tokenizer
from apao.codes.tokenizers.file import given_codes


@TOKENIZERS.register
class PublishedCodes(Tokenizer):
    """The codes that the source ships, as the authors' release does."""

    method: Literal["published"]
    embedder: str | None = None
    """Entry under ``embedders`` for objectives that need the items' embeddings beside the codes."""
    collisions: Literal["keep", "extra"] = "keep"
    """What happens to items that share a code: nothing, or one more level that numbers them."""

    reads_published = True

    @override
    def fit(self, inputs: Inputs) -> Coding:
        return given_codes(inputs.published, inputs.raw_ids, inputs.items_file)
